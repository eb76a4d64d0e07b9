"""The page of what was run on which release, written by `make test-matrix` from the tests that passed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from nornir_k3s_lab.model import RELEASES

NAMES = {"mariadb": "MariaDB", "mysql": "MySQL", "postgresql": "PostgreSQL", "etcd": "etcd"}
CONTROLLERS = Path("/sys/fs/cgroup/cgroup.controllers")  # of cgroup v2 alone (cgroups(7))
STEPS = ("deploy", "second run", "password change", "drift", "dump")
# What does not exist: etcd has no password, and others' datastores are dumped by them.
NONE = {("etcd", "managed", "password change"), ("etcd", "external", "password change")}
TEXT = """\
# What was run

`make test-matrix` writes this page. It sets up each datastore on each release of Debian that has it, and deploys a
cluster of three servers, two agents and two load balancers on it. Around a managed datastore, hosts with Debian 12 and
13 are mixed. Only what passed is in the table, with the day of its last run.

K3s was {k3s}.

{cgroup}

| release | datastore | set up | {steps} | day |
|---|---|---|{line}|---|
{rows}

- *set up*: `managed` by this tool, or `external`, by someone else.
- *second run*: it changes nothing. *password change*: it reaches one server after the other.
- *drift*: a change by hand is found and put right; of an external one, nothing is found where nothing differs.
- *dump*: taken before a change, or for a backup, and read again.
"""
CGROUP_V1 = """\
The machine had cgroup v1: none was run with cgroup v2, neither servers nor agents. Hosts with sid have v2, as their
systemd wants, but none of its controllers: they were datastores only."""
CGROUP_V2 = "The machine had cgroup v2, and so had all hosts."


def write(path: Path, passed: Iterable[pytest.TestReport]) -> None:
    """Write the page; what another run has shown stays, unless this one has shown it again."""
    found: dict[tuple[str, str, str, str], set[str]] = {}
    for report in passed:
        for name, words in report.user_properties if report.when == "call" else ():
            if name == "proved":
                kind, version, release, way, *shown = cast("list[str]", words)
                found.setdefault((kind, version, release, way), set()).update(shown)
    day = datetime.now(UTC).date()
    rows = {_subject(row): row for row in _rows(path)}
    for (kind, version, release, way), steps in sorted(found.items()):
        upstream = version.partition(":")[2] or version
        upstream = upstream.partition("-")[0].partition("+")[0]
        cells = [_cell(kind, way, step, steps) for step in STEPS]
        row = f"| {release} | {NAMES[kind]} {upstream} | {way} | {' | '.join(cells)} | {day} |"
        rows[_subject(row)] = row
    given = "K3S_BUNDLE" in os.environ
    k3s = "the real one" if given else "a [stand-in](../tests/standin/README.md), which uses the datastore as K3s does"
    path.write_text(
        TEXT.format(
            k3s=k3s,
            cgroup=CGROUP_V2 if CONTROLLERS.exists() else CGROUP_V1,
            steps=" | ".join(STEPS),
            line="|".join("---" for _ in STEPS),
            rows="\n".join(row for _, row in sorted(rows.items())),
        )
    )


def _rows(path: Path) -> list[str]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if line.startswith("| ") and not line.startswith("| release ")]


def _subject(row: str) -> tuple[str, int, str]:
    """Return what a row is about, whatever its version: datastore, release and who has set it up."""
    release, datastore, way = row.split(" | ")[:3]
    return datastore.partition(" ")[0].lower(), RELEASES.index(release.removeprefix("| ")), way


def _cell(kind: str, way: str, step: str, steps: set[str]) -> str:
    if (kind, way, step) in NONE or (way == "external" and step == "dump"):
        return "-"
    return "yes" if step in steps else "not run"
