"""One run at a time changes a cluster: the lock on hosts, by real processes on this machine, and the Lease."""

from __future__ import annotations

import base64
import contextlib
import json
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nornir_k3s.apply import hold as holds
from nornir_k3s.apply import lease as leases
from nornir_k3s.checks import at_work
from nornir_k3s.errors import Busy, CommandFailed, HostUnreachable, OutcomeUnknown
from nornir_k3s.model import work
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import Api
from nornir_k3s.model.lease import Lease
from nornir_k3s.model.paths import WORK
from nornir_k3s.model.work import Owner, Work
from nornir_k3s.phases import cluster_lock
from nornir_k3s.phases import lease as phase
from nornir_k3s.phases.cluster_lock import ClusterLock, changing
from nornir_k3s.phases.task_lock import Together
from nornir_k3s.records import RecordError
from nornir_k3s.run.context import Run
from nornir_k3s.shell import source
from nornir_k3s.ssh import shell
from nornir_k3s.ssh.session import CommandResult

ANN = Owner("ann@ci-7/0a1b2c3d", "ann", "ci-7", "deploy", 1764072000.0)
BOB = replace(ANN, id="bob@desk/1", user="bob", host="desk", command="backup")
Load = Callable[..., Cluster]


class Channel:
    """A process on this machine in place of one on a host."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process, self.closed = process, False
        self._text, self._guard = b"", threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with self._guard:
                self._text += line

    def settimeout(self, seconds: float) -> None:
        pass

    def sendall(self, data: bytes) -> None:
        if self.closed:
            raise OSError("the channel is closed")
        assert self.process.stdin
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def recv(self, size: int) -> bytes:
        with self._guard:
            text, self._text = self._text[:size], self._text[size:]
        return text

    def recv_ready(self) -> bool:
        if self.process.poll() is not None:
            self._reader.join()
        return bool(self._text)

    def exit_status_ready(self) -> bool:
        return self.process.poll() is not None

    def close(self) -> None:
        self.closed = True
        assert self.process.stdin
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait(10)
        self._reader.join()
        assert self.process.stdout
        self.process.stdout.close()


class Session:
    """A host that is a folder: locks are real ones, the API is a dictionary."""

    def __init__(self, host: str, folder: Path, api: Api_) -> None:
        self.host, self.alive, self.stop, self.api = host, True, threading.Event(), api
        self.folder, self.channels = folder / host, list[Channel]()

    def open(self, script: str, *arguments: object, **_: object) -> Channel:
        if not self.alive:
            raise HostUnreachable(self.host, "gone")
        words = shlex.split(shell.open_command(script.replace(WORK, "x"), *arguments))
        own = [str(self.folder) if word == WORK else word for word in words[words.index("/bin/sh", 1) :]]
        process = subprocess.Popen(own, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.channels.append(Channel(process))
        return self.channels[-1]

    def run(self, script: str, **_: object) -> CommandResult:
        return CommandResult(self.api.answer(script), "", 0, 0.0)

    def read(self) -> Work:
        """What a run reads of the lock here."""
        text = f". {Path(shell.__file__).parents[1]}/records.sh; . {Path(shell.__file__).parents[1]}/facts/files.sh"
        done = subprocess.run(
            ["sh", "-c", f"{text}; fact_work {self.folder}"], capture_output=True, text=True, check=True
        )
        if not done.stdout:
            return Work()
        _, held, number, known = done.stdout.rstrip("\n").split("\t")
        said = base64.b64decode(known).decode() if held == "yes" and known != "-" else ""
        return Work(held == "yes", int(number), work.owner(said))


class Api_:
    """The API: one Lease, with its resourceVersion."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.down, self.calls, self.version = False, list[str](), 0

    def answer(self, script: str) -> str:
        words = shlex.split(script.strip().splitlines()[-2])
        self.calls.append(words[2] if words[0] == "lease_write" else "get")
        code, said = self._answer(words)
        word = base64.b64encode(said.encode()).decode()
        return f"@lease\t{'ok' if code == 0 else 'failed'}\t{word}\t{time.time()}\n@end\n"

    def _answer(self, words: list[str]) -> tuple[int, str]:
        if self.down:
            return 1, "The connection to the server 127.0.0.1:6443 was refused"
        if words[0] == "lease_read":
            if self.lease is None:
                return 1, 'Error from server (NotFound): leases.coordination.k8s.io "nornir-k3s" not found'
            return 0, json.dumps(self.lease)
        data = json.loads(base64.b64decode(words[4]).decode().replace("@NOW@", datetime.now(UTC).isoformat()))
        if words[2] == "create" and self.lease is not None:
            return 1, 'Error from server (AlreadyExists): leases.coordination.k8s.io "nornir-k3s" already exists'
        if words[2] == "replace" and (
            self.lease is None or data["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]
        ):
            return 1, "Error from server (Conflict): Operation cannot be fulfilled: the object has been modified"
        self.put(data)
        return 0, json.dumps(self.lease)

    def put(self, data: dict[str, Any]) -> None:
        self.version += 1
        self.lease = data | {"metadata": data["metadata"] | {"resourceVersion": str(self.version)}}

    def held_by(self, owner: Owner, *, age: float = 0, hosts: str = "", lasts: int = 30) -> None:
        renewed = (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
        spec = {"holderIdentity": owner.id, "renewTime": renewed, "leaseDurationSeconds": lasts}
        notes = {"nornir-k3s/owner": owner.text, "nornir-k3s/hosts": hosts}
        self.put({"metadata": {"name": "nornir-k3s", "annotations": notes}, "spec": spec})


class Controller:
    """A controller: its own process, as far as the lock can see, and its own run."""

    def __init__(self, cluster: Cluster, folder: Path, api: Api_, who: Owner, *hosts: str) -> None:
        self.ready: list[str] = []
        self.sessions = {name: Session(name, folder, api) for name in hosts}
        store = SimpleNamespace(folder=folder / f"state-{who.user}" / "lab")
        self.run = cast(
            Run,
            SimpleNamespace(
                cluster=cluster, sessions=self.sessions, facts={}, store=store, lock=None,
                member=cluster.member, nr=SimpleNamespace(runner=SimpleNamespace()),
            ),
        )  # fmt: skip
        self.lock = ClusterLock("deploy", store.folder)
        self.lock.owner = who
        self.lock._lease = phase.ClusterLease(who)
        self.read()

    def read(self) -> None:
        for name, session in self.sessions.items():
            self.run.facts[name] = HostFacts(name, work=session.read(), api=Api(ready=name in self.ready))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "PATIENCE", 0.1)


@pytest.fixture
def api() -> Api_:
    return Api_()


@pytest.fixture
def controller(tmp_path: Path, load: Load, api: Api_) -> Iterator[Callable[..., Controller]]:
    made: list[Controller] = []
    cluster = load()

    def make(who: Owner = ANN, *hosts: str) -> Controller:
        made.append(Controller(cluster, tmp_path, api, who, *(hosts or ("lb1", "s2", "s1"))))
        return made[-1]

    yield make
    for one in made:
        one.lock.release()
        for session in one.sessions.values():
            for channel in session.channels:
                channel.close()


def test_the_first_run_works_and_the_second_one_is_told_who(controller: Callable[..., Controller]) -> None:
    ann, bob = controller(), controller(BOB)
    assert ann.lock.take(ann.run)
    with pytest.raises(Busy, match="ann@ci-7 deploys since 2025-11-25 12:00:00 UTC") as raised:
        bob.lock.take(bob.run)
    assert "within 30 seconds" in raised.value.hint
    assert {name: one.read() for name, one in bob.sessions.items()} == dict.fromkeys(
        ("lb1", "s2", "s1"), Work(True, 1, ANN)
    )
    assert at_work.owners({"s1": HostFacts("s1", work=bob.sessions["s1"].read())}) == [str(ANN)]
    ann.lock.release()
    assert bob.sessions["s1"].read() == Work(False, 2, None)


def test_what_was_read_before_another_run_changed_something_is_out_of_date(
    controller: Callable[..., Controller],
) -> None:
    ann, bob = controller(), controller(BOB)
    ann.lock.take(ann.run)
    bob.read()  # while ann is at work
    ann.lock.release()
    assert not bob.lock.take(bob.run)
    bob.lock.release()
    with pytest.raises(Busy, match="another run has changed the cluster since this one has read it"):
        bob.lock.require(bob.run)
    bob.lock.owner = replace(BOB, command="tasks")  # they share what they have read
    with pytest.raises(Busy) as raised:
        bob.lock.require(bob.run)
    assert raised.value.hint == "run k3s_facts on all hosts, then it again"
    bob.read()
    bob.lock.require(bob.run)
    bob.lock.require(bob.run)


def test_a_run_that_changed_the_hosts_itself_need_not_read_them_again(controller: Callable[..., Controller]) -> None:
    ann = controller()
    ann.lock.require(ann.run)
    ann.lock.release()
    ann.lock.require(ann.run)


def test_a_refused_run_makes_nothing_out_of_date(controller: Callable[..., Controller]) -> None:
    ann, bob, third = controller(), controller(BOB), controller(replace(BOB, id="third"))
    ann.lock.take(ann.run)
    with pytest.raises(Busy):
        bob.lock.take(bob.run)
    ann.lock.release()
    numbers = {session.read().number for session in ann.sessions.values()}
    assert numbers == {2}
    third.read()
    assert third.lock.take(third.run)


def test_the_lock_ends_with_its_owner(controller: Callable[..., Controller]) -> None:
    ann, bob = controller(), controller(BOB)
    ann.lock.take(ann.run)
    for session in ann.sessions.values():  # kill -9: the kernel closes the connections
        assert session.channels[0].process.stdin
        session.channels[0].process.stdin.close()
    for session in ann.sessions.values():
        session.channels[0].process.wait(10)
    bob.read()
    assert bob.lock.take(bob.run)


def test_an_owner_that_does_not_beat_loses_it(
    controller: Callable[..., Controller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "LASTS", 0.3)
    monkeypatch.setattr(cluster_lock, "BEAT", 3600)
    ann, bob = controller(), controller(BOB)
    ann.lock.take(ann.run)
    for session in ann.sessions.values():
        session.channels[0].process.wait(10)
    monkeypatch.setattr(holds, "LASTS", 30)
    bob.read()
    assert bob.lock.take(bob.run)
    with pytest.raises(Busy, match=r"this run has lost its lock on \w+: bob@desk makes a backup"):
        ann.lock.require(ann.run)


def test_beats_keep_it(controller: Callable[..., Controller], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "LASTS", 0.6)
    monkeypatch.setattr(cluster_lock, "BEAT", 0.05)
    ann = controller()
    ann.lock.take(ann.run)
    begin = holds.now()
    while holds.now() - begin < 0.9:
        assert all(one.read().held for one in ann.sessions.values())
    ann.lock.require(ann.run)


def test_a_connection_that_was_lost_and_is_back_takes_the_lock_again(controller: Callable[..., Controller]) -> None:
    ann, bob = controller(), controller(BOB)
    ann.lock.take(ann.run)
    session = ann.sessions["s2"]
    session.channels[0].close()
    assert not session.read().held
    session.alive = False
    ann.lock.require(ann.run)  # the host is down: the others hold
    session.alive = True
    ann.lock.require(ann.run)
    assert session.read() == Work(True, 3, ANN)
    with pytest.raises(Busy, match="ann@ci-7"):
        bob.lock.take(bob.run)
    ann.lock.require(ann.run)


def test_a_host_that_is_reached_later_is_locked_too(controller: Callable[..., Controller], tmp_path: Path) -> None:
    ann, bob = controller(ANN, "s1"), controller(BOB, "s2")
    ann.lock.take(ann.run)
    ann.sessions["a1"] = Session("a1", tmp_path, ann.sessions["s1"].api)
    ann.lock.require(ann.run)
    assert ann.sessions["a1"].read().owner == ANN
    assert bob.lock.take(bob.run)
    ann.sessions["s2"] = Session("s2", tmp_path, ann.sessions["s1"].api)
    with pytest.raises(Busy, match="bob@desk"):
        ann.lock.require(ann.run)


def test_a_host_that_is_down_stops_nobody_and_one_that_cannot_hold_it_does(
    controller: Callable[..., Controller], tmp_path: Path
) -> None:
    ann = controller()
    ann.sessions["lb1"].open = _unreachable  # type: ignore[method-assign]  # it dies just now
    assert ann.lock.take(ann.run)
    ann.lock.release()
    bob = controller(BOB, "a1")
    (tmp_path / "a1").touch()
    with pytest.raises(CommandFailed, match="a1: taking the lock"):
        bob.lock.take(bob.run)


def test_a_host_that_dies_before_the_first_change_is_told(
    controller: Callable[..., Controller], monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = controller(ANN, "s1")
    monkeypatch.setattr(holds.Hold, "begin", lambda hold: hold.close())
    with pytest.raises(OutcomeUnknown, match="s1: it has lost the lock of the cluster before the first change"):
        ann.lock.take(ann.run)
    assert not ann.sessions["s1"].read().held


def test_a_slow_host_costs_no_other_one_its_lock(
    controller: Callable[..., Controller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "LASTS", 0.5)
    monkeypatch.setattr(cluster_lock, "BEAT", 0.05)
    ann, take = controller(ANN, "s1", "s2"), holds.Hold.take

    def slow(hold: holds.Hold) -> holds.Taken:
        if hold.session.host == "s2":
            time.sleep(0.8)  # what the test is about
        return take(hold)

    monkeypatch.setattr(holds.Hold, "take", slow)
    assert ann.lock.take(ann.run)
    assert ann.sessions["s1"].read() == Work(True, 1, ANN)


def _unreachable(*_: object, **__: object) -> Channel:
    raise HostUnreachable("lb1", "gone")


def test_a_host_that_does_not_answer_is_told(
    controller: Callable[..., Controller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "ANSWER", 0.1)
    ann = controller(ANN, "s1")
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    silent = Channel(process)
    ann.sessions["s1"].open = lambda *_, **__: silent  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknown, match="did not end in time"):
        ann.lock.take(ann.run)


def test_of_many_that_begin_together_one_works(controller: Callable[..., Controller]) -> None:
    every = [controller(replace(BOB, id=f"run {number}", user=f"u{number}")) for number in range(4)]
    outcomes: list[str] = []

    def begin(one: Controller) -> None:
        try:
            one.lock.take(one.run)
            outcomes.append("works")
        except Busy:
            outcomes.append("busy")

    threads = [threading.Thread(target=begin, args=(one,)) for one in every]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["busy", "busy", "busy", "works"]


# The Lease.


def with_api(one: Controller) -> Controller:
    one.ready = sorted(name for name in one.sessions if name.startswith("s"))[:1]
    one.read()
    return one


def test_the_lease_names_the_owner_and_is_let_go(controller: Callable[..., Controller], api: Api_) -> None:
    ann = with_api(controller())
    ann.lock.take(ann.run)
    assert api.lease
    found = Lease(api.lease, time.time())
    assert (found.holder, found.owner) == (ANN.id, ANN)
    assert set(found.hosts) == {"s1", "s2"}
    assert found.age < 10
    assert found.lasts == 30
    assert at_work.owners({"s1": HostFacts("s1", lease=found)}) == [str(ANN)]
    assert not at_work.owners({"s1": HostFacts("s1", lease=replace(found, now=found.now + 60))})
    ann.lock.release()
    assert Lease(api.lease, 0).owner is None
    ann.lock.take(ann.run)
    assert api.lease["spec"]["leaseTransitions"] == 1
    assert api.calls == ["get", "create", "replace", "get", "replace"]


def test_the_lease_of_an_owner_without_a_lock_on_hosts_is_respected_while_it_is_renewed(
    controller: Callable[..., Controller], api: Api_, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phase, "_POLL", 0.01)
    ann = with_api(controller())
    api.held_by(BOB, hosts="s3")
    ask = api.answer

    def renewing(script: str) -> str:
        api.held_by(BOB, hosts="s3")
        return ask(script)

    monkeypatch.setattr(api, "answer", renewing)
    with pytest.raises(Busy, match="bob@desk makes a backup"):
        ann.lock.take(ann.run)
    assert not ann.sessions["s1"].read().held


@pytest.mark.parametrize(
    "lease",
    [(0, "s1", 30), (301, "s9", 30), (0, "s9", 0.05)],
    ids=["its locks are ours", "older than a clock is wrong", "it has run out while we looked"],
)
def test_the_lease_of_a_dead_owner_is_taken_over(
    controller: Callable[..., Controller],
    api: Api_,
    monkeypatch: pytest.MonkeyPatch,
    lease: tuple[float, str, int],
) -> None:
    (age, hosts, lasts) = lease
    monkeypatch.setattr(phase, "_POLL", 0.01)
    ann = with_api(controller())
    api.held_by(BOB, age=age, hosts=hosts, lasts=lasts)
    ann.lock.take(ann.run)
    assert api.lease
    assert api.lease["spec"]["holderIdentity"] == ANN.id


def test_a_lease_that_lasts_long_is_believed(controller: Callable[..., Controller], api: Api_) -> None:
    ann = with_api(controller())
    api.held_by(replace(BOB, command="deploy"), lasts=3600)
    with pytest.raises(Busy, match="bob@desk deploys"):
        ann.lock.take(ann.run)


def test_of_two_that_reach_no_common_host_the_first_one_works(
    controller: Callable[..., Controller], api: Api_, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phase, "_POLL", 0.01)
    ann, bob = with_api(controller(ANN, "s1")), with_api(controller(BOB, "s2"))
    ann.lock.take(ann.run)
    ask, count = api.answer, 0

    def renewing(script: str) -> str:
        nonlocal count
        count += 1
        if count > 1:
            api.held_by(ANN, hosts="s1")
        return ask(script)

    monkeypatch.setattr(api, "answer", renewing)
    with pytest.raises(Busy, match="ann@ci-7"):
        bob.lock.take(bob.run)


def test_a_lease_that_another_run_has_and_renews_ends_this_one(
    controller: Callable[..., Controller], api: Api_, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_lock, "BEAT", 3600)
    ann = with_api(controller())
    ann.lock.take(ann.run)
    for age in (5, 4):
        api.held_by(BOB, age=age, hosts="s9")
        ann.lock._renew()
    with pytest.raises(Busy, match="lost the Lease of the cluster: bob@desk"):
        ann.lock.require(ann.run)


def test_a_lease_that_came_back_with_old_data_is_taken_again(controller: Callable[..., Controller], api: Api_) -> None:
    ann = with_api(controller())
    ann.lock.take(ann.run)
    api.held_by(BOB, hosts="s1,s2")
    ann.lock._renew()
    ann.lock.require(ann.run)
    assert api.lease
    assert api.lease["spec"]["holderIdentity"] == ANN.id
    api.lease = None
    ann.lock._renew()
    ann.lock._renew()
    assert api.lease


def test_without_the_api_the_locks_on_hosts_count(controller: Callable[..., Controller], api: Api_) -> None:
    ann, bob = with_api(controller()), with_api(controller(BOB))
    api.down = True
    ann.lock.take(ann.run)
    with pytest.raises(Busy):
        bob.lock.take(bob.run)
    api.down = False
    ann.lock._renew()
    assert api.lease
    api.down = True
    ann.lock._renew()
    ann.lock.release()


def test_a_run_that_was_suspended_for_long_asks_for_its_lease_before_it_goes_on(
    controller: Callable[..., Controller], api: Api_, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_lock, "BEAT", 3600)
    ann = with_api(controller())
    ann.lock.take(ann.run)
    calls, clock = len(api.calls), holds.now
    monkeypatch.setattr(cluster_lock, "now", lambda: clock() + 60)
    ann.lock.require(ann.run)
    assert api.calls[calls:] == ["replace"]


def test_the_keeper_renews(controller: Callable[..., Controller], api: Api_, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_lock, "BEAT", 0.02)
    monkeypatch.setattr(cluster_lock, "RENEW", 0.05)
    ann = with_api(controller())
    ann.lock.take(ann.run)
    begin = time.monotonic()
    while api.calls.count("replace") < 2:
        assert time.monotonic() - begin < 10


def test_what_the_api_says_is_understood() -> None:
    def said(how: str, text: str) -> str:
        return f"@lease\t{how}\t{base64.b64encode(text.encode()).decode()}\t5\n@end\n"

    assert leases.parse(said("failed", "Error from server (Conflict): x")).reason == "Conflict"
    assert leases.parse(said("failed", "error: unknown")) == leases.Answer(None)
    assert leases.parse(said("ok", 'Warning: x\n{"kind": "Lease"}')).lease == Lease({"kind": "Lease"}, 5.0)
    with pytest.raises(RecordError):
        leases.parse(said("ok", "no JSON"))
    odd = Lease({"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": "x"}}, 5)
    assert (odd.age, odd.lasts) == (float("inf"), 30)
    assert odd.owner
    assert str(odd.owner) == "somebody@an unknown host works since 1970-01-01 00:00:00 UTC"
    assert Lease({"spec": 1, "metadata": {"annotations": 1}}, 5).hosts == frozenset()


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", ANN.text.replace("1764072000.0", "1e99")])
def test_what_names_nobody_is_nobody(text: str) -> None:
    assert work.owner(text) is None


def test_an_owner_of_today_is_told_with_the_time() -> None:
    today = replace(ANN, since=datetime.now(UTC).timestamp(), command="tasks")
    assert str(today).startswith("ann@ci-7 runs Nornir tasks that change hosts since ")
    assert work.owner(today.text) == today
    assert work.owner(replace(today, user="a\x1b[31mb").text) == replace(today, user="a[31mb")


# The scope of a run.


def test_a_run_that_is_part_of_another_shares_its_lock(controller: Callable[..., Controller]) -> None:
    ann = controller()
    inner = cast(Run, SimpleNamespace(**vars(ann.run)))
    with changing(ann.run, "rotate") as outer:
        with changing(inner, "deploy") as lock:
            assert lock is outer is inner.lock
        assert lock.owner.command == "rotate"
        caught: list[BaseException] = []

        def other_thread() -> None:
            try:
                with changing(inner, "deploy"):
                    pass
            except Busy as error:
                caught.append(error)

        thread = threading.Thread(target=other_thread)
        thread.start()
        thread.join()
        assert f"another deploy of lab is in progress: {lock.owner}" in str(caught[0])
    assert ann.run.lock is None


def test_tasks_on_many_hosts_share_one_lock(controller: Callable[..., Controller]) -> None:
    ann, together = controller(), Together()
    with together.changing(ann.run) as first:
        with together.changing(ann.run) as second:
            second.require(ann.run)
        assert first is second is ann.run.lock
        assert ann.sessions["s1"].read().held
    assert ann.run.lock is None
    assert not ann.sessions["s1"].read().held
    with together.changing(ann.run) as third:
        assert third is not first
        third.require(ann.run)


def test_the_thread_that_ends_last_lets_the_lock_go(controller: Callable[..., Controller]) -> None:
    ann, together = controller(), Together()
    began, end = threading.Event(), threading.Event()

    def work() -> None:
        with together.changing(ann.run):
            began.set()
            end.wait(20)

    thread = threading.Thread(target=work)
    with together.changing(ann.run):
        thread.start()
        began.wait(20)
    end.set()
    thread.join()
    with changing(ann.run, "deploy"):
        pass


def test_hosts_that_other_threads_reach_or_leave_out_meanwhile_harm_nothing(
    controller: Callable[..., Controller],
) -> None:
    ann = controller()

    class Reached(SimpleNamespace):
        @property
        def alive(self) -> bool:
            ann.sessions["a1"] = ann.sessions["s1"]
            return False

    class Facts(dict[str, HostFacts]):
        def __contains__(self, name: object) -> bool:
            return self.pop(str(name), None) is not None

    ann.sessions["a2"] = cast(Session, Reached(channels=()))
    ann.run.facts = Facts(ann.run.facts)
    assert ann.lock.take(ann.run)


def test_neither_an_api_that_hangs_nor_a_slow_host_costs_another_one_its_lock(
    controller: Callable[..., Controller], api: Api_, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "LASTS", 0.6)
    monkeypatch.setattr(cluster_lock, "BEAT", 0.05)
    monkeypatch.setattr(cluster_lock, "RENEW", 0.05)
    ann, take, answers = with_api(controller()), holds.Hold.take, threading.Event()
    ann.lock.take(ann.run)
    monkeypatch.setattr(ann.lock._lease, "renew", lambda *_: answers.wait(20) and None)
    begin = holds.now()
    while holds.now() - begin < 0.9:
        assert all(one.read() == Work(True, 1, ANN) for one in ann.sessions.values())

    def slow(hold: holds.Hold) -> holds.Taken:
        time.sleep(0.8)  # what the test is about
        return take(hold)

    monkeypatch.setattr(holds.Hold, "take", slow)
    ann.sessions["s2"].channels[0].close()
    ann.lock.require(ann.run)
    answers.set()
    assert ann.sessions["s2"].read() == Work(True, 3, ANN)
    assert ann.sessions["s1"].read() == Work(True, 1, ANN)


def test_a_run_that_has_lost_its_lock_takes_nothing_from_one_that_is_about_to_begin(
    controller: Callable[..., Controller], api: Api_, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_lock, "BEAT", 3600)
    ann, bob = with_api(controller()), controller(BOB)
    ann.lock.take(ann.run)
    for session in ann.sessions.values():
        session.channels[0].close()
    api.held_by(BOB, hosts="s1,s2")
    ann.lock._renew()
    assert api.lease
    assert api.lease["spec"]["holderIdentity"] == BOB.id
    other = holds.Hold(cast(Any, bob.sessions["s1"]), BOB)
    assert not other.take().busy
    with pytest.raises(Busy, match="bob@desk makes a backup"):
        ann.lock.require(ann.run)
    other.close()


@pytest.mark.parametrize(("login", "error"), [("printf hello", ""), ("flock() { return 127; }", "taking the lock")])
def test_output_of_a_login_is_left_out_and_a_host_that_cannot_lock_is_no_busy_one(
    controller: Callable[..., Controller], monkeypatch: pytest.MonkeyPatch, login: str, error: str
) -> None:
    ann = controller(ANN, "s1")
    monkeypatch.setattr("nornir_k3s.shell.source", lambda name: f"{login}\n{source(name)}")
    if error:
        with pytest.raises(CommandFailed, match=error):
            ann.lock.take(ann.run)
    else:
        monkeypatch.setattr(holds, "ANSWER", 5)
        assert ann.lock.take(ann.run)


def test_a_renewal_that_comes_late_takes_no_lease_for_a_run_that_has_ended(
    controller: Callable[..., Controller], api: Api_
) -> None:
    ann = with_api(controller())
    ann.lock.take(ann.run)
    ann.lock.release()
    ann.lock._lease.renew(ann.run, frozenset(["s1"]))
    assert api.lease
    assert not api.lease["spec"]["holderIdentity"]
    ann.lock.take(ann.run)
    assert api.lease["spec"]["holderIdentity"] == ANN.id


@pytest.mark.parametrize("text", ["", "x y\n", "-1 -\n"])
def test_a_note_of_the_lock_that_is_damaged_needs_nobody(
    controller: Callable[..., Controller], tmp_path: Path, text: str
) -> None:
    ann = controller(ANN, "s1")
    (tmp_path / "s1").mkdir()
    (tmp_path / "s1" / "owner").write_text(text)
    ann.read()
    assert ann.lock.take(ann.run)
    assert ann.sessions["s1"].read() == Work(True, 1, ANN)
