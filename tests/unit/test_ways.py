"""Host keys are checked unless the inventory says so in so many words; `Match exec` works though it comes late."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nornir_k3s.ssh.link import _options
from nornir_k3s.ssh.ssh_config import Way, strict


@pytest.mark.parametrize(("extras", "expected"), [
    ({}, True), ({"ssh_strict": None}, True), ({"ssh_strict": "no"}, True), ({"ssh_strict": 0}, True),
    ({"ssh_strict": True}, True), ({"ssh_strict": False}, False),
])  # fmt: skip
def test_nothing_but_false_turns_the_check_off(tmp_path: Any, extras: dict[str, Any], expected: bool) -> None:
    assert strict(extras) is expected
    way = Way("10.0.0.1", 22, "ops", tmp_path / "known_hosts")
    options = _options({"alt_host_keys": None, **extras}, way, tmp_path / "keys", None)
    assert (options.get("ssh_strict") is True) is expected
    assert bool(options.get("alt_key_file")) is expected


_LATE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from nornir.core.inventory import ConnectionOptions, Host
from nornir_k3s.ssh.ssh_config import way_to
assert "asyncio" not in sys.modules, "brought before anybody needs it"
options = ConnectionOptions(extras={"ssh_config_file": sys.argv[1]})
hosts = [Host(f"h{n}", connection_options={"netmiko": options}) for n in range(16)]
with ThreadPoolExecutor(16) as pool:
    print({way.port for way in pool.map(lambda host: way_to(host, None), hosts)})
"""


def test_match_exec_is_carried_out_for_many_at_once(tmp_path: Path) -> None:
    file = tmp_path / "ssh_config"
    file.write_text('Match exec "true"\n  Port 2022\n')
    done = subprocess.run(
        [sys.executable, "-c", _LATE, str(file)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("{2022}\n", "")
