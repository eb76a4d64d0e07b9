"""A plan that is saved: carried out as it was reviewed, or not at all."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nornir_k3s.checks import plan_basis
from nornir_k3s.cli import deploy as command
from nornir_k3s.cli import options_of_changes
from nornir_k3s.errors import Busy, K3sError, PlanMoved, UsageError
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.host_facts import ArtifactState, FileState, HostFacts, Ledger, UnitState
from nornir_k3s.model.host_spec import File
from nornir_k3s.model.k3s_facts import Api, NodeState, ServerFiles
from nornir_k3s.model.plan import Plan
from nornir_k3s.model.report import PhaseReport, Report
from nornir_k3s.model.saved_plan import Basis, SavedPlan
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.step import Step
from nornir_k3s.phases import cluster_lock, host_tasks, load_balancers, put_back, saved_plan, servers
from nornir_k3s.run.context import Run
from nornir_k3s.run.selection import Choice
from nornir_k3s.state import datastore_keys
from nornir_k3s.state.store import Store
from nornir_k3s.workflows import deploy

Load = Callable[..., Cluster]
STEP = Step("file", "/etc/a", "write /etc/a", diff="+a", payload=File("/etc/a", Secret("hush")))
UNIT = Step("unit", "k3s.service", "restart k3s.service", action="restart")
FACTS = HostFacts(
    "s1",
    units={"k3s.service": UnitState(active="active", enabled="enabled")},
    packages={"curl": "8.1"},
    files={"/etc/a": FileState("file", 0o600, "root", "root", sha256="1" * 64)},
    artifacts={"/usr/local/bin/k3s": ArtifactState("2" * 64, 0o755)},
    server=ServerFiles("K10", "a fingerprint"),
    api=Api(ready=True, nodes=(NodeState("s1", True, "v1.34.9+k3s1"),)),
)


def run_of(cluster: Cluster, *steps: Step, facts: HostFacts = FACTS, **more: Any) -> Run:
    """A run that has read one server."""
    values = {
        "cluster": cluster,
        "present": ["s1"],
        "names": ["s1"],
        "facts": {"s1": facts},
        "deadlines": {"apply": 300.0},
        "widths": {"stage": 20},
        "planned": lambda _: SimpleNamespace(steps=steps),
        "allowed": None,
        "store": SimpleNamespace(read=lambda _: None),
    }
    return cast(Run, SimpleNamespace(**values | more))


def plan_of(cluster: Cluster, *steps: Step, facts: HostFacts = FACTS) -> SavedPlan:
    shown = Plan(cluster=cluster.name, version=cluster.version, hosts={}, phases=[])
    plan = saved_plan.saved(run_of(cluster, *steps, facts=facts), Choice(limit=("s1",)), shown)
    return SavedPlan.model_validate_json(plan.model_dump_json())  # as it comes from its file


def test_a_plan_of_what_is_still_so_is_carried_out_and_nothing_else(load: Load) -> None:
    cluster = load()
    run = run_of(cluster, STEP, UNIT)
    saved_plan.require_unmoved(run, plan_of(load(), STEP, UNIT))
    assert run.allowed == frozenset(["s1/file:/etc/a", "s1/unit:k3s.service"])
    host_tasks._require_allowed(run, "s1", [UNIT, STEP])
    with pytest.raises(PlanMoved, match="s1: do more: this step is not in it"):
        host_tasks._require_allowed(run, "s1", [STEP, replace(STEP, target="/etc/b", summary="do more")])
    run.allowed = None
    host_tasks._require_allowed(run, "s1", [replace(STEP, target="/etc/b")])


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (
            {"units": {"k3s.service": UnitState(active="failed")}},
            "unit k3s.service was active, enabled, ",
        ),
        ({"packages": {"curl": "8.2"}}, "package curl was 8.1, and is 8.2 now"),
        ({"packages": {}}, "package curl was 8.1, and is nothing now"),
        ({"files": {"/etc/a": FileState("absent")}}, "file /etc/a has changed"),
        ({"artifacts": {}}, "file /usr/local/bin/k3s has changed"),
        ({"api": Api(ready=False)}, "readiness was ready, and is not ready now"),
        ({"api": Api(ready=True, nodes=())}, "node s1 was v1.34.9+k3s1, Ready, and is nothing now"),
        ({"ledger": Ledger(pending=frozenset(["k3s.service"]))}, "pending work was none, and is k3s.service now"),
    ],
)
def test_a_fact_that_has_changed_is_told_and_nothing_is_done(load: Load, now: dict[str, Any], told: str) -> None:
    run = run_of(load(), STEP, facts=replace(FACTS, **now))
    with pytest.raises(PlanMoved) as raised:
        saved_plan.require_unmoved(run, plan_of(load(), STEP))
    assert f"- s1: {told}" in str(raised.value)
    assert (raised.value.exit_code, run.allowed) == (1, None)
    assert raised.value.problems[0].startswith("s1: ")


def test_other_steps_are_told(load: Load) -> None:
    cluster, other = load(), replace(STEP, payload=File("/etc/a", Secret("another")))
    plan = plan_of(cluster, STEP, UNIT)
    cases = [
        ((STEP,), "s1: the step unit:k3s.service of the plan is not needed any more"),
        ((STEP, UNIT, replace(UNIT, target="b")), "s1: the step unit:b would be needed, and is not in the plan"),
        ((other, UNIT), "s1: the step file:/etc/a would do something else"),
        ((UNIT, STEP), "s1: the steps would come in another order"),
    ]
    for steps, told in cases:
        with pytest.raises(PlanMoved) as raised:
            saved_plan.require_unmoved(run_of(cluster, *steps), plan)
        assert raised.value.problems == [told]


def test_another_inventory_or_configuration_is_told(load: Load) -> None:
    cluster = load()
    plan = plan_of(cluster)
    member = cluster.members[0]
    moved = replace(
        cluster, token=Secret("another"), members=(replace(member, address="10.0.0.99"), *cluster.members[1:])
    )
    with pytest.raises(PlanMoved) as raised:
        saved_plan.require_unmoved(run_of(moved, widths={"stage": 1}), plan)
    told = "\n".join(raised.value.problems)
    for name in ("token", f"host {member.name}", "widths"):
        assert f"inventory: {name} has changed since the plan was made" in told


def test_hosts_that_come_and_go_are_told(load: Load) -> None:
    cluster = load()
    gone = plan_basis.moved(
        Basis(settings={}, facts={"a1": {}}, steps={}), Basis(settings={}, facts={"a2": {}}, steps={})
    )
    assert list(gone) == [
        "a1: it was read for the plan, and is now left out or not in the inventory",
        "a2: the plan was made without it",
    ]
    assert cluster


def test_before_the_first_server_secrets_that_are_not_saved_yet_do_not_count(load: Load) -> None:
    bare = HostFacts("s1")
    other = replace(STEP, payload=File("/etc/a", Secret("generated anew")), diff="+another")
    cluster = load()
    run = run_of(replace(cluster, token=Secret("generated anew")), other, facts=bare)
    saved_plan.require_unmoved(run, plan_of(cluster, STEP, facts=bare))


def test_no_secret_is_in_the_file_and_no_hash_of_one_alone(load: Load) -> None:
    cluster = load()
    text = plan_of(cluster, STEP).model_dump_json()
    for secret in (*cluster.secrets(), Secret("hush")):
        assert secret.reveal() not in text
        assert secret.fingerprint() not in text
    assert "1" * 64 not in text, "the hash of a file that may contain one"


def test_a_plan_of_another_cluster_or_version_is_refused(load: Load) -> None:
    plan = plan_of(load())
    saved_plan.require_tool(plan, "test")
    with pytest.raises(PlanMoved, match="it is a plan of test, and this is other"):
        saved_plan.require_tool(plan, "other")
    with pytest.raises(PlanMoved, match=r"nornir-k3s 0\.0\.1 made it"):
        saved_plan.require_tool(plan.model_copy(update={"tool": "0.0.1"}), "test")


def test_a_file_that_is_no_plan_is_told(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        command._saved(path)
    path.write_text("{}")
    with pytest.raises(UsageError, match="is no saved plan"):
        command._saved(path)
    path.write_text(plan_of(load()).model_copy(update={"format": 99}).model_dump_json())
    with pytest.raises(UsageError, match="has format 99, and this version reads 1"):
        command._saved(path)
    path.write_text(plan_of(load()).model_dump_json())
    assert command._saved(path).choice.limit == ("s1",)


def test_options_that_exclude_each_other_are_told() -> None:
    known: dict[str, Any] = dict.fromkeys(
        ("plan", "preflight_only", "limit", "until", "only", "skip_unreachable", "ignore_window", "trial", "exit_code")
    )
    given = {**known, "out": None, "apply": Path("p")}
    assert not options_of_changes.phases_conflict(argparse.Namespace(**given))
    assert "--apply takes" in options_of_changes.phases_conflict(argparse.Namespace(**given | {"limit": ("a1",)}))
    out = known | {"out": Path("p"), "apply": None}
    assert options_of_changes.phases_conflict(argparse.Namespace(**out)) == "--out needs --plan"
    assert not options_of_changes.phases_conflict(argparse.Namespace(**out | {"plan": True}))


def test_a_user_without_a_name_can_save_a_plan(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    def getuser() -> str:
        raise OSError("No username set in the environment")  # in a container; a KeyError before Python 3.13

    monkeypatch.setattr(getpass, "getuser", getuser)
    cluster_lock.me.cache_clear()
    try:
        assert plan_of(load(), STEP).by.startswith("unknown@")
    finally:
        cluster_lock.me.cache_clear()


def test_certificates_that_each_run_makes_anew_do_not_count(load: Load, tmp_path: Path) -> None:
    """Of a new host of the datastore, or in place of those that expire soon."""

    def save() -> None:
        """Save keys of a CA of their own for the host that is there."""
        (tmp_path / datastore_keys.FILE).unlink(missing_ok=True)
        store = Store(tmp_path, base=tmp_path, keep=False)
        text = datastore_keys.load(store, cluster="test", hosts={"db1": ["db1"]}).text
        (tmp_path / datastore_keys.FILE).write_text(text.reveal())

    def of_new_host() -> Run:
        store = Store(tmp_path, base=tmp_path, keep=False)
        keys = datastore_keys.load(store, cluster="test", hosts={"db1": ["db1"], "db2": ["db2"]})
        files = {"/c": Secret(keys.hosts["db2"].certificate), "/k": keys.hosts["db2"].key, "/all": keys.text}
        steps = [
            Step("file", path, f"write {path}", diff=f"+{one.reveal()}", payload=File(path, one))
            for path, one in files.items()
        ]
        own = File("/own", Secret(keys.hosts["db1"].certificate + suffix))
        cluster = replace(load(), keys=keys)
        return run_of(cluster, *steps, Step("file", "/own", "write /own", payload=own), store=store)

    suffix = ""
    save()
    shown = Plan(cluster="test", version="v", hosts={}, phases=[])
    plan = saved_plan.saved(of_new_host(), Choice(), shown)
    saved_plan.require_unmoved(of_new_host(), plan)
    suffix = "# another one"
    with pytest.raises(PlanMoved, match="the step file:/own would do something else"):
        saved_plan.require_unmoved(of_new_host(), plan)
    suffix = ""
    save()
    with pytest.raises(PlanMoved, match="the step file:/own would do something else"):
        saved_plan.require_unmoved(of_new_host(), plan)


@pytest.mark.parametrize(("error", "changed"), [(PlanMoved(["s1"]), 0), (Busy("ann@ci-7"), 0), (K3sError("other"), 1)])
def test_a_plan_that_has_moved_changes_nothing_not_even_what_an_earlier_run_has_left(
    load: Load, monkeypatch: pytest.MonkeyPatch, error: K3sError, changed: int
) -> None:
    def moved(*_: object) -> None:
        raise error

    chain, done = Choice(until="stage").chain(deploy.phases()), list[Run]()
    report = Report(cluster="test", phases=[PhaseReport(name=one.name) for one in chain])
    run = run_of(load(), report=report, ready_servers=[], sessions={})
    for module, name in ((deploy, "carry_out"), (deploy, "_require_window"), (load_balancers, "in_order")):
        monkeypatch.setattr(module, name, lambda *_, **__: None)
    monkeypatch.setattr(servers, "changes_running", lambda _: False)
    monkeypatch.setattr(saved_plan, "require_unmoved", moved)
    monkeypatch.setattr(put_back, "put_back", done.append)
    with pytest.raises(type(error)):
        deploy._carry_out(run, Choice(), chain, plan=plan_of(load(), STEP))
    assert len(done) == changed
