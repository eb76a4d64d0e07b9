"""The lock of a run on a host, at the end of a real SSH connection."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nornir_k3s.apply import hold as holds
from nornir_k3s.apply.hold import Hold
from nornir_k3s.errors import HostUnreachable, Interrupted
from nornir_k3s.model.work import Owner
from nornir_k3s.ssh.session import Session

from .conftest import Peer, eventually

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="scripts run as root: without sudo only root can try it")
ANN = Owner("ann@ci-7/1", "ann", "ci-7", "deploy", 1.0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(holds, "WORK", str(tmp_path / "lock"))
    monkeypatch.setattr(holds, "PATIENCE", 0.1)
    return tmp_path / "lock"


def free(folder: Path) -> bool:
    return subprocess.run(["flock", "-n", str(folder / "lock"), "true"], check=False).returncode == 0


def held(session: Session) -> Hold:
    hold = Hold(session, ANN)
    assert not hold.take().busy
    hold.begin()
    assert hold.confirmed(20)
    assert hold.begun
    return hold


def test_it_is_held_beside_scripts_and_answers_beats(peer: Peer, folder: Path) -> None:
    def work(session: Session) -> None:
        hold = held(session)
        assert session.run("echo done", what="x", timeout=20).stdout == "done\n"
        assert hold.confirmed(10)
        assert hold.fresh(10)
        other = Hold(session, ANN).take()
        assert (other.busy, other.number, other.owner) == (True, 1, ANN.text)
        assert not free(folder)
        hold.close()

    peer.do(work)
    eventually(lambda: free(folder))


def test_it_ends_with_the_connection(peer: Peer, folder: Path) -> None:
    def work(session: Session) -> Hold:
        hold = held(session)
        session.close()
        return hold

    hold = peer.do(work)
    eventually(lambda: free(folder))
    eventually(lambda: (folder / "owner").read_text() == "2 -\n")
    assert not hold.alive
    assert not hold.confirmed(1)
    with pytest.raises(HostUnreachable):
        hold.take()


def test_a_run_that_is_stopped_does_not_wait_for_it(peer: Peer, folder: Path) -> None:
    def work(session: Session) -> None:
        session.stop.set()
        with pytest.raises(Interrupted):
            Hold(session, ANN).take()

    peer.do(work)
    eventually(lambda: not folder.exists() or free(folder))


def test_a_password_is_no_beat(connect: Callable[..., Peer], folder: Path) -> None:
    def work(session: Session) -> Any:
        hold = held(session)
        assert hold.confirmed(10)
        hold.close()

    connect(secret="not needed by root").do(work)
    eventually(lambda: free(folder))
