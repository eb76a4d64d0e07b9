from __future__ import annotations

import hashlib
import re

import pytest

from nornir_k3s import k3s
from nornir_k3s.model.secret import Secret


def test_versions_order_as_releases_do() -> None:
    ordered = ["v1.30.2+k3s1", "v1.30.2+k3s2", "v1.30.10+k3s1", "v1.31.0-rc1+k3s1", "v1.31.0+k3s1"]
    assert sorted(sorted(ordered), key=k3s.parse_version) == ordered


@pytest.mark.parametrize("text", ["", "1.34.9+k3s1", "v1.34", "v1.34.9", "v1.34.9+rke2r1", "latest"])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a K3s version"):
        k3s.parse_version(text)


def test_a_new_token_is_one_that_k3s_takes() -> None:
    assert k3s.token_problem(k3s.new_token()) is None


def test_the_bootstrap_key_is_made_of_the_token() -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    assert k3s.bootstrap_key(Secret("secret")) == f"/bootstrap/{digest[:12]}"


def test_an_agent_joins_with_the_full_token() -> None:
    prefix = "K10" + "a" * 64
    assert k3s.agent_token(prefix, token=Secret("t"), agent=None).reveal() == f"{prefix}::server:t"
    assert k3s.agent_token(prefix, token=Secret("t"), agent=Secret("a")).reveal() == f"{prefix}::node:a"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("failed to bootstrap cluster data: bootstrap data already found and encrypted with different token", "token"),
        ("Error 1045 (28000): Access denied for user 'k3s'@'10.77.0.14' (using password: YES)", "password"),
        ("listen tcp :6443: bind: address already in use", "port"),
        ("default addr for network '10.77.0.11:3306' unknown", "tcp()"),
        ("Error: flag provided but not defined: -no-such-flag", "does not know"),
        ("server is not ready: failed to retrieve configuration from server: not authorized", "refuses the token"),
        (
            "Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password'",
            "another node password",
        ),
    ],
)
def test_the_journal_catalogue_names_causes(line: str, words: str) -> None:
    cause = k3s.diagnose(f'time="2026-11-22T16:47:20Z" level=fatal msg="{line}"')
    assert cause is not None
    assert words in cause.text


@pytest.mark.parametrize(
    ("journal", "advice"),
    [
        ("Node password rejected, duplicate hostname", "`k3s kubectl delete node s-3` on a server, then deploy again"),
        ("/v/cred/passwd newer than datastore and could", "move /v/cred/passwd to another folder"),
        ("/v/a, /v/b newer than datastore and could", "move /v/a /v/b to another folder"),
        (f"{', '.join(['/v/a'] * 14)} newer than datastore", "move the files that the line names to another folder"),
    ],
)
def test_advice_names_the_node_and_the_files_that_k3s_refuses(journal: str, advice: str) -> None:
    cause = k3s.diagnose(f'level=fatal msg="{journal}"')
    assert cause is not None
    assert advice in cause.advice(journal, "s-3")


def test_every_hint_can_be_followed_as_it_stands() -> None:
    for _, cause in k3s.CAUSES:
        assert not re.search(r"[{}]|\bNAME\b|\bremove /", cause.advice("", "s-3")), cause


def test_a_journal_without_a_known_cause_has_none() -> None:
    assert k3s.diagnose('level=info msg="Starting k3s v1.34.9+k3s1"') is None
