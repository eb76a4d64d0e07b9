"""The way back of a change, in a real shell: kept before, put back exactly, and again when it was cut short."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nornir_k3s import k3s
from nornir_k3s.apply import rollback
from nornir_k3s.apply import script as apply
from nornir_k3s.host_steps import converge
from nornir_k3s.model.host_facts import ArtifactState, FileState, HostFacts, UnitState
from nornir_k3s.model.host_spec import Artifact, File, Gone, HostSpec, Install, Unit
from nornir_k3s.model.k3s_facts import Api
from nornir_k3s.model.paths import (
    PREVIOUS,
    STATE,
    SYSTEMD,
)
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.step import Step
from nornir_k3s.phases import host_tasks
from tests.unit.hosts import changed

UNIT = "k3s.service"
BINARY = Artifact(Path("k3s"), "/usr/local/bin/k3s", "a" * 64)
SPEC = HostSpec(artifacts=(BINARY,), install=Install("server", "/i.sh", UNIT), units=(Unit(UNIT),))
Files = dict[str, tuple[str, int]]


class Host:
    """A folder in place of a host: the scripts' own paths are moved into it, systemctl only notes what it is told."""

    def __init__(self, root: Path) -> None:
        self.root, self.state, self.etc = root, root / "state", root / "etc"
        self.etc.mkdir()
        (root / "bin").mkdir()
        for name, line in (("systemctl", 'echo "$@" >>"$CALLS"; [ "$1" != is-active ]'), ("chown", ":")):
            (root / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
            (root / "bin" / name).chmod(0o755)

    def run(self, script: str, *, fails: bool = False) -> str:
        environ = os.environ | {"PATH": f"{self.root}/bin:{os.environ['PATH']}", "CALLS": str(self.root / "calls")}
        script = "umask 077\n" + script.replace(STATE, str(self.state))
        done = subprocess.run(["sh"], input=script, env=environ, capture_output=True, text=True, check=False)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout

    def change(self, *steps: Step, seen: HostFacts | None = None, fails: bool = False) -> str:
        before = rollback.begin(SPEC, seen or ready())
        return self.run(apply.script(steps, SPEC, before=before).reveal(), fails=fails)

    def put_on_trial(self, *steps: Step) -> str:
        """Carry out a change that is on trial; return the script with which the host takes it back."""
        before = rollback.begin(SPEC, ready(), trial=300).replace(SYSTEMD, str(self.root))
        self.run(apply.script(steps, SPEC, before=before).reveal().replace(SYSTEMD, str(self.root)))
        return (self.state / "undo").read_text().replace(SYSTEMD, str(self.root))

    def files(self) -> Files:
        return {path.name: (path.read_text(), path.stat().st_mode & 0o777) for path in self.etc.iterdir()}

    @property
    def ours(self) -> list[str]:
        return sorted((self.state / "files").read_text().split())

    def write(self, name: str, text: str) -> Step:
        file = File(str(self.etc / name), Secret(text), 0o600, unit=UNIT)
        return Step("file", file.path, "", payload=file)

    def gone(self, name: str) -> Step:
        return Step("remove", name, "", payload=Gone(str(self.etc / name), UNIT))


START = Step("unit", UNIT, "", payload=Unit(UNIT), action="restart")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A server whose config, registries and a file of somebody else's are there."""
    host = Host(tmp_path)
    host.run(apply.script([host.write("config", "old\n"), host.write("registries", "mine\n"), START], SPEC).reveal())
    (host.etc / "foreign").write_text("theirs\n")
    (host.etc / "foreign").chmod(0o640)
    return host


def ready(**values: object) -> HostFacts:
    running = UnitState("loaded", "active", "running", "enabled", 0, 200, 200)
    artifacts = {BINARY.path: ArtifactState(BINARY.sha256, BINARY.mode, 100)}
    return changed(HostFacts("s1", api=Api(ready=True), units={UNIT: running}, artifacts=artifacts), **values)


def changes(host: Host) -> tuple[Step, ...]:
    return (
        host.write("config", "new\n"),
        host.write("foreign", "ours\n"),
        host.write("more", "x\n"),
        host.gone("registries"),
    )


def test_what_a_change_did_is_taken_back_exactly(host: Host) -> None:
    files, ours = host.files(), host.ours
    host.change(*changes(host), START)
    assert host.files()["config"][0] == "new\n"
    assert "registries" not in host.files()
    said = apply.parse(host.run(apply.restore(UNIT, always=False))).changed
    assert {Path(step).name for step in said if "restored:" in step} == {"config", "foreign", "more", "registries"}
    (host.etc / "foreign.before-nornir-k3s").unlink()
    assert (host.files(), host.ours) == (files, ours)
    assert (host.root / "calls").read_text().endswith(f"start --no-block {UNIT}\n")
    assert (host.state / "pending" / UNIT).exists(), "it was not seen ready yet"
    host.run(apply.forget(UNIT))
    assert not (host.state / "pending" / UNIT).exists()
    assert not (host.state / "previous").exists()


def test_k3s_itself_is_put_back_and_kept_no_longer_than_needed(host: Host, tmp_path: Path) -> None:
    """A second run before the restart keeps what runs, not what the first one has put there."""
    binary = tmp_path / "k3s"
    binary.write_text("old")
    moved = k3s.BINARY, str(binary)
    replaced = ready(artifacts={BINARY.path: ArtifactState("b" * 64, 0o755, 100)})
    host.run(rollback.keep_binary(running=True).replace(*moved))
    binary.unlink()
    binary.write_text("newer")
    host.run(rollback.keep_binary(running=False).replace(*moved))
    before = rollback.begin(SPEC, replaced, returns=True).replace(*moved)
    host.run(apply.script([host.write("config", "new\n"), START], SPEC, before=before).reveal())
    said = apply.parse(host.run(apply.restore(UNIT, always=False))).changed
    assert f"restored:{binary}" in said
    assert binary.read_text() == "old"
    assert str(binary) not in host.ours, "it would be removed as a file that the inventory no longer has"
    host.run(apply.forget(UNIT))
    assert not (host.state / "binary").exists()


def killed(after: int) -> str:
    """Return lines that have the script killed when it has moved so many files to their places."""
    return f"""moved=0
mv() {{ moved=$((moved+1)); [ "$moved" -le {after} ] || kill -9 $$; command mv "$@"; }}
"""


@pytest.mark.parametrize("after", range(7))
def test_a_change_that_was_killed_anywhere_is_taken_back_with_the_next_one(host: Host, after: int) -> None:
    files = host.files()
    before = rollback.begin(SPEC, ready()) + killed(after)
    host.run(apply.script([*changes(host), START], SPEC, before=before).reveal(), fails=True)
    unread = {path.name for path in (host.state / "pending").iterdir()}
    host.change(*changes(host), START, seen=ready(ledger={"pending": unread}))
    host.run(apply.restore(UNIT, always=False))
    assert host.files() | files == host.files(), "what was there"
    assert "more" not in host.files()


@pytest.mark.parametrize("after", range(7))
@pytest.mark.parametrize("again", ["the same change", "the inventory was put back"])
def test_a_restore_that_was_killed_anywhere_is_finished(host: Host, after: int, again: str) -> None:
    files = host.files()
    host.change(*changes(host), START)
    script = apply.restore(UNIT, always=False)
    host.run(script.replace("\nrestore ", f"\n{killed(after)}restore "), fails=True)
    seen = ready(api={"ready": False}, ledger={"pending": {UNIT}}, present={PREVIOUS})
    if again == "the same change":
        host.change(*changes(host), START, seen=seen)
    else:
        host.change(host.write("config", "old\n"), START, seen=seen)
    host.run(apply.restore(UNIT, always=False))
    assert host.files() | files == host.files(), "what was there"
    assert "more" not in host.files()


def test_a_server_that_is_not_back_keeps_what_it_had_before_the_first_change(host: Host) -> None:
    host.change(host.write("config", "first\n"), START)
    seen = ready(api={"ready": False}, present={PREVIOUS})
    host.change(host.write("config", "second\n"), host.write("more", "x\n"), START, seen=seen)
    host.run(apply.restore(UNIT, always=False))
    assert host.files()["config"] == ("old\n", 0o600)
    assert "more" not in host.files()


def test_what_was_seen_ready_is_the_next_way_back(host: Host) -> None:
    host.change(host.write("config", "first\n"), START)
    host.run(apply.forget(UNIT))
    host.change(host.write("config", "second\n"), START)
    host.run(apply.restore(UNIT, always=False))
    assert host.files()["config"][0] == "first\n"


def test_files_that_were_not_read_yet_are_no_way_back(host: Host) -> None:
    host.change(host.write("config", "unread\n"))
    host.change(host.write("config", "second\n"), START, seen=ready(ledger={"pending": {UNIT}}))
    host.run(apply.restore(UNIT, always=False))
    assert host.files()["config"][0] == "old\n"


@pytest.mark.parametrize(
    "seen",
    [
        ready(api={"ready": False}),
        ready(artifacts={BINARY.path: ArtifactState("b" * 64, 0o755, 100)}),
        ready(artifacts={BINARY.path: ArtifactState(BINARY.sha256, 0o755, 300)}, present={PREVIOUS}),
    ],
    ids=["never ready", "another K3s comes", "another K3s is there"],
)
def test_what_cannot_go_back_keeps_nothing(host: Host, seen: HostFacts) -> None:
    host.change(host.write("config", "first\n"), START)
    assert not rollback.possible(SPEC, seen)
    host.change(host.write("config", "second\n"), START, seen=seen)
    assert not (host.state / "previous").exists()
    host.run(apply.restore(UNIT, always=False), fails=True)
    assert host.files()["config"][0] == "second\n"


def test_a_change_that_failed_before_its_first_file_restarts_nothing_that_runs(host: Host) -> None:
    refused = Step(
        "file", "x", "", payload=File(str(host.etc / "config"), Secret("n"), 0o600, unit=UNIT, check="false")
    )
    host.change(refused, START, fails=True)
    (host.root / "bin" / "systemctl").write_text('#!/bin/sh\necho "$@" >>"$CALLS"\n')
    (host.root / "calls").unlink()
    assert "restored" not in host.run(apply.restore(UNIT, always=False))
    assert (host.root / "calls").read_text() == f"is-active -q {UNIT}\n"
    host.run(apply.restore(UNIT, always=True))
    assert f"start --no-block {UNIT}" in (host.root / "calls").read_text()


def test_what_is_kept_is_nobody_else_s_to_read(host: Host) -> None:
    host.change(*changes(host), START)
    kept = host.state / "previous"
    assert kept.stat().st_mode & 0o777 == 0o700
    assert (kept / "root" / str(host.etc / "config").lstrip("/")).stat().st_mode & 0o777 == 0o600


def test_what_an_ended_run_has_left_is_removed_when_all_is_well() -> None:
    file = File("/f", Secret("x"), 0o600, unit=UNIT)
    spec = replace(SPEC, files=(file,))
    seen = ready(present={PREVIOUS}, files={"/f": FileState("file", 0o600, "root", "root", 1, 1, file.sha256)})
    assert [step.id for step in converge(spec, seen)] == [f"remove:{PREVIOUS}"]
    assert converge(spec, changed(seen, present=frozenset())) == []
    assert [step.kind for step in converge(spec, changed(seen, api={"ready": False}))] == []


def test_others_may_look_into_folders_that_a_file_needs(host: Host) -> None:
    host.change(host.write("rancher/k3s/config.yaml", "new"))
    assert [path.stat().st_mode & 0o777 for path in (host.etc / "rancher", host.etc / "rancher" / "k3s")] == [0o755] * 2


def units(host: Host) -> set[str]:
    return {path.name for path in host.root.glob("nornir-k3s-undo.*")}


def test_a_host_takes_a_change_on_trial_back_by_itself(host: Host) -> None:
    before, (unit, timer) = host.files(), ("nornir-k3s-undo.service", "nornir-k3s-undo.timer")
    undo = host.put_on_trial(host.write("config", "new\n"), host.write("more", "x\n"), START)
    assert host.files() != before
    assert units(host) == {unit, timer}
    assert "OnActiveSec=300\n" in (host.root / timer).read_text()
    assert f"ExecStart=/bin/sh {host.state}/undo\n" in (host.root / unit).read_text()
    assert (host.state / "undo").stat().st_mode & 0o777 == 0o600
    assert f"enable -q --now {timer}" in (host.root / "calls").read_text()
    host.run(undo)
    assert host.files() == before
    assert units(host) == set()
    assert not (host.state / "undo").exists()
    confirm = apply.forget(UNIT, trial=True).replace(SYSTEMD, str(host.root))
    host.run(confirm, fails=True)
    host.run(undo)
    assert host.files() == before


def test_a_change_on_trial_that_is_confirmed_stays(host: Host) -> None:
    undo = host.put_on_trial(host.write("config", "new\n"), START)
    after = host.files()
    host.run(apply.forget(UNIT, trial=True).replace(SYSTEMD, str(host.root)))
    assert units(host) == set()
    assert f"disable -q --now {'nornir-k3s-undo.timer'}" in (host.root / "calls").read_text()
    host.run(undo, fails=True)  # it had begun, and waited for the lock
    assert host.files() == after


def test_another_change_without_a_trial_ends_the_one_before(host: Host) -> None:
    host.put_on_trial(host.write("config", "new\n"), START)
    before = rollback.begin(SPEC, ready())
    script = apply.script([host.write("config", "newer\n"), START], SPEC, before=before).reveal()
    host.run(script.replace(SYSTEMD, str(host.root)))
    assert units(host) == set()


@pytest.mark.parametrize("kept", [True, False])
def test_the_tokens_of_a_server_are_put_back_with_its_agent_token(
    host: Host, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """K3s writes another agent token there at once, and would end: the file is newer than the datastore then."""
    passwd, scripts, facts = host.etc / "passwd", list[str](), ready()
    passwd.write_text("of before\n")
    os.utime(passwd, (1000, 1000))

    def applied(_: object, __: object, steps: Sequence[Step], *, before: str, **___: object) -> str:
        scripts.append(apply.script(steps, SPEC, before=before).reveal().replace(k3s.PASSWD, str(passwd)))
        return "applied"

    for name, work in (
        ("apply_steps", applied),
        ("wait_for_server", lambda *_, **__: facts),
        ("require_same_cluster", lambda *_: None),
        ("has_other_agent_token", lambda *_: True),
    ):
        monkeypatch.setattr(host_tasks, name, work)
    more = () if kept else (Step("remove", k3s.PASSWD, "", payload=Secret("true")),)
    steps = (*more, host.write("config", "new\n"), START)
    plan = SimpleNamespace(desired=SPEC, facts=facts, returns=False, by_role={"servers": steps})
    run: Any = SimpleNamespace(
        planned=lambda _: plan,
        trial=0,
        deadlines={"apply": 1},
        new_ca="",
        facts={"s1": facts},
        done=set(),
        cluster=SimpleNamespace(version="v1"),
    )
    host_tasks.converge_server(SimpleNamespace(host=SimpleNamespace(name="s1")), run)  # type: ignore[arg-type]  # a task
    host.run(scripts[0])
    passwd.write_text("of another agent token\n")
    host.run(apply.restore(UNIT, always=False))
    assert host.files()["config"][0] == "old\n"
    assert (passwd.read_text() == "of before\n") is kept
    assert (passwd.stat().st_mtime == 1000) is kept
