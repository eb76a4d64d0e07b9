"""A controller that lacks the secrets of a living cluster takes them from its hosts."""

from __future__ import annotations

import base64
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from nornir_k3s import k3s
from nornir_k3s.checks import held as checks
from nornir_k3s.errors import HostsFailed, HostUnreachable, K3sError
from nornir_k3s.facts import held
from nornir_k3s.model.datastore_facts import Database
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.paths import DATASTORE_KEYS
from nornir_k3s.model.secret import Secret
from nornir_k3s.roles.datastore_login import login
from nornir_k3s.run import gather, take_back
from nornir_k3s.state import certificates, known_cluster
from nornir_k3s.workflows import status

from ..conftest import HOSTS
from ..test_left import nr
from .conftest import ACTIVE, NOW, PREFIX, Living, known, second


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


@pytest.mark.parametrize("where", ["flags", "shell", "drop-in", "environment"])
def test_a_datastore_is_found_wherever_a_server_has_its_settings(living: Living, where: str) -> None:
    token, endpoint = living.cluster.token.reveal(), "mysql://k3s:p@tcp(10.9.9.9:3306)/k3s"
    flags = f'--token={token} "--datastore-endpoint={endpoint}"'
    start = {"flags": f"server {flags}", "shell": "server"}.get(where, "server")
    unit = f"[Service]\nEnvironmentFile=-/etc/default/%N\nExecStart=/usr/local/bin/k3s {start}\n"
    if where == "shell":
        unit = f"[Service]\nExecStart=/bin/sh -c 'exec k3s server {flags}'\n"
    living.hosts = {name: {} for name in HOSTS}
    living.hosts["s2"] = {**ACTIVE, held.UNIT: unit, held.TOKEN: f"{PREFIX}::server:{token}\n"}
    if where == "drop-in":
        living.hosts["s2"][f"{k3s.CONFIG}.d/x.yaml"] = yaml.safe_dump({"datastore-endpoint": endpoint})
    if where == "environment":
        living.hosts["s2"]["/etc/default/k3s"] = f"K3S_DATASTORE_ENDPOINT='{endpoint}'\n"
    run = second(living)
    take_back.begin(run, living.read)
    assert run.cluster.token.reveal() != token, "it is another cluster's"
    with pytest.raises(K3sError, match=r"^s2: K3s has another datastore there"):
        take_back.settle(run)


@pytest.mark.parametrize(
    ("endpoint", "other"),
    [
        ("mysql://k3s_0123abcd:p@tcp(10.9.9.9:3306)/k3s", True),
        ("mysql://k3s_0123abcd:p@tcp(10.0.0.11:3306)/test", True),
        ("postgres://k3s_0123abcd:p@10.0.0.11:5432/k3s", True),
        ("mysql://k3s_0123abcd:p@tcp(db.example.org:3306)/k3s", False),  # it may be a name of db1
        ("", False),
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


def test_a_status_shows_what_it_can_while_hosts_do_not_agree(living: Living) -> None:
    living.set_servers(living.with_password("new"), "s2")  # another controller rotates it now
    run = second(living)
    run.first = partial(take_back.begin, read=living.read)
    found = status.read(run)
    assert any("database password: s2 has another one than s1" in one for one in found.problems)
    assert found.unreachable == list(run.present)


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
