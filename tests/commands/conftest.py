"""A folder with config and inventory for the real commands; its hosts do not exist, and nobody must contact them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests import preloaded

PROJECT = Path(__file__).resolve().parents[2]
K3S = """#!/bin/sh
echo 'k3s version v1.34.9+k3s1 (abcdef12)'
"""


@dataclass
class Place:
    """The folder, and the commands run on it from another one."""

    folder: Path

    def run(self, name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a runbook, `NAME.py`, or a subcommand of `nornir-k3s`."""
        program = [str(PROJECT / "runbooks" / name)] if name.endswith(".py") else ["-m", "nornir_k3s.cli", name]
        command = [*program, "--config", str(self.folder / "config.yaml"), *arguments]
        env = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "LC_ALL": "C.UTF-8", **environment}
        env |= {name: value for name, value in os.environ.items() if name.startswith(("COVERAGE_", "PYTHONPATH"))}
        if name.endswith(".py") and not environment:
            return preloaded.run(command, cwd="/", environment=env, timeout=300)
        return subprocess.run(
            [sys.executable, *command],
            cwd="/",
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def file(self, name: str) -> Path:
        return self.folder / name

    def edit(self, change: Callable[[Any], object], name: str = "inventory/defaults.yaml") -> None:
        yaml = YAML()
        data = yaml.load(self.file(name))
        change(data)
        yaml.dump(data, self.file(name))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A copy of the project's own config and inventory, with artefacts that are there."""
    shutil.copytree(PROJECT / "inventory", tmp_path / "inventory")
    shutil.copy(PROJECT / "config.yaml", tmp_path)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "k3s").write_text(K3S)
    (tmp_path / "bundle" / "install.sh").write_text("#!/bin/sh\n")
    for path in tmp_path.glob("inventory/*.yaml"):
        text = path.read_text().replace("../.lab/bundle", "../bundle").replace("10.77.0.", "127.77.0.")
        path.write_text(text.replace("k3s_ssh: {sudo_password: {file: ../.lab/lab/sudo-password}}", "{}"))
    place = Place(tmp_path)
    place.edit(lambda data: data["connection_options"]["netmiko"]["extras"].update(conn_timeout=2))
    place.edit(lambda data: data["user_defined"]["k3s"]["deadlines"].update(connect=1), "config.yaml")
    return place


@pytest.fixture
def down(place: Place) -> Place:
    """Its hosts cannot be reached, and nothing else is wrong."""
    place.file("id").write_text("")
    place.edit(lambda data: data["connection_options"]["netmiko"]["extras"].update(key_file="../id"))
    return place
