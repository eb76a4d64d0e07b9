"""Drift, status and preflight cannot write on a host: no code that they can reach does."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TASKS = Path(__file__).resolve().parents[2] / "tasks"
WRITES = {f"nornir_k3s.{name}" for name in ("apply.script", "apply.rollback", "phases.rolling", "phases.dump")}
WRITES |= {"nornir_k3s.workflows.deploy", "nornir_k3s.phases.host_tasks", "nornir_k3s.workflows.plan"}


def path_of(module: str) -> Path | None:
    path = TASKS / module.replace(".", "/")
    found = [p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()]
    return found[0] if found else None


def imported(module: str) -> Iterator[str]:
    """Yield every module of ours that a module imports anywhere in it, functions included."""
    path = path_of(module)
    assert path, module
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.startswith("nornir_k3s.") and path_of(name))


def reached(start: str) -> dict[str, str]:
    """Return each module that a module leads to, and by whom."""
    found, todo = {start: ""}, [start]
    while todo:
        module = todo.pop()
        for name in imported(module):
            if name not in found:
                found[name] = module
                todo.append(name)
    return found


LOOKS = ["workflows.drift", "workflows.status", "run.gather", "checks.preflight", "cli.drift"]


@pytest.mark.parametrize("module", LOOKS)
def test_what_only_looks_cannot_reach_what_writes(module: str) -> None:
    found = reached(f"nornir_k3s.{module}")
    assert not {name: by for name, by in found.items() if name in WRITES}
    assert len(found) > 10


@pytest.mark.parametrize("name", ["drift", "status"])
def test_the_command_never_loads_what_writes(name: str) -> None:
    """tests/commands/test_command.py says the same of a whole run."""
    code = f"import sys, nornir_k3s.cli.main, nornir_k3s.cli.{name}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert f"nornir_k3s.workflows.{name}" in loaded
    assert not loaded & WRITES


def test_the_walk_would_find_it() -> None:
    assert "nornir_k3s.apply.script" in reached("nornir_k3s.workflows.deploy")


@pytest.mark.parametrize("module", ["workflows.drift", "workflows.status"])
def test_nothing_there_pushes_a_file_or_runs_a_step(module: str) -> None:
    for name in reached(f"nornir_k3s.{module}"):
        if name == "nornir_k3s.ssh.session":
            continue  # defines it
        path = path_of(name)
        assert path
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call, ast.Attribute) and call.attr == "push"], name
