"""What asking a datastore gives: answers, and problems in words that hold no secret."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nornir_k3s.model import finding as model_finding
from nornir_k3s.model.finding import Finding, Severity
from nornir_k3s.model.host_facts import DatastoreHealth

ROUND_TRIPS = 20


class ProbeFailed(Exception):
    """The probe of a datastore ended with this finding; its host is filled in by the caller."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.found)
        self.finding = finding


def problem(check: str, found: str, expected: str, remedy: str, severity: Severity = "error") -> Finding:
    """Return a finding whose host is filled in by `probe`; its words hold no secret."""
    return model_finding.problem("", check, found, expected, remedy, severity)


@dataclass
class Answers:
    """What a datastore has said.

    Arguments:
        product: MySQL, MariaDB, PostgreSQL or etcd.
        version: As it tells it.
        bootstrap: Sizes in bytes of the bootstrap rows in it, by key: `/bootstrap/` and 12 hex digits each.
        connections: How many it allows; 0 where it does not say.
        writable: It is no replica.
        skew: Seconds that its clock is ahead of the controller's.
        round_trips: Seconds of some small queries.
        health: How it is doing.
        expires: When its certificate does, in seconds since 1970; 0 where none was shown, or where it is a problem.
        problems: What is wrong with its settings and rights.
    """

    product: str = ""
    version: str = ""
    bootstrap: dict[str, int] = field(default_factory=dict)
    connections: int = 0
    writable: bool = True
    skew: float = 0
    round_trips: list[float] = field(default_factory=list)
    health: DatastoreHealth = field(default_factory=DatastoreHealth)
    expires: float = 0
    problems: list[Finding] = field(default_factory=list)

    def measure(self, ping: Callable[[], object]) -> None:
        """Take the time of a small query, some times."""
        for _ in range(ROUND_TRIPS):
            begin = time.monotonic()
            ping()
            self.round_trips.append(time.monotonic() - begin)

    def clock(self, ask: Callable[[], float]) -> None:
        """Compare its clock, in seconds since 1970, with the controller's."""
        begin = time.time()
        self.skew = ask() - (begin + time.time()) / 2


def table_problems(*, id_type: str, unique: bool) -> list[Finding]:
    """Return what is wrong with a kine table, of whichever database."""
    found = []
    if not unique:
        remedy = "give it the index kine_name_prev_revision_uindex again: K3s writes rows twice without"
        what = "table kine has no unique index on name and prev_revision (a restored copy?)"
        found.append(problem("datastore-settings", what, "the index that K3s made", remedy))
    if id_type.lower() != "bigint":
        remedy = "start all servers once with KINE_SCHEMA_MIGRATION=1 (docs.k3s.io, known issues)"
        what = f"the ids of table kine are {id_type}: it turns read-only at revision 2147483647"
        found.append(problem("datastore-settings", what, "bigint", remedy, "warning"))
    return found
