"""What drift says a deploy will do, the plan contains: for every kind of finding."""

from __future__ import annotations

import ast
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nornir_k3s import k3s
from nornir_k3s.checks import preflight
from nornir_k3s.compare import certificate_expiry, compare
from nornir_k3s.errors import NotReady
from nornir_k3s.host_steps import install_mark
from nornir_k3s.model.bundle import Bundle
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.datastore_facts import Database
from nornir_k3s.model.drift_limits import Limits
from nornir_k3s.model.finding import KINDS, Finding
from nornir_k3s.model.host_facts import ArtifactState, FileState, HostFacts, UnitState
from nornir_k3s.model.host_spec import Artifact
from nornir_k3s.model.k3s_facts import Api, Backend, CertificateFile, NodeState
from nornir_k3s.model.machine_facts import Address
from nornir_k3s.phases import drain, host_tasks, servers
from nornir_k3s.planner import PlannedHost, plan_host
from nornir_k3s.roles.desired import Known, desired
from nornir_k3s.roles.haproxy import CHECK_CERT
from tests.unit.hosts import changed

Load = Callable[..., Cluster]
BUNDLE = Bundle(Artifact(Path("k3s"), k3s.BINARY, "a" * 64), Artifact(Path("i"), "/var/lib/nornir-k3s/i.sh", "b" * 64))
STARTED, NOW = 1_780_000_000, 1_790_000_000
RUNNING = UnitState("loaded", "active", "running", "enabled", 0, STARTED, STARTED)
CONFIG, AGENT, SERVER = "/etc/rancher/k3s/config.yaml", "k3s-agent.service", "k3s.service"
HAPROXY = frozenset(["haproxy.service"])
# The kinds that a deploy repairs, and the kind of step that its plan has for them.
STEPS: dict[str, set[str]] = {
    "package": {"packages"}, "artifact": {"artifact"}, "install": {"install"}, "file": {"file", "remove"},
    "database": {"database"}, "selinux": {"selinux"},
    **{kind: {"unit"} for kind in ("unit", "enabled", "stale", "node", "certificate", "backend")},
}  # fmt: skip
NOTED = {"kubeconfig"}  # a note of the plan, since no host is changed: test_operator.py
REMEMBERED = {"revision"}  # no host's facts tell it: test_revision.py
TOGETHER = {"encryption"}  # on all servers, in stages: test_encryption.py


def known(cluster: Cluster, nodes: tuple[NodeState, ...]) -> Known:
    return Known(BUNDLE, "K10" + "a" * 64, "PEM", nodes={node.name: node.version for node in nodes})


def listed(cluster: Cluster) -> tuple[NodeState, ...]:
    version = cluster.version
    return (
        *(NodeState(name, ready=True, version=version, roles=("control-plane",), taints=(k3s.SERVER_TAINT,))
          for name in ("s1", "s2")),
        NodeState("a1", ready=True, version=version),
    )  # fmt: skip


def converged(cluster: Cluster, name: str) -> HostFacts:
    """A host that is as the inventory says."""
    member = cluster.member(name)
    addresses = tuple(Address("eth0", f"{address}/24") for address in (member.address, "10.0.0.100"))
    bare = HostFacts(name, now=NOW, addresses=addresses if member.role == "lb" else addresses[:1])
    spec = desired(cluster, member, bare, known(cluster, ()))
    files = {
        f.path: FileState("file", f.mode, f.owner, f.group, 1, STARTED - 9, f.sha256, written=STARTED - 9)
        for f in spec.files
    }
    api = Api(ready=True, through_address=True, nodes=listed(cluster)) if member.role == "servers" else Api()
    present = frozenset([f"/etc/systemd/system/{spec.install.unit}"] if spec.install else [])
    return changed(
        bare, files=files, packages=dict.fromkeys(spec.packages, "1"), present=present, api=api,
        units={unit.name: RUNNING for unit in spec.units}, ledger={"installed": install_mark(spec)},
        artifacts={one.path: ArtifactState(one.sha256, one.mode, STARTED - 9) for one in spec.artifacts},
        backends=dict.fromkeys(("s1", "s2"), Backend("UP")) if member.role == "lb" else {},
    )  # fmt: skip


def promises(cluster: Cluster, facts: dict[str, HostFacts]) -> tuple[list[Finding], dict[str, PlannedHost]]:
    nodes = facts["s1"].api.nodes
    assert nodes is not None
    found_out = known(cluster, nodes)
    hosts = {name: plan_host(cluster, cluster.member(name), one, found_out) for name, one in facts.items()}
    found = compare.differences(cluster, hosts, facts, Limits(), has_ca=True)
    found += certificate_expiry.differences(cluster, certificate_expiry.expiries(facts), days=30, hosts=hosts)
    return [one for one in found if one.fixed_by == "deploy"], hosts


def without(facts: HostFacts, *names: str, **change: Any) -> HostFacts:
    """A server that lists all nodes but these, and a1 with a change."""
    nodes = [replace(one, **change) if one.name == "a1" else one for one in facts.api.nodes or ()]
    return changed(facts, api={"nodes": tuple(one for one in nodes if one.name not in names)})


def unit(facts: HostFacts, name: str, **change: Any) -> HostFacts:
    return changed(facts, units={**facts.units, name: replace(facts.unit(name), **change)})


def file(facts: HostFacts, **change: Any) -> HostFacts:
    return changed(facts, files={**facts.files, CONFIG: replace(facts.files[CONFIG], **change)})


def expiring(facts: HostFacts, *, at: int, written: int) -> HostFacts:
    return changed(facts, certificates=(ends(f"{k3s.DATA}/server/tls/client-admin.crt", at, written),))


def ends(path: str, at: float, written: int = 1) -> CertificateFile:
    return CertificateFile(path, datetime.fromtimestamp(at, UTC), False, written)


OLD = FileState("file", 0o600, "root", "root", 9, STARTED - 9, "0", written=STARTED - 9)
SOON = ends(CHECK_CERT, time.time() + 9 * 86400)
Change = Callable[[HostFacts], HostFacts]
CASES: list[tuple[str, str, Change]] = [
    ("db1/package:mariadb-server", "db1", lambda f: changed(f, packages={})),
    ("db1/database:inside", "db1", lambda f: changed(f, database=Database(alive=True))),
    (f"a1/artifact:{k3s.BINARY}", "a1", lambda f: changed(f, artifacts={k3s.BINARY: ArtifactState()})),
    (f"a1/install:{AGENT}", "a1", lambda f: changed(f, ledger={"installed": ""})),
    (f"a1/file:{CONFIG}", "a1", lambda f: file(f, sha256="0")),
    (f"a1/file:{CONFIG}", "a1", lambda f: file(f, kind="absent")),
    (f"a1/file:{CONFIG}", "a1", lambda f: file(f, mode=0o644)),
    ("a1/file:/etc/old", "a1", lambda f: changed(f, ledger={"files": frozenset(["/etc/old"])})),
    (f"a1/unit:{AGENT}", "a1", lambda f: unit(f, AGENT, active="failed")),
    (f"a1/unit:{AGENT}", "a1", lambda f: unit(f, AGENT, active="inactive")),
    (f"a1/unit:{AGENT}", "a1", lambda f: unit(f, AGENT, active="activating")),
    (f"a1/enabled:{AGENT}", "a1", lambda f: unit(f, AGENT, enabled="disabled")),
    (f"a1/stale:{AGENT}", "a1", lambda f: file(f, changed=NOW, written=NOW)),
    (f"a1/stale:{AGENT}", "a1", lambda f: changed(f, ledger={"pending": frozenset([AGENT])})),
    ("a1/node:a1", "s1", lambda f: without(f, "a1")),
    ("s2/node:s2", "s1", lambda f: without(f, "s2")),
    ("a1/node:a1", "s1", lambda f: without(f, version="v1.33.1+k3s1")),
    (f"lb1/file:{CHECK_CERT}", "lb1", lambda f: changed(f, files={**f.files, CHECK_CERT: OLD})),
    (f"lb1/certificate:{CHECK_CERT}", "lb1",
     lambda f: changed(f, files={**f.files, CHECK_CERT: OLD}, certificates=(SOON,))),
    ("lb1/selinux:haproxy_connect_any", "lb1",
     lambda f: changed(f, distribution=("rocky", "rhel"), booleans={"haproxy_connect_any": "off"})),
    ("lb1/backend:s2", "lb1", lambda f: changed(f, backends={"s1": f.backends["s1"]}, ledger={"pending": HAPROXY})),
    (f"s2/certificate:{k3s.DATA}/server/tls/client-admin.crt", "s2", lambda f: expiring(f, at=NOW - 9, written=1)),
    (f"s2/certificate:{k3s.DATA}/server/tls/client-admin.crt", "s2", lambda f: expiring(f, at=NOW - 9, written=NOW)),
]  # fmt: skip


@pytest.mark.parametrize(("expected", "host", "change"), CASES, ids=[case[0] for case in CASES])
def test_what_drift_says_a_deploy_will_do_is_in_the_plan(load: Load, expected: str, host: str, change: Change) -> None:
    cluster = load()
    facts = {name: converged(cluster, name) for name in ("db1", "s1", "s2", "a1", "lb1")}
    before = {one.id for one in promises(cluster, facts)[0]} - {"db1/database:inside"}
    assert not before, "they differ in nothing"
    facts[host] = change(facts[host])
    found, hosts = promises(cluster, facts)
    assert expected in {one.id for one in found}
    for one in found:
        planned = [step for step in hosts[one.host].steps if step.kind in STEPS[one.kind]]
        elsewhere = one.kind in {"node", "certificate", "package", "backend"}
        exact = [step for step in planned if one.subject in (step.target, step.target.replace(" ", "-"))]
        assert planned if elsewhere else exact, one


def test_every_kind_that_a_deploy_repairs_has_a_case() -> None:
    told = {case[0].partition("/")[2].partition(":")[0] for case in CASES}
    assert told == set(STEPS) <= set(KINDS)
    for path in (Path(compare.__file__).parent).glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or getattr(call.func, "id", "") != "Finding":
                continue
            words = {one.arg: ast.unparse(one.value) for one in call.keywords if one.arg}
            promised = "deploy" in words.get("fixed_by", "") or "the next deploy" in words.get("remedy", "")
            if promised:
                assert ast.literal_eval(words["kind"]) in {*STEPS, *NOTED, *REMEMBERED, *TOGETHER}, ast.unparse(call)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: unit(without(f, "s1"), SERVER, changed=NOW - 5),
        lambda f: expiring(f, at=NOW + 30 * 86400, written=1),
        lambda f: expiring(f, at=STARTED + 86400, written=STARTED - 1),
    ],
    ids=["just started", "expires later", "K3s did not renew it at its start"],
)
def test_what_a_restart_would_not_repair_is_not_planned(load: Load, change: Change) -> None:
    cluster = load()
    facts = {name: converged(cluster, name) for name in ("s1", "s2", "a1")}
    facts["s1"] = change(facts["s1"])
    found, hosts = promises(cluster, facts)
    assert not found
    assert not any(planned.steps for planned in hosts.values())


def test_a_cluster_that_lists_no_node_at_all_restarts_all(load: Load) -> None:
    cluster = load()
    facts = {name: converged(cluster, name) for name in ("s1", "s2", "a1")}
    facts["s1"] = without(facts["s1"], "s1", "s2", "a1")
    _, hosts = promises(cluster, facts)
    assert [step.summary for planned in hosts.values() for step in planned.steps] == [
        f"restart {SERVER}: node s1 is not listed",
        f"restart {SERVER}: node s2 is not listed",
        f"restart {AGENT}: node a1 is not listed",
    ]


def test_servers_whose_certificates_have_expired_restart_one_at_a_time(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them is ready by then, but what they serve must not be away at once."""
    cluster = load()
    facts = {name: expiring(converged(cluster, name), at=NOW - 9, written=1) for name in ("s1", "s2")}
    facts = {name: changed(one, api={"ready": name == "s1", "nodes": None}) for name, one in facts.items()}
    plans = {name: plan_host(cluster, cluster.member(name), one, known(cluster, ())) for name, one in facts.items()}
    phases: list[list[str]] = []
    run: Any = SimpleNamespace(
        cluster=cluster, away=(), new_ca="", done=set(), facts=facts, planned=plans.get, chosen=list,
        ready_servers=["s1"],
        of=lambda group: cluster.of(group) if group == "servers" else [],
        phase=lambda _, names, *__, **___: phases.append(list(names)),
    )  # fmt: skip
    facts["s1"] = changed(facts["s1"], api={"ready": False})
    monkeypatch.setattr(drain, "wanted", lambda *_: [])
    monkeypatch.setattr(drain, "put_back", lambda _: None)
    servers.converge_others(run)
    assert [names for names in phases if names] == [["s1"], ["s2"]]
    path = f"{k3s.DATA}/server/tls/client-admin.crt"
    assert [step.summary for step in plans["s1"].steps] == [f"restart {SERVER}: it renews {path} when it starts"]


def test_certificates_that_have_all_expired_keep_no_deploy_from_renewing_them(load: Load) -> None:
    """Of a cluster that nobody restarted for a year: no server answers kubectl, no agent reaches the API."""
    cluster = load()
    names = [member.name for member in cluster.members]
    well = {name: converged(cluster, name) for name in names}
    ended = {
        name: expiring(one, at=NOW - 9, written=1) if name in ("s1", "s2", "a1") else one for name, one in well.items()
    }
    for name in ("s1", "s2"):
        ended[name] = changed(ended[name], api={"ready": False, "nodes": None, "through_address": False})
    ended["a1"] = changed(ended["a1"], registration="Unauthorized")

    def errors(facts: dict[str, HostFacts]) -> set[str]:
        return {one.id for one in preflight.check(cluster, facts) if one.severity == "error"}

    assert errors(ended) <= errors(well)
    known_now = known(cluster, ())
    restarts = {
        name: plan_host(cluster, cluster.member(name), one, known_now).starts_k3s for name, one in ended.items()
    }
    assert {name for name, starts in restarts.items() if starts} == {"s1", "s2", "a1"}


@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [
        (("s1", "s2"), ("s1", "s2"), False),
        (("s2",), ("s2",), False),
        (("s1", "s2"), ("s2",), True),
        ((), ("s2",), True),
    ],
    ids=["all listed", "a node was deleted before", "another datastore", "not known what was listed"],
)
def test_a_server_whose_node_was_deleted_is_no_other_cluster(
    load: Load, before: tuple[str, ...], after: tuple[str, ...], refused: bool
) -> None:
    cluster = load()
    facts = {name: converged(cluster, name) for name in ("s1", "s2")}
    nodes = {node.name: node for node in listed(cluster)}
    facts["s1"] = changed(facts["s1"], api={"nodes": tuple(nodes[name] for name in before)})
    run: Any = SimpleNamespace(facts=facts, member=cluster.member, ready_servers=["s1", "s2"])
    fresh = changed(facts["s2"], api={"nodes": tuple(nodes[name] for name in after)})
    with pytest.raises(NotReady, match="does not list s1") if refused else contextlib.nullcontext():
        host_tasks.require_same_cluster(run, "s2", fresh)
