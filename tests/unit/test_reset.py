"""A whole cluster is taken down: what is done where, what is refused, what stays, and the shell that does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nornir_k3s import Declined, K3sError, Reset, UsageError, plan_reset, reset
from nornir_k3s.apply import reset as scripts
from nornir_k3s.checks import reset as checks
from nornir_k3s.errors import HostsFailed, HostUnreachable
from nornir_k3s.facts import Query
from nornir_k3s.facts.made import Holds, OtherClusters
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.datastore_facts import Database
from nornir_k3s.model.family import DEBIAN, RHEL
from nornir_k3s.model.host_facts import HostFacts, Made, Served
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.model.k3s_facts import ServerFiles
from nornir_k3s.model.paths import DATASTORE_KEYS
from nornir_k3s.model.step import Step
from nornir_k3s.roles.datastore import KINDS
from nornir_k3s.roles.datastore_login import login
from nornir_k3s.run.context import Run
from nornir_k3s.workflows import reset as workflow

from .conftest import HOSTS
from .test_left import nr, prepared

Load = Callable[..., Cluster]
MYSQL = "/etc/mysql/mariadb.conf.d/90-nornir-k3s.cnf"
NODE = Made(state=True, k3s=True, files={"/etc/rancher/k3s/config.yaml": False})
BALANCER = Made(
    state=True,
    files={"/etc/haproxy/haproxy.cfg": True, "/etc/keepalived/keepalived.conf": False},
    packages=("haproxy", "keepalived", "liblua5.3-0"),
)
DATABASE = Made(state=True, files={MYSQL: False}, packages=("mariadb-server", "galera-4"), dumps=("a", "b"))


def seen(cluster: Cluster, **made: Made) -> dict[str, HostFacts]:
    """Return what was read of a deployed cluster; or of hosts where something else was made."""
    known = {"db1": DATABASE, "lb1": BALANCER, "lb2": BALANCER} | made
    users = {f"{login(cluster)}@10.0.0.12": True}
    database = Database(alive=True, users=users)
    return {
        name: HostFacts(name, made=known.get(name, NODE), database=database if name == "db1" else Database())
        for name in (member.name for member in cluster.members)
    }


def said(steps: list[Step]) -> list[str]:
    return [step.summary for step in steps]


def test_what_is_done_on_a_node(load: Load) -> None:
    cluster = load()
    facts = seen(cluster)["s1"]
    steps = scripts.on_host(cluster, facts, data_stay=False)
    assert said(steps) == [
        "uninstall K3s with its own script, and remove what that leaves",
        "remove /etc/rancher/k3s/config.yaml",
        "remove the notes of this tool, /var/lib/nornir-k3s",
    ]
    assert "reset_k3s 10.42.0.0/16 '10.0.0.11 10.0.0.12 " in str(steps[0].payload and reveal(steps[0]))
    assert reveal(steps[0]).endswith(" no")
    assert reveal(scripts.on_host(cluster, facts, data_stay=True)[0]).endswith(" yes")
    assert scripts.on_host(cluster, HostFacts("s1"), data_stay=False) == []
    left = HostFacts("s1", made=Made(password=True))
    assert said(scripts.on_host(cluster, left, data_stay=False)) == ["remove the password of the node"]
    assert scripts.on_host(cluster, left, data_stay=True) == [], "its node is still in the data"


def reveal(step: Step) -> str:
    return step.payload.reveal().strip()  # type: ignore[union-attr]  # a script


def test_what_is_done_on_a_load_balancer(load: Load) -> None:
    cluster = load()
    steps = scripts.on_host(cluster, seen(cluster)["lb1"], data_stay=True)
    assert said(steps) == [
        "stop keepalived.service",
        "stop haproxy.service",
        "put /etc/haproxy/haproxy.cfg back as it was before",
        "remove /etc/keepalived/keepalived.conf",
        "remove the package(s) haproxy, keepalived and 1 that came along",
        "remove what keepalived leaves: /etc/keepalived, /etc/iproute2/rt_addrprotos.d/keepalived.conf",
        "remove what haproxy leaves: /var/lib/haproxy, /etc/haproxy, haproxy",
        "remove the notes of this tool, /var/lib/nornir-k3s",
    ]
    theirs = Made(state=True, files={"/etc/haproxy/haproxy.cfg": True}, copies=("/etc/keepalived/keepalived.conf",))
    steps = scripts.on_host(cluster, HostFacts("lb1", made=replace(theirs, booleans=("x",))), data_stay=True)
    assert said(steps) == [
        "stop haproxy.service",
        "put /etc/haproxy/haproxy.cfg back as it was before",
        "put /etc/keepalived/keepalived.conf back as it was before",
        "restart haproxy.service, if it ran before",
        "turn SELinux' boolean x off again",
        "remove the notes of this tool, /var/lib/nornir-k3s",
    ]
    killed = HostFacts("lb1", made=Made(state=True, stopped=frozenset(["haproxy.service"])))
    assert "restart haproxy.service, if it ran before" in said(scripts.on_host(cluster, killed, data_stay=True))


def test_a_datastore_stays_unless_it_is_asked_for(load: Load) -> None:
    cluster = load()
    facts = seen(cluster)["db1"]
    assert scripts.on_host(cluster, facts, data_stay=True) == []
    keys = replace(facts, made=replace(facts.made, files={**facts.made.files, DATASTORE_KEYS: False}))
    assert scripts.on_host(cluster, keys, data_stay=True) == [], "nor does the key of its CA go"
    assert f"remove {DATASTORE_KEYS}" in said(scripts.of_datastore(cluster, keys))
    assert said(scripts.of_datastore(cluster, facts)) == [
        "stop mariadb.service, and with it the datastore",
        f"remove {MYSQL}",
        "remove the package(s) mariadb-server and 1 that came along",
        "remove what mariadb-server leaves: /var/lib/mysql, /etc/mysql, /var/log/mysql, mysql",
        "remove 2 dump(s) of the datastore",
        "remove the notes of this tool, /var/lib/nornir-k3s",
    ]
    assert scripts.of_datastore(cluster, HostFacts("db1")) == []
    killed = HostFacts("db1", made=Made(state=True, stopped=frozenset(["mariadb.service"])))
    assert scripts.of_datastore(cluster, killed)
    both = replace(facts, made=replace(DATABASE, k3s=True, packages=(*DATABASE.packages, *BALANCER.packages)))
    steps = scripts.on_host(cluster, both, data_stay=True)
    assert "remove the package(s) haproxy, keepalived and 2 that came along" in said(steps)
    assert reveal(steps[-1]).endswith("forget_all apt keep")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_only_partly_ours_loses_our_part(load: Load, kind: str) -> None:
    cluster = load({"datastore": {"kind": kind}})
    service = DEBIAN.service(kind).at("15")
    users = dict.fromkeys(("k3s_0123abcd@10.0.0.12", "k3s_0123abcd", "other@10.0.0.12"), True)
    facts = HostFacts(
        "db1", made=Made(state=True, files={service.config: True}), database=Database(alive=True, users=users)
    )
    steps = scripts.of_datastore(cluster, facts)
    assert said(steps)[1:] == [
        f"put {service.config} back as it was before",
        f"restart {service.main}, which was there before",
        "remove the notes of this tool, /var/lib/nornir-k3s",
    ]
    copy = f"{service.folder}/nornir-k3s-x.pem"
    given = replace(facts, made=replace(facts.made, copies=(copy,)))
    assert f"put {copy} back as it was before" in said(scripts.of_datastore(cluster, given))
    script = reveal(steps[0])
    assert f"leave_unit {service.main} run" in script
    assert reveal(steps[2]).endswith(f"as_before {service.main}")
    assert "other" not in script.rpartition("leave_unit")[2]
    drops = {
        "postgresql": ["DROP DATABASE IF EXISTS k3s WITH (FORCE)", "DROP ROLE IF EXISTS k3s_0123abcd;", "EXISTS k3s;"],
        "etcd": ["rm -rf /var/lib/etcd/test"],
    }
    for one in drops.get(kind, ["DROP DATABASE IF EXISTS `k3s`", "DROP USER IF EXISTS 'k3s_0123abcd'@'10.0.0.12'"]):
        assert one in script
    installed = replace(facts, made=Made(state=True, packages=service.packages), others=(Served("x", "database y"),))
    assert said(scripts.of_datastore(cluster, installed))[-2].startswith("restart ")
    assert reveal(scripts.of_datastore(cluster, installed)[-2]).endswith(f"keep_running {service.main}")
    assert scripts.is_alone(cluster, replace(installed, others=()))
    shared = replace(installed.made, stopped=frozenset([service.main]), shared=frozenset([service.main]))
    killed = replace(installed, made=shared, others=(), database=Database())
    assert not scripts.is_alone(cluster, killed), "an earlier run has seen data of others there"
    assert bool([*checks.data(cluster, {"db1": killed})]) == (kind != "etcd")
    assert scripts.is_alone(cluster, replace(installed, others=(Served("x", "database k3s_old_5d0c81f4"),)))
    assert not scripts.is_alone(cluster, HostFacts("db1", distribution=("rhel",))), "RHEL has no etcd, for one"


def test_what_else_a_datastore_has_is_asked_whoever_installed_it(load: Load) -> None:
    cluster = load({"datastore": {"kind": "postgresql"}})
    query = Query(cluster, cluster.member("db1"), HostSpec())
    (call,) = Holds().calls(query)
    assert call == "fact_others /nowhere postgresql k3s postgresql 'postgresql@*.service' k3s /etc/postgresql"
    assert list(OtherClusters().calls(query)) == ["other_clusters"]
    assert not [*Holds().calls(Query(cluster, cluster.member("s1"), HostSpec()))]
    etcd = load({"datastore": {"kind": "etcd"}})
    query = Query(etcd, etcd.member("db1"), HostSpec(), family=RHEL)
    assert not [*Holds().calls(query), *OtherClusters().calls(query)]


def test_what_is_refused(load: Load) -> None:
    cluster = load()
    facts = seen(cluster)
    assert list(checks.filtered([])) == []
    assert list(checks.filtered({"s2", "a1"})) == ["a1, s2: not in this inventory: a reset needs the whole one"]
    assert list(checks.unknown(["s1", "s2"], ["s1", "s22"])) == ["s22 is not in this cluster; did you mean `s2`?"]
    assert list(checks.refusals(cluster, facts, "K10aa")) == []
    facts["s1"] = replace(facts["s1"], server=ServerFiles("K10bb"))
    (told,) = checks.refusals(cluster, facts, "K10aa")
    assert told == "s1 is a server of another cluster: its CA is not the one of test"
    facts["s1"], facts["a1"] = seen(cluster)["s1"], replace(facts["a1"], agent_ca="bb")
    (told,) = checks.refusals(cluster, facts, "K10aa")
    assert told.startswith("a1 is an agent of another cluster")
    facts["a1"] = replace(facts["a1"], agent_ca="aa")
    assert list(checks.refusals(cluster, facts, "K10aa")) == []
    assert list(checks.refusals(cluster, facts, "")) == []
    assert list(checks.data(cluster, facts)) == []
    silent = replace(facts["db1"], database=Database())
    (told,) = checks.data(cluster, {"db1": silent})
    assert told.startswith("db1: mariadb.service does not answer")
    killed = replace(DATABASE, stopped=frozenset(["mariadb.service"]))
    assert list(checks.data(cluster, {"db1": replace(silent, made=killed)})) == []
    assert list(checks.data(cluster, {})) == []


def test_a_token_that_only_a_server_has_does_not_go_while_its_data_stay(load: Load) -> None:
    """`k3s token rotate` by hand: the state folder has the old one."""
    cluster = load()
    facts, own = seen(cluster), cluster.token.fingerprint()
    facts["s2"] = replace(facts["s2"], server=ServerFiles("K10aa", "new"))
    (told,) = checks.kept_token(cluster, facts)
    assert told.startswith("the token was rotated on s2"), "what an external datastore has is not known"
    others = replace(facts["s2"], made=Made())
    assert not list(checks.kept_token(cluster, {**facts, "s2": others})), "nothing of this tool's is there to go"
    for stored, refused in (("new", True), (own, False), ("third", False)):
        facts["db1"] = replace(facts["db1"], database=Database(alive=True, bootstrap={f"/bootstrap/{stored}": 9}))
        assert bool(list(checks.kept_token(cluster, facts))) is refused, stored


@pytest.fixture
def deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A cluster whose hosts answer, and what was done on them: by phase, the hosts."""
    prepared(HOSTS, tmp_path)
    known: dict[str, Any] = {"done": {}, "made": {}, "down": []}

    def phase(run: Run, title: str, names: Any, *_: object, **__: object) -> dict[str, Any]:
        if title == "observe":
            known["read"] = list(names)
            if errors := [HostUnreachable(one, "no answer") for one in known["down"] if one in known["read"]]:
                raise errors[0] if len(errors) == 1 else HostsFailed(errors)
            run.facts |= {
                name: one for name, one in seen(run.cluster, **known["made"]).items() if name in known["read"]
            }
        elif known.get("fails") == title:
            raise K3sError("it broke")
        else:
            known["done"][title] = list(names)
        return {}

    monkeypatch.setattr(Run, "phase", phase)
    known["arguments"] = {"base": tmp_path, "state": tmp_path / "state"}
    return known


def test_a_plan_says_what_goes_and_what_stays(deployed: dict[str, Any]) -> None:
    plan = plan_reset(nr(HOSTS), **deployed["arguments"])
    assert set(plan.changes) == {"s1", "s2", "a1", "lb1", "lb2"}
    assert set(plan.datastore) == {"db1"}
    notes = "\n".join(plan.notes)
    assert "the datastore on db1 stays, with all data of the cluster: deploy brings the cluster back" in notes
    assert "its token is the key to these data" in notes
    whole = plan_reset(nr(HOSTS), datastore=True, lost=["a1"], **deployed["arguments"])
    assert "a1" not in whole.changes
    assert whole.lost == ["a1"]
    assert "a1: nothing is done there, and it has the token: never start it again" in whole.notes
    assert "is kept as test.reset-DATE" in "\n".join(whole.notes)
    assert deployed["done"] == {}


def test_a_reset_that_would_lose_the_token_of_data_that_stay_is_refused(
    deployed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "kept_token", lambda *_: ["the token was rotated on s2"])
    with pytest.raises(UsageError, match="rotated on s2"):
        reset(nr(HOSTS), **deployed["arguments"])
    assert deployed["done"] == {}
    plan_reset(nr(HOSTS), datastore=True, **deployed["arguments"])


def test_the_datastore_stays_and_the_state_with_it(deployed: dict[str, Any], tmp_path: Path) -> None:
    report = reset(nr(HOSTS), **deployed["arguments"])
    assert deployed["done"] == {"k3s": ["s1", "s2", "a1"], "load-balancers": ["lb1", "lb2"], "datastore": []}
    assert report.exit_code == 0
    run = prepared({name: host for name, host in HOSTS.items() if name != "s2"}, tmp_path)
    assert run.cluster.left == (), "hosts that are reset may leave the inventory"


def test_all_goes_where_the_clusters_name_was_typed(deployed: dict[str, Any], tmp_path: Path) -> None:
    token = (tmp_path / "state" / "test" / "token").read_text()
    asked: list[Reset] = []

    def ask(plan: Reset) -> bool:
        asked.append(plan)
        return True

    report = reset(nr(HOSTS), **deployed["arguments"], confirm=ask, datastore=ask)
    assert deployed["done"]["datastore"] == ["db1"]
    assert [bool(plan.datastore) for plan in asked] == [True, True]
    (kept,) = (tmp_path / "state").glob("test.reset-*")
    assert (kept / "token").read_text() == token
    assert not (tmp_path / "state" / "test").exists()
    assert any(kept.name in note for note in report.notes)


def test_a_state_folder_that_cannot_be_renamed_is_told(
    deployed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> Path:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "rename", busy)
    notes = reset(nr(HOSTS), **deployed["arguments"], datastore=True).notes
    assert any("test cannot be renamed (Device or resource busy)" in note for note in notes)


def test_no_is_no(deployed: dict[str, Any]) -> None:
    with pytest.raises(Declined):
        reset(nr(HOSTS), **deployed["arguments"], confirm=lambda _: False)
    reset(nr(HOSTS), **deployed["arguments"], datastore=lambda _: False)
    assert deployed["done"]["datastore"] == []


def test_a_host_that_is_down_ends_it_unless_it_is_lost(deployed: dict[str, Any]) -> None:
    for down in (["a1"], ["s2", "a1"]):
        deployed["down"] = down
        with pytest.raises(K3sError) as raised:
            reset(nr(HOSTS), **deployed["arguments"])
        assert raised.value.exit_code == 4
        assert f"--lost {','.join(sorted(down, reverse=True))}; nothing was changed" in str(raised.value)
        assert deployed["done"] == {}
    assert reset(nr(HOSTS), **deployed["arguments"], lost=["s2", "a1"]).exit_code == 0
    assert deployed["done"]["k3s"] == ["s1"]
    with pytest.raises(UsageError, match="nobody is not in this cluster"):
        reset(nr(HOSTS), **deployed["arguments"], lost=["nobody"])


def test_a_run_that_fails_says_how_far_it_came(deployed: dict[str, Any], tmp_path: Path) -> None:
    deployed["fails"] = "load-balancers"
    with pytest.raises(K3sError) as raised:
        reset(nr(HOSTS), **deployed["arguments"], datastore=True)
    report = raised.value.report
    assert [(one.name, one.state) for one in report.phases][:2] == [
        ("k3s", "nothing to do"),
        ("load-balancers", "failed"),
    ]
    assert (tmp_path / "state" / "test" / "token").exists()


def test_hosts_that_left_the_inventory_are_reset_too(deployed: dict[str, Any]) -> None:
    some = {name: host for name, host in HOSTS.items() if name != "s2"}
    plan_reset(nr(some), **deployed["arguments"], options={"whole": True})
    assert "s2" in deployed["read"]
    with pytest.raises(UsageError, match="s2: not in this inventory"):
        plan_reset(nr(some), **deployed["arguments"])


def test_a_datastore_on_a_host_that_is_none_stays(deployed: dict[str, Any]) -> None:
    deployed["made"] = {"a1": DATABASE}
    notes = plan_reset(nr(HOSTS), **deployed["arguments"]).notes
    assert any(note.startswith("a1: the datastore stays") for note in notes)


def test_an_external_datastore_is_never_touched(load: Load, tmp_path: Path) -> None:
    run = prepared(HOSTS, tmp_path)
    run.facts = seen(run.cluster)
    (tmp_path / "e").write_text("mysql://k3s:hush@tcp(db:3306)/k3s\n")
    hosts = {name: host for name, host in HOSTS.items() if name != "db1"}
    run.cluster = replace(load({"datastore": {"endpoint": {"file": "e"}}}, hosts=hosts), members=run.cluster.members)
    plan = workflow.planned(run, (), data_stay=True)
    assert plan.datastore == {}
    assert plan.notes[0] == "the external datastore is not touched: the cluster's data stay there"
    assert "db1: the datastore stays: its host left the inventory" in plan.notes, "it was managed once"
