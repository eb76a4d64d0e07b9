from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nornir.core.inventory import ConnectionOptions, Defaults, Host

from nornir_k3s.errors import UsageError
from nornir_k3s.plugins.credentials import k3s_credentials
from nornir_k3s.ssh.session import Session
from nornir_k3s.state.references import resolve


def host(name: str, defaults: Defaults, data: dict[str, Any] | None = None) -> Host:
    return Host(name, hostname="10.0.0.1", data=data or {}, defaults=defaults)


@pytest.fixture
def defaults() -> Defaults:
    return Defaults(connection_options={"netmiko": ConnectionOptions(platform="linux", extras={"key_file": "keys/id"})})


def test_each_host_gets_its_secrets_in_options_of_its_own(defaults: Defaults, tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("sesame\n")
    one = host("one", defaults, {"k3s_ssh": {"sudo_password": {"file": "pw"}, "password": {"file": "pw"}}})
    two = host("two", defaults)
    for each in (one, two):
        k3s_credentials(each, base=str(tmp_path))
    first, second = (h.get_connection_parameters("netmiko").extras or {} for h in (one, two))
    assert first["secret"] == "sesame"
    assert one.password == "sesame"
    assert "secret" not in second
    assert first["key_file"] == second["key_file"] == str(tmp_path / "keys" / "id")
    assert one.get_connection_parameters("netmiko").platform == "linux"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"sudo_pasword": {"env": "X"}}, "k3s_ssh.sudo_pasword: it is unknown"),
        ({"sudo_password": "plain"}, "a secret is a reference"),
        ({"sudo_password": {"file": "none"}}, "cannot be read"),
        ("text", "must be a mapping"),
    ],
)
def test_a_wrong_reference_names_host_and_key(defaults: Defaults, tmp_path: Path, data: Any, words: str) -> None:
    with pytest.raises(UsageError, match="one: k3s_ssh") as caught:
        k3s_credentials(host("one", defaults, {"k3s_ssh": data}), base=str(tmp_path))
    assert words in str(caught.value)


def test_references_resolve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "from env")
    (tmp_path / "f").write_text("from file\n")
    assert resolve({"env": "A_SECRET"}, tmp_path).reveal() == "from env"
    assert resolve({"file": "f"}, tmp_path).reveal() == "from file"
    assert resolve({"command": ["printf", "from command"]}, tmp_path).reveal() == "from command"
    assert resolve({"command": "cat f"}, tmp_path).reveal() == "from file"


@pytest.mark.parametrize(
    "reference",
    [
        {}, {"env": "A", "file": "b"}, {"store": "x"}, {"env": "NOT_SET_ANYWHERE"}, {"file": "none"},
        {"command": ["sh", "-c", "echo leaked-secret; exit 3"]}, {"command": ["no-such-program"]}, {"command": []},
        "text", ["env"], None, {"env": None}, {"file": ["f"]}, {"command": 5}, {"command": "sh -c 'open"},
        {"command": ["sh", "-c", "printf 'leaked-secret\\377'"]}, {"command": "cat"}, {"file": "/"},
    ],
)  # fmt: skip
def test_a_reference_that_gives_nothing_is_an_error_without_the_secret(reference: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(reference, tmp_path)
    assert "leaked-secret" not in str(caught.value)


def test_a_transform_function_of_the_team_hands_over_the_sudo_password(defaults: Defaults) -> None:
    """As docs/workflows.md shows it."""
    one = host("one", defaults)
    extras = one.get_connection_parameters("netmiko").extras or {}
    one.connection_options["netmiko"] = ConnectionOptions(extras={**extras, "secret": "sesame"})
    one.password = "login"
    assert Session(one)._password().reveal() == "sesame"
    login = one.get_connection_parameters("netmiko")
    assert (login.platform, login.password, (login.extras or {})["key_file"]) == ("linux", "login", "keys/id")
