"""The pages for developers, ARCHITECTURE.md and CONTRIBUTING.md: what they name exists, and their examples work."""

from __future__ import annotations

import copy
import pkgutil
import re
import subprocess
import textwrap
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from nornir.core import Nornir
from nornir.core.configuration import Config
from nornir.core.state import GlobalState

from nornir_k3s import records
from nornir_k3s.checks import host as host_checks
from nornir_k3s.facts import Query, system
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.family import Service
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.phases.phase import Phase
from nornir_k3s.plugins.runner import K3sRunner
from nornir_k3s.roles import datastore, datastore_mysql
from nornir_k3s.run import gather

from .conftest import HOSTS, SETTINGS, inventory

PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = PROJECT / "tasks" / "nornir_k3s"
PAGES = [PROJECT / "ARCHITECTURE.md", PROJECT / "CONTRIBUTING.md"]

CODE = {
    path: path.read_text()
    for folder in ("tasks", "tests", "runbooks")
    for pattern in ("*.py", "*.sh")
    for path in (PROJECT / folder).rglob(pattern)
    if path != Path(__file__)
}
WORDS = {word for text in CODE.values() for word in re.findall(r"\w+", text)}
FENCED = re.compile(r"^ *```.*?^ *```", re.M | re.S)


@dataclass(frozen=True)
class Page:
    """A page for developers.

    Arguments:
        blocks: Its code blocks; what an example defines exists only there.
        text: The rest of it.
    """

    name: str
    blocks: str
    text: str

    @property
    def spans(self) -> list[str]:
        """What stands in backticks."""
        return re.findall(r"`([^`\n]+)`", self.text)


@pytest.fixture(params=PAGES, ids=lambda path: path.stem)
def page(request: pytest.FixtureRequest) -> Page:
    text = request.param.read_text()
    return Page(request.param.stem, "".join(FENCED.findall(text)), FENCED.sub("", text))


def found(name: str) -> Path | None:
    """Return a path of the project, or of the package."""
    return next((path for path in (PROJECT / name, PACKAGE / name) if path.exists()), None)


def test_the_paths_that_developers_are_told_exist(page: Page) -> None:
    paths = [span for span in page.spans if re.fullmatch(r"[\w.]+/[\w./]*|\w+\.(py|sh|md|toml)", span)]
    assert len(paths) > 10
    assert not [path for path in paths if not found(path)]


def test_the_names_that_developers_are_told_exist(page: Page) -> None:
    names = [span for span in page.spans if re.fullmatch(r"[A-Za-z]\w+(\.[A-Za-z]\w+)*(\(\))?,?", span)]
    assert len(names) > 10
    for name in names:
        if "NAME" in name:  # a placeholder
            continue
        for word in re.findall(r"\w+", name):
            assert word in WORDS or re.search(rf"\b{word}\b", page.blocks), f"{page.name}: {name}"
    for name in re.findall(r"\b[A-Z]\w+\.[a-z]\w+", " ".join(names)):
        kind, attribute = name.split(".")
        owners = [text for text in CODE.values() if re.search(rf"^class {kind}\b", text, re.M)]
        assert any(re.search(rf"^ +(def )?{attribute}\b", text, re.M) for text in owners), f"{page.name}: {name}"


def test_what_is_said_to_be_in_a_file_is_there(page: Page) -> None:
    pairs = [(file, names) for names, file in re.findall(r"(`\w+`) in `([\w/.]+\.\w+)`", page.text)]
    pairs += re.findall(r"`([\w/.]+\.(?:py|sh))` \(((?:`\w+`(?:, )?)+)\)", page.text)
    assert len(pairs) > 5
    for file, names in pairs:
        path = found(file)
        assert path, file
        for name in re.findall(r"\w+", names):
            assert re.search(rf"\b{name}\b", path.read_text()), f"{page.name}: {name} in {file}"


def test_the_flow_of_data_names_functions_that_exist() -> None:
    flow = FENCED.findall((PROJECT / "ARCHITECTURE.md").read_text())[0]
    names = [name for name in re.findall(r"\b[a-z]\w+(?:\.[a-z]\w+)+\b", flow) if not name.endswith(".yaml")]
    assert len(names) >= 5
    for name in names:
        assert pkgutil.resolve_name(f"nornir_k3s.{name}"), name
    for name in re.findall(r"\b[A-Z]\w+[a-z][A-Z]\w+\b", flow):
        assert any(re.search(rf"^class {name}\b", text, re.M) for text in CODE.values()), name


def test_the_layers_are_those_that_import_linter_checks() -> None:
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(one["layers"] for one in settings["contracts"] if one["type"] == "layers")
    text = (PROJECT / "ARCHITECTURE.md").read_text()
    shown = re.findall(r"^│ (\w+(?: : \w+)*) ", text, re.M)
    assert shown == layers


def example(section: str, language: str) -> str:
    """Return the code block of a section in CONTRIBUTING.md."""
    text = (PROJECT / "CONTRIBUTING.md").read_text()
    part = re.search(rf"^## {section}$(.*?)(?=^## )", text, re.M | re.S)
    assert part, section
    blocks = re.findall(rf"^( *)```{language}\n(.*?)^ *```", part[1], re.M | re.S)
    assert len(blocks) == 1, section
    return textwrap.dedent(blocks[0][1])


def defined(code: str, module: Any = None) -> dict[str, Any]:
    """Return what an example defines, in a new module or as part of an existing one."""
    names = dict(vars(module)) if module else {"__name__": "example"}
    exec(compile(code, "CONTRIBUTING.md", "exec", dont_inherit=True), names)  # noqa: S102 - our own
    return names


def test_the_example_of_a_fact_works(load: Callable[..., Cluster]) -> None:
    fact = defined("from __future__ import annotations\n" + example("Add a fact", "python"), system)["Swap"]()
    cluster = load()
    query = Query(cluster, cluster.member("a1"), HostSpec())
    script = records.SAY + example("Add a fact", "sh") + "\n".join(fact.calls(query))
    done = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=True)
    assert fact.parse(records.read(done.stdout, whole=False)[fact.name]) >= 0
    case = yaml.safe_load(example("Add a fact", "yaml"))
    assert fact.parse(records.read(case["printed"], whole=False)[fact.name]) == case["means"]


def test_the_example_of_a_check_works(load: Callable[..., Cluster]) -> None:
    ((name, _),) = re.findall(r'^"([-a-z]+)": "(.+)",$', example("Add a check", "text"), re.M)
    check = defined("from __future__ import annotations\n" + example("Add a check", "python"), host_checks)["_swap"]
    member = load().member("s1")
    assert not list(check(member, SimpleNamespace(swap=0)))
    (finding,) = check(member, SimpleNamespace(swap=2097148))
    assert (finding.host, finding.subject, finding.severity) == ("s1", name, "warning")


def test_the_example_of_a_phase_works(tmp_path: Path) -> None:
    settings: dict[str, Any] = copy.deepcopy(SETTINGS) | {"artifacts": {}}
    nr = Nornir(inventory=inventory(settings, HOSTS, {}), runner=K3sRunner(), config=Config(), data=GlobalState())
    run = gather.prepare(nr, base=tmp_path, state=tmp_path / "state", options={})
    run.facts = {name: HostFacts(name) for name in HOSTS}
    done: list[str] = []

    def session_of(task: Any, _: Any) -> Any:
        def answer(script: str, *, what: str, timeout: float) -> None:
            assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0
            assert "fstrim" in script
            assert what
            assert timeout
            done.append(task.host.name)

        return SimpleNamespace(run=answer)

    names = defined(example("Add a phase", "python"))
    phase = names["PHASE"]
    assert isinstance(phase, Phase)
    names["session_of"] = session_of  # the functions of the example find it here
    phase.work(run)
    assert sorted(done) == ["a1", "s1", "s2"]


def test_the_example_of_a_datastore_works(load: Callable[..., Cluster]) -> None:
    kind = defined(example("Add a kind of datastore", "python"), datastore_mysql)["PERCONA"]
    missing = _members(datastore.Managed) - set(dir(kind))
    assert not missing
    cluster = load({"datastore": {"kind": "mysql"}})
    service = Service(("percona-server-server",), "mysql.service", "/etc/mysql", "/etc/mysql/mysql.conf.d/zz.cnf")
    spec = kind.spec(cluster, cluster.member("db1"), service)
    assert (spec.packages, spec.units[0].name) == (("percona-server-server",), "mysql.service")
    assert kind.endpoint(cluster).reveal().startswith("mysql://")


def _members(protocol: type) -> set[str]:
    return {name for name in vars(protocol) if not name.startswith("_")}
