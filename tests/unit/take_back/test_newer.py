"""A controller that has older secrets than the hosts takes over theirs, where they are newer."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from nornir_k3s import k3s
from nornir_k3s.checks import held as checks
from nornir_k3s.errors import K3sError
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.paths import DATASTORE_KEYS
from nornir_k3s.model.secret import Secret
from nornir_k3s.roles import haproxy
from nornir_k3s.run import take_back
from nornir_k3s.state import certificates, check_certificate, database_password, datastore_keys, known_cluster
from nornir_k3s.state.store import Store

from .conftest import NOW, PREFIX, Living, check_pem, client_ca, known, second


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
