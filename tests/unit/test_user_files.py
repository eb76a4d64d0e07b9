"""Files of the user's on servers and agents, manifests, and files that K3s settings name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nornir_k3s import k3s
from nornir_k3s.checks import preflight
from nornir_k3s.errors import InventoryError
from nornir_k3s.host_steps import converge
from nornir_k3s.inventory.named_files import named
from nornir_k3s.inventory.user_files import MANIFESTS
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.host_facts import FileState, HostFacts, Ledger, UnitState
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.roles import agent as agent_role
from nornir_k3s.roles import server as server_role
from tests.unit.hosts import changed
from tests.unit.test_preflight import healthy

Load = Callable[..., Cluster]
AUDIT = "/var/lib/rancher/k3s/server/audit.yaml"
RUNNING = UnitState("loaded", "active", "running", "enabled", 0, 200, 200)


@pytest.fixture(autouse=True)
def sources(tmp_path: Path) -> None:
    for name in ("audit.yaml", "cilium.yaml", "traefik.yaml", "own-lb.yaml", "secret"):
        (tmp_path / name).write_text(f"content of {name}\n")
    (tmp_path / "notes.txt").write_text("no manifest")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "cilium.yaml").write_text("another")


def specs(cluster: Cluster) -> tuple[HostSpec, HostSpec]:
    server, agent = cluster.member("s1"), cluster.member("a1")
    return server_role.spec(cluster, server, None), agent_role.spec(cluster, agent, None, "")


def test_a_file_has_its_mode_owner_and_hosts(load: Load) -> None:
    file = {
        "path": AUDIT,
        "source": "audit.yaml",
        "mode": "0640",
        "owner": "root",
        "group": "adm",
        "roles": ["servers"],
    }
    server, agent = specs(load({"files": [file]}))
    (made,) = (one for one in server.files if one.path == AUDIT)
    assert (made.mode, made.owner, made.group, made.unit) == (0o640, "root", "adm", "k3s.service")
    assert made.text.reveal() == "content of audit.yaml\n"
    assert AUDIT not in {one.path for one in agent.files}
    both = specs(load({"files": [{"path": "/etc/own", "source": "audit.yaml", "restart": False}]}))
    found = [one for spec in both for one in spec.files if one.path == "/etc/own"]
    assert [(one.mode, one.owner, one.unit) for one in found] == [(0o600, "root", "")] * 2


def test_a_file_may_be_a_secret_and_is_masked_then(load: Load) -> None:
    cluster = load({"files": [{"path": "/etc/own", "secret": {"file": "secret"}}]})
    (file,) = (one for one in specs(cluster)[1].files if one.path == "/etc/own")
    assert (file.text.reveal(), file.masking) == ("content of secret", "all")
    assert "content of secret" in [secret.reveal() for secret in cluster.secrets()]
    assert "content of secret" not in repr(cluster)


def test_manifests_lie_on_every_server_and_restart_nothing(load: Load) -> None:
    server, agent = specs(load({"manifests": ["cilium.yaml"]}))
    (made,) = (one for one in server.files if one.path == f"{MANIFESTS}/cilium.yaml")
    assert (made.mode, made.owner, made.unit) == (0o600, "root", "")
    assert not [one for one in agent.files if MANIFESTS in one.path]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"files": [{"path": "/etc/own"}]}, "give `source` or `secret`"),
        ({"files": [{"path": "/etc/own", "source": "missing"}]}, "there is no file"),
        ({"files": [{"path": "etc/own", "source": "audit.yaml"}]}, "path"),
        ({"files": [{"path": "/etc/../own", "source": "audit.yaml"}]}, "plain path"),
        ({"files": [{"path": "/etc/own/", "source": "audit.yaml"}]}, "plain path"),
        ({"files": [{"path": "/etc/own", "source": "audit.yaml", "mode": "rw"}]}, "mode"),
        ({"files": [{"path": "/etc/own", "source": "audit.yaml", "mode": 644}]}, "mode"),
        ({"files": [{"path": k3s.CONFIG, "source": "audit.yaml"}]}, "belongs to K3s or to this tool"),
        ({"files": [{"path": f"{k3s.CONFIG}.d/own.yaml", "source": "audit.yaml"}]}, "belongs to K3s or to this tool"),
        ({"files": [{"path": f"{MANIFESTS}/a.yaml", "source": "audit.yaml"}]}, "give it in `manifests`"),
        ({"files": [{"path": "/etc/own", "source": "audit.yaml"}] * 2}, "is given twice for servers"),
        ({"files": [{"path": "/etc/own", "secret": "plain"}]}, "a secret is a reference"),
        ({"manifests": ["missing.yaml"]}, "there is no file"),
        ({"manifests": ["notes.txt"]}, "is not the name of a manifest"),
        ({"manifests": ["traefik.yaml"]}, "K3s writes a manifest traefik.yaml of its own"),
        ({"manifests": ["cilium.yaml", "more/cilium.yaml"]}, "two manifests cilium.yaml"),
    ],
)
def test_what_cannot_be_delivered_is_refused(load: Load, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InventoryError) as caught:
        load(settings)
    assert words in str(caught.value)


def on_host(cluster: Cluster, spec: HostSpec, **ledger: Any) -> HostFacts:
    files = {
        file.path: FileState("file", file.mode, file.owner, file.group, 9, 100, file.sha256, None, 100)
        for file in spec.files
    }
    return HostFacts("s1", files=files, units={"k3s.service": RUNNING}, ledger=Ledger(**ledger))


def test_a_changed_file_restarts_k3s_and_a_changed_manifest_does_not(load: Load) -> None:
    cluster = load({"files": [{"path": AUDIT, "source": "audit.yaml"}], "manifests": ["cilium.yaml"]})
    spec = specs(cluster)[0]
    facts = on_host(cluster, spec)
    assert converge(spec, facts) == []
    for path, steps in (
        (AUDIT, [f"file:{AUDIT}", "unit:k3s.service"]),
        (f"{MANIFESTS}/cilium.yaml", [f"file:{MANIFESTS}/cilium.yaml"]),
    ):
        other = replace(facts.files[path], sha256="0" * 64)
        found = converge(spec, changed(facts, files={**facts.files, path: other}))
        assert [step.id for step in found] == steps
        assert all("content of" not in step.diff for step in found)


def test_what_the_inventory_no_longer_has_is_removed_if_we_wrote_it(load: Load) -> None:
    cluster = load()
    spec = specs(cluster)[0]
    assert converge(spec, on_host(cluster, spec)) == []
    found = converge(spec, on_host(cluster, spec, files=frozenset((AUDIT, k3s.CONFIG))))
    assert [step.id for step in found] == [f"remove:{AUDIT}"]


def test_the_files_that_settings_name() -> None:
    settings = {
        "resolv-conf": "/etc/own-resolv.conf",
        "kube-apiserver-arg": [
            f"audit-policy-file={AUDIT}",
            "audit-log-path=/var/log/audit.log",
            "--admission-control-config-file=/etc/psa.yaml",
            "authentication-config=/etc/authn.yaml",
            "encryption-provider-config=/etc/enc.yaml",
            f"client-ca-file={k3s.DATA}/server/tls/client-ca.crt",
            "tls-sni-cert-key=/etc/a.crt,/etc/a.key:api.example.org",
            "oidc-ca-file=relative.pem",
        ],
        "kubelet-arg": ["config=/etc/kubelet.yaml", "log-file=/var/log/kubelet.log", "max-pods=9"],
        "kube-scheduler-arg": "config=/etc/scheduler.yaml",
        "token": "/not/a/path",
    }
    assert named(settings) == {
        "/etc/own-resolv.conf": "resolv-conf",
        AUDIT: "kube-apiserver-arg audit-policy-file",
        "/etc/psa.yaml": "kube-apiserver-arg admission-control-config-file",
        "/etc/authn.yaml": "kube-apiserver-arg authentication-config",
        "/etc/enc.yaml": "kube-apiserver-arg encryption-provider-config",
        "/etc/a.crt": "kube-apiserver-arg tls-sni-cert-key",
        "/etc/a.key": "kube-apiserver-arg tls-sni-cert-key",
        "/etc/kubelet.yaml": "kubelet-arg config",
        "/etc/scheduler.yaml": "kube-scheduler-arg config",
    }


def test_a_registries_file_that_is_delivered_is_not_missing(load: Load) -> None:
    own = {"server": {"private-registry": "/etc/rancher/k3s/registries.yaml"}}
    cluster = load(own)
    found = [one.host for one in preflight.check(cluster, healthy(cluster)) if one.subject == "named-file"]
    assert found == ["s1", "s2"]
    cluster = load(own | {"registries": "audit.yaml"})
    assert not [one for one in preflight.check(cluster, healthy(cluster)) if one.subject == "named-file"]


@pytest.mark.parametrize("there", ["nowhere", "on the host", "delivered"])
def test_a_file_that_a_setting_names_is_looked_for(load: Load, there: str) -> None:
    file = {"path": AUDIT, "source": "audit.yaml", "roles": ["servers"]}
    cluster = load(
        {
            "server": {"kube-apiserver-arg": [f"audit-policy-file={AUDIT}"]},
            "files": [file] if there == "delivered" else [],
        }
    )
    seen = healthy(cluster)
    if there == "on the host":
        seen = {name: changed(facts, present=frozenset([AUDIT])) for name, facts in seen.items()}
    found = [one for one in preflight.check(cluster, seen) if one.subject == "named-file"]
    assert {one.host for one in found} == ({"s1", "s2"} if there == "nowhere" else set())
    assert AUDIT in specs(cluster)[0].watch
    for one in found:
        assert one.severity == "error"
        assert f"kube-apiserver-arg audit-policy-file names {AUDIT}, which is not there" in one.found
