"""The keys of secrets change on servers that run: whatever is interrupted, no secret is lost, and all read all."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from k3s_standin.encryption import Refused
from k3s_standin.store import StoreError
from nornir.core.task import Result, Task

from nornir_k3s import k3s, shell
from nornir_k3s.apply import encryption as scripts
from nornir_k3s.checks import encryption as checks
from nornir_k3s.compare import encryption as compare
from nornir_k3s.errors import Declined, NotReady, UsageError
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.encryption import Encryption
from nornir_k3s.model.host_facts import FileState, HostFacts, UnitState
from nornir_k3s.model.k3s_facts import Api, NodeState, ServerFiles
from nornir_k3s.model.paths import KEYS_NOTE, PREVIOUS
from nornir_k3s.model.rotation import Rotation
from nornir_k3s.phases import drain, encryption, host_tasks, observe, put_back, rolling, rotation, servers
from nornir_k3s.roles import restarts as restarts_of
from nornir_k3s.roles.desired import Known
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run
from nornir_k3s.workflows import rotate_encryption
from nornir_k3s.workflows.rotation_request import Request

from .conftest import HOSTS
from .test_left import nr, prepared
from .test_standin_encryption import Server, asked, three

Load = Callable[..., Cluster]
THREE = {**HOSTS, "s3": ("10.0.0.19", "servers")}
NAMES = ("s1", "s2", "s3")


class Living:
    """Three servers that run, with their keys on disk and in force; each action may be the last one of a run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, *, on: bool) -> None:
        self.folder, self.order = folder, list[str]()
        self.servers: dict[str, Server] = {one.name: one for one in three(folder / "k3s", on=on)}
        self.setting = dict.fromkeys(NAMES, on)
        self.tick, self.started = 1, dict.fromkeys(NAMES, 1)
        self.written: dict[str, int] = {}
        self.notes = dict.fromkeys(NAMES, "")
        self.out, self.made = set[str](), list[str]()

        def planned(run: Run, name: str) -> Any:
            return self._planned(run, name)

        self.starting = set[str]()  # K3s was restarted there, and is not ready yet
        self.last = 0  # the action that is not done any more; 0 for none
        monkeypatch.setattr(gather, "gather_host", self._gathered)
        monkeypatch.setattr(gather, "session_of", self._keys)
        monkeypatch.setattr(rotation, "session_of", self._balancer)
        monkeypatch.setattr(rotation, "read_facts", lambda task, *_: self.facts(task.host.name))
        monkeypatch.setattr(rolling, "change_node", self._change)
        monkeypatch.setattr(rolling, "change_for_good", self._change)
        monkeypatch.setattr(host_tasks, "wait_for_server", lambda task, _: self.starting.discard(task.host.name))
        monkeypatch.setattr(Run, "planned", planned)
        monkeypatch.setattr(drain, "wanted", lambda *_: [])
        monkeypatch.setattr(drain, "drained", self._drained)
        self.token = prepared(THREE, folder).cluster.token.fingerprint()
        self.facts("s1")

    def run(self, *, on: bool) -> Run:
        """Return a run that has read all hosts."""
        run = prepared(THREE, self.folder)
        run.nr.data.reset_failed_hosts()
        run.cluster = replace(run.cluster, server={**run.cluster.server, "secrets-encryption": on})
        haproxy = {"haproxy.service": UnitState("loaded", "active")}
        run.facts = {name: self.facts(name) for name in NAMES}
        run.facts |= {name: HostFacts(name, units=haproxy) for name in ("lb1", "lb2")}
        self.out.clear()
        return run

    def facts(self, name: str) -> HostFacts:
        one = self.servers[name]
        config, state = one.folder / "cred" / "encryption-config.json", one.folder / "cred" / "encryption-state.json"
        keys = Encryption(goal=self.notes[name])
        if config.exists():
            text = config.read_text()
            sha256 = hashlib.sha256(text.encode()).hexdigest()
            written = self.written.setdefault(sha256, self.tick)
            writes = '"providers":[{"identity"' not in text
            keys = Encryption(sha256, state.read_text().partition("-")[0], writes, written, self.notes[name])
        active = "activating" if name in self.starting else "active"
        unit = UnitState("loaded", active, "running", "enabled", 0, self.started[name], self.started[name])
        text = f"secrets-encryption: {str(self.setting[name]).lower()}\n"
        files = {k3s.CONFIG: FileState("file", text=text)}
        server = ServerFiles(token=self.token)
        units = {"k3s.service": unit}
        return HostFacts(
            name, units=units, api=Api(ready=name not in self.starting), files=files, encryption=keys, server=server
        )

    def _gathered(self, task: Task, run: Run) -> Result:
        run.facts[task.host.name] = self.facts(task.host.name)
        return Result(host=task.host)

    def _planned(self, run: Run, name: str) -> Any:
        facts = run.facts[name]
        restarts = restarts_of.reads_keys(facts, Known(keys=checks.changing(run.facts)), self.started[name])
        starts = restarts or self.setting[name] != checks.wanted(run.cluster)
        step = SimpleNamespace(target=k3s.UNITS["server"] if restarts else k3s.CONFIG)
        steps = {"servers": (step,) if starts else ()}
        return SimpleNamespace(starts_k3s=starts, by_role=steps, stage=(), facts=facts)

    @contextmanager
    def _drained(self, _: Run, names: list[str]) -> Iterator[list[str]]:
        yield names

    def _act(self, what: str) -> None:
        """Do as if the run were killed before this action; the last ones of it are none."""
        self.order.append(what)
        if self.last and len(self.order) >= self.last:
            raise NotReady("s1", "killed")

    def _change(self, task: Task, run: Run) -> Result:
        name = task.host.name
        try:
            self._act(f"restart {name}")
        except NotReady:  # the host goes on with what it was told
            self._restart(name, on=checks.wanted(run.cluster))
            self.starting.add(name)
            raise
        self._restart(name, on=checks.wanted(run.cluster))
        self.serve()
        return Result(host=task.host, changed=True)

    def _restart(self, name: str, *, on: bool) -> None:
        self.tick += 1
        self.setting[name] = on
        one = self.servers[name]
        one.on = self.setting[name]
        one.start()
        self.started[name] = self.tick
        one.now.store.list("/registry/secrets/")  # it would not get ready

    def serve(self) -> None:
        """Write a secret through each server that serves, and read all secrets through each of them."""
        serving = [one for name, one in self.servers.items() if name not in self.out]
        assert serving, "no server is left in rotation"
        for one in serving:
            name = f"{one.name}-{len(self.made)}"
            one.write(name)
            self.made.append(name)
        for one in serving:
            for name in (*self.made[:2], *self.made[-6:]):
                try:
                    assert one.reads(name)
                except StoreError as error:
                    raise AssertionError(f"{one.name} cannot read {name}: {error}: {self.order}") from None

    def _balancer(self, task: Task, _: Run) -> Any:
        def run(script: str, **_: Any) -> Any:
            call = next(one for one in script.splitlines() if one.startswith(("leave ", "come_back ")))
            verb, server, *more = shlex.split(call)
            state = "up"
            if verb == "leave":
                together = more[2].split()
                self.out &= set(together)
                self.out.add(server)
                state = "drained"
            elif task.host.name == "lb1":
                self.out.discard(server)
            return SimpleNamespace(stdout=f"@rotation\t{server}\t{state}\t0\n@end\n")

        return SimpleNamespace(run=run)

    def _keys(self, task: Task, _: Run) -> Any:
        def run(script: str, **_: Any) -> Any:
            lines = script.partition("STEP=")[2].splitlines()
            verbs: dict[str, Callable[..., str | None]] = {
                "note_keys": self._note_keys,
                "change_keys": self._change_keys,
                "wait_for_keys": self._wait_for_keys,
                "require_stage": self._require_stage,
                "keys_match": self._keys_match,
            }
            for line in lines:
                if line.partition(" ")[0] in verbs and "()" not in line:
                    verb, *words = shlex.split(line)
                    self._act(f"{verb} {' '.join(words[:3])}")
                    self.tick += 1
                    if failed := verbs[verb](self.servers[task.host.name], *words):
                        return SimpleNamespace(stdout="@end\n", status=1, stderr=failed)
                    self.serve()
            return SimpleNamespace(stdout="@did\tencryption:x\tchanged\n@end\n", status=0, stderr="")

        return SimpleNamespace(run=run)

    def _note_keys(self, one: Server, _: str, goal: str, __: str) -> None:
        own = self.facts(one.name).encryption.sha256
        self.notes[one.name] = f"rotate {own}" if goal == "rotate" else goal

    def _change_keys(self, one: Server, *words: str) -> str:
        _, _, verb, stages, _, *options = words
        if self.facts(one.name).encryption.stage in stages.split():
            try:
                asked(one, verb, force="--force" in options, skip="--skip" in options)
            except Refused as error:
                return str(error)
        return ""

    def _wait_for_keys(self, one: Server, *_: str) -> None:
        while one.stage() == "reencrypt_active":
            pass

    def _require_stage(self, one: Server, _: str, stage: str) -> str:
        return "" if self.facts(one.name).encryption.stage == stage else "another stage"

    def _keys_match(self, one: Server, *_: str) -> str:
        return "" if one.now.status().get("hashmatch") else "hash does not match"

    def settled(self, *, on: bool) -> None:
        """Check how it ends: one hash, nothing noted, all in rotation; and as often as it starts again."""
        assert set(self.notes.values()) == {""}
        assert self.out == set()
        found = [self.facts(name).encryption for name in NAMES]
        assert len({one.sha256 for one in found}) == 1
        assert {(one.writes, one.stage in ("start", "reencrypt_finished")) for one in found} == {(on, True)}
        for name in self.made:
            entry = self.servers["s1"].raw.get(f"/registry/secrets/default/{name}")
            assert entry
            assert entry.value.startswith(b"k8s:enc") == on, name
        for one in self.servers.values():
            one.start()
        self.serve()
        cluster = self.run(on=on)
        assert list(compare.differences(cluster.cluster, cluster.facts)) == []
        assert checks.goal(cluster.cluster, cluster.facts) == ""


Make = Callable[..., Living]


@pytest.fixture
def living(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Make:
    count = iter(range(1000))

    def make(*, on: bool) -> Living:
        return Living(monkeypatch, tmp_path / str(next(count)), on=on)

    return make


def carried(one: Living, work: Callable[[Run], None], *, on: bool) -> None:
    one.order.clear()
    work(one.run(on=on))


def killed(one: Living, work: Callable[[Run], None], last: int, *, on: bool) -> bool:
    """Carry it out, killed before an action; return whether it came so far."""
    one.last = last
    try:
        carried(one, work, on=on)
    except NotReady:
        return True
    else:
        return False
    finally:
        one.last = 0


def test_nothing_is_prepared_where_no_key_was_made(tmp_path: Path) -> None:
    folder = tmp_path / "server" / "cred"
    folder.mkdir(parents=True)
    call = ["sh", "-euc", f"{shell.source('apply/encryption.sh')}require_keys {tmp_path}"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "K3s has made no encryption-config.json\n")
    for name in ("config", "state"):
        (folder / f"encryption-{name}.json").write_text("x")
    assert subprocess.run(call, check=False).returncode == 0
    text = scripts.prepare("")
    assert text.rindex("require_keys ") < text.rindex("change_keys "), "the others would make keys of their own"


def test_encryption_is_turned_on(living: Make) -> None:
    one = living(on=False)
    one.serve()
    carried(one, encryption.converge, on=True)
    restarts = [what for what in one.order if what.startswith("restart")]
    assert restarts == [f"restart {name}" for name in ("s1", "s2", "s3", "s1", "s1", "s2", "s3", "s2", "s3")]
    assert one.order.index(f"change_keys {k3s.BINARY} {k3s.DATA} prepare") < one.order.index("restart s2")
    one.settled(on=True)


@pytest.mark.parametrize(("before", "after"), [(False, True), (True, False), (True, True)])
def test_what_is_killed_anywhere_is_finished_by_the_next_run(living: Make, *, before: bool, after: bool) -> None:
    work = encryption.rotate if before and after else encryption.converge
    last = 1
    while True:
        one = living(on=before)
        one.serve()
        if not killed(one, work, last, on=after):
            break
        again = encryption.converge if any(one.notes.values()) or before != after else encryption.rotate
        carried(one, again, on=after)
        one.settled(on=after)
        last += 1 if after and not before else 2
    assert last > 8
    one.settled(on=after)


def test_keys_that_were_turned_off_are_used_again_and_replaced(living: Make) -> None:
    last = 1
    while True:
        one = living(on=True)
        old = one.facts("s1").encryption.sha256
        carried(one, encryption.converge, on=False)
        one.settled(on=False)
        one.made.clear()
        if not killed(one, encryption.converge, last, on=True):
            break
        carried(one, encryption.converge, on=True)
        one.settled(on=True)
        last += 5
    one.settled(on=True)
    assert one.facts("s1").encryption.sha256 != old


def test_what_was_turned_off_by_hand_or_half_is_turned_on_again(living: Make) -> None:
    one = living(on=True)
    one.serve()
    asked_off = one.servers["s1"]
    asked_off.now.change({"enable": False})
    for name in NAMES:
        one._restart(name, on=True)
    run = one.run(on=True)
    (told,) = compare.differences(run.cluster, run.facts)
    assert (told.id, told.fixed_by) == ("cluster/encryption:disabled", "deploy")
    assert encryption.announced(run) == [], "all have the keys: none leaves the rotation"
    assert servers.changes_running(run), "nothing else changes beside"
    noted = [f"note_keys {KEYS_NOTE} enable-again {k3s.DATA}", f"change_keys {k3s.BINARY} {k3s.DATA} enable"]
    assert killed(one, encryption.converge, 3, on=True)
    assert one.order[:2] == noted, "killed before it has noted that K3s has done it"
    carried(one, encryption.converge, on=True)
    one.settled(on=True)


@pytest.mark.parametrize("last", [3, 6])
def test_the_inventory_may_want_it_back_meanwhile(living: Make, last: int) -> None:
    one = living(on=True)
    one.serve()
    assert killed(one, encryption.converge, last, on=False)
    assert one.facts("s1").encryption.disabled
    carried(one, encryption.converge, on=True)
    one.settled(on=True)


def test_a_rotation_by_hand_goes_on(living: Make) -> None:
    one = living(on=True)
    one.tick += 1
    asked(one.servers["s2"], "prepare")
    run = one.run(on=True)
    (told,) = compare.differences(run.cluster, run.facts)
    assert (told.id, told.severity, told.fixed_by) == ("cluster/encryption:keys", "error", "person")
    assert told.remedy == "nornir-k3s rotate encryption finishes the rotation"
    carried(one, encryption.rotate, on=True)
    one.settled(on=True)
    assert "prepare" not in " ".join(one.order)


def test_servers_that_have_each_made_a_key_are_refused(living: Make) -> None:
    one = living(on=False)
    for name in ("s1", "s2"):
        one.servers[name].on = one.setting[name] = True
        one.servers[name].start()
    run = one.run(on=True)
    with pytest.raises(UsageError, match="s1, s2 have made a key each, which no other server has"):
        encryption.converge(run)
    (told,) = compare.differences(run.cluster, run.facts)
    assert "different keys" in told.found
    assert "Servers with different keys" in replace_goal(one, told.remedy)


def replace_goal(one: Living, remedy: str) -> str:
    """Return what drift says once all have the setting: no deploy can go on with it."""
    assert remedy
    one.servers["s3"].on = one.setting["s3"] = True
    one.servers["s3"].start()
    run = one.run(on=True)
    (told,) = compare.differences(run.cluster, run.facts)
    return told.remedy


def test_what_is_not_carried_through_is_told(living: Make) -> None:
    one = living(on=True)
    for name in NAMES:
        if name == "s1":
            asked(one.servers["s1"], "prepare")
        one.servers[name].start()
    run = one.run(on=True)
    (told,) = compare.differences(run.cluster, run.facts)
    assert told.id == "cluster/encryption:stage"
    assert "somebody has begun" in told.found
    one.notes["s1"] = "rotate x"
    run = one.run(on=True)
    (told,) = compare.differences(run.cluster, run.facts)
    assert "was interrupted" in told.found
    one.servers["s2"].on = True
    asked(one.servers["s1"], "rotate")
    run = one.run(on=True)
    (told,) = compare.differences(run.cluster, run.facts)
    assert (told.id, told.fixed_by) == ("cluster/encryption:keys", "deploy")


def test_a_note_that_nobody_needs_is_removed(living: Make) -> None:
    one = living(on=False)
    one.notes["s2"] = "enable"
    carried(one, encryption.converge, on=False)
    assert set(one.notes.values()) == {""}


def test_what_k3s_refuses_is_told_with_its_reason(living: Make) -> None:
    one = living(on=True)
    one.servers["s2"].now._annotate("start-other")
    run = one.run(on=True)
    one.notes["s1"] = "rotate x"
    run.facts["s1"] = one.facts("s1")
    with pytest.raises(NotReady, match="prepare failed: hash does not match") as error:
        encryption.turn(replace(run), "s1")
    assert "run the same command again" in error.value.hint


def test_keys_that_never_come_to_their_end_are_told(living: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one = living(on=True)
    monkeypatch.setattr(Living, "_change_keys", lambda *_: "")
    one.notes["s1"] = "rotate x"
    asked(one.servers["s1"], "prepare")
    with pytest.raises(NotReady, match="still at stage prepare"):
        encryption.turn(one.run(on=True), "s1")


def test_a_server_alone_changes_no_keys(living: Make) -> None:
    one = living(on=False)
    encryption.require_settled(one.run(on=False))
    with pytest.raises(UsageError, match="all servers take part"):
        encryption.require_settled(one.run(on=True))


def test_a_run_of_other_hosts_changes_no_keys(living: Make) -> None:
    one = living(on=False)
    run = one.run(on=True)
    run.limit = frozenset({"a1"})
    encryption.converge(run)
    assert not list(checks.check(run.cluster, run.facts, run.limit))
    run.limit = frozenset({"s1"})
    with pytest.raises(UsageError, match="--limit leaves out s2, s3"):
        encryption.converge(run)


def test_what_speaks_against_it(living: Make) -> None:
    one = living(on=False)

    def told(**changes: Any) -> list[str]:
        run = one.run(on=True)
        run.facts["s2"] = replace(run.facts["s2"], **changes)
        server = {**run.cluster.server, **({"secrets-encryption-provider": "secretbox"} if not changes else {})}
        found = checks.check(replace(run.cluster, server=server), run.facts, None)
        return [f"{one.severity}: {one.found}" for one in found]

    assert told(api=Api()) == ["error: the keys of secrets cannot change: s2 is not ready"]
    (provider,) = told()
    assert "aescbc only" in provider
    (provider,) = told(encryption=Encryption(sha256="a", stage="start", provider="secretbox"))
    assert "aescbc only" in provider
    flags = replace(one.facts("s2").unit("k3s.service"), command="k3s server --secrets-encryption-provider=secretbox")
    (provider,) = told(units={"k3s.service": flags})
    assert "aescbc only" in provider
    gone = NodeState("s9", True, "v", ("control-plane",), address="10.0.0.29")
    (left,) = told(api=Api(ready=True, nodes=(gone,)))
    assert left.startswith("error: s9 left the inventory and is a server"), "it would go on writing with the old key"
    (token,) = told(server=ServerFiles(token="another"))
    assert token.startswith("error: the token of s2 is not the cluster's")
    (note,) = told(skew=0.1)
    assert note == "note: encryption of secrets is turned on, with s1 as the first server"


def test_a_cluster_that_is_down_does_not_start_with_another_setting(living: Make) -> None:
    one = living(on=False)
    run = one.run(on=True)
    for name in NAMES:
        run.facts[name] = replace(run.facts[name], api=Api(), units={})
    assert [f.host for f in checks.check(run.cluster, run.facts, None)] == list(NAMES)
    fresh = {name: replace(facts, server=ServerFiles()) for name, facts in run.facts.items()}
    assert list(checks.check(run.cluster, fresh, None)) == []


def test_a_server_that_an_interrupted_run_has_restarted_is_waited_for(living: Make) -> None:
    one = living(on=True)
    one.starting |= set(NAMES)
    run = one.run(on=False)
    assert {f.host for f in checks.check(run.cluster, run.facts, None)} == set(NAMES), "nothing was begun"
    one.notes["s1"] = "disable"
    run = one.run(on=False)
    assert not [f for f in checks.check(run.cluster, run.facts, None) if f.severity == "error"]
    servers.start_first(run)
    assert run.ready_servers == list(NAMES)
    assert one.order == [], "no server has started with another setting"
    one.starting.add("s2")
    run = one.run(on=True)
    assert list(rotate_encryption._refusals(run)) == []
    one.notes["s1"] = ""
    assert list(rotate_encryption._refusals(one.run(on=True)))


def test_a_single_server_that_just_starts_is_the_first(living: Make) -> None:
    one = living(on=True)
    one.starting |= set(NAMES)
    one.notes["s2"] = "rotate x"
    run = one.run(on=True)
    assert checks.lead(run.cluster, run.facts) == "s2"
    assert rotate_encryption._planned(run).steps


def test_a_cluster_that_is_down_half_way_is_to_be_started(living: Make) -> None:
    one = living(on=False)
    one.notes["s1"] = "enable"
    run = one.run(on=True)
    for name in NAMES:
        run.facts[name] = replace(run.facts[name], api=Api(), units={})
    assert {f.remedy for f in checks.check(run.cluster, run.facts, None)} == {
        "start k3s.service on all servers, then deploy, which finishes the change of the keys"
    }


def test_a_server_that_needs_the_inventory_of_now_gets_it(living: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(task: Task, _: Run) -> None:
        raise NotReady(task.host.name, "not ready")

    kept: list[str] = []
    monkeypatch.setattr(rolling, "keep_change", lambda task, _: kept.append(task.host.name))
    one = living(on=False)
    one.notes["s1"] = "enable"
    one.starting.add("s1")
    run = one.run(on=True)
    run.facts["s1"] = replace(run.facts["s1"], present=frozenset({PREVIOUS}))
    encryption.resume(run)
    assert (kept, one.order) == (["s1"], []), "it is ready: its former files never come back"
    monkeypatch.setattr(host_tasks, "wait_for_server", never)
    one.starting.add("s1")
    run = one.run(on=True)
    one.out |= {"s2", "s3"}
    run.trial = 300
    assert encryption._for_good(run).trial == 0
    run.limit = frozenset({"a1"})
    with pytest.raises(NotReady, match="s1: not ready"):
        encryption.resume(run)
    run.limit = None
    run.nr.data.reset_failed_hosts()
    encryption.resume(run)
    assert one.order == ["restart s1"], "it went back, and may have written with its key"
    one.starting = {"s2"}
    with pytest.raises(NotReady, match="s2: not ready"):
        encryption.resume(one.run(on=True))
    assert one.order == ["restart s1"], "it would make a key of its own"
    asked(one.servers["s1"], "prepare")
    run = one.run(on=True)
    one.out |= {"s3"}
    encryption.resume(run)
    assert one.order == ["restart s1", "restart s2"]


def test_the_plan_says_who_is_out_of_rotation_together(living: Make) -> None:
    one = living(on=False)
    assert encryption.announced(one.run(on=False)) == []
    (told,) = encryption.announced(one.run(on=True))
    assert told == "s2, s3 would be out of rotation until each has the keys that s1 makes"


@pytest.fixture
def rotated(living: Make, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return what calls the workflow on servers that run."""

    def call(work: str, *, on: bool = True, one: Living | None = None, **given: Any) -> Any:
        one = one or living(on=on)
        run = one.run(on=on)
        with monkeypatch.context() as patch:
            patch.setattr(gather, "prepare", lambda *_, **__: run)
            patch.setattr(observe, "observe", lambda _: None)
            patch.setattr(observe, "find_artifacts", lambda _: None)
            patch.setattr(put_back, "put_back", lambda _: None)
            return getattr(rotate_encryption, work)(Request(nr(THREE), base=one.folder, **given))

    return call


def test_a_rotation_is_planned_and_done(rotated: Any, living: Make) -> None:
    one = living(on=True)
    plan: Rotation = rotated("plan", one=one)
    assert [step.what.partition(":")[0] for step in plan.steps] == [
        "add a new key",
        "restart k3s.service, one by one",
        "encrypt with the new key",
        "restart k3s.service, one by one",
        "encrypt all secrets anew, and drop the old key",
        "restart k3s.service, one by one",
        "check that all servers have the same keys",
    ]
    assert [step.hosts for step in plan.steps if step.what.startswith("restart")][-1] == ["s2", "s3"]
    given = {"ignore_window": False, "confirm": lambda _: False}
    with pytest.raises(Declined):
        rotated("rotate", one=one, **given)
    assert one.order == []
    report = rotated("rotate", one=one, **given | {"confirm": None})
    assert report.exit_code == 0
    one.settled(on=True)
    one.order.clear()
    one.last = 8
    with pytest.raises(NotReady) as error:
        rotated("rotate", one=one, **given | {"confirm": None})
    assert error.value.report
    assert error.value.report.outcome == "failed"
    one.last = 0
    plan = rotated("plan", one=one)
    assert plan.notes == ["a rotation was begun, and goes on from stage rotate"]
    assert plan.steps[0].what == "restart k3s.service"
    assert rotated("rotate", one=one, **given | {"confirm": None}).exit_code == 0
    one.settled(on=True)


def test_a_rotation_is_refused_before_anything_is_changed(rotated: Any, living: Make) -> None:
    with pytest.raises(UsageError, match="secrets are not encrypted in this cluster"):
        rotated("plan", on=False)
    one = living(on=True)
    one.setting["s2"] = False
    with pytest.raises(UsageError, match="not on yet on all servers"):
        rotated("plan", one=one)


def test_other_changes_are_deployed_first(living: Make) -> None:
    one = living(on=True)
    run = one.run(on=True)
    assert list(rotate_encryption._refusals(run)) == []
    run.facts["s3"] = replace(run.facts["s3"], api=Api())
    ((found, _),) = rotate_encryption._refusals(run)
    assert found.startswith("s3 is not ready")


def test_scripts_name_what_they_do() -> None:
    assert "reencrypt" in scripts.reencrypt()
    assert "require_stage" in scripts.reencrypt()
    assert "--force --skip" in scripts.decrypt()
    assert "note_keys" in scripts.prepare("rotate")
