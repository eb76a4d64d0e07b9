from __future__ import annotations

import hashlib

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
