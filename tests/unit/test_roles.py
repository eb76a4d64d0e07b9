"""What a host of each group must look like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nornir_k3s import k3s
from nornir_k3s.model.bundle import Bundle
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.host_spec import Artifact, HostSpec
from nornir_k3s.roles import agent as agent_role
from nornir_k3s.roles import server as server_role

Load = Callable[..., Cluster]
BUNDLE = Bundle(Artifact(Path("k3s"), k3s.BINARY, "a" * 64), Artifact(Path("install.sh"), "/x/install.sh", "b" * 64))
CA = "K10" + "c" * 64


def config(spec: HostSpec) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(next(f.text.reveal() for f in spec.files if f.path == k3s.CONFIG))
    return data


def test_servers_share_everything_but_name_and_address(load: Load) -> None:
    cluster = load(s1={"node-label": ["zone=a"]})
    first, second = (config(server_role.spec(cluster, m, BUNDLE)) for m in cluster.of("servers"))
    assert first.pop("node-name") == "s1"
    assert second.pop("node-name") == "s2"
    assert first.pop("node-ip") == ["10.0.0.12"]
    assert second.pop("node-ip") == ["10.0.0.13"]
    assert first.pop("node-label") == ["zone=a"]
    assert first == second
    assert first["tls-san"] == ["10.0.0.100"]
    assert first["node-taint"] == ["CriticalAddonsOnly=true:NoExecute"]
    assert first["datastore-endpoint"].startswith("mysql://k3s_")
    assert "server" not in first, "servers need none with an external datastore"


def test_a_server_s_own_taints_are_added_and_the_taint_can_be_left_out(load: Load) -> None:
    cluster = load(s1={"node-taint": ["a=b:NoSchedule"]})
    spec = server_role.spec(cluster, cluster.member("s1"), BUNDLE)
    assert config(spec)["node-taint"] == ["CriticalAddonsOnly=true:NoExecute", "a=b:NoSchedule"]
    bare = load({"server_taint": False})
    assert "node-taint" not in config(server_role.spec(bare, bare.member("s1"), BUNDLE))


def test_an_agent_gets_the_registration_address_and_the_full_token(load: Load) -> None:
    cluster = load({"agent": {"kubelet-arg": ["max-pods=50"]}}, a1={"node-label": "rack=1"})
    made = config(agent_role.spec(cluster, cluster.member("a1"), BUNDLE, CA))
    assert made["server"] == "https://10.0.0.100:6443"
    assert made["token"] == f"{CA}::server:{cluster.token.reveal()}"
    assert made["kubelet-arg"] == ["max-pods=50"]
    assert made["node-label"] == ["rack=1"]
    assert not set(made) - k3s.AGENT_SETTINGS - {"server", "token"}, "a server's key stops an agent"


def test_an_agent_token_of_its_own_is_the_agents_only_token(load: Load, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("agents-only")
    cluster = load({"agent_token": {"file": "t"}})
    made = config(agent_role.spec(cluster, cluster.member("a1"), BUNDLE, CA))
    assert made["token"] == f"{CA}::node:agents-only"
    assert config(server_role.spec(cluster, cluster.member("s1"), BUNDLE))["agent-token"] == "agents-only"


@pytest.mark.parametrize(("role", "name"), [(server_role, "s1"), (agent_role, "a1")])
def test_settings_of_k3s_are_0600_and_masked(load: Load, role: Any, name: str) -> None:
    cluster = load()
    more = (CA,) if role is agent_role else ()
    spec = role.spec(cluster, cluster.member(name), BUNDLE, *more)
    file = next(f for f in spec.files if f.path == k3s.CONFIG)
    assert (file.mode, file.masking) == (0o600, "yaml")
    assert cluster.token.reveal() not in repr(spec)


def environments(cluster: Cluster) -> dict[str, str]:
    made = {m.name: server_role.spec(cluster, m, BUNDLE) for m in cluster.of("servers")}
    made |= {m.name: agent_role.spec(cluster, m, BUNDLE, CA) for m in cluster.of("agents")}
    return {
        name: file.text.reveal() for name, spec in made.items() for file in spec.files if "/etc/default/" in file.path
    }


def test_the_pool_of_the_datastore_is_the_servers_environment(load: Load) -> None:
    found = environments(load({"datastore_pool": {"max_open": 80, "max_lifetime": "5m"}}))
    assert set(found) == {"s1", "s2"}
    assert 'KINE_DATASTORE_MAX_OPEN_CONNECTIONS="80"\n' in found["s1"]
    assert 'KINE_DATASTORE_CONNECTION_MAX_LIFETIME="5m"\n' in found["s1"]
    assert "IDLE" not in found["s1"], "K3s' own default"
    both = environments(load({"datastore_pool": {"max_open": 80}, "proxy": {"http": "http://p:1"}}))
    assert set(both) == {"s1", "s2", "a1"}
    assert "KINE" not in both["a1"]
    assert "HTTP_PROXY" in both["s1"]
    assert environments(load()) == {}
