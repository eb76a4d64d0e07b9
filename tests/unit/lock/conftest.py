"""Controllers and hosts for tests of the lock: real processes on this machine, and an API that is a dictionary."""

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
from nornir_k3s.errors import HostUnreachable
from nornir_k3s.model import work
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import Api
from nornir_k3s.model.paths import WORK
from nornir_k3s.model.work import Owner, Work
from nornir_k3s.phases import lease as phase
from nornir_k3s.phases.cluster_lock import ClusterLock
from nornir_k3s.run.context import Run
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
        self.process.wait(60)
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
        _, held, number, known, epoch = done.stdout.rstrip("\n").split("\t")
        said = base64.b64decode(known).decode() if held == "yes" and known != "-" else ""
        return Work(held == "yes", int(number), work.owner(said), epoch)


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


def with_api(one: Controller) -> Controller:
    one.ready = sorted(name for name in one.sessions if name.startswith("s"))[:1]
    one.read()
    return one
