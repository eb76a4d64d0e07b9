"""How the whole suite is spread over processes, and where its time went."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests import tested

# Files that take minutes come first, so that no process waits for another's last one; the rest fills the gaps. Those
# that share a process' cluster come before those that need bare hosts, and the one that wants it just made leads.
FIRST = (
    "test_deploy.py",
    "test_failures.py",
    "test_drift.py",
    "test_rotation.py",
    "test_operator.py",
    "test_workflows.py",
    "test_registration.py",
    "test_drill.py",
    "test_load_balancers.py",
    "test_nodes.py",
    "test_controllers.py",
    "test_encryption.py",
    "test_schedule.py",
    "test_k3s_as_observed.py",
    "test_standin.py",
    "test_bench.py",
    "test_external_datastores.py",
    "test_external_datastore_checks.py",
    "test_managed_datastores.py",
    "test_three_machines.py",
    "test_upgrade.py",
    "test_adopt.py",
    "test_moves.py",
    "test_lab.py",
    "test_bad_input.py",
    "test_standin_running.py",
    "test_hostkeys.py",
)
BY_KIND = ("test_external_datastores.py", "test_managed_datastores.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--durations-file", type=Path, help="write here how long each file and each test took")
    parser.addoption("--tested", type=Path, help="write here a table of what was proved on which release")
    parser.addoption("--matrix", action="store_true", help="each datastore on each release, not only some")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--matrix"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("matrix")])
        items[:] = [item for item in items if not item.get_closest_marker("matrix")]
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    name = item.path.name
    return FIRST.index(name) if name in FIRST else len(FIRST)


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Runs a file's tests in one process, one after the other; a file that begins anew with each kind may be split."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # files come in the order of the tests

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file + nodeid.rpartition("[")[2] if Path(file).name in BY_KIND else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    table: Path | None = config.getoption("--tested")
    if table is not None:
        tested.write(table, terminalreporter.stats.get("passed", []))
    path: Path | None = config.getoption("--durations-file")
    if path is None:
        return
    reports = [one for some in terminalreporter.stats.values() for one in some if hasattr(one, "duration")]
    files: Counter[str] = Counter()
    for report in reports:
        files[report.nodeid.partition("::")[0]] += report.duration
    lines = [*_ends(reports), *(f"{seconds:8.1f} {name}" for name, seconds in files.most_common())]
    slowest = sorted(reports, key=lambda report: -report.duration)
    lines += ["", *(f"{one.duration:8.1f} {one.when:8} {one.nodeid}" for one in slowest if one.duration >= 0.1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def _ends(reports: list[Any]) -> list[str]:
    """Return when each process ended, in seconds since the first test; they differ if the order in FIRST is bad."""
    last = {}
    for report in sorted((one for one in reports if hasattr(one, "stop")), key=lambda one: float(one.stop)):
        last[report.node.gateway.id if hasattr(report, "node") else "gw0"] = report
    begin = min((one.start for one in reports if hasattr(one, "start")), default=0.0)
    return [f"{one.stop - begin:8.1f} {name} ended with {one.nodeid}" for name, one in sorted(last.items())] + [""]
