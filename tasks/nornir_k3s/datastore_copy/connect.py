"""Opens K3s' table, or an etcd's keys, through a server's SSH connection, with K3s' own credentials and TLS.

A managed database lets in nobody but the servers: so the way there is a server's, and nothing is installed on it.
SQLite's table is read from a copied file.
"""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
import pg8000.dbapi
import pymysql

from nornir_k3s.datastore_copy.dialect import MYSQL, POSTGRESQL, SQLITE
from nornir_k3s.datastore_copy.etcd import Etcd
from nornir_k3s.datastore_copy.keys import Keys
from nornir_k3s.datastore_copy.table import Table, why
from nornir_k3s.datastore_probe import mysql_login, postgresql, postgresql_refusal, tls
from nornir_k3s.datastore_probe.answers import ProbeFailed
from nornir_k3s.datastore_probe.connector import Connector
from nornir_k3s.errors import K3sError
from nornir_k3s.model.endpoint import Endpoint
from nornir_k3s.ssh.forward import forward

TIMEOUT = 600.0  # seconds that one statement may take: an index of a large table is made by one
_PG_ERRORS = (pg8000.dbapi.DatabaseError, pg8000.dbapi.InterfaceError)


@dataclass(frozen=True)
class Files:
    """The TLS files of an endpoint, on the controller; None where it has none."""

    cafile: Path | None = None
    certfile: Path | None = None
    keyfile: Path | None = None


@contextlib.contextmanager
def sqlite(path: Path) -> Iterator[Table]:
    """Yield the table in a file of SQLite, with what its write-ahead log beside it holds."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        yield Table(connection, SQLITE, (sqlite3.Error,))
    finally:
        connection.close()


@contextlib.contextmanager
def opened(endpoint: Endpoint, files: Files, transport: paramiko.Transport, version: str) -> Iterator[Table | Keys]:
    """Yield the table of an endpoint, or an etcd's keys; of several hosts, that of the first one that takes writes.

    Arguments:
        files: Its TLS files.
        transport: The SSH connection of a server that may log in.
        version: Of K3s.

    Raises:
        K3sError: It cannot be opened; with the reason of each host, without secrets.
    """
    reasons = []
    with contextlib.ExitStack() as stack:
        for host, port in endpoint.hosts:
            try:
                found = _open(endpoint, files, Connector(_way(stack, transport, host, port), host, None, version))
            except ProbeFailed as failed:
                reasons.append(f"{host}:{port}: {failed.finding.found}")
            except (paramiko.SSHException, ssl.SSLError, OSError) as error:
                reasons.append(f"{host}:{port}: {why(error)}")
            except K3sError as error:
                reasons.append(f"{host}:{port}: {error.message}")
            else:
                stack.callback(found.close)
                if endpoint.kind != "postgresql" or not (isinstance(found, Table) and found.is_replica()):
                    yield found
                    return
                reasons.append(f"{host}:{port}: it is a read-only replica")
        raise K3sError(f"the datastore cannot be opened: {'; '.join(reasons)}", hint="nothing was copied")


def _way(
    stack: contextlib.ExitStack, transport: paramiko.Transport, host: str, port: int
) -> Callable[[], socket.socket]:
    return lambda: stack.enter_context(forward(transport, host, port, timeout=TIMEOUT))


def _open(endpoint: Endpoint, files: Files, connector: Connector) -> Table | Keys:
    given = files.cafile or files.certfile or endpoint.tls
    context = tls.context(files.cafile, files.certfile, files.keyfile) if given else None
    connector = Connector(connector.connect, connector.address, context, connector.version)
    if endpoint.kind == "etcd":
        return _etcd(connector)
    return (_mysql if endpoint.kind == "mysql" else _postgresql)(endpoint, connector)


def _etcd(connector: Connector) -> Keys:
    def connect() -> Etcd:
        sock, context, host = connector.connect(), connector.context, connector.address
        found = Etcd(context.wrap_socket(sock, server_hostname=host) if context else sock, host)
        try:
            found.revision()
        except K3sError:
            found.close()
            raise
        return found

    return Keys(connect)


def _mysql(endpoint: Endpoint, connector: Connector) -> Table:
    try:
        connection: Any = mysql_login.connect(endpoint, connector, connector.context)
    except pymysql.err.OperationalError as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, ssl.SSLError):
            raise cause from None
        raise ProbeFailed(mysql_login.refused(error, endpoint, connector)) from None
    table = Table(connection, MYSQL, (pymysql.err.Error,))
    table.use(endpoint.database)
    return table


def _postgresql(endpoint: Endpoint, connector: Connector) -> Table:
    try:
        connection: Any = postgresql.login(endpoint, connector)
    except _PG_ERRORS as error:
        raise ProbeFailed(postgresql_refusal.refused(error, endpoint, connector.version)) from None
    return Table(connection, POSTGRESQL, _PG_ERRORS)
