"""The benchmark runs, and compares what can be compared; how fast anything is, is not asked here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e.conftest import PROJECT

MEASURES = ("fresh", "second", "drift")

pytestmark = [
    pytest.mark.skipif("K3S_BUNDLE" in os.environ, reason="by hand was tried with the stand-in only"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
]


def test_both_sides_make_the_same_cluster(tmp_path: Path) -> None:
    both_sides(MEASURES, tmp_path / "told.json")


@pytest.mark.matrix
def test_both_sides_make_the_same_upgrade(tmp_path: Path) -> None:
    both_sides(["upgrade"], tmp_path / "told.json")


def both_sides(measures: Sequence[str], told: Path) -> None:
    command = ["timeout", "900", sys.executable, str(PROJECT / "bench" / "bench.py")]
    command += ["--rounds", "1", "--short", "--json", str(told)]
    for measure in measures:
        command += ["--only", measure]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(told.read_text())["results"]
    assert set(results) == set(measures)
    for name, result in results.items():
        assert len(result["ours"]) == len(result["peer"]) == 1, name
