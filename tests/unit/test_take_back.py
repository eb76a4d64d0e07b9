"""A controller that lacks the secrets of a living cluster, or has older ones, takes them from the hosts."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from nornir.core.task import Result, Task

from nornir_k3s import k3s
from nornir_k3s.checks import held as checks
from nornir_k3s.errors import Busy, HostsFailed, HostUnreachable, InventoryError, K3sError, UsageError
from nornir_k3s.facts import held
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.datastore_facts import Database
from nornir_k3s.model.host_facts import FileState, HostFacts
from nornir_k3s.model.k3s_facts import Api, ServerFiles
from nornir_k3s.model.paths import DATASTORE_KEYS
from nornir_k3s.model.secret import Secret
from nornir_k3s.roles import datastore, haproxy
from nornir_k3s.roles.datastore_login import login
from nornir_k3s.run import gather, shared, take_back
from nornir_k3s.run.context import Run
from nornir_k3s.state import certificates, check_certificate, database_password, datastore_keys, known_cluster
from nornir_k3s.state.store import Store
from nornir_k3s.workflows import status

from .conftest import HOSTS
from .test_left import nr

PREFIX = "K10" + "a" * 64
ACTIVE = {k3s.UNITS["server"]: "active\n"}
NOW = datetime.now(UTC)
KUBECONFIG = yaml.safe_dump(
    {
        "clusters": [{"name": "default", "cluster": {"server": "https://127.0.0.1:6443"}}],
        "users": [{"name": "default", "user": {}}],
        "contexts": [{"name": "default", "context": {}}],
    }
)
Hosts = dict[str, dict[str, str]]


def client_ca() -> certificates.PemPair:
    return certificates.create_ca("k3s-client", NOW)


def check_pem(ca: certificates.PemPair, at: datetime = NOW) -> str:
    pair = certificates.issue("lb-check", (), ca, at)
    return pair["certificate"] + pair["key"]


class Living:
    """A cluster that another controller has deployed; `hosts` is what its hosts hold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[list[str]] = []
        self.down: set[str] = set()
        run = self.controller("first")
        run.store.commit()
        self.cluster = run.cluster
        assert run.cluster.keys
        self.keys = run.cluster.keys.text.reveal()
        self.ca, self.client_ca = certificates.create_ca("k3s-server", NOW)["certificate"], client_ca()
        self.hosts: Hosts = {name: {} for name in HOSTS}
        self.hosts["db1"][DATASTORE_KEYS] = self.keys
        for name in ("lb1", "lb2"):
            self.hosts[name][haproxy.CHECK_CERT] = "" if name == "lb2" else check_pem(self.client_ca)
        self.hosts["lb2"] = dict(self.hosts["lb1"])
        self.set_servers(run.cluster)

    def controller(self, name: str, **options: Any) -> Run:
        folder = self.folder / name
        return gather.prepare(nr(HOSTS), base=folder, state=folder / "state", options={"whole": True, **options})

    def set_servers(self, cluster: Cluster, *names: str) -> None:
        """Give servers the token and the password of this cluster."""
        for name in names or ("s1", "s2"):
            self.hosts[name] = {
                **ACTIVE,
                k3s.CONFIG: self.config(cluster),
                held.TOKEN: f"{PREFIX}::server:{cluster.token.reveal()}\n",
                held.SERVER_CA: self.ca,
                held.CLIENT_CA: self.client_ca["certificate"],
                held.DATASTORE_CA: json.loads(self.keys)["ca"]["certificate"],
            }

    @staticmethod
    def config(cluster: Cluster) -> str:
        endpoint = datastore.endpoint(cluster).reveal()
        return yaml.safe_dump({"token": cluster.token.reveal(), "datastore-endpoint": endpoint, "tls-san": ["a"]})

    def read(self, _: Run, names: Sequence[str]) -> tuple[Mapping[str, Mapping[str, str]], Sequence[str]]:
        self.asked.append(list(names))
        return {name: self.hosts[name] for name in names if name not in self.down}, sorted(self.down & set(names))

    def with_password(self, password: str) -> Cluster:
        return replace(self.cluster, datastore_password=Secret(password))

    def facts(self, run: Run, *users: Cluster) -> None:
        """Let a run have read all hosts; the datastore has the users of these clusters."""
        for name, texts in self.hosts.items():
            files = {path: self._state(run, path, text) for path, text in texts.items() if path.startswith("/")}
            run.facts[name] = HostFacts(name, files=files)
        accounts = {f"{login(one)}@{address}": True for one in users for address in ("10.0.0.12", "10.0.0.13")}
        token = Secret(self.hosts["s1"][held.TOKEN].strip().rpartition(":")[2])
        database = Database(users=accounts, bootstrap={f"/bootstrap/{token.fingerprint()}": 9})
        run.facts["db1"] = replace(run.facts["db1"], database=database)
        for name in ("s1", "s2"):
            own = Secret(self.hosts[name][held.TOKEN].strip().rpartition(":")[2])
            server = ServerFiles(PREFIX, own.fingerprint(), self.ca)
            run.facts[name] = replace(run.facts[name], server=server, api=Api(ready=True), kubeconfig=KUBECONFIG)

    @staticmethod
    def _state(run: Run, path: str, text: str) -> FileState:
        same = path == k3s.CONFIG and text == Living.config(run.cluster)
        shown = text if path == k3s.CONFIG and not same else None
        return FileState("file", sha256=hashlib.sha256(text.encode()).hexdigest(), text=shown)


@pytest.fixture
def living(tmp_path: Path) -> Living:
    return Living(tmp_path)


def second(living: Living, **options: Any) -> Run:
    run = living.controller("second", **options)
    run.first = None
    return run


def test_nothing_is_generated_where_a_living_cluster_has_it(living: Living) -> None:
    run = second(living)
    assert take_back.lacking(run) == [checks.TOKEN, checks.PASSWORD, checks.KEYS]
    assert run.cluster.token != living.cluster.token
    assert list((living.folder / "second" / "state" / "test").glob("*token*")) == [], "nothing before hosts were asked"
    take_back.begin(run, living.read)
    assert living.asked == [["db1", "s1", "s2", "lb1", "lb2"]]
    for one in (run.cluster, second(living).cluster):
        assert one.token == living.cluster.token
        assert one.datastore_password == living.cluster.datastore_password
        assert one.keys == living.cluster.keys
    assert run.store.generated == ()
    assert run.taken >= {checks.TOKEN, checks.PASSWORD, checks.KEYS}
    note = run.report.notes[-1]
    assert "taken back from the hosts (s1, s2, db1, lb1, lb2): token, database password, keys of the datastore" in note
    assert "unknown here: what drift checks found before" in note
    secrets = [secret.reveal() for secret in living.cluster.secrets()]
    assert not [one for one in secrets if one in note]
    take_back.begin(second(living), living.read)
    assert len(living.asked) == 1, "it is known now: no further round trip"


def test_a_first_deploy_generates_when_no_host_has_a_cluster(living: Living) -> None:
    living.hosts = {name: {} for name in HOSTS}
    run = second(living)
    take_back.begin(run, living.read)
    assert run.store.read("token") is None
    take_back.settle(run)
    assert run.store.read("token") == run.cluster.token.reveal() + "\n"
    assert run.report.notes == []


def test_what_a_cluster_of_before_has_left_is_not_its_token(living: Living) -> None:
    for name in ("s1", "s2"):
        del living.hosts[name][k3s.UNITS["server"]]
    run = second(living)
    take_back.begin(run, living.read)
    assert run.cluster.token != living.cluster.token
    living.hosts["s1"][held.INSTALLED] = "agent 0123"
    take_back.begin(run, living.read)
    assert run.cluster.token != living.cluster.token, "one that was an agent"
    living.hosts["s1"][held.INSTALLED] = "server 0123"
    take_back.begin(run, living.read)
    assert run.cluster.token == living.cluster.token, "one of ours whose K3s is stopped"


@pytest.mark.parametrize("down", ["s2", "db1"])
def test_nothing_is_made_while_a_host_that_may_have_it_is_silent(living: Living, down: str) -> None:
    living.hosts, living.down = {name: {} for name in HOSTS}, {down, "lb1"}
    run = second(living)
    take_back.begin(run, living.read)
    with pytest.raises(K3sError, match=rf"^{down}: not asked for the cluster's token, database password"):
        take_back.settle(run)
    assert run.store.read("token") is None


def test_nothing_is_made_for_a_part_of_the_hosts(living: Living) -> None:
    run = second(living)
    run.away = frozenset(["s1"])
    living.hosts = {name: {} for name in HOSTS}
    take_back.begin(run, living.read)
    with pytest.raises(K3sError, match=r"^s1: not asked for"):
        take_back.settle(run)


@pytest.mark.parametrize(
    ("endpoint", "other"),
    [
        ("mysql://k3s_0123abcd:p@tcp(10.9.9.9:3306)/k3s", True),
        ("mysql://k3s_0123abcd:p@tcp(10.0.0.11:3306)/test", True),
        ("postgres://k3s_0123abcd:p@10.0.0.11:5432/k3s", True),
        ("mysql://k3s_0123abcd:p@tcp(db.example.org:3306)/k3s", False),  # it may be a name of db1
        ("", False),  # flags in the unit
    ],
)
def test_the_token_of_a_server_with_another_datastore_is_not_taken(living: Living, endpoint: str, other: bool) -> None:
    living.hosts = {**{name: {} for name in HOSTS}, "s2": living.hosts["s2"]}  # a first deploy, with a wrong address
    token = living.cluster.token
    living.hosts["s2"][k3s.CONFIG] = yaml.safe_dump({"token": token.reveal(), "datastore-endpoint": endpoint})
    run = second(living)
    take_back.begin(run, living.read)
    assert (run.cluster.token != token) is other
    if other:
        with pytest.raises(K3sError, match=r"^s2: K3s has another datastore there[\s\S]*correct its address"):
            take_back.settle(run)
        assert run.store.read("token") is None
        run.unsure = ""
        take_back.begin(run, living.read, elsewhere=True)
        assert run.cluster.token == token, "its data are moved"


def test_the_ca_of_a_server_with_another_token_is_not_saved(living: Living) -> None:
    run = living.controller("late")
    run.first = None
    run.store.commit()
    run.use_inventory()
    living.facts(run)
    run.facts["db1"] = HostFacts("db1")
    assert not take_back.renew(run, living.read)
    assert known_cluster.ca(run.store) == ("", "")
    assert not (run.store.folder / "kubeconfig").exists()


def test_a_kubeconfig_that_is_none_ends_nothing(living: Living) -> None:
    run = known(living)
    run.store.write("ca.json", "{}")
    run.facts["s1"] = replace(run.facts["s1"], kubeconfig="- half of it")
    assert not take_back.renew(run, living.read)
    assert known_cluster.ca(run.store) == (PREFIX, living.ca)


def test_a_load_balancer_that_is_silent_keeps_nothing_back(living: Living) -> None:
    living.hosts, living.down = {name: {} for name in HOSTS}, {"lb1"}
    run = second(living)
    take_back.begin(run, living.read)
    take_back.settle(run)
    assert run.store.read("token")


def test_data_whose_token_nobody_has_get_no_new_one(living: Living) -> None:
    run = second(living)
    run.facts["db1"] = HostFacts("db1", database=Database(bootstrap={"/bootstrap/0123456789ab": 9}))
    take_back.settle(run)
    assert run.store.read("token") is None


def test_a_run_that_keeps_nothing_generates_nothing(living: Living) -> None:
    run = second(living)
    run.store.keep, run.unsure = False, "the token"
    take_back.settle(run)
    assert run.store.read("token") is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({held.TOKEN: f"{PREFIX}::server:other\n"}, "token: s2"),
        ({k3s.CONFIG: "token: other\n"}, f"token: s2 ({k3s.CONFIG}) has another one than"),
        ({held.SERVER_CA: "CA"}, "CA of K3s: s2 has another one than s1"),
    ],
)
def test_hosts_that_do_not_agree_are_named_without_their_secrets(
    living: Living, change: dict[str, str], words: str
) -> None:
    if held.SERVER_CA in change:
        change = {held.SERVER_CA: certificates.create_ca("other", NOW)["certificate"]}
    living.hosts["s2"].update(change)
    run = second(living)
    with pytest.raises(K3sError) as caught:
        take_back.begin(run, living.read)
    assert words in str(caught.value)
    assert living.cluster.token.reveal() not in str(caught.value)
    assert "other" not in str(caught.value).replace("another", "")
    assert run.store.read("token") is None


def test_passwords_that_differ_are_refused(living: Living) -> None:
    living.set_servers(living.with_password("new"), "s2")
    with pytest.raises(K3sError, match="database password: s2 has another one than s1"):
        take_back.begin(second(living), living.read)


def test_the_password_of_a_user_that_others_made_is_not_taken(living: Living) -> None:
    for name in ("s1", "s2"):
        text = living.hosts[name][k3s.CONFIG]
        living.hosts[name][k3s.CONFIG] = text.replace(login(living.cluster), "admin")
    run = second(living)
    take_back.begin(run, living.read)
    assert run.cluster.datastore_password != living.cluster.datastore_password
    assert run.cluster.token == living.cluster.token


def test_a_ca_that_was_rotated_on_some_servers_is_the_same_cluster(living: Living) -> None:
    living.hosts["s2"][held.SERVER_CA] = certificates.create_ca("new", NOW)["certificate"] + living.ca
    run = second(living)
    take_back.begin(run, living.read)
    assert run.cluster.token == living.cluster.token


def test_a_ca_whose_key_is_nowhere_is_told_with_what_it_costs(living: Living) -> None:
    del living.hosts["db1"][DATASTORE_KEYS]
    run = second(living)
    take_back.begin(run, living.read)
    (note,) = (one for one in run.report.notes if "restarts K3s on every server" in one)
    assert "copy datastore-keys.json" in note
    assert run.cluster.token == living.cluster.token


def test_a_datastore_that_had_no_tls_lacks_no_ca(living: Living) -> None:
    for name in ("db1", "s1", "s2"):
        living.hosts[name] = {path: text for path, text in living.hosts[name].items() if "datastore-" not in path}
    run = second(living)
    take_back.begin(run, living.read)
    assert not [one for one in run.report.notes if "restarts K3s on every server" in one]


def test_a_secret_that_the_inventory_gives_is_not_looked_for(living: Living) -> None:
    run = second(living)
    run.store.discard()
    take_back.begin(run, living.read)
    assert living.asked == []


def test_the_state_of_a_folder_that_cannot_be_written_is_in_memory(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = second(living)

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(run.store, "write", refuse)
    take_back.begin(run, living.read)
    assert run.cluster.token == living.cluster.token
    living.facts(run)
    take_back.renew(run, living.read)
    with pytest.raises(UsageError, match="Permission denied"):
        run.store.save("token", "x")


def known(living: Living, name: str = "second") -> Run:
    """Return a run of a controller that has taken everything back."""
    run = living.controller(name)
    run.first = None
    take_back.begin(run, living.read)
    living.facts(run, living.cluster)
    take_back.renew(run, living.read)
    living.asked.clear()
    run.report.notes.clear()
    return run


def test_the_ca_a_kubeconfig_and_the_check_s_certificate_come_along(living: Living) -> None:
    run = known(living)
    assert known_cluster.ca(run.store) == (PREFIX, living.ca)
    assert "10.0.0.100" in (run.store.folder / "kubeconfig").read_text()
    assert run.check_certificate().reveal() == living.hosts["lb1"][haproxy.CHECK_CERT]
    assert not take_back.renew(run, living.read)
    assert living.asked == [], "a controller that is up to date asks nothing more"


def test_a_password_that_another_controller_has_rotated_is_taken_over(living: Living) -> None:
    run = known(living)
    new = living.with_password("new")
    living.set_servers(new)
    living.facts(run, new)
    assert take_back.renew(run, living.read), "what was read depends on it"
    assert run.cluster.datastore_password.reveal() == "new"
    assert run.store.read("datastore-password") == "new\n"
    assert "where they are newer: database password" in run.report.notes[-1]
    living.facts(run, new)
    assert not take_back.renew(run, living.read)


def test_a_password_that_this_controller_rotates_is_not_taken_back(living: Living) -> None:
    run = known(living)
    database_password.replace(run.store, Secret("newer"))
    run.use_inventory()
    living.facts(run, living.cluster)
    assert not take_back.renew(run, living.read)
    assert run.cluster.datastore_password.reveal() == "newer"
    third = living.with_password("third")
    living.set_servers(third)
    living.facts(run, third)
    assert take_back.renew(run, living.read), "another controller has rotated it since"
    assert database_password.before(run.store) == set()
    assert not take_back.renew(second(living), living.read)


def test_a_rotation_that_begins_again_after_it_was_interrupted_goes_to_no_password_of_before(living: Living) -> None:
    run = known(living)
    database_password.replace(run.store, Secret("interrupted"))
    interrupted = living.with_password("interrupted")
    living.set_servers(interrupted, "s1")
    database_password.replace(run.store, Secret("newest"))
    run.use_inventory()
    living.facts(run, living.cluster, interrupted)
    assert not take_back.renew(run, living.read)
    assert run.cluster.datastore_password.reveal() == "newest"


def test_one_that_the_datastore_does_not_have_is_drift(living: Living) -> None:
    run = known(living)
    old = living.with_password("old")
    living.set_servers(old, "s2")  # a virtual machine that went back to a snapshot
    living.facts(run, living.cluster)
    assert not take_back.renew(run, living.read)
    living.hosts["s2"][k3s.CONFIG] = living.config(living.cluster).replace(":6443", ":1").replace("k3s_", "root_")
    living.facts(run, living.cluster)
    assert not take_back.renew(run, living.read), "edited by hand"
    assert living.asked == []


def test_a_rotation_that_was_interrupted_elsewhere_is_finished(living: Living) -> None:
    run = known(living)
    new = living.with_password("new")
    living.set_servers(new, "s1")
    living.facts(run, living.cluster, new)
    assert take_back.renew(run, living.read)
    assert run.cluster.datastore_password.reveal() == "new"


def test_the_password_of_another_cluster_on_the_same_server_of_databases_is_not_taken(living: Living) -> None:
    run = known(living)
    other = living.with_password("other")
    living.set_servers(other, "s2")  # a wrong address
    text = living.hosts["s2"][k3s.CONFIG]
    living.hosts["s2"][k3s.CONFIG] = text.replace(")/k3s?", ")/other?")
    assert living.hosts["s2"][k3s.CONFIG] != text
    living.facts(run, living.cluster, other)
    assert not take_back.renew(run, living.read)
    assert run.cluster.datastore_password == living.cluster.datastore_password


def test_two_new_passwords_are_refused(living: Living) -> None:
    run = known(living)
    new, newer = living.with_password("new"), living.with_password("newer")
    living.set_servers(new, "s1")
    living.set_servers(newer, "s2")
    living.facts(run, new, newer)
    with pytest.raises(K3sError, match="do not agree"):
        take_back.renew(run, living.read)


def test_a_token_that_all_servers_have_is_taken_over_and_the_old_one_kept(living: Living) -> None:
    run = known(living)
    old = run.cluster.token
    new = replace(living.cluster, token=Secret("new-token"))
    living.set_servers(new, "s1")
    living.facts(run, new)
    assert not take_back.renew(run, living.read), "the rotation is not finished"
    living.set_servers(new)
    living.facts(run, new)
    assert take_back.renew(run, living.read)
    assert run.cluster.token == Secret("new-token")
    assert checks.TOKEN in run.taken
    assert run.store.read(f"token-{old.fingerprint()}") == old.reveal() + "\n"


def test_the_token_of_a_first_deploy_that_another_controller_has_not_finished_is_taken_over(living: Living) -> None:
    """Both have read bare hosts, and made one each."""
    run = known(living)
    theirs = replace(living.cluster, token=Secret("new-token"))
    living.set_servers(theirs, "s1")
    living.facts(run, theirs)
    living.hosts["s2"], run.facts["s2"] = {}, HostFacts("s2")
    assert take_back.renew(run, living.read)
    assert run.cluster.token == Secret("new-token")


def test_a_token_of_another_cluster_is_not(living: Living) -> None:
    run = known(living)
    living.ca = certificates.create_ca("other", NOW)["certificate"]
    new = replace(living.cluster, token=Secret("new-token"))
    living.set_servers(new)
    living.facts(run, new)
    assert not take_back.renew(run, living.read)
    assert known_cluster.ca(run.store)[1] != living.ca


def test_the_newest_keys_count_and_damaged_ones_do_not(living: Living) -> None:
    run = known(living)
    later = Store(living.folder / "later", base=living.folder)
    later.write(datastore_keys.FILE, living.keys)
    hosts = {"db1": ["10.0.0.11", "db.example.org"]}
    renewed = datastore_keys.load(later, cluster="test", hosts=hosts, now=NOW + timedelta(days=1)).text.reveal()
    other = json.loads(renewed)
    other["ca"] = certificates.create_ca("other", NOW)
    for text in ("not JSON", json.dumps(other), '{"ca": 1}'):
        living.hosts["db1"][DATASTORE_KEYS] = text
        living.facts(run, living.cluster)
        assert not take_back.renew(run, living.read)
        assert run.store.read(datastore_keys.FILE) == living.keys
    living.hosts["db1"][DATASTORE_KEYS] = renewed
    living.facts(run, living.cluster)
    assert not take_back.renew(run, living.read), "the hosts need not be read again"
    assert run.store.read(datastore_keys.FILE) == renewed
    living.hosts["db1"][DATASTORE_KEYS] = living.keys
    living.facts(run, living.cluster)
    take_back.renew(run, living.read)
    assert run.store.read(datastore_keys.FILE) == renewed, "an older one is drift"


def test_a_ca_of_the_hosts_goes_before_one_that_was_made_meanwhile(living: Living) -> None:
    run = living.controller("late")  # two first deploys at once: the other one was first
    run.first = None
    run.store.commit()
    run.use_inventory()
    assert run.cluster.keys
    assert run.cluster.keys.ca not in living.keys
    living.facts(run, living.cluster)
    assert take_back.renew(run, living.read)
    assert run.store.read(datastore_keys.FILE) == living.keys
    assert (run.cluster.token, run.cluster.keys) == (living.cluster.token, living.cluster.keys)
    assert run.cluster.datastore_password == living.cluster.datastore_password
    assert datastore_keys.replaces(living.keys, "damaged")
    assert not datastore_keys.replaces("damaged", living.keys)


def test_keys_that_another_cluster_has_left_on_a_host_are_not_taken(living: Living) -> None:
    run, own = known(living), living.keys
    other = datastore_keys.load(Store(living.folder / "other", base=living.folder), cluster="other", hosts={"x": ["y"]})
    living.hosts["db1"][DATASTORE_KEYS] = other.text.reveal()
    living.facts(run, living.cluster)
    assert not take_back.renew(run, living.read)
    assert run.store.read(datastore_keys.FILE) == own
    third = living.controller("third")
    third.first = None
    take_back.begin(third, living.read)
    assert third.cluster.keys
    assert third.cluster.keys.ca != other.ca
    assert third.cluster.token == living.cluster.token


def test_the_newest_certificate_of_the_check_counts_if_the_cluster_has_signed_it(living: Living) -> None:
    run = known(living)
    before = run.check_certificate().reveal()
    bad = [check_pem(client_ca(), NOW + timedelta(hours=1)), "rubbish", "-----BEGIN CERTIFICATE-----\nAA==\n-----END"]
    bad += [before.partition("-----BEGIN PRIVATE")[0], check_pem(living.client_ca, NOW - timedelta(days=300))]
    for text in bad:
        living.hosts["lb2"][haproxy.CHECK_CERT] = text
        living.facts(run, living.cluster)
        take_back.renew(run, living.read)
        assert run.check_certificate().reveal() == before
    newer = check_pem(living.client_ca, NOW + timedelta(hours=1))
    living.hosts["lb2"][haproxy.CHECK_CERT] = newer
    living.facts(run, living.cluster)
    take_back.renew(run, living.read)
    assert run.check_certificate().reveal() == newer
    assert check_certificate.load(run.store, PREFIX, since=NOW.timestamp() + 7200) == Secret("")


def test_hosts_are_read_once_before_everything_else(living: Living, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def session(task: Any, **_: Any) -> Any:
        name = task.host.name
        if name == "lb2":
            raise K3sError("lb2: no route")

        def answer(script: str, **_: Any) -> Any:
            asked.append(name)
            assert "fact_held" in script
            lines = [
                f"@held\t{path}\t{base64.b64encode(text.encode()).decode()}\n"
                for path, text in living.hosts[name].items()
            ]
            return SimpleNamespace(stdout="".join(lines) + "@end\n", status=0)

        return SimpleNamespace(run=answer, round_trips=1)

    monkeypatch.setattr(gather, "session", session)
    run = living.controller("second")
    run.begin()
    run.begin()
    assert sorted(asked) == ["db1", "lb1", "s1", "s2"]
    assert run.cluster.token == living.cluster.token
    assert len(run.report.notes) == 1
    assert run.unread == {}, "what reads all hosts says who is down"


def test_a_host_that_is_down_is_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def session(task: Any, **_: Any) -> Any:
        tries.append(task.host.name)
        raise HostUnreachable(task.host.name, "no route")

    monkeypatch.setattr(gather, "session", session)
    run = gather.prepare(nr(HOSTS), base=tmp_path, state=tmp_path / "state", options={}, artifacts=False)
    with pytest.raises(HostsFailed):
        run.phase("observe", ["s1", "s2"], gather.gather_host, reads=True)
    assert sorted(tries) == ["db1", "lb1", "lb2", "s1", "s2"]
    run.nr.data.reset_failed_hosts()
    with pytest.raises(HostUnreachable):
        run.phase("observe", ["s1"], gather.gather_host, reads=True)
    assert tries[-1] == "s1", "it may be back"


@pytest.mark.parametrize("down", ["", "s2"])
def test_a_task_saves_what_it_generates_if_all_have_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, down: str
) -> None:
    def session(task: Any, **_: Any) -> Any:
        if task.host.name == down:
            raise K3sError("no route")
        return SimpleNamespace(run=lambda *_, **__: SimpleNamespace(stdout="@end\n", status=0), round_trips=1)

    def work(task: Task) -> Result:
        shared.of(task, tmp_path, tmp_path / "state", None).begin()
        return Result(host=task.host)

    monkeypatch.setattr(gather, "session", session)
    assert not nr(HOSTS).run(task=work).failed
    assert (tmp_path / "state" / "test" / "token").exists() is (not down)


def test_two_runs_do_not_replace_each_other_s_secrets(tmp_path: Path) -> None:
    one, other = (Store(tmp_path / "state", base=tmp_path) for _ in range(2))
    for store in (one, other):
        store.secret("token", None, make=k3s.new_token)
    one.commit()
    before = one.read("token")
    with pytest.raises(Busy, match="another run has made token"):
        other.commit()
    assert one.read("token") == before
    one.take("token", "older\n", "what it was\n")
    assert one.read("token") == "older\n", "for this run"
    assert other.read("token") == before, "somebody has saved another one meanwhile"


def test_a_state_of_another_account_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(UsageError, match=r"cannot be read: Permission denied[\s\S]*docs/team.md"):
        Store(tmp_path, base=tmp_path).read("token")
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UsageError, match="cannot be written"), Store(tmp_path, base=tmp_path).locked():
        pass


@pytest.mark.parametrize("name", ["token", "members.json", "ca.json", "packages.json"])
@pytest.mark.parametrize("text", [b"\xff\xfe", b'[{"name": '])
def test_a_damaged_file_of_the_state_is_told_in_words(living: Living, name: str, text: bytes) -> None:
    run = known(living)
    if name == "token" and text.isascii():
        return  # any text may be one
    (run.store.folder / name).write_bytes(text)
    store = Store(run.store.folder, base=living.folder)

    def read() -> None:
        second(living)
        known_cluster.ca(store)
        known_cluster.packages(store)

    with pytest.raises((UsageError, InventoryError)) as caught:
        read()
    assert f"{name} is damaged" in str(caught.value)


def test_a_damaged_certificate_of_the_check_is_told_in_words(living: Living) -> None:
    run = known(living)
    (run.store.folder / "lb-check.json").write_text("{")
    with pytest.raises(UsageError, match=r"lb-check\.json is damaged"):
        run.check_certificate()


def test_a_status_shows_what_it_can_while_hosts_do_not_agree(living: Living) -> None:
    living.set_servers(living.with_password("new"), "s2")  # another controller rotates it now
    run = second(living)
    run.first = partial(take_back.begin, read=living.read)
    found = status.read(run)
    assert any("database password: s2 has another one than s1" in one for one in found.problems)
    assert found.unreachable == list(run.present)


def test_a_lock_that_does_not_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nornir_k3s.state.store._PATIENCE", 0.01)
    one, other = (Store(tmp_path / "state", base=tmp_path) for _ in range(2))
    with one.locked(), pytest.raises(Busy, match="is held by another process"), other.locked():
        pass


def test_secrets_that_other_ways_of_installing_leave_are_read_too(living: Living) -> None:
    texts = {
        "s1": {
            **ACTIVE,
            held.ENVIRONMENT: f"K3S_TOKEN='{PREFIX}::server:one'\nK3S_DATASTORE_ENDPOINT='mysql://u:p@tcp(h:3306)/k3s'\n",
            held.AGENT_TOKEN: f"{PREFIX}::node:two\n",
        },
        "s2": {**ACTIVE, k3s.CONFIG: "datastore-endpoint: nonsense\n", held.AGENT_TOKEN: f"{PREFIX}::server:one\n"},
    }
    found = checks.values(living.cluster, texts)
    assert found[checks.TOKEN] == {"s1": Secret("one")}
    assert found[checks.AGENT_TOKEN] == {"s1": Secret("two")}
    assert found[checks.ENDPOINT]["s1"].reveal() == "mysql://u:p@tcp(h:3306)/k3s"
    assert checks.PASSWORD not in found, "of another database"
    assert checks.any_of(found, checks.CA) is None
