"""Hosts that left the inventory and not the cluster: nothing that they need is taken from them, and all is told."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nornir.core import Nornir
from nornir.core.configuration import Config
from nornir.core.state import GlobalState

from nornir_k3s.checks import left as checks
from nornir_k3s.compare import nodes as compared
from nornir_k3s.facts.nodes import nodes as read_nodes
from nornir_k3s.model.cluster import Cluster, Member
from nornir_k3s.model.datastore_facts import Database
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import Api, Backend, NodeState
from nornir_k3s.phases import tidy
from nornir_k3s.plugins.runner import K3sRunner
from nornir_k3s.roles import datastore, haproxy, left
from nornir_k3s.roles.datastore_login import connections, login
from nornir_k3s.roles.desired import Known, desired
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run
from nornir_k3s.state import known_cluster

from .conftest import HOSTS, SETTINGS, inventory

Load = Callable[..., Cluster]
THREE = {**HOSTS, "s3": ("10.0.0.19", "servers")}
S3 = Member("s3", "servers", "10.0.0.19", "s3")


def nr(hosts: dict[str, tuple[str, str]]) -> Nornir:
    settings: dict[str, Any] = copy.deepcopy(SETTINGS) | {"artifacts": {}}
    return Nornir(inventory=inventory(settings, hosts, {}), runner=K3sRunner(), config=Config(), data=GlobalState())


def prepared(hosts: dict[str, tuple[str, str]], folder: Path, **options: Any) -> Run:
    """Return a run of a controller that has the cluster's secrets."""
    run = gather.prepare(nr(hosts), base=folder, state=folder / "state", options={"whole": True, **options})
    run.store.commit()
    run.first = None
    return run


def node(name: str, address: str, *, ready: bool = True, server: bool = True) -> NodeState:
    roles = ("control-plane",) if server else ()
    return NodeState(name, ready=ready, version=SETTINGS["version"], roles=roles, address=address)


def listing(*more: NodeState) -> dict[str, HostFacts]:
    """Return what a ready server lists: the nodes of the inventory, and more."""
    own = [node(name, HOSTS[name][0], server=name != "a1") for name in ("s1", "s2", "a1")]
    return {"s1": HostFacts("s1", api=Api(ready=True, nodes=(*own, *more)))}


def names(members: Sequence[Member]) -> list[str]:
    return [member.name for member in members]


def config(cluster: Cluster, known: Known) -> str:
    spec = desired(cluster, cluster.member("lb1"), HostFacts("lb1"), known)
    return next(file.text.reveal() for file in spec.files if file.path == haproxy.CONFIG)


def test_a_host_that_left_the_inventory_is_remembered_until_it_is_no_node_any_more(tmp_path: Path) -> None:
    prepared(THREE, tmp_path)
    for _ in range(3):  # each run forgets the members before
        run = prepared(HOSTS, tmp_path)
        assert names(run.cluster.left) == ["s3"]
        assert "s3" not in names(run.cluster.members)
    assert names(prepared(THREE, tmp_path).cluster.left) == [], "it came back"
    run = prepared(HOSTS, tmp_path)
    run.facts = listing(node("s3", "10.0.0.19")) | {"s2": HostFacts("s2")}
    tidy.tidy(run)
    assert names(known_cluster.left(run.store)) == ["s3"]
    run.facts = listing() | {"s2": HostFacts("s2")}
    tidy.tidy(run)
    assert names(prepared(HOSTS, tmp_path).cluster.left) == []


def test_a_host_that_was_only_filtered_away_has_not_left(tmp_path: Path) -> None:
    prepared(THREE, tmp_path)
    run = prepared(HOSTS, tmp_path, whole=False)
    assert (run.cluster.left, run.away) == ((), frozenset({"s3"}))
    assert names(run.cluster.serving) == ["s1", "s2", "s3"]
    run.facts = listing(node("s3", "10.0.0.19"))
    assert left.members(run.cluster, run.facts) == ()


def test_one_that_left_before_is_no_member_again_in_a_filtered_run(tmp_path: Path) -> None:
    prepared(THREE, tmp_path)
    prepared(HOSTS, tmp_path)
    run = prepared({name: host for name, host in HOSTS.items() if name != "a1"}, tmp_path, whole=False)
    assert (names(run.cluster.left), run.away) == (["s3"], frozenset({"a1"}))


@pytest.mark.parametrize("group", ["lb", "none"])
def test_one_that_is_only_in_another_group_now_has_left_too(tmp_path: Path, group: str) -> None:
    prepared(THREE, tmp_path)
    changed = nr(THREE)
    changed.inventory.hosts["s3"].groups.clear()
    if group == "lb":
        changed.inventory.hosts["s3"].groups.append(changed.inventory.groups["lb"])
    run = gather.prepare(changed, base=tmp_path, state=tmp_path / "state", options={"whole": True})
    assert names(run.cluster.left) == ["s3"]


def test_one_that_has_another_name_now_has_not_left(tmp_path: Path) -> None:
    prepared(THREE, tmp_path)
    renamed = {**HOSTS, "server3": ("10.0.0.19", "servers")}
    run = prepared(renamed, tmp_path)
    assert run.cluster.left == ()
    facts = listing(node("s3", "10.0.0.19", ready=False))
    assert left.members(run.cluster, facts) == ()


def test_which_of_them_are_still_there(load: Load) -> None:
    cluster = replace(load(), left=(S3,))
    assert names(left.members(cluster, {})) == ["s3"], "no server lists the nodes"
    assert left.members(cluster, listing()) == ()
    assert left.members(cluster, listing(node("s3", "10.0.0.19"))) == (S3,)
    up = {"lb1": HostFacts("lb1", backends={"s1": Backend("UP"), "s3": Backend("UP 1/2")})}
    assert left.members(cluster, listing() | up) == (S3,), "somebody has deleted the node only"
    down = {"lb1": HostFacts("lb1", backends={"s3": Backend("DOWN")})}
    assert left.members(cluster, listing() | down) == ()
    # Another controller has deployed it.
    found = left.members(load(), listing(node("s9", "10.0.0.29"), node("a9", "10.0.0.39", server=False)))
    assert [(one.name, one.role, one.address) for one in found] == [
        ("s9", "servers", "10.0.0.29"),
        ("a9", "agents", "10.0.0.39"),
    ]


def test_a_server_that_left_keeps_its_backend_its_place_and_its_connections(load: Load) -> None:
    before, after = load(hosts=THREE), replace(load(), left=(S3,))
    assert config(after, Known(left=(S3,))) == config(before, Known())
    assert config(after, Known(left=(S3,))) != config(after, Known())
    middle = replace(S3, name="s0", node_name="s0", address="10.0.0.9")
    assert names(replace(after, left=(middle, S3)).serving) == ["s0", "s1", "s2", "s3"]
    assert connections(after) == connections(before)
    agent = replace(after, left=(replace(S3, role="agents"),))
    assert names(agent.serving) == ["s1", "s2"]


def test_a_server_that_left_keeps_its_database_user_of_whatever_password(load: Load) -> None:
    cluster = load()
    users = {f"{login(cluster)}@{address}": True for address in ("10.0.0.12", "10.0.0.13", "10.0.0.19")}
    users |= {"k3s_00000000@10.0.0.19": True, "k3s_00000000@10.0.0.12": True}
    kept, dropped = replace(cluster, left=(S3,)), ["k3s_00000000@10.0.0.12"]
    assert datastore.kind(kept).obsolete_users(kept, Database(users=users)) == dropped
    gone = [f"{login(cluster)}@10.0.0.19", "k3s_00000000@10.0.0.19", *dropped]
    assert datastore.kind(cluster).obsolete_users(cluster, Database(users=users)) == gone
    assert not any("10.0.0.19" in one for one in datastore.kind(kept).missing(kept, Database())), "no new one"


def test_postgresql_keeps_users_and_lets_it_in(load: Load) -> None:
    cluster = load({"datastore": {"kind": "postgresql"}})
    users = dict.fromkeys([login(cluster), "k3s_00000000"], True)
    kept = replace(cluster, left=(S3,))
    assert datastore.kind(cluster).obsolete_users(cluster, Database(users=users)) == ["k3s_00000000"]
    assert datastore.kind(kept).obsolete_users(kept, Database(users=users)) == []


def test_the_plan_of_every_host_keeps_what_it_needs(tmp_path: Path) -> None:
    prepared(THREE, tmp_path)
    run = prepared(HOSTS, tmp_path)
    user = f"{login(run.cluster)}@10.0.0.19"
    run.facts = listing(node("s3", "10.0.0.19"))
    run.facts["db1"] = HostFacts("db1", database=Database(users={user: True}))
    assert run.planned("db1").tidy == ()
    run.facts["s1"] = listing()["s1"]  # it was removed
    assert [step.summary for step in run.planned("db1").tidy] == [f"remove {user}"]


def test_what_is_told_of_it_and_what_to_do(load: Load) -> None:
    cluster = load()
    (told,) = checks.check(cluster, listing(node("s3", "10.0.0.19")))
    assert (told.host, told.subject, told.severity) == ("cluster", "left", "warning")
    words = "server s3 is not in the inventory, and still a node of the cluster: K3s runs there; deploy leaves it in"
    assert told.found.startswith(words)
    assert "s3" in told.remedy
    (told,) = checks.check(cluster, listing(node("a9", "10.0.0.39", ready=False, server=False)))
    assert told.found == "agent a9 is not in the inventory, and still a node of the cluster: it is not Ready"
    (told,) = checks.check(replace(cluster, left=(S3,)), {})
    assert "no server lists the nodes" in told.found
    up = {"lb1": HostFacts("lb1", backends={"s3": Backend("UP")})}
    (told,) = checks.check(replace(cluster, left=(S3,)), listing() | up)
    assert "no node, but HAProxy sees its K3s up" in told.found
    assert list(checks.check(cluster, listing())) == []


def test_drift_tells_it_once(load: Load) -> None:
    facts = listing(node("s3", "10.0.0.19"))
    found = [one for one in compared.differences(load(), facts, facts["s1"].api.nodes) if one.kind == "stranger"]
    assert [(one.id, "K3s runs there" in one.found) for one in found] == [("cluster/stranger:s3", True)]


def test_a_node_s_address_is_its_first_internal_one() -> None:
    addresses = '[{"type": "Hostname", "address": "x"}, {"type": "InternalIP", "address": "10.0.0.1"}]'
    (found,) = read_nodes(f'{{"items": [{{"metadata": {{"name": "x"}}, "status": {{"addresses": {addresses}}}}}]}}')
    assert found.address == "10.0.0.1"


LB3 = Member("lb3", "lb", "10.0.0.17", "lb3")
DB0 = Member("db0", "datastore", "10.0.0.10", "db0")


def test_load_balancers_that_left_are_remembered_until_they_are_removed(tmp_path: Path) -> None:
    three = {**HOSTS, "lb3": ("10.0.0.17", "lb")}
    prepared(three, tmp_path)
    for _ in range(2):
        run = prepared(HOSTS, tmp_path)
        assert (names(run.cluster.left), names(run.cluster.left_others)) == ([], ["lb3"])
    run.facts = listing() | {"s2": HostFacts("s2")}
    tidy.tidy(run)
    run = prepared(HOSTS, tmp_path)
    assert names(run.cluster.left_others) == ["lb3"], "whether it runs on cannot be seen from the cluster"
    assert prepared(three, tmp_path).cluster.left_others == (), "it came back"
    filtered = prepared({name: host for name, host in HOSTS.items() if name != "lb2"}, tmp_path, whole=False)
    assert (filtered.cluster.left_others, filtered.away) == ((), frozenset({"lb2", "lb3"}))


def test_one_without_a_role_is_still_in_the_inventory(tmp_path: Path) -> None:
    three = {**HOSTS, "lb3": ("10.0.0.17", "lb")}
    prepared(three, tmp_path)
    changed = nr(three)
    changed.inventory.hosts["lb3"].groups.clear()
    run = gather.prepare(changed, base=tmp_path, state=tmp_path / "state", options={"whole": True})
    assert run.cluster.left_others == (), "the user knows of it"


def test_preflight_drift_and_status_tell_of_them(load: Load) -> None:
    cluster = replace(load(), left_others=(LB3, DB0))
    told = [(one.subject, one.severity, one.found, one.remedy) for one in checks.check(cluster, listing())]
    assert [one[:2] for one in told] == [("left", "warning")] * 2
    assert "load balancer lb3 is not in the inventory" in told[0][2]
    assert "`nornir-k3s remove lb3` takes it down, `nornir-k3s remove --lost lb3` if the host is gone" in told[0][3]
    assert "db0 is not in the inventory, and was a host of the datastore" in told[1][2]
    assert "`nornir-k3s remove --lost db0` ends this warning" in told[1][3]
    found = [one.id for one in compared.differences(cluster, listing(), ()) if one.kind == "stranger"]
    assert found == ["cluster/stranger:lb3", "cluster/stranger:db0"]
