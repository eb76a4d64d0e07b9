"""Whether rows can be put back: into a scratch database of the same server, or a scratch table beside K3s'."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from typing import Any

from nornir_k3s.datastore_copy import rights
from nornir_k3s.datastore_copy.content import Content
from nornir_k3s.datastore_copy.dialect import DRAFT, MYSQL
from nornir_k3s.datastore_copy.table import Table, fill
from nornir_k3s.errors import K3sError
from nornir_k3s.model.endpoint import Endpoint

Open = Callable[[Endpoint], AbstractContextManager[Any]]  # of a table: the server is the same


def verify(rows: Table, wanted: Content, table: Table, endpoint: Endpoint, again: Open) -> str:
    """Put rows into a scratch database, with the indexes of K3s' table, and compare; nothing of it stays.

    Arguments:
        rows: Those of a dump.
        wanted: What they are.
        table: K3s' table, on the server that they are put back on.
        endpoint: The login.
        again: Opens another database of the server.

    Returns:
        Why it was not verified: the rights that the user lacks. Empty: it was.

    Raises:
        K3sError: What was put back differs.
    """
    with ExitStack() as stack:
        place = _database(stack, table, endpoint, again)
        if place is None:
            if lacks := rights.for_table(table, endpoint):
                return rights.said(endpoint, lacks)
            place = table
            stack.callback(_dropped, table)
        place.begin()
        fill(rows, place)
        place.index()
        found = place.content(DRAFT)
    if found != wanted:
        text = f"the dump was restored into a scratch database, and that differs from it: {found} instead of {wanted}"
        raise K3sError(text, hint="run it again")
    return ""


def _database(stack: ExitStack, table: Table, endpoint: Endpoint, again: Open) -> Table | None:
    """Make a scratch database, and open it; None if the user may not make one, or may not log in there."""
    digest = hashlib.sha256(repr((endpoint.hosts, endpoint.database)).encode()).hexdigest()
    other = replace(endpoint, database=f"kine_verify_{digest[:8]}")
    if rights.for_database(table, other):
        return None
    drop = f"DROP DATABASE IF EXISTS {other.database}"
    more = (" WITH (FORCE)", " TEMPLATE template0") if table.dialect is not MYSQL else ("", "")
    with ExitStack() as made:
        try:
            table.query(drop + more[0])
            table.query(f"CREATE DATABASE {other.database}{more[1]}")
            made.callback(table.query, drop + more[0])
            place: Table = made.enter_context(again(other))
        except K3sError:
            return None
        stack.enter_context(made.pop_all())
        return place


def _dropped(table: Table) -> None:
    with suppress(K3sError):  # the next one drops it
        table.drop()
