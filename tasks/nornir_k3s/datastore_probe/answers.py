"""The result of probing a datastore, and its problems, in words without secrets."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nornir_k3s.model import finding as model_finding
from nornir_k3s.model.datastore_facts import DatastoreHealth
from nornir_k3s.model.finding import Finding, Severity

ROUND_TRIPS = 20


class ProbeFailed(Exception):
    """The probe ended with this finding; the caller fills in its host."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.found)
        self.finding = finding


def problem(check: str, found: str, expected: str, remedy: str, severity: Severity = "error") -> Finding:
    """Return a finding without secrets; `probe` fills in its host."""
    return model_finding.problem("", check, found, expected, remedy, severity)


@dataclass
class Answers:
    """What one address of a datastore answered.

    Arguments:
        product: MySQL, MariaDB, PostgreSQL or etcd.
        version: As the datastore reports it.
        bootstrap: Sizes in bytes of K3s' bootstrap rows, by key: `/bootstrap/` and 12 hex digits.
        connections: The maximum number of connections; 0 if unknown.
        writable: Whether it is not a read-only replica.
        skew, skew_error: Seconds that its clock is ahead of the controller's, and by how many this may be wrong.
        round_trips: Seconds of some small queries.
        health: Connections in use, size, compaction.
        expires: When its certificate expires, in seconds since 1970; 0 without a verified certificate.
        aside: Tables that restores have kept of what was there before.
        problems: Problems of its settings and rights.
    """

    product: str = ""
    version: str = ""
    bootstrap: dict[str, int] = field(default_factory=dict)
    connections: int = 0
    writable: bool = True
    skew: float = 0
    skew_error: float = 0
    round_trips: list[float] = field(default_factory=list)
    health: DatastoreHealth = field(default_factory=DatastoreHealth)
    expires: float = 0
    aside: tuple[str, ...] = ()
    problems: list[Finding] = field(default_factory=list)

    def measure(self, ping: Callable[[], object]) -> None:
        """Measure the round trip of a small query several times."""
        for _ in range(ROUND_TRIPS):
            begin = time.monotonic()
            ping()
            self.round_trips.append(time.monotonic() - begin)

    def clock(self, read: Callable[[], float]) -> None:
        """Compare its clock, in seconds since 1970, with the controller's."""
        begin = time.time()
        found, end = read(), time.time()
        self.skew, self.skew_error = found - (begin + end) / 2, (end - begin) / 2


def table_problems(*, id_type: str, unique: bool) -> list[Finding]:
    """Return the problems of the table kine, for any SQL database."""
    found = []
    if not unique:
        remedy = "create the index kine_name_prev_revision_uindex again: without it K3s writes rows twice"
        what = "table kine has no unique index on name and prev_revision (a restored copy?)"
        found.append(problem("datastore-settings", what, "the index that K3s creates", remedy))
    if id_type.lower() != "bigint":
        remedy = "start all servers once with KINE_SCHEMA_MIGRATION=1 (docs.k3s.io, known issues)"
        what = f"the ids of table kine are {id_type}: no writes are possible after revision 2147483647"
        found.append(problem("datastore-settings", what, "bigint", remedy, "warning"))
    return found
