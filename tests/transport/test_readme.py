"""README's shortest inventory connects as it stands: its files are unchanged, and ssh_config leads to a real sshd."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from nornir import InitNornir
from nornir.core.task import Result, Task

from nornir_k3s.inventory import cluster, config, placeholders
from nornir_k3s.ssh.session import session
from nornir_k3s.state.store import Store

from .conftest import Sshd

README = Path(__file__).resolve().parents[2] / "README.md"
NAMES = ("config.yaml", "inventory/hosts.yaml", "inventory/groups.yaml", "inventory/defaults.yaml")


@pytest.fixture
def site(tmp_path: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of README, and a home with a key."""
    blocks = re.findall(r"^ *```yaml\n(.*?)^ *```", README.read_text(), re.M | re.S)
    texts = {text.split()[1].rstrip(":"): text for block in blocks if (text := textwrap.dedent(block)).startswith("# ")}
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(texts[name])
    ssh = tmp_path / "home" / ".ssh"
    ssh.mkdir(parents=True)
    shutil.copy(sshd.folder / "id", ssh / "id_ed25519")
    shutil.copy(sshd.folder / "known_hosts", ssh / "known_hosts")
    (ssh / "config").write_text(f"Host 10.0.0.*\n  HostName 127.0.0.1\n  Port {sshd.port}\n")
    monkeypatch.setenv("HOME", str(ssh.parent))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path


@pytest.mark.skipif(getpass.getuser() != "root", reason="README's user is root")
def test_the_shortest_inventory_of_readme_connects_as_it_stands(site: Path) -> None:
    settings = config.load(site / "config.yaml")
    assert settings.problems().problems == ()

    def hello(task: Task) -> Result:
        return Result(host=task.host, result=session(task, deadline=20).run("echo hello", what="x", timeout=20).stdout)

    # Nornir has found the tester's own home when it was imported.
    with InitNornir(**settings.nornir, ssh={"config_file": str(site / "home" / ".ssh" / "config")}) as nr:
        assert placeholders.check(nr.inventory, settings.sources).problems == ()
        store = Store(settings.state, base=settings.base, keep=False)
        found = cluster.load(nr.inventory, store=store, base=settings.base, sources=settings.problems())
        assert {role: len(found.of(role)) for role in ("datastore", "servers", "agents", "lb")} == {
            "datastore": 1, "servers": 3, "agents": 1, "lb": 2,
        }  # fmt: skip
        answers = nr.run(task=hello)
    assert {name: one[0].result for name, one in answers.items()} == dict.fromkeys(nr.inventory.hosts, "hello\n")


def test_its_host_keys_are_shown(site: Path) -> None:
    argv = [sys.executable, "-m", "nornir_k3s.cli", "hostkeys", "--config", str(site / "config.yaml")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^│ \w+ .*│ known +│$", done.stdout, re.M)) == 7
