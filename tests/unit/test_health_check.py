"""The certificate of the load balancers' health check, when it has expired, or soon will."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nornir_k3s.compare import certificate_expiry
from nornir_k3s.errors import UsageError
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.drift_report import CertificateExpiry
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import CertificateFile
from nornir_k3s.model.step import Step
from nornir_k3s.phases import check_certificate, drain, servers, window
from nornir_k3s.roles import haproxy
from nornir_k3s.state import check_certificate as state
from nornir_k3s.state.store import Store

from .test_certificate import CA, signed

Load = Callable[..., Cluster]


@dataclass
class Deploy:
    """A run whose hosts only note what was done on them."""

    cluster: Cluster
    store: Store
    ends: dict[str, float]
    limit: Sequence[str] = ("s1", "s2", "lb1", "lb2")
    done: list[str] = field(default_factory=list)
    ready_servers: Sequence[str] = ("s1", "s2")
    ca_prefix: str = CA
    new_ca: str = ""
    trusts: Sequence[str] = ()
    deadlines: dict[str, int] = field(default_factory=lambda: {"apply": 1})
    away: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.facts = {name: HostFacts(name) for name in ("s1", "s2")}
        for name, ends in self.ends.items():
            files = [CertificateFile("/other.pem", datetime.fromtimestamp(0, UTC), authority=False)]
            files.append(CertificateFile(haproxy.CHECK_CERT, datetime.fromtimestamp(ends, UTC), authority=False))
            self.facts[name] = HostFacts(name, certificates=tuple(files))

    def of(self, role: str) -> Sequence[Any]:
        return self.cluster.of(role)

    def chosen(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name in self.limit]

    def check_certificate(self) -> Any:
        return state.load(self.store, self.ca_prefix)

    def planned(self, name: str) -> Any:
        targets = (haproxy.SERVER_CA, haproxy.CHECK_CERT, haproxy.CONFIG, "haproxy.service", "keepalived.service")
        steps = tuple(Step("file", target, target) for target in targets[name in self.trusts :])
        return SimpleNamespace(by_role={"lb": steps, "servers": steps}, starts_k3s=name in ("s1", "s2"))

    def phase(self, title: str, names: Sequence[str], task: Any, **_: Any) -> dict[str, Any]:
        for name in names:
            self.done.append(f"{title} {name}")
            if title == "check certificate":
                task(SimpleNamespace(host=SimpleNamespace(name=name)), self)
        return {}


@pytest.fixture(autouse=True)
def _hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(script: str, **_: Any) -> Any:
        (csr,) = (base64.b64decode(w) for w in script.replace('"', " ").split() if w.startswith("LS0t"))
        pem = base64.b64encode(signed(csr.decode(), 365).encode()).decode()
        return SimpleNamespace(stdout=f"@certificate\t{pem}\n@end\n")

    def applied(task: Any, run: Any, steps: Sequence[Step], **_: Any) -> str:
        run.done.append(f"{task.host.name}: {' '.join(step.target for step in steps)}")
        return "applied"

    monkeypatch.setattr(check_certificate, "session_of", lambda *_: SimpleNamespace(run=answer))
    monkeypatch.setattr(check_certificate, "apply_steps", applied)
    monkeypatch.setattr(check_certificate, "gather_host", lambda task, run: run.done.append(f"read {task.host.name}"))


@pytest.fixture
def deploy(load: Load, tmp_path: Path) -> Callable[..., Any]:
    def of(lb1: float, lb2: float, **more: Any) -> Any:
        now = time.time()
        return Deploy(load(), Store(tmp_path / "state", base=tmp_path), {"lb1": now + lb1, "lb2": now + lb2}, **more)

    return of


def test_one_that_has_expired_is_renewed_before_a_server_restarts(deploy: Callable[..., Any]) -> None:
    run = deploy(-5, 500)
    check_certificate.renew_ended(run)
    files = f"{haproxy.SERVER_CA} {haproxy.CHECK_CERT} haproxy.service"
    assert run.done == ["check certificate s1", "check certificate lb1", f"lb1: {files}", "read lb1"]
    assert state.load(run.store, CA)
    run.done.clear()
    check_certificate.renew_ended(run)  # the controller has one; the host did not get it
    assert run.done == ["check certificate lb1", f"lb1: {files}", "read lb1"]


def test_nothing_is_renewed_early_that_has_not_expired(deploy: Callable[..., Any]) -> None:
    run = deploy(5, 500)
    check_certificate.renew_ended(run)
    assert not run.done


def test_a_load_balancer_trusts_a_new_ca_before_a_server_restarts_with_it(deploy: Callable[..., Any]) -> None:
    run = deploy(500, 500, new_ca="PEM", trusts=["lb2"])
    check_certificate.renew_ended(run)
    assert [one for one in run.done if one.startswith("check certificate")] == ["check certificate lb1"]


def test_one_trusts_a_new_ca_also_where_that_of_another_has_expired(deploy: Callable[..., Any]) -> None:
    run = deploy(500, -5, new_ca="PEM", trusts=["lb2"])
    check_certificate.renew_ended(run)
    renewed = [one for one in run.done if one.startswith("check certificate lb")]
    assert renewed == ["check certificate lb2", "check certificate lb1"]


def test_a_run_of_other_hosts_is_refused(deploy: Callable[..., Any]) -> None:
    run = deploy(-5, -5, limit=("s1", "lb2"))
    with pytest.raises(UsageError, match=r"has expired on lb1.*\n.*add lb1 to --limit"):
        check_certificate.renew_ended(run)
    assert not run.done


def test_servers_restart_after_that(deploy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run = deploy(-5, -5)
    monkeypatch.setattr(servers, "_runs", lambda *_: True)
    monkeypatch.setattr(drain, "wanted", lambda *_: False)
    monkeypatch.setattr(drain, "put_back", lambda *_: None)
    monkeypatch.setattr(window, "require_open", lambda *_: None)
    run.done = Done()
    servers.converge_others(run)
    titles = [one for one in run.done if one.startswith(("check certificate", "servers"))]
    assert titles == [
        "check certificate s1",
        "check certificate lb1",
        "check certificate lb2",
        "servers s1",
        "servers s2",
    ]


class Done(list[str]):
    """What was done; no server is done yet."""

    def __contains__(self, _: object) -> bool:
        return False


@pytest.mark.parametrize(("days", "severity"), [(29, "error"), (31, ""), (-3, "error")])
@pytest.mark.parametrize("path", [haproxy.CHECK_CERT, "/etc/mysql/nornir-k3s-cert.pem"])
def test_what_every_deploy_renews_is_an_error_a_month_before_its_end(
    load: Load, path: str, days: int, severity: str
) -> None:
    host = "lb1" if path == haproxy.CHECK_CERT else "db1"
    one = CertificateExpiry(
        host=host, path=path, ends=datetime.now(UTC) + timedelta(days=days, hours=1), authority=False
    )
    found = list(certificate_expiry.differences(load(), [one], days=30))
    assert [one.severity for one in found] == ([severity] if severity else [])


def test_a_load_balancer_on_a_server_renews_its_own_with_a_datastore_of_others(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSWORD", "geheim")
    datastore = {"kind": "mysql", "hosts": ["db.example.org"], "password": {"env": "PASSWORD"}}
    hosts = {"s1": ("10.0.0.12", "servers"), "s2": ("10.0.0.13", "servers"), "lb1": ("10.0.0.15", "lb")}
    cluster = load({"datastore": datastore}, hosts=hosts)
    ends = datetime.now(UTC) + timedelta(days=20, hours=1)
    check, given = (
        CertificateExpiry(host="s1", path=path, ends=ends, authority=False)
        for path in (haproxy.CHECK_CERT, "/etc/rancher/k3s/datastore-certfile.pem")
    )
    assert certificate_expiry.remedy(cluster, check).startswith("deploy")
    assert "file that the inventory names" in certificate_expiry.remedy(cluster, given)
    (found,) = certificate_expiry.differences(cluster, [given], days=30)
    assert found.severity == "warning"
