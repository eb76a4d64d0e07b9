from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from nornir_k3s.host_steps import STUCK, converge, diff, install_mark, stage
from nornir_k3s.model.host_facts import ArtifactState, FileState, HostFacts, Ledger, UnitState
from nornir_k3s.model.host_spec import Artifact, File, HostSpec, Install, Unit
from nornir_k3s.model.secret import Secret
from tests.unit.hosts import changed

UNIT = "k3s.service"
TEXT = "token: abc\nnode-name: s1\n"
FILE = File("/etc/rancher/k3s/config.yaml", Secret(TEXT), 0o600, masking="yaml", unit=UNIT)
BINARY = Artifact(Path("k3s"), "/usr/local/bin/k3s", "a" * 64)
INSTALLER = Artifact(Path("install.sh"), "/var/lib/nornir-k3s/install.sh", "b" * 64)
SPEC = HostSpec(
    packages=("haproxy",),
    artifacts=(BINARY, INSTALLER),
    install=Install("server", INSTALLER.path, UNIT),
    files=(FILE,),
    units=(Unit(UNIT),),
)
SAME = FileState("file", 0o600, "root", "root", len(TEXT), 100, FILE.sha256)
ARTIFACTS = {one.path: ArtifactState(one.sha256, one.mode, 100) for one in (BINARY, INSTALLER)}
RUNNING = UnitState("loaded", "active", "running", "enabled", 0, 200, 200)


def converged() -> HostFacts:
    return HostFacts(
        "s1",
        packages={"haproxy": "2.6"},
        files={FILE.path: SAME},
        artifacts=ARTIFACTS,
        units={UNIT: RUNNING},
        ledger=Ledger(installed=install_mark(SPEC)),
    )


def test_a_converged_host_needs_nothing() -> None:
    assert stage(SPEC, converged()) == []
    assert converge(SPEC, converged()) == []


def test_a_bare_host_needs_everything_in_order() -> None:
    bare = HostFacts("s1", files={FILE.path: FileState("absent")}, artifacts={})
    artifacts = [f"artifact:{one.path}" for one in (BINARY, INSTALLER)]
    assert [s.id for s in stage(SPEC, bare)] == ["packages:haproxy", *artifacts, f"install:{UNIT}"]
    steps = converge(SPEC, bare)
    assert [s.id for s in steps] == [f"file:{FILE.path}", f"unit:{UNIT}"]
    assert steps[-1].action == "start"


@pytest.mark.parametrize(
    ("newer", "steps"),
    [
        (replace(BINARY, sha256="c" * 64), [f"artifact:{BINARY.path}"]),
        (replace(INSTALLER, sha256="c" * 64), [f"artifact:{INSTALLER.path}", f"install:{UNIT}"]),
    ],
)
def test_the_installer_runs_for_another_installer_not_for_another_binary(newer: Artifact, steps: list[str]) -> None:
    spec = replace(SPEC, artifacts=tuple(newer if newer.path == one.path else one for one in SPEC.artifacts))
    assert [s.id for s in stage(spec, converged())] == steps


@pytest.mark.parametrize(
    ("file", "unit", "pending", "action"),
    [
        (replace(SAME, sha256="0" * 64, text="token: old\nnode-name: s1\n"), RUNNING, set(), "restart"),
        (replace(SAME, mode=0o644), RUNNING, set(), None),  # it has read it
        (replace(SAME, mode=0o644, changed=300, written=100), RUNNING, set(), None),  # newer for its mode alone
        (replace(SAME, mode=0o644, changed=300, written=300), RUNNING, set(), "restart"),
        (replace(SAME, changed=300), RUNNING, set(), "restart"),  # newer than the process
        (SAME, RUNNING, {UNIT}, "restart"),  # a run was killed between writing and restarting
        (SAME, replace(RUNNING, active="failed"), set(), "start"),
        (SAME, replace(RUNNING, active="inactive"), set(), "start"),
        (SAME, replace(RUNNING, active="activating", started=0), set(), "start"),
        (SAME, replace(RUNNING, enabled="disabled"), set(), "enable"),
        (SAME, RUNNING, set(), None),
    ],
)
def test_what_a_unit_needs(file: FileState, unit: UnitState, pending: set[str], action: str | None) -> None:
    seen = changed(converged(), files={FILE.path: file}, units={UNIT: unit}, ledger={"pending": frozenset(pending)})
    actions = [s.action for s in converge(SPEC, seen) if s.kind == "unit"]
    assert actions == ([action] if action else [])


def test_a_new_binary_restarts_the_unit() -> None:
    seen = changed(converged(), artifacts={**ARTIFACTS, BINARY.path: ArtifactState("b" * 64, 0o755, 100)})
    assert [s.id for s in stage(SPEC, seen)] == [f"artifact:{BINARY.path}"]
    assert [s.action for s in converge(SPEC, seen)] == ["restart"]


def test_a_binary_that_was_put_there_by_a_run_that_was_killed_restarts_the_unit() -> None:
    seen = changed(converged(), artifacts={**ARTIFACTS, BINARY.path: ArtifactState(BINARY.sha256, BINARY.mode, 300)})
    assert stage(SPEC, seen) == []
    assert [s.action for s in converge(SPEC, seen)] == ["restart"]


def test_a_reloadable_unit_is_reloaded_and_never_restarted_for_its_files() -> None:
    file = File("/etc/haproxy/haproxy.cfg", Secret("x"), unit="haproxy.service", action="reload")
    spec = HostSpec(files=(file,), units=(Unit("haproxy.service", reloadable=True),))
    state = FileState("file", 0o644, "root", "root", 1, 100, "0" * 64, "y")
    seen = HostFacts("lb1", files={file.path: state}, units={"haproxy.service": RUNNING})
    assert [s.action for s in converge(spec, seen)] == [None, "reload"]


def test_a_diff_shows_what_changes_and_no_secret() -> None:
    shown = diff(FILE, "token: old-secret\nnode-name: s9\n")
    assert "-node-name: s9" in shown
    assert "+node-name: s1" in shown
    assert "old-secret" not in shown
    assert "abc" not in shown


def test_a_diff_of_secrets_alone_says_so() -> None:
    assert "a secret value differs" in diff(FILE, "token: other\nnode-name: s1\n")


def test_a_wholly_secret_file_shows_nothing() -> None:
    key = replace(FILE, masking="all", text=Secret("PRIVATE"))
    assert "PRIVATE" not in diff(key, "OLDPRIVATE")
    assert key.sha256 == hashlib.sha256(b"PRIVATE").hexdigest()


def test_a_unit_that_waits_for_what_comes_from_elsewhere_is_left_alone() -> None:
    starting = changed(converged(), units={UNIT: replace(RUNNING, active="activating")})
    starting = replace(starting, now=RUNNING.started + 10 * STUCK)
    assert [step.action for step in converge(SPEC, starting)] == ["restart"]
    patient = replace(SPEC, units=(replace(SPEC.units[0], patient=True),))
    assert converge(patient, starting) == []
