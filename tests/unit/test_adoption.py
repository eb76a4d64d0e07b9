"""The inventory of a cluster that exists, from what was read of its hosts."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nornir import InitNornir

from nornir_k3s.adoption import balancers, describe, named, read, registration
from nornir_k3s.adoption import write as files
from nornir_k3s.adoption.describe import Description, Login
from nornir_k3s.adoption.read import Found, HostFile
from nornir_k3s.errors import UnreadableAnswer, UsageError
from nornir_k3s.inventory import cluster, config
from nornir_k3s.k3s_installed import installed
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.k3s_facts import NodeState
from nornir_k3s.model.machine_facts import Address
from nornir_k3s.model.secret import Secret
from nornir_k3s.state.store import Store

VERSION = "v1.34.9+k3s1"
ENDPOINT = "mysql://k3s:s3cret@tcp(10.0.0.9:3306)/k3s"
CONFIG = "/etc/rancher/k3s/config.yaml"
HAPROXY = """
global
    log /dev/log local0
defaults
    mode http
frontend k3s-frontend
    bind *:6443
    default_backend k3s-backend   # the servers
backend k3s-backend
    server server-1 10.0.0.1:6443 check
    server server-2 10.0.0.2:6443 check
listen stats
    bind *:9000
    stats enable
"""
KEEPALIVED = """
vrrp_script chk_haproxy {
    script 'killall -0 haproxy' # faster than pidof
}
vrrp_instance vip {
    interface eth1
    state MASTER
    priority PRIORITY
    virtual_router_id 61
    authentication {
        auth_type PASS
        auth_pass hush
    }
    virtual_ipaddress {
        10.0.0.100/24
        10.0.0.101
    }
    track_script { chk_haproxy }
    preempt_delay 5
}
"""


def unit(flags: str) -> str:
    return f"[Service]\nExecStart=/usr/local/bin/k3s {flags}\n"


def host(
    number: int, flags: str, *, config: str = "", unit_name: str = "", environment: str = "", **more: Any
) -> Found:
    name = unit_name or ("k3s.service" if flags.startswith("server") else "k3s-agent.service")
    made = installed(
        name,
        unit(flags),
        files=((CONFIG, config),) if config else (),
        environments=(("/etc/systemd/system/k3s.service.env", environment),) if environment else (),
        active=True,
        enabled=True,
    )
    assert made is not None
    server = {"token": Secret("tok"), "ca": "K10" + "a" * 64} if made.role == "server" else {}
    default: dict[str, Any] = {
        "hostname": f"n{number}",
        "addresses": (Address("eth0", f"10.0.0.{number}/24"),),
        "installed": (made,),
        "version": VERSION,
        **server,
    }
    return Found(**{**default, **more})


def node(number: int, *, server: bool = True, args: tuple[str, ...] = (), version: str = VERSION) -> NodeState:
    roles = ("control-plane",) if server else ()
    return NodeState(f"n{number}", ready=True, version=version, roles=roles, args=args, address=f"10.0.0.{number}")


def lb(number: int, priority: int = 200, haproxy: str = HAPROXY, keepalived: str = KEEPALIVED) -> Found:
    texts = {
        "/etc/haproxy/haproxy.cfg": haproxy,
        "/etc/keepalived/keepalived.conf": keepalived.replace("PRIORITY", str(priority)),
    }
    addresses = (Address("eth0", f"10.0.0.{number}/24"), Address("lo", "127.0.0.1/8"))
    return Found(f"lb{number}", addresses, active=frozenset(("haproxy", "keepalived")), texts=texts)


def described(
    found: Mapping[str, Found],
    *,
    texts: Mapping[str, Mapping[str, HostFile]] | None = None,
    names: Mapping[str, tuple[str, ...]] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Description:
    logins = {name: Login({"hostname": one.addresses[0].cidr.split("/")[0]}) for name, one in found.items()}
    own: dict[str, Mapping[str, HostFile]] = {name: {} for name in found} | dict(texts or {})
    state = "../.state/prod"
    return describe.describe(found, own, names or {}, logins, name="prod", state=state, more=more or {})


SERVER = f"server --datastore-endpoint={ENDPOINT}"
TWO = {"n1": host(1, SERVER, nodes=(node(1), node(2))), "n2": host(2, SERVER)}


def test_a_cluster_of_the_guide() -> None:
    flags = f"{SERVER} --token=tok --tls-san=10.0.0.100 --disable traefik,servicelb --flannel-backend vxlan"
    found = described(
        {
            "n1": host(1, flags, nodes=(node(1), node(2), node(3, server=False), node(4, server=False))),
            "n2": host(2, flags),
            "n3": host(3, "agent", environment="K3S_URL='https://10.0.0.100:6443'\nK3S_TOKEN='tok'\n"),
            "lb2": lb(22, 100),
            "lb1": lb(21),
            "db": Found("db", (Address("eth0", "10.0.0.9/24"),), active=frozenset(("mariadb",))),
        }
    )
    assert found.cluster == {
        "name": "prod",
        "version": VERSION,
        "registration": {"address": "10.0.0.100"},
        "datastore": {"endpoint": {"file": "../.state/prod/endpoint"}},
        "server": {"disable": ["traefik", "servicelb"]},
        "server_taint": False,
        "lb": {"virtual_router_id": 61, "prefix": 24, "vips": ["10.0.0.101"], "preempt_delay": 5},
        "take_over": ["lb1", "lb2"],
    }
    assert found.hosts["lb1"] == {"hostname": "10.0.0.21", "groups": ["lb"], "data": {"k3s": {"interface": "eth1"}}}
    assert found.hosts["n1"] == {"hostname": "10.0.0.1", "groups": ["servers"]}
    assert list(found.hosts) == ["n1", "n2", "n3", "lb1", "lb2"]
    assert found.secrets == {"token": Secret("tok"), "endpoint": Secret(ENDPOINT)}
    report = found.report
    assert [(one.name, one.address, one.role) for one in report.missing] == [("n4", "10.0.0.4", "agents")]
    assert not report.hosts["db"].taken
    assert "db runs MariaDB, which the servers use" in "\n".join(report.notes)
    assert "auth_pass" in "\n".join(report.notes)
    assert report.registration == "10.0.0.100:6443: the VIP of lb1, lb2"
    assert report.next == "nornir-k3s plan"
    assert "s3cret" not in report.model_dump_json()
    assert [(one.key, one.place, one.origin) for one in report.settings] == [
        ("disable", "k3s_cluster.server", "flags of k3s.service")
    ]


def test_settings_that_differ_between_servers_are_told_and_most_of_them_count() -> None:
    found = described(
        {
            "n1": host(1, f"{SERVER} --disable=traefik --tls-san=a.example --node-label=x=1", nodes=()),
            "n2": host(2, f"{SERVER} --disable=traefik --tls-san=b.example --cluster-cidr=10.99.0.0/16"),
            "n3": host(3, SERVER),
        }
    )
    by = {one.setting: one for one in found.report.differences}
    assert by["disable"].values == {"n1": "traefik", "n2": "traefik", "n3": "unset"}
    assert by["disable"].chosen == "traefik"
    assert by["cluster-cidr"].chosen == "unset"
    assert by["tls-san"].chosen == "a.example, b.example"
    assert found.cluster["server"]["disable"] == ["traefik"]
    assert "cluster-cidr" not in found.cluster["server"]
    assert found.hosts["n1"]["data"] == {"k3s": {"node-label": ["x=1"]}}


def test_what_runs_counts_where_files_were_changed_since() -> None:
    running = {
        "ClusterIPRanges": [{"IP": "10.99.0.0", "Mask": base64.b64encode(bytes((255, 255, 0, 0))).decode()}],
        "Disables": {"traefik": True},
        "FlannelBackend": "vxlan",
    }
    started = ("server", "--v", "2", "--node-label", "x=1", "--datastore-endpoint", "********")
    one = host(
        1,
        f"{SERVER} --node-label=x=1",
        config="cluster-cidr: 10.50.0.0/16\ndisable: traefik\nv: 4\n",
        environment="K3S_SELINUX=true\n",
        nodes=(node(1, args=started),),
    )
    found = described({"n1": replace(one, config=running)})
    assert found.cluster["server"] == {
        "cluster-cidr": ["10.99.0.0/16"], "disable": ["traefik"], "v": 2, "node-label": ["x=1"], "selinux": True,
    }  # fmt: skip
    notes = "\n".join(found.report.notes)
    assert "n1: K3s runs with cluster-cidr 10.99.0.0/16, and its files say 10.50.0.0/16" in notes
    assert "n1: K3s runs with v 2, and its files say 4" in notes
    assert {one.key: one.origin for one in found.report.settings}["cluster-cidr"] == "/v1-k3s/config"


def test_forms_and_old_names_of_flags_are_those_that_files_have() -> None:
    flags = f"{SERVER} --selinux=1 --docker -t tok --kube-controller-arg=a=b"
    words = ("server", "--datastore-endpoint", "********", "--selinux", "1", "--docker", "-t", "********")
    args = (*words, "--kube-controller-arg", "a=b")
    made = described({"n1": host(1, flags, nodes=(node(1, args=args),))})
    own = {**made.cluster["server"], **made.hosts["n1"].get("data", {}).get("k3s", {})}
    assert own == {"selinux": True, "docker": True, "kube-controller-manager-arg": ["a=b"]}
    assert "files say" not in str(made.report.notes)


def test_defaults_and_what_is_this_tool_s_own_is_not_written() -> None:
    flags = (
        f"{SERVER} --cluster-cidr=10.42.0.0/16 --cluster-dns=10.43.0.10 --https-listen-port=6443 --node-ip=10.0.0.1"
        " --write-kubeconfig-mode=644 --node-taint=CriticalAddonsOnly=true:NoExecute --node-name=n1 --supervisor-port=9"
        " --data-dir=/srv/k3s --disable=nothing-like-that"
    )
    found = described({"n1": host(1, flags)})
    assert found.cluster["server"] == {"write-kubeconfig-mode": "644"}
    assert "server_taint" not in found.cluster
    assert found.hosts["n1"] == {"hostname": "10.0.0.1", "groups": ["servers"]}
    notes = "\n".join(found.report.notes)
    for key in ("supervisor-port (9)", "disable (nothing-like-that)"):
        assert f"n1: {key} is not taken over: " in notes
    assert "n1: K3s has its data in /srv/k3s, and this tool expects them in /var/lib/rancher/k3s: a deploy is" in notes
    assert "mv /srv/k3s /var/lib/rancher/k3s; remove data-dir from its settings (flags of k3s.service)" in notes


def test_secrets_in_settings_are_references() -> None:
    hook = "audit-webhook-config-file=https://u:hush@hook.example/x"
    flags = f"{SERVER} --vpn-auth=name=tailscale,joinKey=hush --kube-apiserver-arg={hook}"
    flags += " --kube-apiserver-arg=profiling=true"
    other = f"{SERVER} --kube-apiserver-arg={hook} --pause-image=https://u:hush@x/y"
    found = described({"n1": host(1, flags), "n2": host(2, flags), "n3": host(3, other)})
    reference = {"file": "../.state/prod/kube-apiserver-arg-1"}
    assert found.cluster["server"]["kube-apiserver-arg"] == [reference, "profiling=true"]
    assert found.hosts["n1"]["data"]["k3s"] == {"vpn-auth": {"file": "../.state/prod/vpn-auth-2"}}
    assert found.hosts["n2"]["data"]["k3s"] == {"vpn-auth": {"file": "../.state/prod/vpn-auth-2"}}
    assert found.secrets["kube-apiserver-arg-1"] == Secret(hook)
    assert found.secrets["vpn-auth-2"] == Secret("name=tailscale,joinKey=hush")
    report = found.report.model_dump_json()
    assert "hush" not in report
    assert "https://********@hook.example/x" in report
    assert "pause-image (https://********@x/y) is not taken over" in report


def test_load_balancers_on_the_servers() -> None:
    balancer = lb(1)
    both = replace(TWO["n1"], active=balancer.active, texts=balancer.texts)
    found = described({**TWO, "n1": both, "n3": host(3, "agent --server https://10.0.0.100:7443")})
    assert found.hosts["n1"] == {
        "hostname": "10.0.0.1", "groups": ["servers", "lb"], "data": {"k3s": {"interface": "eth1"}},
    }  # fmt: skip
    assert found.cluster["registration"] == {"address": "10.0.0.100", "port": 7443}
    assert found.report.hosts["n1"].roles == ["servers", "lb"]


def test_the_environment_of_nodes_tells_what_agents_use() -> None:
    one = host(1, f"{SERVER} --server=https://10.0.0.2:6443", nodes=(node(1), node(9, server=False, args=("agent",))))
    found = described({"n1": replace(one, urls={"n9": "https://10.9.9.9:6443"})})
    assert found.cluster["registration"]["address"] == "10.9.9.9"
    found = described({"n1": one, "n2": TWO["n2"]})
    assert found.cluster["registration"]["address"] == "10.0.0.2"


def test_names_and_addresses_of_nodes() -> None:
    one = host(1, f"{SERVER} --node-name=Other --node-ip=10.0.0.1,fd00::1", hostname="host")
    found = describe.describe(
        {"given": one}, {}, {}, {"given": Login({"hostname": "203.1.113.7"}, {"x": 1})}, name="p", state="s", more={}
    )
    assert found.hosts["given"]["data"] == {
        "x": 1,
        "k3s": {"node-name": "other", "node-ip": ["10.0.0.1", "fd00::1"]},
    }
    assert describe.names({"10.0.0.1": one, "10.0.0.21": lb(21), "10.0.0.8": Found("other")}) == {
        "10.0.0.1": "other", "10.0.0.21": "lb21", "10.0.0.8": "10.0.0.8",
    }  # fmt: skip
    with pytest.raises(UsageError, match=r"10\.0\.0\.1 and 10\.0\.0\.2 are the same node, other"):
        describe.names({"10.0.0.1": one, "10.0.0.2": one})


@pytest.mark.parametrize(
    ("url", "names", "wanted", "said"),
    [
        ("https://k3s.example:6443", ("10.0.0.1", "10.0.0.2"), {"way": "dns", "name": "k3s.example"}, "a DNS name"),
        (
            "https://k3s.example:443",
            ("10.9.9.9",),
            {"way": "external", "name": "k3s.example", "port": 443},
            "of others",
        ),
        ("https://10.9.9.9:6443", (), {"way": "external", "address": "10.9.9.9"}, "of others"),
        ("https://10.0.0.1:6443", (), {"way": "external", "address": "10.0.0.1"}, "n1 itself"),
    ],
)
def test_registration_addresses_of_others(url: str, names: tuple[str, ...], wanted: dict[str, Any], said: str) -> None:
    agent = host(3, f"agent --server={url}")
    found = described({**TWO, "n3": agent}, names={"k3s.example": names})
    assert found.cluster["registration"] == wanted
    assert said in found.report.registration


def test_a_name_of_the_vip_and_agents_that_use_another_address() -> None:
    agents = {f"n{number}": host(number, "agent --server https://k3s.example:6443") for number in (3, 4)}
    agents["n5"] = host(5, "agent --server https://10.0.0.1:6443")
    names = {"k3s.example": ("10.0.0.100",)}
    found = described({**TWO, **agents, "lb1": lb(21)}, names=names)
    assert found.cluster["registration"] == {"address": "10.0.0.100", "name": "k3s.example"}
    assert "most agents use k3s.example:6443, and n5 uses 10.0.0.1:6443" in "\n".join(found.report.notes)


def test_agents_that_were_not_given_tell_the_address_by_their_nodes() -> None:
    nodes = (node(1), node(9, server=False, args=("agent", "--server", "https://10.9.9.9:6443")))
    found = described({"n1": host(1, SERVER, nodes=nodes)})
    assert found.cluster["registration"]["address"] == "10.9.9.9"


def test_without_agents_the_address_is_a_vip_a_name_of_the_certificate_or_the_first_server() -> None:
    assert described({**TWO, "lb1": lb(21)}).cluster["registration"] == {"address": "10.0.0.100"}
    named_ = described({"n1": host(1, f"{SERVER} --tls-san=n1,api.example --tls-san=old.example")})
    assert named_.cluster["registration"] == {"way": "external", "name": "api.example"}
    assert named_.cluster["server"] == {"tls-san": ["old.example"]}, "K3s adds the name of its node"
    alone = described({"n1": host(1, SERVER)})
    assert alone.cluster["registration"] == {"way": "external", "address": "10.0.0.1"}
    assert "there is no fixed registration address yet" in "\n".join(alone.report.notes)


def test_load_balancers_that_serve_others_stay_theirs() -> None:
    other = HAPROXY + "frontend web\n    bind *:80\n    default_backend web\nbackend web\n    server w 10.0.0.50:80\n"
    agent = host(3, "agent --server https://10.0.0.100:6443")
    found = described({**TWO, "n3": agent, "lb1": lb(21, haproxy=other)})
    assert found.cluster["registration"] == {"way": "external", "address": "10.0.0.100"}
    assert "lb1" not in found.hosts
    assert "serve others, too (lb1: web)" in "\n".join(found.report.notes)


def test_haproxy_and_keepalived_are_read() -> None:
    (one,) = balancers.frontends([HAPROXY])
    assert (one.name, one.port, one.servers) == ("k3s-frontend", 6443, (("10.0.0.1", "6443"), ("10.0.0.2", "6443")))
    assert balancers.frontends(["frontend x\n    bind 'open\n    use_backend y if z\n"]) == []
    (listen,) = balancers.frontends(["listen k3s\n    bind :::6443 v6only\n    server a [fd00::1]:6443\n"])
    assert (listen.binds, listen.servers) == ((":::6443",), (("fd00::1", "6443"),))
    (instance,) = balancers.instances([KEEPALIVED.replace("PRIORITY", "high")])
    assert (instance.interface, instance.router, instance.priority) == ("eth1", "61", 100)
    assert instance.prefix == 24
    assert replace(instance, addresses=("10.0.0.100",)).prefix is None


@pytest.mark.parametrize(
    ("flags", "more", "what"),
    [("server", {"sqlite": True}, "SQLite"), ("server --cluster-init", {"etcd": True}, "an embedded etcd")],
)
def test_embedded_datastores_lead_to_a_move(flags: str, more: dict[str, Any], what: str) -> None:
    found = described({"n1": host(1, flags, **more)})
    assert found.cluster["datastore"] == {"kind": "mariadb"}
    assert found.hosts["db1"] == {"hostname": "192.0.2.11", "groups": ["datastore"]}
    assert "endpoint" not in found.secrets
    assert found.report.next == "nornir-k3s move"
    assert f"the data are in {what}" in "\n".join(found.report.notes)
    given = described({"n1": host(1, flags, **more), "db": Found("db", (Address("eth0", "10.0.0.9/24"),))})
    assert given.hosts["db"] == {"hostname": "10.0.0.9", "groups": ["datastore"]}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"n1": host(3, "agent --server https://x")}, "no K3s server runs on these hosts (n1: agents)"),
        ({"n1": host(1, SERVER), "n2": host(2, SERVER, ca="K10" + "b" * 64)}, "different CAs"),
        ({"n1": host(1, SERVER), "n2": host(2, SERVER, token=Secret("other"))}, "different tokens"),
        ({"n1": host(1, SERVER, token=Secret(""))}, "there is no token"),
        ({"n1": host(1, SERVER), "n2": host(2, SERVER.replace("0.9", "0.8"))}, "their datastores differ: n1: MariaDB"),
        ({"n1": host(1, SERVER), "n2": host(2, "server")}, "n1: an endpoint; n2: SQLite"),
        ({"n1": host(1, "server --datastore-endpoint=nats://x")}, "n1: its datastore endpoint: it must begin with"),
        ({"n1": host(1, SERVER, version="")}, "K3s says no version"),
    ],
)
def test_what_is_no_cluster_for_an_inventory_is_refused(found: dict[str, Found], said: str) -> None:
    with pytest.raises(UsageError) as error:
        described(found)
    assert said in error.value.message
    assert "s3cret" not in str(error.value)


def test_another_login_at_the_same_database_is_told() -> None:
    found = described({**TWO, "n3": host(3, SERVER.replace("s3cret", "older"))})
    assert found.secrets["endpoint"] == Secret(ENDPOINT)
    assert "n3: another login or other parameters" in "\n".join(found.report.notes)


def test_a_datastore_behind_a_script_is_not_taken_for_sqlite() -> None:
    def behind(script: str, **more: Any) -> dict[str, Found]:
        one = installed("k3s.service", f"[Service]\nExecStart={script}\n", active=True)
        assert one is not None
        return {"n1": host(1, "server", installed=(one,), nodes=(node(1),), **more)}

    with pytest.raises(UsageError, match=r"^n1: k3s.service: /opt/start-k3s.sh starts it: .* the datastore is not"):
        described(behind("/opt/start-k3s.sh"))
    assert "the data are in SQLite" in "\n".join(described(behind("/opt/start-k3s.sh", sqlite=True)).report.notes)
    script = f"/bin/sh -c 'exec k3s server --datastore-endpoint=\"{ENDPOINT}\" --v=$$(nproc)'"
    found = described(behind(script))
    assert found.secrets["endpoint"] == Secret(ENDPOINT)
    assert "n1: k3s.service: /bin/sh puts values into its command: it may have more" in "\n".join(found.report.notes)


def test_one_database_by_name_and_by_address_is_one() -> None:
    named_ = SERVER.replace("10.0.0.9", "db.example.org")
    database = Found("x", (Address("eth0", "10.0.0.9/24"),), active=frozenset({"mysql"}))
    three = {**TWO, "n3": host(3, named_), "db": database}
    found = described(three, names={"db.example.org": ("10.0.0.9",)})
    assert found.secrets["endpoint"] == Secret(ENDPOINT)
    assert "n3: another login or other parameters in the datastore endpoint than n1, or another name of its host" in (
        "\n".join(found.report.notes)
    )
    only = {"n1": host(1, named_, nodes=(node(1),)), "db": database}
    assert "db runs MySQL" in "\n".join(described(only, names={"db.example.org": ("10.0.0.9",)}).report.notes)
    for names in ({"db.example.org": ("10.0.0.8",)}, {}):
        with pytest.raises(UsageError, match="their datastores differ"):
            described(three, names=names)


def test_names_that_k3s_has_in_its_certificate_anyway_are_no_settings() -> None:
    flags = {number: f"{SERVER} --tls-san=10.0.0.{number},localhost --tls-san=203.0.113.{number}" for number in (1, 2)}
    two = {"n1": host(1, flags[1], nodes=(node(1), node(2))), "n2": host(2, flags[2])}
    found = described(two)
    assert found.cluster["server"] == {"tls-san": ["203.0.113.2"]}, "the other one is the registration address"
    two["n2"] = host(2, f"{SERVER} --tls-san=10.0.0.2")
    two["n1"] = host(1, f"{SERVER} --tls-san=10.0.0.1", nodes=(node(1), node(2)))
    found = described(two)
    assert "server" not in found.cluster
    assert found.report.differences == []


def test_variables_of_drop_ins_stay_and_are_told() -> None:
    def with_(environment: str) -> Found:
        text_ = (
            f"# /etc/systemd/system/k3s.service\n{unit(SERVER)}# /etc/systemd/system/k3s.service.d/p.conf\n"
            "[Service]\nEnvironment=HTTP_PROXY=http://u:hush@p:1 GOGC=50\n"
        )
        one = installed("k3s.service", text_, environments=(("/etc/default/k3s", environment),), active=True)
        assert one is not None
        return replace(TWO["n1"], installed=(one,))

    found = described({"n1": with_("KINE_X=1\n"), "n2": TWO["n2"]})
    assert "proxy" not in found.cluster, "it would be in /etc/default/k3s, too, with other values"
    notes = "\n".join(found.report.notes)
    assert "n1: /etc/systemd/system/k3s.service.d/p.conf sets GOGC, HTTP_PROXY for K3s: it stays there" in notes
    assert "drift has a warning of it until `known_drift` accepts it" in notes
    assert "n1: /etc/default/k3s sets KINE_X for K3s: it stays there" in notes
    assert "hush" not in notes
    found = described({"n1": with_("KINE_X=1\nHTTPS_PROXY=http://p:2\n"), "n2": TWO["n2"]})
    assert found.cluster["proxy"] == {"https": "http://p:2"}
    assert "the inventory cannot have: KINE_X; to keep" in "\n".join(found.report.notes), "deploy writes that file"


def test_a_token_in_a_file_goes_to_the_state_only() -> None:
    one = installed(
        "k3s.service",
        unit(SERVER),
        files=((f"{CONFIG}.d/t.yaml", "token-file: /etc/k3s.token\nagent-token-file: /etc/agents\n"),),
        tokens=(("/etc/k3s.token", "hush-1\n"), ("/etc/agents", "hush-2\n")),
        active=True,
    )
    assert one is not None
    found = described({"n1": host(1, SERVER, installed=(one,), token=Secret(""), ca="", nodes=(node(1),))})
    assert (found.secrets["token"], found.secrets["agent-token"]) == (Secret("hush-1"), Secret("hush-2"))
    assert "hush" not in f"{found.cluster}{found.hosts}{found.files}{found.report}"


def test_data_in_another_folder_without_a_token_are_told() -> None:
    with pytest.raises(UsageError, match="n1: K3s has its data in /srv/k3s, and this tool expects them in"):
        described({"n1": host(1, f"{SERVER} --data-dir /srv/k3s", token=Secret(""), ca="", nodes=(node(1),))})


def test_hosts_in_odd_states_are_told() -> None:
    stopped = replace(TWO["n2"], installed=(replace(TWO["n2"].installed[0], active=False),))
    own = host(3, "agent --server https://10.9.9.9:6443", unit_name="k3s-node.service")
    other = installed("k3s-old.service", unit("agent"))
    assert other
    found = described(
        {
            "n1": host(
                1,
                f"{SERVER} --agent-token=K10{'a' * 64}::node:agent",
                nodes=(node(1), node(7), node(3, version="v1.33.5+k3s1")),
            ),
            "n2": stopped,
            "n3": replace(own, installed=(*own.installed, other)),
            "bare": Found("bare", (Address("eth0", "10.0.0.77/24"),)),
        }
    )
    notes = "\n".join(found.report.notes)
    assert "n2: k3s.service does not run" in notes
    assert "n3: K3s is started by k3s-node.service" in notes
    assert "n3: k3s-old.service is there, too, and does not run" in notes
    assert "n3: it runs v1.33.5+k3s1, and the inventory has" in notes
    assert "bare: neither K3s nor" in notes
    assert "servers are missing" in notes
    assert found.secrets["agent-token"] == Secret("agent")
    assert found.cluster["agent_token"] == {"file": "../.state/prod/agent-token"}


def text(content: str, mode: int = 0o644) -> HostFile:
    return HostFile(Secret(content), mode, "root", "root")


def test_agents_of_other_clusters_and_agent_tokens_that_differ_are_told() -> None:
    servers = {"n1": host(1, f"{SERVER} --agent-token=hush", nodes=(node(1), node(2))), "n2": host(2, SERVER)}
    found = described({**servers, "n7": host(7, "agent --server https://10.9.9.9:6443")})
    notes = "\n".join(found.report.notes)
    assert "n7: k3s-agent.service runs, and n7 is no node of this cluster" in notes
    assert "the servers have different agent tokens (n1 one of their own)" in notes
    assert "hush" not in notes
    assert "no node of this cluster" not in "\n".join(described(TWO).report.notes)
    assert "agent tokens" not in "\n".join(described(TWO).report.notes)


def test_files_that_settings_name() -> None:
    flags = (
        f"{SERVER} --kube-apiserver-arg=audit-policy-file=/etc/k3s/audit.yaml --datastore-cafile=/etc/db/ca.pem"
        " --datastore-certfile=/etc/db/c.pem --datastore-keyfile=/etc/db/k.pem"
        " --kube-apiserver-arg=authentication-token-webhook-config-file=/etc/k3s/hook"
    )
    environment = "HTTP_PROXY=http://u:p@proxy:3128\nNO_PROXY=a, b\nOWN=1\n"
    servers = {name: host(number, flags, environment=environment) for number, name in ((1, "n1"), (2, "n2"))}
    assert named.paths(servers["n1"]) == [
        *(named.REGISTRIES, "/etc/db/ca.pem", "/etc/db/c.pem", "/etc/db/k.pem", "/etc/k3s/audit.yaml", "/etc/k3s/hook"),
    ]
    assert named.paths(lb(21)) == []
    own = {
        "/etc/k3s/audit.yaml": text("rules: []\n"),
        "/etc/db/ca.pem": text("CA"),
        "/etc/db/k.pem": text("KEY", 0o600),
        "/etc/k3s/hook": text("users:\n- user:\n    token: hush\n", 0o600),
        named.REGISTRIES: text("mirrors: {}\n"),
    }
    found = described(servers, texts={"n1": own, "n2": own})
    assert found.cluster["files"] == [
        {"path": "/etc/k3s/audit.yaml", "source": "files/etc-k3s-audit.yaml", "mode": "0644", "roles": ["servers"]},
        {
            "path": "/etc/k3s/hook",
            "secret": {"file": "../.state/prod/etc-k3s-hook"},
            "mode": "0600",
            "roles": ["servers"],
        },
    ]
    assert found.cluster["registries"] == "files/registries.yaml"
    assert found.cluster["datastore"] == {
        "endpoint": {"file": "../.state/prod/endpoint"},
        "cafile": "files/datastore-cafile.pem",
        "certfile": "files/datastore-certfile.pem",
        "keyfile": "../.state/prod/datastore-keyfile.pem",
    }
    assert found.cluster["proxy"] == {"http": {"file": "../.state/prod/proxy-http"}, "no_proxy": ["a", "b"]}
    assert found.files["files/datastore-cafile.pem"] == "CA"
    assert set(found.secrets) == {
        *("token", "endpoint", "datastore-keyfile.pem", "etc-k3s-hook", "proxy-http"),
    }
    notes = "\n".join(found.report.notes)
    assert "datastore-certfile (/etc/db/c.pem) could not be read" in notes
    assert "variables of K3s' environment that the inventory cannot have: OWN" in notes

    other = {**own, "/etc/k3s/audit.yaml": text("rules: [x]\n"), named.REGISTRIES: text("configs: {a: {auth: {}}}\n")}
    found = described(
        {**servers, "n3": host(3, "agent --server https://10.9.9.9:6443")},
        texts={"n1": {**own, "/etc/k3s/hook": text("")}, "n2": {**other, "/etc/k3s/hook": text("")}},
    )
    notes = "\n".join(found.report.notes)
    assert "/etc/k3s/audit.yaml, which a setting names, differs on n2" in notes
    assert f"{named.REGISTRIES} is not on n3" in notes
    assert f"{named.REGISTRIES} differs on n2" in notes
    lacking = described(
        servers, texts={"n1": {"/etc/k3s/audit.yaml": text("x"), named.REGISTRIES: text("auth: x")}, "n2": {}}
    )
    assert "audit.yaml, which a setting names, is not on n2" in "\n".join(lacking.report.notes)


@pytest.mark.parametrize(
    "content",
    [
        "keys: [{name: a, secret: hush}]\n",
        "- secret: hush\n",
        '{"auths": {"a": {"auth": "hush"}}}\n',
        "    client-key-data: hush\n",
    ],
)
def test_secrets_in_files_are_found_in_every_form(content: str) -> None:
    one = host(1, f"{SERVER} --kube-apiserver-arg=encryption-provider-config=/etc/e")
    found = described({"n1": one}, texts={"n1": {"/etc/e": text(content, 0o600)}})
    assert found.files == {}
    assert found.secrets["etc-e"].reveal() == content


def test_files_that_are_secret_whatever_is_in_them_and_certificates_with_their_key() -> None:
    pem = "-----BEGIN CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----\n"
    flags = (
        f"{SERVER} --kube-apiserver-arg=token-auth-file=/etc/tokens --vpn-auth-file=/etc/vpn"
        " --datastore-certfile=/etc/db.pem --datastore-keyfile=/etc/db.pem"
    )
    own = {"/etc/tokens": text("hush,u,1\n"), "/etc/vpn": text("name=tailscale,joinKey=x\n"), "/etc/db.pem": text(pem)}
    found = described({"n1": host(1, flags)}, texts={"n1": own})
    assert found.files == {}
    assert {"etc-tokens", "etc-vpn", "datastore-certfile.pem", "datastore-keyfile.pem"} <= set(found.secrets)
    assert found.cluster["datastore"]["certfile"] == "../.state/prod/datastore-certfile.pem"


def test_urls_of_agents() -> None:
    assert str(registration.Url("fd00::1", 6443)) == "[fd00::1]:6443"
    odd = {"n3": host(3, "agent --server=https://[x")}
    assert registration.urls(odd, {}, ()) == {}


def said(*records: tuple[str, ...]) -> str:
    return "".join("\t".join(["@" + record[0], *record[1:]]) + "\n" for record in records) + "@end\n"


def encoded(content: str) -> str:
    return base64.b64encode(content.encode()).decode()


def test_answers_of_hosts() -> None:
    annotations = {"k3s.io/node-env": '{"K3S_URL":"https://x:6443"}'}
    nodes = {"items": [{"metadata": {"name": "n1", "annotations": annotations}}, {"metadata": {"name": "n2"}}]}
    full = f"K10{'c' * 64}::server:tok"
    found = read.parse(
        "h",
        said(
            ("system", "x86_64", "6", "n1", "m", "Debian", "systemd", "apt", "cgroup2fs", "1", "1", "1"),
            ("addresses", "eth0", "10.0.0.1/24"),
            ("adoption", "active", "mariadb"),
            ("adoption", "text", "/etc/haproxy/haproxy.cfg", encoded("x")),
            ("adoption", "token", encoded(full)),
            ("adoption", "nodes", encoded(json.dumps(nodes))),
            ("adoption", "config", encoded('{"a": 1}')),
            ("adoption", "version", VERSION),
            ("adoption", "ours", ""),
        ),
    )
    assert (found.token, found.ca, found.config) == (Secret("tok"), f"K10{'c' * 64}", {"a": 1})
    assert (found.hostname, found.role, found.ours, found.version) == ("n1", "datastore", True, VERSION)
    assert found.nodes is not None
    assert found.urls == {"n1": "https://x:6443"}
    assert "tok" not in repr(found).replace("token", "")
    assert read.parse("h", said(("adoption", "config", encoded("<html>")))).config is None
    assert read.parse("h", said(("adoption", "config", encoded("[]")))).config is None
    with pytest.raises(UnreadableAnswer, match="adoption: "):
        read.parse("h", said(("adoption", "nodes", encoded("{}"))))
    with pytest.raises(UnreadableAnswer, match="adoption: "):
        read.parse("h", said(("adoption",)))
    one, resolved = read.parse_files(
        "h", said(("adoption", "file", "/x", "640", "root", "adm", encoded("y")), ("names", "a.example", "10.0.0.1 "))
    )
    assert one == {"/x": HostFile(Secret("y"), 0o640, "root", "adm")}
    assert resolved == {"a.example": ("10.0.0.1",)}
    with pytest.raises(UnreadableAnswer, match="adoption: "):
        read.parse_files("h", said(("adoption", "file", "/x", "rw", "root", "adm", encoded("y"))))


def places(folder: Path) -> files.Places:
    return files.Places(
        folder / "config.yaml",
        {kind: folder / "inventory" / f"{kind}.yaml" for kind in ("hosts", "groups", "defaults")},
    )


def test_what_is_written_is_an_inventory_that_loads(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    found = described(
        {**TWO, "n3": host(3, "agent --server https://10.0.0.100:6443 --node-label=a=b"), "lb1": lb(21)},
        more={"artifacts": {"folder": str(tmp_path / "bundle")}},
    )
    target, store = places(tmp_path), Store(tmp_path / ".state/prod", base=tmp_path / "inventory")
    texts = files.texts(found, {"servers": {"data": {"x": 1}}}, {"username": "ops", "data": {"y": 2}})
    files.check(target, found, store, force=False)
    files.write(target, found, texts, store)
    assert "# flags of k3s-agent.service" in texts["defaults"]
    loaded = config.load(tmp_path / "config.yaml")
    assert not loaded.sources.problems
    assert loaded.sources.data["defaults"]["username"] == "ops"
    assert loaded.sources.data["groups"]["servers"] == {"data": {"x": 1}}
    assert (tmp_path / ".state/prod/token").read_text() == "tok\n"
    assert (tmp_path / ".state/prod/token").stat().st_mode & 0o777 == 0o600
    assert not any("s3cret" in path.read_text() for path in (tmp_path / "inventory").iterdir())

    with pytest.raises(UsageError, match="already there: "):
        files.check(target, found, store, force=False)
    files.check(target, found, store, force=True)
    changed = {**texts, "hosts": "n9: {}\n"}
    files.write(target, found, changed, store)
    assert (tmp_path / "inventory/hosts.yaml.before").read_text() == texts["hosts"]
    files.write(target, found, texts, store)
    assert (tmp_path / "inventory/hosts.yaml.before1").read_text() == "n9: {}\n"
    store.write("token", "another\n")
    empty = places(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is the state of another cluster of this name"):
        files.check(empty, found, store, force=False)
    files.write(target, found, texts, store)
    assert [path.read_text() for path in store.folder.glob("token-*")] == ["another\n"]
    blocked = places(tmp_path / "config.yaml")
    with pytest.raises(UsageError, match="cannot be written"):
        files.write(blocked, found, texts, store)


def loaded(folder: Path, found: Description) -> Cluster:
    """Write an inventory, and load it as a deploy does."""
    target, store = places(folder), Store(folder / ".state/prod", base=folder / "inventory")
    files.write(target, found, files.texts(found, {}, {"username": "ops"}), store)
    settings = config.load(target.config)
    with InitNornir(**settings.nornir) as nr:
        return cluster.load(nr.inventory, store=store, base=target.base, sources=settings.problems())


def test_the_inventory_is_one_that_a_deploy_takes(tmp_path: Path) -> None:
    flags = f"{SERVER} --token=tok --tls-san=10.0.0.100,api.example --disable=traefik --kubelet-arg=max-pods=99"
    flags += " --kube-apiserver-arg=audit-policy-file=/etc/k3s/audit.yaml --vpn-auth=name=x --cluster-cidr=10.99.0.0/16"
    servers = {f"n{number}": host(number, flags) for number in (1, 2)}
    agent = host(3, "agent --server https://10.0.0.100:6443 --node-label=a=b --node-taint=x=y:NoSchedule")
    texts = {"/etc/k3s/audit.yaml": text("rules: []\n"), named.REGISTRIES: text("configs: {x: {auth: {}}}\n", 0o600)}
    found = described({**servers, "n3": agent, "lb1": lb(21)}, texts=dict.fromkeys(servers, texts))
    made = loaded(tmp_path, found)
    assert (made.token, made.endpoint) == (Secret("tok"), Secret(ENDPOINT))
    assert made.server["cluster-cidr"] == ["10.99.0.0/16"]
    assert made.server["tls-san"] == ["api.example"]
    assert made.server["vpn-auth"] == Secret("name=x")
    assert [file.path for file in made.files] == ["/etc/k3s/audit.yaml"]
    assert made.delivered["registries"].reveal().startswith("configs:")
    assert made.take_over == ("lb1",)
    assert made.lb.virtual_router_id == 61


@pytest.mark.parametrize(("flags", "more"), [("server", {"sqlite": True}), ("server --cluster-init", {"etcd": True})])
def test_the_inventory_of_an_embedded_datastore_is_one_that_a_move_takes(
    tmp_path: Path, flags: str, more: dict[str, Any]
) -> None:
    bare = Found("db", (Address("eth0", "10.0.0.9/24"),))
    made = loaded(tmp_path, described({"n1": host(1, f"{flags} --token=tok", **more), "db": bare}))
    assert made.managed.kind == "mariadb"
    assert [member.name for member in made.of("datastore")] == ["db"]
    assert made.url == "https://10.0.0.1:6443"
