"""New CAs for K3s: what they are, that K3s takes them, and what the next run finishes."""

from __future__ import annotations

import base64
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from k3s_standin import certs, tokens

from nornir_k3s import k3s
from nornir_k3s.apply import cluster_ca as scripts
from nornir_k3s.apply import rollback
from nornir_k3s.apply import script as apply
from nornir_k3s.errors import CommandFailed, Declined, NotReady, OutsideWindow, UnreadableAnswer, UsageError
from nornir_k3s.model import pem
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import Api, NodeState, ServerFiles
from nornir_k3s.model.plan import HostPlan, Plan
from nornir_k3s.model.report import HostReport, Report
from nornir_k3s.model.rotation import Rotation
from nornir_k3s.model.secret import Secret
from nornir_k3s.phases import cluster_ca, host_tasks, window
from nornir_k3s.planner import plan_host
from nornir_k3s.roles import haproxy
from nornir_k3s.roles.desired import Known
from nornir_k3s.run import gather
from nornir_k3s.run.options import check
from nornir_k3s.state import cluster_ca as state
from nornir_k3s.state.store import Store
from nornir_k3s.workflows import plan as plans
from nornir_k3s.workflows import rotate, rotate_ca

from .conftest import HOSTS
from .hosts import changed
from .test_left import nr
from .test_promises import converged, known, listed
from .test_rollback import SPEC, Host
from .test_rotation import change

Load = Callable[..., Cluster]
NOW = datetime.now(UTC)


def made() -> dict[str, Secret]:
    """The CAs that K3s makes itself."""
    found = {}
    for name in state.NAMES:
        found[f"{name}-ca.crt"], found[f"{name}-ca.key"] = map(Secret, certs.authority(f"k3s-{name}-ca"))
    return found


@pytest.fixture(scope="module")
def old() -> dict[str, Secret]:
    return made()


@pytest.fixture(scope="module")
def new(old: dict[str, Secret]) -> dict[str, Secret]:
    return state.renewed(old, NOW)


@pytest.mark.parametrize("name", state.NAMES)
def test_the_new_one_leads_to_the_old_one_and_to_a_root_of_its_own(
    old: dict[str, Secret], new: dict[str, Secret], name: str
) -> None:
    before, after = (certs.load(found[f"{name}-ca.crt"].reveal()) for found in (old, new))
    ca, crossed, root, last = after
    assert last == before[0]
    assert certs.leads(ca, after[1:], before)
    assert certs.leads(ca, [], [root])
    assert (crossed.subject, crossed.public_key()) == (root.subject, root.public_key())
    assert root.subject == root.issuer
    key = new[f"{name}-ca.key"].reveal()
    assert certs.public_key(key) == ca.public_key()
    assert key.count("BEGIN EC PRIVATE KEY") == 2
    assert pem.blocks(new[f"{name}-ca.crt"].reveal())[-1] in old[f"{name}-ca.crt"].reveal(), "byte by byte as it was"


def test_a_second_rotation_leads_to_the_root_of_the_first(new: dict[str, Secret]) -> None:
    again = state.renewed(new, NOW + timedelta(days=9))
    first, second = (certs.load(found["server-ca.crt"].reveal()) for found in (new, again))
    assert len(second) == 4
    assert second[-1] == first[2]
    assert certs.leads(second[0], second[1:], [first[2]])


@pytest.mark.skipif(not shutil.which("openssl"), reason="it proves the chain with OpenSSL")
@pytest.mark.parametrize("trusted", ["old", "new"])
def test_openssl_takes_a_certificate_of_the_new_one_whichever_it_trusts(
    old: dict[str, Secret], new: dict[str, Secret], tmp_path: Path, trusted: str
) -> None:
    """HAProxy, and clients with an older kubeconfig, get the chain from the server."""
    pair = (new["server-ca.crt"].reveal(), new["server-ca.key"].reveal())
    chain, _ = certs.signed(pair, "k3s", usages=(certs.SERVER,), sans=["kubernetes"])
    (tmp_path / "leaf").write_text(pem.blocks(chain)[0])
    (tmp_path / "chain").write_text("\n".join(pem.blocks(chain)[1:]))
    (tmp_path / "ca").write_text((old if trusted == "old" else new)["server-ca.crt"].reveal())
    words = ["openssl", "verify", "-CAfile", "ca", "-untrusted", "chain", "leaf"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_cas_of_others_are_refused_whose_root_s_key_is_not_there(
    old: dict[str, Secret], new: dict[str, Secret]
) -> None:
    only_ca = Secret(state._KEY.findall(new["client-ca.key"].reveal())[0])
    for found in ({**new, "client-ca.key": only_ca}, {**old, "client-ca.key": old["server-ca.key"]}):
        with pytest.raises(ValueError, match=r"client-ca\.crt: the key of its root is not on the server"):
            state.renewed(found, NOW)


def test_an_authority_without_an_identifier_is_found_by_its_key(old: dict[str, Secret]) -> None:
    key = serialization.load_pem_private_key(old["server-ca.key"].reveal().encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    name = state._name("plain")
    bare = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + timedelta(days=1))
    text = bare.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    block = pem.blocks(old["server-ca.crt"].reveal())[0]
    assert state._identifier(text).digest == state._identifier(block).digest


def test_they_are_saved_for_the_owner_alone_until_the_rotation_has_ended(
    new: dict[str, Secret], tmp_path: Path
) -> None:
    store = Store(tmp_path / "state", base=tmp_path)
    assert state.load(store) == ({}, 0)
    state.save(store, new)
    state.save(store, new, 17.5)
    assert state.load(store) == (new, 17.5)
    assert (tmp_path / "state" / state.FILE).stat().st_mode & 0o777 == 0o600


def test_the_files_come_from_the_server_and_nothing_of_them_is_missing(tmp_path: Path, old: dict[str, Secret]) -> None:
    tls = tmp_path / "server" / "tls"
    (tls / "etcd").mkdir(parents=True)
    for name, text in old.items():
        (tls / name).write_text(text.reveal())
    script = scripts.reading(cluster_ca.NAMES).replace(k3s.DATA, str(tmp_path))
    said = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=True).stdout
    assert scripts.parse(said, cluster_ca.NAMES) == old
    with pytest.raises(ValueError, match=r"no server-ca\.key"):
        scripts.parse(
            "\n".join(line for line in said.splitlines() if "\tserver-ca.key\t" not in line), cluster_ca.NAMES
        )


K3S = """#!/bin/sh
[ "$1 $2 $3" = 'certificate rotate-ca --path' ] || exit 9
[ ! -e "$0.refuses" ] || { echo 'level=fatal msg="Error: see server log"' >&2; exit 1; }
cp -r "$4" "$0.got"
"""


@pytest.mark.parametrize("refuses", [False, True])
def test_k3s_stores_them_and_no_key_stays_in_the_folder(tmp_path: Path, new: dict[str, Secret], refuses: bool) -> None:
    host, program = Host(tmp_path), tmp_path / "k3s"
    program.write_text(K3S)
    program.chmod(0o755)
    if refuses:
        (tmp_path / "k3s.refuses").touch()
    script = apply.script([scripts.storing(new)], SPEC).reveal().replace(k3s.BINARY, str(program))
    host.run(script, fails=refuses)
    assert not (host.state / "new-ca").exists()
    for name, text in () if refuses else new.items():
        assert (tmp_path / "k3s.got" / "tls" / name).read_text() == text.reveal()


def test_a_folder_that_lacks_a_file_is_not_given_to_k3s(tmp_path: Path, new: dict[str, Secret]) -> None:
    """K3s would say that all is well, and change nothing."""
    host = Host(tmp_path)
    script = apply.script([scripts.storing({**new, "server-ca.crt": Secret("")})], SPEC).reveal()
    host.run(script.replace(k3s.BINARY, "/bin/false"), fails=True)
    assert (host.state / "new-ca").exists()


def planned(load: Load, name: str, new_ca: str) -> list[str]:
    cluster = load()
    found_out = Known(**{**vars(known(cluster, listed(cluster))), "new_ca": new_ca})
    facts = changed(converged(cluster, name), server=ServerFiles("K10", "", "OLD"))
    return [step.summary for step in plan_host(cluster, cluster.member(name), facts, found_out).steps]


def test_servers_restart_for_the_new_ca_and_load_balancers_trust_it(load: Load) -> None:
    assert (
        planned(load, "s1", "NEW")[-1] == "restart k3s.service: it takes the new CA from the datastore when it starts"
    )
    assert planned(load, "s1", "OLD") == planned(load, "s1", "") == []
    assert f"change {haproxy.SERVER_CA}" in planned(load, "lb1", "NEW")
    assert planned(load, "a1", "NEW") == []


@pytest.mark.parametrize(("ca", "told"), [("NEW", False), ("OLD", True)])
def test_a_server_that_comes_back_with_the_old_one_is_told(
    monkeypatch: pytest.MonkeyPatch, ca: str, told: bool
) -> None:
    fresh = HostFacts("s1", server=ServerFiles("K10", "", ca), api=Api(ready=True))
    monkeypatch.setattr(host_tasks, "apply_steps", lambda *_, **__: "done")
    monkeypatch.setattr(host_tasks, "wait_for_server", lambda *_, **__: fresh)
    monkeypatch.setattr(host_tasks, "require_same_cluster", lambda *_: None)
    monkeypatch.setattr(rollback, "begin", lambda *_, **__: "")
    monkeypatch.setattr(host_tasks, "has_other_agent_token", lambda *_: False)
    plan = SimpleNamespace(desired=None, facts=fresh, returns=False, by_role={"servers": ()})
    run: Any = SimpleNamespace(
        planned=lambda _: plan,
        trial=0,
        deadlines={"apply": 1},
        new_ca="NEW",
        facts={"s1": fresh},
        done=set(),
        cluster=SimpleNamespace(version="v1"),
    )
    task: Any = SimpleNamespace(host=SimpleNamespace(name="s1"))
    if told:
        with pytest.raises(NotReady, match="started with the old CA"):
            host_tasks.converge_server(task, run)
    else:
        host_tasks.converge_server(task, run)
        assert run.done == {"s1"}


class Deploys:
    """A cluster in memory: what its servers have, and the deploys that were made."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, found: Mapping[str, Secret]) -> None:
        self.folder, self.found, self.given, self.stored = folder, found, list[dict[str, Any]](), list[Any]()
        self.file = folder / "state" / "test" / state.FILE
        self.ready, self.fails, self.skips, self.left = {"s1", "s2"}, 0, list[str](), ""
        self.limits: list[tuple[str, ...]] = []
        monkeypatch.setattr(gather, "gather_host", self._observe)
        monkeypatch.setattr(cluster_ca, "read", lambda *_: self.found)
        monkeypatch.setattr(cluster_ca, "store", lambda _, server, files: self.stored.append((server, files)))
        monkeypatch.setattr(rotate_ca, "deploy", self._deploy)
        monkeypatch.setattr(plans, "plan", self._plan)

    def _observe(self, task: Any, run: Any) -> Any:
        name = task.host.name
        nodes = (NodeState(self.left, True, "v", ("control-plane",), address="10.0.0.29"),) if self.left else ()
        run.facts[name] = HostFacts(name, api=Api(ready=name in self.ready, nodes=nodes))
        return SimpleNamespace(failed=False, result=None, host=task.host, changed=False, diff="", exception=None)

    def _deploy(self, _: object, **given: Any) -> Report:
        check(given["options"])
        self.given.append(given)
        if len(self.given) == self.fails:
            error = NotReady("s2", "not ready")
            error.report = Report(cluster="test", notes=["failed"])
            raise error
        hosts = {"s1": HostReport(role="servers", changes=[f"change {len(self.given)}"], restarts=["k3s.service"])}
        code = 4 if self.skips and not given["choice"].limit else 0
        skipped = self.skips if code else []
        notes = [f"note {len(self.given)}", "both"]
        return Report(cluster="test", hosts=hosts, notes=notes, exit_code=code, skipped=skipped)

    def _plan(self, _: object, **given: Any) -> Plan:
        check(given["options"])
        self.limits.append(given["choice"].limit)
        hosts = {"s1": HostPlan(role="servers", changes=[change("s1", "servers", "restart k3s.service")])}
        return Plan(cluster="test", version="v", hosts=hosts, phases=["servers"], batches=[])

    def arguments(self) -> dict[str, Any]:
        return {"base": self.folder, "state": self.folder / "state"}

    def rotate(self, **given: Any) -> Report:
        return rotate.rotate(nr(HOSTS), "ca", **self.arguments(), **given)

    def plan(self) -> Rotation:
        return rotate.plan_rotation(nr(HOSTS), "ca", **self.arguments())

    def options(self) -> list[str]:
        return [next(key for key in ("new_ca", "renew") if key in one["options"]) for one in self.given]


@pytest.fixture
def deploys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: dict[str, Secret]) -> Deploys:
    (tmp_path / "bundle").mkdir()
    return Deploys(tmp_path, monkeypatch, old)


def test_new_cas_are_stored_deployed_and_then_all_certificates_of_servers_made_anew(deploys: Deploys) -> None:
    asked: list[Rotation] = []

    def confirm(plan: Rotation) -> bool:
        asked.append(plan)
        return True

    before = time.time()
    report = deploys.rotate(confirm=confirm, ignore_window=True)
    ((server, files),) = deploys.stored
    assert server == "s1"
    first, second = deploys.given
    assert first["options"]["new_ca"] == files["server-ca.crt"].reveal()
    assert before <= second["options"]["renew"] <= time.time()
    assert (first["choice"].limit, second["choice"].limit) == ((), ("s1", "s2"))
    assert first["choice"].ignore_window
    assert second["choice"].ignore_window
    assert report.hosts["s1"].changes == ["change 1", "change 2"]
    assert report.hosts["s1"].restarts == ["k3s.service"] * 2
    assert not deploys.file.exists()
    assert [step.what.partition(":")[0] for step in asked[0].steps] == [
        "make new CAs, signed by the old ones, too",
        "store them in the datastore with `k3s certificate rotate-ca`",
        "restart k3s.service",
        "restart k3s-agent.service with the new CA's hash in the token",
        "renew the certificate of the health check",
        "make all certificates anew, and restart k3s.service a second time",
    ]


def test_cas_that_k3s_refuses_are_not_kept(deploys: Deploys, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise CommandFailed("s1", "store", status=1, stderr="see server log")

    monkeypatch.setattr(cluster_ca, "store", refuse)
    with pytest.raises(CommandFailed):
        deploys.rotate()
    assert not deploys.file.exists()
    assert deploys.given == []


@pytest.mark.parametrize(("fails", "again"), [(1, ["new_ca", "renew"]), (2, ["renew"])])
def test_one_that_was_interrupted_goes_on_with_the_same_cas(deploys: Deploys, fails: int, again: Sequence[str]) -> None:
    deploys.fails = fails
    with pytest.raises(NotReady):
        deploys.rotate()
    saved, _ = state.load(Store(deploys.file.parent, base=deploys.folder))
    assert saved == deploys.stored[0][1]
    assert deploys.plan().notes[0] == "it goes on with a rotation that was interrupted"
    deploys.given.clear()
    deploys.fails = 0
    deploys.rotate()
    assert deploys.options() == again
    assert all(files == saved for _, files in deploys.stored), "no second ones are made"
    assert not deploys.file.exists()


def test_nothing_is_made_where_a_server_is_not_ready_or_the_cas_are_others(
    deploys: Deploys, new: dict[str, Secret]
) -> None:
    deploys.found = {**new, "client-ca.key": new["server-ca.key"]}
    with pytest.raises(UsageError, match="the key of its root is not on the server"):
        deploys.rotate()
    deploys.ready = {"s1"}
    with pytest.raises(UsageError, match="s2 is not ready"):
        deploys.plan()
    deploys.ready, deploys.left = {"s1", "s2"}, "s9"
    with pytest.raises(UsageError, match="s9 left the inventory, and K3s runs there"):
        deploys.plan()
    deploys.left = ""
    with pytest.raises(Declined):
        deploys.rotate(confirm=lambda _: False)
    assert not deploys.stored
    assert not deploys.file.exists()


def test_a_plan_saves_nothing_on_the_controller(deploys: Deploys) -> None:
    deploys.plan()
    assert not deploys.file.parent.exists()


def test_nothing_is_stored_outside_the_window(deploys: Deploys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that restart by themselves would take the new CAs, and agents with the old one's hash would not start."""
    monkeypatch.setattr(window, "closed", lambda run: "" if run.ignore_window else "Mon")
    with pytest.raises(OutsideWindow, match="nothing was changed: K3s restarts on s1, s2"):
        deploys.rotate()
    assert not deploys.stored
    assert not deploys.file.exists()
    deploys.rotate(ignore_window=True)
    assert deploys.stored


def test_the_report_has_what_both_deploys_left_out_and_noted(deploys: Deploys) -> None:
    deploys.skips = ["a1"]
    report = deploys.rotate()
    assert (report.skipped, report.exit_code) == (["a1"], 4)
    assert report.notes == ["note 1", "both", "note 2"]
    deploys.fails = 4
    with pytest.raises(NotReady) as caught:
        deploys.rotate()
    assert caught.value.report.notes == ["note 3", "both", "failed"]


def test_what_is_left_of_it_is_planned_for_servers_alone(deploys: Deploys) -> None:
    deploys.plan()
    deploys.fails = 2
    with pytest.raises(NotReady):
        deploys.rotate()
    deploys.plan()
    assert deploys.limits == [(), (), ("s1", "s2")]


@pytest.mark.parametrize(("fails", "ready"), [(1, {"s1"}), (2, {"s1"}), (2, set[str]())])
def test_one_that_an_interrupted_run_has_restarted_need_not_be_ready(
    deploys: Deploys, fails: int, ready: set[str]
) -> None:
    deploys.fails = fails
    with pytest.raises(NotReady):
        deploys.rotate()
    deploys.fails, deploys.ready = 0, ready
    deploys.plan()
    deploys.rotate()
    assert not deploys.file.exists()


def test_the_phases_read_and_store_on_one_server(monkeypatch: pytest.MonkeyPatch, old: dict[str, Secret]) -> None:
    def told(name: str, text: Secret) -> str:
        return f"@ca\t{name}\t{base64.b64encode(text.reveal().encode()).decode()}"

    lines, applied = [told(*one) for one in old.items()], list[Any]()
    link = SimpleNamespace(run=lambda *_, **__: SimpleNamespace(stdout="\n".join([*lines, "@end", ""])))
    monkeypatch.setattr(cluster_ca, "session_of", lambda *_: link)
    monkeypatch.setattr(cluster_ca, "apply_steps", lambda _, __, steps, **___: applied.extend(steps))
    task: Any = SimpleNamespace(host=SimpleNamespace(name="s1"))
    run: Any = SimpleNamespace(deadlines={"apply": 1})
    run.phase = lambda _, names, work: {name: getattr(work(task, run), "result", None) for name in names}
    assert cluster_ca.read(run, "s1") == old
    cluster_ca.store(run, "s1", old)
    assert [step.id for step in applied] == ["certificates:ca"]
    lines.pop()
    with pytest.raises(UnreadableAnswer):
        cluster_ca.read(run, "s1")


def test_the_hash_in_tokens_is_that_of_the_new_root(new: dict[str, Secret], old: dict[str, Secret]) -> None:
    assert tokens.hash_of(new["server-ca.crt"].reveal()) != tokens.hash_of(old["server-ca.crt"].reveal())
