"""Host keys are checked unless the inventory says `ssh_strict: false`, literally."""

from __future__ import annotations

from typing import Any

import pytest

from nornir_k3s.ssh.link import _options
from nornir_k3s.ssh.route import is_strict


@pytest.mark.parametrize(("extras", "expected"), [
    ({}, True), ({"ssh_strict": None}, True), ({"ssh_strict": "no"}, True), ({"ssh_strict": 0}, True),
    ({"ssh_strict": True}, True), ({"ssh_strict": False}, False),
])  # fmt: skip
def test_nothing_but_false_turns_the_check_off(tmp_path: Any, extras: dict[str, Any], expected: bool) -> None:
    assert is_strict(extras) is expected
    options = _options({"alt_host_keys": None, **extras}, tmp_path / "keys", None)
    assert (options.get("ssh_strict") is True) is expected
    assert bool(options.get("alt_key_file")) is expected
