"""Drift and status cannot write on a host; import-linter, in `make lint`, says that no import leads there."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "tasks" / "nornir_k3s"
WRITES = ("nornir_k3s.apply", "nornir_k3s.phases", "nornir_k3s.workflows.deploy", "nornir_k3s.workflows.plan")


@pytest.mark.parametrize("name", ["drift", "status"])
def test_the_command_never_loads_what_writes(name: str) -> None:
    """tests/commands/test_command.py says the same of a whole run."""
    code = f"import sys, nornir_k3s.cli.main, nornir_k3s.cli.{name}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert f"nornir_k3s.workflows.{name}" in loaded
    assert not [module for module in loaded if module.startswith(WRITES)]


def test_two_phases_alone_push_files() -> None:
    pushing = []
    for path in PACKAGE.rglob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        if [call for call in calls if isinstance(call, ast.Attribute) and call.attr == "push"]:
            pushing.append(str(path.relative_to(PACKAGE)))
    assert sorted(pushing) == ["phases/restore.py", "phases/stage.py"]
