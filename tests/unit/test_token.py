"""A rotation of the token: where it stands, what is done on hosts, and who finishes it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nornir.core.task import Result

from nornir_k3s import k3s, shell
from nornir_k3s.apply import token as scripts
from nornir_k3s.checks import held, preflight
from nornir_k3s.checks import token as checks
from nornir_k3s.compare import host
from nornir_k3s.errors import (
    CommandFailed,
    Declined,
    HostError,
    Interrupted,
    K3sError,
    OutsideWindow,
    PreflightFailed,
    UsageError,
)
from nornir_k3s.model.cluster import Cluster, Member
from nornir_k3s.model.datastore_facts import Database
from nornir_k3s.model.finding import Finding
from nornir_k3s.model.host_facts import FileState, HostFacts, UnitState
from nornir_k3s.model.k3s_facts import Api, ServerFiles
from nornir_k3s.model.paths import STATE
from nornir_k3s.model.report import Report
from nornir_k3s.model.rotation import Rotation
from nornir_k3s.model.secret import Secret
from nornir_k3s.phases import dump, observe, servers, token, window
from nornir_k3s.phases import preflight as preflight_phase
from nornir_k3s.phases.phase import Phase
from nornir_k3s.planner import plan_host
from nornir_k3s.records import RecordError
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run
from nornir_k3s.state import known_cluster, tokens
from nornir_k3s.workflows import rotate_token
from nornir_k3s.workflows.rotation_request import Request

from .conftest import HOSTS
from .hosts import changed
from .test_left import nr, prepared
from .test_preflight import healthy
from .test_promises import BUNDLE, converged, known, listed

Load = Callable[..., Cluster]
NEW, CA = Secret("new-token"), "K10" + "c" * 64


def files(secret: Secret, prefix: str = CA) -> ServerFiles:
    return ServerFiles(prefix, secret.fingerprint(), "PEM")


def encrypted(*secrets: Secret, size: int = 9) -> Database:
    return Database(alive=True, bootstrap={k3s.bootstrap_key(one): size for one in secrets})


def seen(cluster: Cluster, *, stored: Secret, **servers: Secret) -> dict[str, HostFacts]:
    """Return the facts of a cluster whose servers have these tokens in their files."""
    found = {m.name: HostFacts(m.name) for m in cluster.members}
    found["db1"] = HostFacts("db1", database=encrypted(stored))
    for name in ("s1", "s2"):
        found[name] = HostFacts(name, server=files(servers.get(name, cluster.token)), api=Api(ready=True))
    return found


def test_where_a_rotation_stands(load: Load) -> None:
    cluster = load()
    quiet, begun = seen(cluster, stored=cluster.token), seen(cluster, stored=NEW, s2=NEW)
    assert checks.stored(begun) == NEW.fingerprint()
    assert checks.stored({"db1": HostFacts("db1", database=encrypted(NEW, cluster.token))}) == ""
    assert checks.stored({"db1": HostFacts("db1", database=encrypted(NEW, size=0))}) == ""
    assert checks.holder(cluster, begun, CA) == "s2"
    assert checks.holder(cluster, quiet, CA) == ""
    assert checks.holder(cluster, seen(cluster, stored=NEW), CA) == "", "nobody here has it: another cluster's data"
    assert checks.holder(cluster, begun, "") == checks.holder(cluster, begun, "K10x") == "", "of another CA"
    assert checks.others(cluster, quiet) == []
    assert checks.others(cluster, begun) == ["s2"]


def test_a_config_with_another_token_is_behind_however_it_is_written(load: Load) -> None:
    cluster = load()
    spec = plan_host(cluster, cluster.member("s1"), HostFacts("s1"), known(cluster, ())).desired
    own = next(file.text.reveal() for file in spec.files if file.path == k3s.CONFIG)
    for text, behind in (
        (None, False),
        (own + "debug: true\n", False),
        (f'"token": "{cluster.token.reveal()}"\n', False),
        ("token: another\n", True),
        ("write-kubeconfig-mode: '0640'\n", True),
    ):
        facts = HostFacts("s1", files={k3s.CONFIG: FileState("file", text=text)})
        assert checks.is_stale(spec, facts) is behind, text
    assert not checks.is_stale(spec, HostFacts("s1"))


def test_the_old_token_is_kept_by_the_name_that_its_dumps_have(tmp_path: Path) -> None:
    run = prepared(HOSTS, tmp_path)
    old = run.cluster.token
    name = tokens.replace(run.store, old, NEW)
    assert name == f"token-{old.fingerprint()}"
    assert run.store.read(name) == old.reveal() + "\n"
    assert prepared(HOSTS, tmp_path).cluster.token == NEW
    assert (run.store.folder / name).stat().st_mode & 0o777 == 0o600


def test_another_agent_token_is_no_plain_change_of_a_running_server(load: Load, tmp_path: Path) -> None:
    (tmp_path / "agents").write_text("agents-only\n")
    cluster = load({"agent_token": {"file": str(tmp_path / "agents")}})
    facts = seen(cluster, stored=cluster.token)

    def told(cluster: Cluster, text: str | None, **api: bool) -> list[Finding]:
        state = {k3s.CONFIG: FileState("file", text=text)}
        facts["s1"] = changed(facts["s1"], files=state, api={"ready": True, **api})
        return list(checks.check(cluster, facts))

    for text, other in (
        (None, False),
        ("agent-token: agents-only\n", False),
        ("'agent-token': 'agents-only'\ndebug: true\n", False),
        ("agent-token: another\n", True),
        ("token: x\n", True),
    ):
        assert bool(told(cluster, text)) is other, text
    (found,) = told(cluster, "token: x\n")
    assert (found.subject, found.severity) == ("agent-token", "error")
    assert "rotate agent-token" in found.remedy
    assert told(cluster, "token: x\n", ready=False) == [], "one that starts takes it from the datastore"
    (found,) = told(replace(cluster, token_given=True), "token: x\n")
    assert found.severity == "warning"
    assert "k3s token rotate" in found.remedy
    (found,) = told(replace(cluster, agent_token=None), "agent-token: one too many\n")
    facts["s2"] = changed(facts["s2"], server=files(NEW))
    assert told(cluster, "token: x\n") == [], "a rotation is under way, and takes it along"


def test_neither_is_it_where_all_servers_are_down_that_have_the_cluster_s_data(load: Load, tmp_path: Path) -> None:
    (tmp_path / "agents").write_text("agents-only\n")
    cluster = load({"agent_token": {"file": str(tmp_path / "agents")}})
    facts = seen(cluster, stored=cluster.token)
    for name in ("s1", "s2"):
        state = {k3s.CONFIG: FileState("file", text="token: x\n")}
        facts[name] = changed(facts[name], files=state, api={"ready": False}, server=files(cluster.token))
    found = list(checks.check(cluster, facts))
    assert [(one.host, one.severity) for one in found] == [("s1", "error"), ("s2", "error")]
    assert "deploy with the previous agent token" in found[0].remedy
    facts["s2"] = changed(facts["s2"], server=ServerFiles())
    assert [one.host for one in checks.check(cluster, facts)] == ["s1"], "s2 has never started"
    facts["db1"] = HostFacts("db1")
    assert not list(checks.check(cluster, facts)), "a new cluster"


# What is done on a server.

K3S = """#!/bin/sh
printf '%s\\n' "$*" >"$0.argv"
printf '%s\\n' "$K3S_TOKEN" >"$0.environ"
[ ! -e "$0.refuses" ] || { echo one; echo two; echo 'level=fatal msg="Error: not authorized"'; exit 1; }
echo "K10abc::server:made-up" >"$0.server/token"
"""


def on_server(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    program = folder / "k3s"
    program.write_text(K3S)
    program.chmod(0o755)
    (folder / "k3s.server").mkdir(exist_ok=True)
    text = script.replace(k3s.BINARY, str(program)).replace(f"{k3s.DATA}/server", f"{folder}/k3s.server")
    text = text.replace(STATE, f"{folder}/state")
    return subprocess.run(["sh", "-eu"], input=text, env=os.environ, capture_output=True, text=True, check=False)


def test_the_token_is_in_no_argument_and_the_new_one_is_read(tmp_path: Path) -> None:
    script = scripts.rotate("https://127.0.0.1:6443", Secret("K10abc::server:o'ld"))
    done = on_server(tmp_path, script.reveal())
    assert done.returncode == 0, done.stderr
    assert scripts.parse(done.stdout.partition("@end")[0] + "@end\n").reveal() == "made-up"
    assert (tmp_path / "k3s.argv").read_text() == "token rotate --server https://127.0.0.1:6443\n"
    assert (tmp_path / "k3s.environ").read_text() == "K10abc::server:o'ld\n"
    assert scripts.parse(on_server(tmp_path, scripts.show()).stdout).reveal() == "made-up"


def test_a_refusal_is_told_in_k3s_own_words(tmp_path: Path) -> None:
    (tmp_path / "k3s.refuses").touch()
    done = on_server(tmp_path, scripts.rotate("https://127.0.0.1:6443", Secret("old")).reveal())
    assert done.returncode != 0
    assert "not authorized" in done.stderr


def test_no_token_is_no_answer() -> None:
    for text in ("@end\n", "@token\t\n@end\n"):
        with pytest.raises(RecordError, match="prints no token"):
            scripts.parse(text)


def test_a_server_with_files_of_another_token_gets_them_from_the_datastore(load: Load, tmp_path: Path) -> None:
    cluster = load()
    facts = changed(converged(cluster, "s1"), server=files(NEW))
    planned = plan_host(cluster, cluster.member("s1"), facts, known(cluster, listed(cluster)))
    assert planned.steps == (), "what the datastore has is not known"
    right = replace(known(cluster, listed(cluster)), stored=cluster.token.fingerprint())
    planned = plan_host(cluster, cluster.member("s1"), facts, right)
    assert [(step.kind, step.target, step.action) for step in planned.steps] == [
        ("remove", k3s.PASSWD, None),
        ("unit", "k3s.service", "restart"),
    ]
    assert plan_host(cluster, cluster.member("s1"), converged(cluster, "s1"), right).steps == ()
    (found,) = (one for one in host.differences(cluster, planned) if one.kind == "file")
    assert "another token than the datastore" in found.found
    path = tmp_path / "passwd"
    path.touch()
    call = f"say() {{ echo $*; }}\nSTEP=it\n{shell.source('apply/steps.sh')}\n{shell.call('forget', path)}"
    assert subprocess.run(["sh", "-eu"], input=call, capture_output=True, text=True, check=True).stdout
    assert not path.exists()


def test_the_preflight_says_where_the_new_token_is(load: Load) -> None:
    cluster = load()
    facts = healthy(cluster)
    facts["db1"] = changed(facts["db1"], database=encrypted(NEW))
    facts["s1"] = changed(facts["s1"], api={"ready": True}, server=files(NEW))
    told = {one.subject: one.remedy for one in preflight.check(cluster, facts)}
    assert told["foreign-data"] == f"set the token that s1 has in {k3s.DATA}/server/token"
    facts["s1"] = changed(facts["s1"], server=files(cluster.token))
    told = {one.subject: one.remedy for one in preflight.check(cluster, facts)}
    assert told["foreign-data"].startswith("give that cluster's token (`token: {file: PATH}`), restore a backup")


# The phases.


class Site:
    """A cluster in memory. Its sessions answer with a token, and remember their scripts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.scripts, self.answer = folder, list[tuple[str, str]](), NEW
        self.read: list[str] = []
        monkeypatch.setattr(gather, "session_of", self._session)
        monkeypatch.setattr(gather, "gather_host", self._gather)
        monkeypatch.setattr(token, "apply_steps", self._apply)

    def run(self, **options: Any) -> Run:
        run = prepared(HOSTS, self.folder, **options)
        known_cluster.save_ca(run.store, CA, "PEM")
        return run

    def _session(self, task: Any, _: Run) -> Any:
        def work(script: str, **_: Any) -> Any:
            self.scripts.append((task.host.name, script))
            printed = subprocess.run(["base64"], input=self.answer.reveal(), capture_output=True, text=True, check=True)
            return SimpleNamespace(stdout=f"@token\t{printed.stdout.strip()}\n@end\n")

        return SimpleNamespace(run=work)

    def _gather(self, task: Any, _: Run) -> Result:
        self.read.append(task.host.name)
        return Result(host=task.host)

    def _apply(self, task: Any, run: Run, steps: Any, *, deadline: float, before: str) -> Result:
        assert (before, deadline) == ("PREVIOUS=$STATE/none\n", run.deadlines["apply"])
        self.scripts.append((task.host.name, ", ".join(step.target for step in steps)))
        return Result(host=task.host)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def test_a_rotation_by_hand_is_taken_over_and_everything_read_again(site: Site) -> None:
    run = site.run()
    old = run.cluster.token
    run.facts = seen(run.cluster, stored=NEW, s2=NEW)
    token.adopt(run)
    assert [name for name, _ in site.scripts] == ["s2"]
    assert run.cluster.token == NEW
    assert run.store.read("token") == "new-token\n"
    assert run.store.read(f"token-{old.fingerprint()}") == old.reveal() + "\n"
    assert sorted(site.read) == sorted(HOSTS)
    assert "rotated on s2" in run.report.notes[-1]
    assert NEW.reveal() not in run.report.notes[-1]
    token.adopt(run)
    assert len(site.scripts) == 1, "now it is known"


def test_a_plan_takes_it_over_and_saves_nothing(site: Site) -> None:
    run = site.run()
    run.store.keep, old = False, run.cluster.token
    run.facts = seen(run.cluster, stored=NEW, s1=NEW)
    token.adopt(run)
    assert run.cluster.token == NEW
    assert run.store.read("token") == old.reveal() + "\n"


def test_what_is_not_ours_is_not_taken_over(site: Site) -> None:
    run = site.run()
    run.facts = seen(run.cluster, stored=NEW, s1=NEW)
    run.cluster = replace(run.cluster, token_given=True)
    token.adopt(run)
    assert site.scripts == []
    run.cluster = replace(run.cluster, token_given=False)
    site.answer = Secret("a third one")
    with pytest.raises(HostError, match="has changed meanwhile"):
        token.adopt(run)


def test_one_server_is_asked_with_the_token_that_its_process_has(site: Site) -> None:
    run = site.run()
    old = run.cluster.token
    run.facts = seen(run.cluster, stored=old)
    token.rotate(run)
    ((name, script),) = site.scripts
    assert name == "s1"
    assert f"'https://127.0.0.1:6443' '{CA}::server:{old.reveal()}'".replace("'", "") in script.replace("'", "")
    assert run.cluster.token == NEW
    assert run.store.read("token") == "new-token\n"


def with_config(run: Run, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        state = FileState("file", mode=0o600, owner="root", group="root", sha256="x", text=text)
        run.facts[name] = changed(run.facts[name], files={k3s.CONFIG: state})


def test_all_servers_get_the_new_token_before_one_restarts(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    run = site.run()
    monkeypatch.setattr(run.source, "known", lambda _: BUNDLE)
    run.facts = seen(run.cluster, stored=run.cluster.token)
    with_config(run, {"s1": "token: old\n", "s2": f"token: {run.cluster.token.reveal()}\n"})
    token.write(run)
    assert site.scripts == [("s1", k3s.CONFIG)], "what else differs waits for its restart"
    run.facts["db1"] = HostFacts("db1", database=encrypted(NEW))
    assert not token.is_behind(run, "s1"), "the datastore has another one"
    site.scripts.clear()
    token.write_now(run)
    assert sorted(site.scripts) == [("s1", k3s.CONFIG), ("s2", k3s.CONFIG)]


# The workflow.


class Rotated(Site):
    """The same, with a workflow that reads nothing itself."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, monkeypatch)
        self.deploys, self.dumped, self.patch = list[dict[str, Any]](), list[str](), monkeypatch
        self.begun: Callable[[Run], None] = lambda _: None
        self.steps: tuple[str, ...] = ()
        known_cluster.save_ca(self.run().store, CA, "PEM")
        monkeypatch.setattr(observe, "observe", self._observe)
        for module, name in ((observe, "find_artifacts"), (preflight_phase, "check_all_but")):
            monkeypatch.setattr(module, name, lambda *_: None)
        monkeypatch.setattr(rotate_token, "deploy", self._deploy)
        monkeypatch.setattr(rotate_token, "PHASES", tuple(map(self._noting, rotate_token.PHASES)))
        monkeypatch.setattr(Run, "planned", lambda *_: SimpleNamespace(steps=self.steps))
        monkeypatch.setattr(token, "is_behind", lambda *_: False)

    def _noting(self, phase: Phase) -> Phase:
        return replace(phase, work=lambda _: self.dumped.append(phase.name))

    def _observe(self, run: Run) -> None:
        run.facts = seen(run.cluster, stored=run.cluster.token)
        run.report.notes.append("looked")
        self.begun(run)

    def _deploy(self, _: object, **given: Any) -> Report:
        self.deploys.append(given)
        return Report(cluster="test", notes=["deployed", "looked"])

    def rotate(self, **given: Any) -> Report:
        agent = given.pop("agent", False)
        return rotate_token.rotate(replace(self.request, **given), agent=agent)

    def plan(self) -> Rotation:
        return rotate_token.plan(self.request)

    @property
    def request(self) -> Request:
        return Request(nr(HOSTS), base=self.folder, state=self.folder / "state")


@pytest.fixture
def rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rotated:
    return Rotated(tmp_path, monkeypatch)


def test_the_token_is_rotated_after_a_dump_and_before_a_deploy(rotated: Rotated) -> None:
    asked: list[Rotation] = []

    def confirm(plan: Rotation) -> bool:
        asked.append(plan)
        return True

    report = rotated.rotate(confirm=confirm, ignore_window=True)
    assert rotated.dumped == ["dump", "agent-token", "rotate", "datastore", "token"]
    assert rotated.deploys[0]["choice"].ignore_window
    assert report.notes == ["looked", "deployed"]
    assert [step.hosts for step in asked[0].steps] == [
        ["db1"], ["s1"], ["controller"], ["db1"], ["s1", "s2"], ["s1", "s2"], ["a1"], ["db1"],
    ]  # fmt: skip
    assert rotated.plan() == asked[0]
    with pytest.raises(Declined):
        rotated.rotate(confirm=lambda _: False)
    assert len(rotated.deploys) == 1


def test_one_that_has_begun_is_finished_and_no_other_begun(rotated: Rotated) -> None:
    def stop(run: Run) -> None:
        run.facts["s2"] = changed(run.facts["s2"], server=files(NEW))

    rotated.begun = stop
    plan = rotated.plan()
    assert "a rotation has begun" in plan.notes[0]
    assert plan.steps[0].what.startswith("create a user")
    rotated.rotate()
    assert rotated.dumped == []
    assert len(rotated.deploys) == 1
    rotated.begun = lambda run: run.use_token(NEW)
    rotated.rotate()
    rotated.begun = lambda _: None
    rotated.patch.setattr(token, "is_behind", lambda *_: True)
    rotated.rotate()
    assert rotated.dumped == []


def test_a_token_that_was_taken_back_is_rotated_like_any_other(rotated: Rotated) -> None:
    def take_back(run: Run) -> None:
        run.use_token(NEW)
        run.taken.add(held.TOKEN)
        run.facts = seen(run.cluster, stored=NEW)

    rotated.begun = take_back
    rotated.rotate()
    assert "rotate" in rotated.dumped


def test_what_keeps_it_from_beginning_is_told_at_once(rotated: Rotated) -> None:
    def trouble(run: Run) -> None:
        gone = Member("s9", "servers", "10.0.0.29", "s9")
        run.cluster = replace(run.cluster, token_given=True, left=(gone,))
        run.facts["s2"] = changed(run.facts["s2"], api={"ready": False})
        run.facts["db1"] = HostFacts("db1")

    rotated.begun, rotated.steps = trouble, ("a change",)
    with pytest.raises(UsageError) as caught:
        rotated.rotate()
    for words in (
        "`token` of the inventory refers to it",
        "s2 is not ready",
        "the datastore does not say which token",
        "s9: K3s runs there",
        "would change",
        "run it first",
    ):
        assert words in str(caught.value)
    assert rotated.dumped == []


def test_another_agent_token_begins_with_one_server(rotated: Rotated) -> None:
    begin = rotate_token.PHASES[1].name
    assert begin == "agent-token"
    with pytest.raises(UsageError, match="agents join with the token: nornir-k3s rotate token"):
        rotated.rotate(agent=True)

    def other(run: Run) -> None:
        run.cluster = replace(run.cluster, agent_token=Secret("agents"))
        with_config(run, {"s1": "agent-token: agents\n", "s2": "agent-token: before\n"})

    rotated.begun = other
    plan = rotate_token.plan(rotated.request, agent=True)
    assert plan.what == "agent-token"
    assert [(step.hosts, step.what) for step in plan.steps[1:3]] == [
        (["s1"], "restart k3s.service with the other agent token"),
        (["s1"], "k3s token rotate: K3s makes up a new token"),
    ], "it runs with it already"
    rotated.rotate(agent=True)
    assert rotated.dumped == ["dump", "agent-token", "rotate", "datastore", "token"]

    def same(run: Run) -> None:
        run.cluster = replace(run.cluster, agent_token=Secret("agents"))

    rotated.begun = same
    with pytest.raises(UsageError, match="change the secret that `agent_token` refers to"):
        rotated.rotate(agent=True)


def test_a_server_restarts_with_another_agent_token_unless_one_has(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    run = site.run()
    run.facts = seen(run.cluster, stored=run.cluster.token)
    with_config(run, dict.fromkeys(("s1", "s2"), "agent-token: one too many\n"))
    limits: list[Any] = []
    monkeypatch.setattr(servers, "converge_others", lambda run: limits.append(run.limit))
    rotate_token._begin(run)
    assert limits == [{"s1"}]
    with_config(run, {"s2": "debug: true\n"})
    rotate_token._begin(run)
    assert limits == [{"s1"}], "s2 runs without one"


def test_one_that_an_interrupted_run_has_restarted_is_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    run = site.run()
    run.facts = seen(run.cluster, stored=run.cluster.token)
    waited: list[str] = []
    monkeypatch.setattr(token, "wait_for_server", lambda task, _: waited.append(task.host.name))
    with_config(run, {"s1": "debug: true\n", "s2": "agent-token: before\n"})
    token.resume(run)
    assert not waited, "it is ready"
    for state, names in (("failed", []), ("activating", ["s1"]), ("active", ["s1"])):
        unit = {k3s.UNITS["server"]: UnitState("loaded", state)}
        run.facts["s1"] = changed(run.facts["s1"], api={"ready": False}, units=unit)
        waited.clear()
        site.read.clear()
        token.resume(run)
        assert waited == site.read == names, state
    waited.clear()
    with_config(run, {"s2": "debug: true\n"})
    token.resume(run)
    assert not waited, "no agent token is being changed"


def test_a_preflight_may_leave_out_what_a_rotation_cures(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    run = site.run()
    finding = Finding(
        host="s1", kind="check", subject="agent-token", found="x", expected="y", remedy="z", severity="error"
    )
    monkeypatch.setattr(preflight, "check", lambda *_, **__: [finding])
    preflight_phase.check_all_but(run, "agent-token")
    with pytest.raises(PreflightFailed):
        preflight_phase.check(run)


def test_nothing_begins_outside_the_window(rotated: Rotated) -> None:
    rotated.patch.setattr(window, "closed", lambda run: "" if run.ignore_window else "Mon")
    assert "only in the window Mon" in rotated.plan().notes[0]
    assert rotate_token.plan(replace(rotated.request, ignore_window=True)).notes == []
    with pytest.raises(OutsideWindow):
        rotated.rotate()
    assert rotated.dumped == []
    rotated.rotate(ignore_window=True)
    assert len(rotated.deploys) == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [(CommandFailed("s1", "k3s", status=1, stderr="no"), CommandFailed), (KeyboardInterrupt(), Interrupted)],
)
def test_a_step_that_fails_ends_it_with_the_report(
    rotated: Rotated, error: BaseException, kind: type[K3sError]
) -> None:
    def fail(_: Run) -> None:
        raise error

    *first, phase = rotate_token.PHASES[:3]
    rotated.patch.setattr(rotate_token, "PHASES", (*first, replace(phase, work=fail), *rotate_token.PHASES[3:]))
    with pytest.raises(kind) as caught:
        rotated.rotate()
    report = caught.value.report
    assert isinstance(report, Report)
    assert [phase.state for phase in report.phases][3:] == ["not begun", "not begun"]
    assert rotated.deploys == []


def test_a_deploy_that_fails_tells_what_was_done_before_it(rotated: Rotated) -> None:
    def deploy(_: object, **__: Any) -> Report:
        error = CommandFailed("s2", "k3s", status=1, stderr="no")
        error.report = Report(cluster="test", notes=["deployed"])
        raise error

    rotated.patch.setattr(rotate_token, "deploy", deploy)
    with pytest.raises(CommandFailed) as caught:
        rotated.rotate()
    assert caught.value.report.notes == ["looked", "deployed"]


def test_a_dump_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    monkeypatch.setattr(dump, "_dumped", lambda _: done.append("dumped"))
    report = SimpleNamespace(notes=[])
    run: Any = SimpleNamespace(cluster=SimpleNamespace(is_managed=True), report=report)
    dump.now(run)
    assert done == ["dumped"]
    assert dump.announced(run) == "dump the datastore"
    monkeypatch.setattr(dump, "_by_rows", lambda _: done.append("by rows"))
    run.cluster = SimpleNamespace(is_managed=False, datastore=SimpleNamespace(dump_command=None))
    run.store = SimpleNamespace(folder=Path("/state"))
    dump.now(run)
    assert done.pop() == "by rows"
    assert dump.announced(run) == "dump the datastore to /state/dumps"
    run.cluster.datastore.dump_command = ["pg_dump", "k3s"]
    assert dump.announced(run) == "run datastore.dump_command: pg_dump"

    def commanded(_: object, words: list[str]) -> str:
        done.append(words)
        return "there"

    monkeypatch.setattr(dump, "_commanded", commanded)
    dump.now(run)
    assert done == ["dumped", ["pg_dump", "k3s"]]
