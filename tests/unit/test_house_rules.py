"""Rules of the house that a machine can check."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "tasks" / "nornir_k3s"


def test_the_package_neither_prints_nor_exits_nor_starts_nornir() -> None:
    for path in PACKAGE.rglob("*.py"):
        if "cli" in path.parts or "report" in path.parts:
            continue
        calls = {
            node.func.id
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not calls & {"print", "exit", "InitNornir"}, path


def test_the_lab_knows_nothing_of_the_rest() -> None:
    files = sorted((PACKAGE.parent / "nornir_k3s_lab").glob("*.py"))
    assert len(files) > 8
    for path in files:
        assert not re.search(r"^\s*(from|import) nornir_k3s\b", path.read_text(), re.M), path


def test_the_product_knows_nothing_of_the_stand_in() -> None:
    for path in (*PACKAGE.rglob("*.py"), *(PACKAGE.parents[1] / "runbooks").glob("*.py")):
        assert not re.search(r"stand-in|\bstandin\b|k3s_standin", path.read_text().lower()), path


def test_no_advice_removes_what_could_be_the_only_copy() -> None:
    """Files of K3s are moved to another folder: `remove DATA`, and an uninstalled K3s takes its data along."""
    destroys = re.compile(
        r"\b(remove|delete|rm -\w+) (\{(k3s\.)?DATA|/var/lib/|/etc/rancher/node)|\buninstall (that|it first)"
    )
    texts = [*PACKAGE.rglob("*.py"), *(PACKAGE.parents[1] / "docs").rglob("*.md"), PACKAGE.parents[1] / "README.md"]
    assert not [(path.name, found[0]) for path in texts if (found := destroys.search(path.read_text()))]


def test_a_runbook_without_the_package_says_how_to_install_it() -> None:
    runbook = PACKAGE.parents[1] / "runbooks" / "deploy.py"
    done = subprocess.run([sys.executable, "-S", "-E", str(runbook)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "make setup" in done.stderr
    assert "Traceback" not in done.stderr
