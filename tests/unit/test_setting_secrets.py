"""Secrets in settings: references only, masked wherever a setting is shown, revealed in files of mode 0600 alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nornir_k3s import k3s
from nornir_k3s.compare import effective_config
from nornir_k3s.errors import InventoryError
from nornir_k3s.host_steps import diff
from nornir_k3s.model import masking
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.host_spec import File, HostSpec
from nornir_k3s.model.k3s_facts import NodeState
from nornir_k3s.model.secret import Secret
from nornir_k3s.roles import agent, server
from nornir_k3s.state import known_cluster
from nornir_k3s.state.store import Store

Load = Callable[..., Cluster]
CANARY = "canary-77aa"
URL = f"http://u:{CANARY}@10.0.0.1:3128"
FIELDS = {"kind": "mysql", "hosts": ["db"], "password": {"env": "X"}}


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"server": {"vpn-auth": f"name=tailscale,joinKey={CANARY}"}}, "server.vpn-auth"),
        ({"agent": {"vpn-auth": [CANARY]}}, "agent.vpn-auth"),
        ({"proxy": {"http": URL}}, "proxy.http"),
        ({"proxy": {"https": f"http://u:pw/{CANARY}@px:3128"}}, "proxy.https"),
        ({"proxy": {"https": f"http://{CANARY}@px:3128"}}, "proxy.https"),
        ({"artifacts": {"url": f"https://u:{CANARY}@mirror.example/k3s"}}, "artifacts.url"),
        ({"server": {"kube-apiserver-arg": [f"x={URL}"]}}, "server.kube-apiserver-arg"),
        ({"server": {"etcd-arg": f"x={URL}"}}, "server.etcd-arg"),
        ({"agent": {"kubelet-arg+": [f"x={URL}"]}}, "agent.kubelet-arg"),
        ({"server": {"pause-image": f"https://u:{CANARY}@registry/pause"}}, "server.pause-image"),
        ({"datastore": FIELDS | {"parameters": {"password": CANARY}}}, "datastore"),
        ({"datastore": FIELDS | {"kind": "postgresql", "parameters": {"sslpassword": CANARY}}}, "datastore"),
    ],
)
def test_a_secret_as_text_is_refused_without_showing_it(load: Load, changes: dict[str, Any], where: str) -> None:
    with pytest.raises(InventoryError) as caught:
        load(changes)
    text = str(caught.value)
    assert f"k3s_cluster.{where}" in text
    assert CANARY not in text
    if where not in ("datastore", "server.pause-image"):
        assert "{env: NAME}, {file: PATH} or {command: [PROGRAM, ARGUMENT]}" in text


def test_a_secret_as_text_of_a_host_is_refused(load: Load) -> None:
    with pytest.raises(InventoryError, match="a1: k3s: `vpn-auth` is a secret: give a reference") as caught:
        load(a1={"vpn-auth": CANARY})
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"server": {"node-label": {"env": "X"}}}, "`node-label` takes no reference to a secret"),
        ({"server": {"vpn-auth": {"vault": "x"}}}, "`vpn-auth`: a secret is a reference"),
        ({"server": {"kube-apiserver-arg": [{"x": "y"}]}}, "`kube-apiserver-arg`: a secret is a reference"),
        ({"server": {"vpn-auth": {"env": "NOT_SET_AT_ALL"}}}, "server.vpn-auth: the environment variable NOT_SET"),
        ({"proxy": {"http": {"env": "NOT_SET_AT_ALL"}}}, "proxy.http: the environment variable NOT_SET_AT_ALL"),
        ({"artifacts": {"url": {"env": "NOT_SET_AT_ALL"}}}, "artifacts.url: the environment variable"),
        ({"registries": {"env": "NOT_SET_AT_ALL"}}, "registries: the environment variable NOT_SET_AT_ALL"),
        ({"proxy": {"http": {"file": "broken"}}}, "proxy.http: it is not a URL"),
        ({"proxy": {"http": 5}}, "proxy.http: it must be text"),
    ],
)
def test_a_reference_that_is_of_no_use_is_told(load: Load, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    (tmp_path / "broken").write_text(f'http://u:"{CANARY}"@px')
    with pytest.raises(InventoryError) as caught:
        load(changes)
    assert words in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.fixture
def secret(load: Load, tmp_path: Path) -> Cluster:
    """A cluster with a secret in every setting that may hold one."""
    for name, text in {
        "vpn": f"name=tailscale,joinKey={CANARY}-vpn",
        "proxy": URL + "\n",
        "mirror": f"https://u:{CANARY}@mirror.example/k3s",
        "argument": f"secret-value={CANARY}-argument",
        "registries": f"configs: {{r: {{auth: {{password: {CANARY}}}}}}}\n",
    }.items():
        (tmp_path / name).write_text(text)
    changes = {
        "artifacts": {"url": {"file": "mirror"}},
        "proxy": {"http": {"file": "proxy"}, "https": "http://plain:3128"},
        "registries": {"command": ["cat", "registries"]},
        "server": {"vpn-auth": {"file": "vpn"}, "kube-apiserver-arg": ["a=b", {"file": "argument"}]},
    }
    return load(changes, a1={"vpn-auth": {"file": "vpn"}, "kubelet-arg": {"file": "argument"}})


def specs(cluster: Cluster) -> list[HostSpec]:
    made = [server.spec(cluster, member, None) for member in cluster.of("servers")]
    return [*made, *(agent.spec(cluster, member, None, "") for member in cluster.of("agents"))]


def test_secrets_reach_hosts_in_files_of_mode_0600_only(secret: Cluster) -> None:
    texts = {}
    for spec in specs(secret):
        for file in spec.files:
            texts[file.path] = file.text.reveal()
            assert file.mode == 0o600 or CANARY not in file.text.reveal()
            assert CANARY not in diff(file, "")
            assert CANARY not in repr(file)
    assert yaml.safe_load(specs(secret)[0].files[0].text.reveal())["kube-apiserver-arg"] == [
        "a=b",
        f"secret-value={CANARY}-argument",
    ]
    assert yaml.safe_load(texts[k3s.CONFIG])["vpn-auth"] == f"name=tailscale,joinKey={CANARY}-vpn"
    assert f'HTTP_PROXY="{URL}"' in texts["/etc/default/k3s"]
    assert 'HTTPS_PROXY="http://plain:3128"' in texts["/etc/default/k3s-agent"]
    assert CANARY in texts["/etc/rancher/k3s/registries.yaml"]


def test_a_cluster_with_secrets_shows_none(secret: Cluster, tmp_path: Path) -> None:
    assert CANARY not in repr(secret)
    masked = "".join(one.reveal() for one in secret.secrets())
    assert all(f"{CANARY}{end}" in masked for end in ("-vpn", "-argument", "@10.0.0.1", "@mirror"))
    store = Store(tmp_path / "other", base=tmp_path)
    known_cluster.stage_members(store, secret.members)
    store.commit()
    assert CANARY not in (tmp_path / "other" / "members.json").read_text()
    assert [member.name for member in known_cluster.members(store)] == [member.name for member in secret.members]


def test_drift_compares_secrets_and_shows_none(secret: Cluster) -> None:
    a1, started = secret.member("a1"), ["k3s", "agent", "--vpn-auth", f"{CANARY}-old", "--kubelet-arg"]
    own, url = agent.settings(secret, a1, ""), ("--server", secret.url)
    same = [word for key in ("node-name", "node-ip") for one in [own[key]] for word in (f"--{key}", _text(one))]
    for value, found in ((f"secret-value={CANARY}-argument", []), (f"secret-value={CANARY}-old", ["kubelet-arg"])):
        args = (*started, value, *same, *url)
        node = NodeState(name="a1", ready=True, version="v1.34.9+k3s1", args=args)
        told = list(effective_config.differences(secret, {"a1": HostFacts("a1")}, [node]))
        assert [one.subject for one in told] == found
        assert CANARY not in "".join(one.model_dump_json() for one in told)


def _text(value: Any) -> str:
    return str(value[0]) if isinstance(value, list) else str(value)


@pytest.mark.parametrize(
    "before",
    [
        f"vpn-auth: {CANARY}\n",
        f"vpn-auth:\n- {CANARY}\nother: 1\n",
        f"token: >-\n  {CANARY}\n  {CANARY}\n\nother: 1\n",
        f'"agent-token" :\n    {CANARY}\n',
        f"token+:\n  - {CANARY}\n",
        f"etcd-s3-secret-key: {CANARY}\n",
        f'{{"token": "{CANARY}", "x": 1}}\n',
        f"kube-apiserver-arg:\n- x=http://u:{CANARY}@h\n- y=https://u:p/{CANARY}@h/x\n",
        f"kubelet-arg: [a=http://{CANARY}@h]\n",
        f"{masking.MARK}kubelet-arg, etcd-arg\nkubelet-arg:\n- x={CANARY}\netcd-arg:\n  - y={CANARY}\nother: 1\n",
    ],
)
def test_what_a_host_has_is_shown_without_secrets(before: str) -> None:
    shown = diff(File(k3s.CONFIG, Secret("token: new\nother: 2\n"), 0o600, masking="yaml"), before)
    assert CANARY not in shown
    assert "other: 2" in shown


def test_what_is_no_secret_is_shown() -> None:
    text = "tls-san:\n- a\nkube-apiserver-arg:\n- x=https://h:6443/path/@scope\n- oidc-username=u@example.org\n"
    assert masking.yaml(text, k3s.MASKED) == text


@pytest.mark.parametrize("line", ["stats auth admin:{}", "auth_pass {}", "    password {}", "# http://u:{}@h"])
def test_passwords_of_other_programs_are_not_shown(line: str) -> None:
    shown = diff(File("/etc/haproxy/haproxy.cfg", Secret("global\n")), line.format(CANARY) + "\n")
    assert CANARY not in shown
    assert "********" in shown
