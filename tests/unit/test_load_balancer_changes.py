"""Load balancers that serve are changed: in which order, and what keepalived's check says meanwhile."""

from __future__ import annotations

import http.server
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nornir_k3s.errors import CommandFailed
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.host_facts import FileState, HostFacts, Ledger, UnitState
from nornir_k3s.model.machine_facts import VrrpRouter
from nornir_k3s.phases import agents, load_balancers, servers
from nornir_k3s.roles import haproxy, keepalived
from nornir_k3s.roles.timing import CLASSES

Load = Callable[..., Cluster]


@dataclass
class Balancers:
    """A run whose load balancers only note that they were changed."""

    cluster: Cluster
    holder: str
    fails: str = ""
    serve: bool = True
    changed: list[list[str]] = field(default_factory=list)
    store: Any = None
    ca_prefix: str = "K10"
    group: int = 51
    version: str = "vrrp_version 3\n"
    ours: bool = True
    names: Sequence[str] = ("lb1", "lb2")

    def __post_init__(self) -> None:
        unit = UnitState("loaded", "active" if self.serve else "inactive", "running", "enabled", 0, 200, 200)
        text = (
            f"{self.version}vrrp_instance k3s {{\n    virtual_router_id {self.group}\n    unicast_peer {{\n    }}\n}}\n"
        )
        file = FileState("file", 0o644, "root", "root", 1, 100, "other", text=text)
        self.facts = {
            name: HostFacts(
                name,
                units={"haproxy.service": unit},
                files={keepalived.CONFIG: file},
                ledger=Ledger(files=frozenset((haproxy.CONFIG,) if self.ours else ())),
            )
            for name in ("lb1", "lb2", "lb3")
        }

    def of(self, role: str) -> Sequence[Any]:
        return self.cluster.of(role)

    def chosen(self, names: Sequence[str]) -> list[str]:
        return list(names)

    def check_certificate(self) -> str:
        return "PEM"

    def planned(self, name: str) -> Any:
        return SimpleNamespace(by_role={"lb": ("a step",)}, facts=self.facts[name])

    def phase(self, title: str, names: Sequence[str], task: Any, **_: Any) -> dict[str, Any]:  # noqa: ARG002 - as Run's
        if task is load_balancers._has_vip:
            return {name: name == self.holder for name in names}
        if names:
            words = {load_balancers._stop: ["stop"], load_balancers._hear: ["hears"]}
            self.changed.append([*words.get(task, []), *names])
        if self.fails in names:
            raise CommandFailed(self.fails, "the script", status=1, stderr="")
        return {}


@pytest.mark.parametrize(("holder", "order"), [("lb1", ["lb2", "lb1"]), ("lb2", ["lb1", "lb2"]), ("", ["lb1", "lb2"])])
def test_the_one_with_the_vip_is_changed_last(load: Load, holder: str, order: list[str]) -> None:
    run: Any = Balancers(load(), holder)
    load_balancers.converge(run)
    assert run.changed == [[name] for name in order]


def test_the_one_with_the_vip_is_not_touched_where_the_other_fails(load: Load) -> None:
    run: Any = Balancers(load(), "lb1", fails="lb2")
    with pytest.raises(CommandFailed):
        load_balancers.converge(run)
    assert run.changed == [["lb2"]]


def test_another_group_of_vrrp_comes_to_the_one_with_the_vip_while_the_others_are_stopped(load: Load) -> None:
    """They would not hear it any more, and take the VIP, too."""
    run: Any = Balancers(load(), "lb1", group=77)
    load_balancers.converge(run)
    assert run.changed == [["stop", "lb2"], ["lb1"], ["hears", "lb2"], ["lb2"]]
    run = Balancers(load(), "", group=77)
    load_balancers.converge(run)
    assert run.changed == [["lb1"], ["lb2"]]


def test_an_older_version_of_vrrp_is_another_group(load: Load) -> None:
    """As keepalived has it where others have configured it."""
    run: Any = Balancers(load(), "lb1", version="")
    load_balancers.converge(run)
    assert run.changed == [["stop", "lb2"], ["lb1"], ["hears", "lb2"], ["lb2"]]


@pytest.mark.parametrize(
    ("ready", "ours", "serve", "first"),
    [(["s1"], False, True, True), (["s1"], True, True, False), ([], False, True, False), (["s1"], False, False, False)],
)
def test_those_of_others_change_before_a_server_restarts(
    load: Load, ready: list[str], ours: bool, serve: bool, first: bool
) -> None:
    run: Any = Balancers(load(), "", ours=ours, serve=serve)
    run.ready_servers = ready
    step = [servers.PHASE, load_balancers.PHASE, agents.PHASE]
    found = load_balancers.in_order(run, step)
    assert found == ([load_balancers.PHASE, servers.PHASE, agents.PHASE] if first else step)


def test_one_that_is_stopped_starts_with_its_change(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    run: Any = Balancers(load(), "lb1")
    run.deadlines = {"apply": 1}
    orders: list[str] = []
    link = SimpleNamespace(run=lambda script, **_: orders.append(script))
    monkeypatch.setattr(load_balancers, "session_of", lambda *_: link)
    task: Any = SimpleNamespace(host=SimpleNamespace(name="lb2"))
    load_balancers._stop(task, run)
    assert "systemctl stop keepalived.service\n" in orders[0]
    assert run.facts["lb2"].unit("keepalived.service").active == "inactive"


def test_the_others_start_when_they_hear_the_holder(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reload of its keepalived may have ended before it has read its new configuration."""
    run: Any = Balancers(load(), "lb1")
    holder = run.cluster.of("lb")[0].address
    said = iter(
        [(), (VrrpRouter(holder, "51", "2"), VrrpRouter("10.0.0.9", "51", "3")), (VrrpRouter(holder, "51", "3"),)]
    )
    monkeypatch.setattr(load_balancers, "read_facts", lambda *_: HostFacts("lb2", vrrp=next(said)))
    monkeypatch.setattr(load_balancers, "session_of", lambda *_: SimpleNamespace(stop=threading.Event()))
    task: Any = SimpleNamespace(host=SimpleNamespace(name="lb2"))
    load_balancers._hear(task, run)
    assert next(said, None) is None
    monkeypatch.setattr(load_balancers, "read_facts", lambda *_: HostFacts("lb2"))
    monkeypatch.setattr(load_balancers, "_HEARD", 0.1)
    load_balancers._hear(task, run)  # they are needed where the holder has failed


def test_new_ones_are_set_up_together(load: Load) -> None:
    run: Any = Balancers(load(), "", serve=False)
    load_balancers.converge(run)
    assert run.changed == [["lb1", "lb2"]]


class Alive(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a HAProxy that answers."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Alive)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def free() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("what", ["alive", "servers"])
@pytest.mark.parametrize("case", ["new answers", "old answers", "both are the same", "none answers"])
def test_keepalived_asks_haproxy_at_its_old_and_its_new_port(
    load: Load, tmp_path: Path, port: int, case: str, what: str
) -> None:
    """HAProxy is reloaded before keepalived, which passes the port to the script: the VIP must not leave meanwhile."""
    written, asked = {
        "new answers": (port, free()),
        "old answers": (free(), port),
        "both are the same": (port, port),
        "none answers": (free(), free()),
    }[case]
    for address in ("127.0.0.1", "0.0.0.0", "10.0.0.15"):  # noqa: S104 - no socket
        cluster = load({"lb": {"stats": {"port": written, "address": address}}})
        config = tmp_path / "haproxy.cfg"
        config.write_text(haproxy.config(cluster, cluster.member("lb1"), CLASSES[0], "/run/haproxy/admin.sock"))
        script = keepalived.track().replace("/etc/haproxy/haproxy.cfg", str(config))
        command = ["bash", "-s", str(asked), *([what] if what != "alive" else [])]
        done = subprocess.run(command, input=script, text=True, check=False, timeout=30)
        assert done.returncode == (case == "none answers"), address
