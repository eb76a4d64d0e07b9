"""The login to MySQL and MariaDB, and what it means when it is refused.

Sources: go-sql-driver/mysql `auth.go` (how it logs in); kine `pkg/drivers/mysql` (when it uses TLS); the error
references of MySQL and MariaDB.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from typing import Any

import pymysql

from nornir_k3s.datastore_probe import tls
from nornir_k3s.datastore_probe.answers import problem
from nornir_k3s.datastore_probe.connector import Connector
from nornir_k3s.model.endpoint import Endpoint
from nornir_k3s.model.finding import Finding

_REFUSED = (1045, 1698, 3159)  # 3159: MySQL's require_secure_transport
_NO_PLUGIN = 2059
# What pymysql knows and K3s' driver does not, or not without a parameter (go-sql-driver/mysql: auth.go).
_UNKNOWN = {"dialog": "", "mysql_clear_password": "allowCleartextPasswords", "mysql_old_password": "allowOldPasswords"}
_PLUGIN = (
    "user {} logs in by {}, which K3s' driver does not do",
    "ALTER USER … IDENTIFIED WITH caching_sha2_password (MariaDB: mysql_native_password or ed25519)",
)
# What MySQL answers before it looks at the rights: error, what is wrong, what to do. `{}` is the user.
_NO_LOGIN = {
    **dict.fromkeys(
        _REFUSED,
        (
            "the database refuses user {} or the password",
            "check user, password, and the hosts that the user may log in from",
        ),
    ),
    1130: (
        "the database does not allow connections from this server's address",
        "grant the user for the servers' addresses",
    ),
    1524: (
        "the authentication plugin of user {} is not loaded, as mysql_native_password from MySQL 8.4 on",
        "ALTER USER … IDENTIFIED WITH caching_sha2_password BY …",
    ),
    1862: ("the password of user {} has expired", "ALTER USER … IDENTIFIED BY … PASSWORD EXPIRE NEVER"),
    3118: ("the account of user {} is locked", "ALTER USER … ACCOUNT UNLOCK"),
}


class _Unknown:
    """A way to log in that K3s' driver refuses."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, _: object) -> _Unknown:
        return self  # for this connection

    def authenticate(self, _: object) -> None:
        raise pymysql.err.OperationalError(_NO_PLUGIN, f"Authentication plugin '{self._name}' not configured")


def _plugins(endpoint: Endpoint) -> dict[str, Callable[[Any], Any]]:
    allowed = {name for name, value in endpoint.parameters.items() if value in ("true", "1", "TRUE", "True")}
    return {name: _Unknown(name) for name, parameter in _UNKNOWN.items() if parameter not in allowed}


def connect(endpoint: Endpoint, connector: Connector, context: ssl.SSLContext | None) -> Any:  # noqa: ANN401 - it has no types
    """Log in as K3s does.

    Raises:
        pymysql.err.OperationalError: It failed; a failed TLS handshake is its cause.
    """
    sock = connector.connect()
    timeout = sock.gettimeout()  # pymysql sets its own on the socket, which is none by default
    connection: Any = pymysql.connect(
        host=connector.address,
        user=endpoint.user,
        password=endpoint.password.reveal().encode(),  # as K3s sends it; pymysql would make Latin-1 of it
        ssl=context,
        ssl_disabled=context is None,
        auth_plugin_map=_plugins(endpoint),
        connect_timeout=10,
        read_timeout=timeout,
        write_timeout=timeout,
        defer_connect=True,
    )
    connection.connect(sock)
    return connection


def _requires_tls(error: pymysql.err.OperationalError, endpoint: Endpoint, connector: Connector) -> bool:
    """Return whether a login that was refused without TLS succeeds with it."""
    if connector.context or not error.args or error.args[0] not in (*_REFUSED, _NO_PLUGIN):
        return False
    try:
        connect(endpoint, connector, tls.context(None, None, None, verify=False)).close()
    except (pymysql.err.Error, OSError):
        return False
    return True


def refused(error: pymysql.err.OperationalError, endpoint: Endpoint, connector: Connector) -> Finding:
    """Return the finding for a refused login; one without TLS is tried again with it."""
    if _requires_tls(error, endpoint, connector):
        found = f"the database requires TLS for user {endpoint.user}"
        return problem("datastore-tls", found, "TLS that K3s verifies", "set `cafile` to the CA of its certificate")
    return meaning(error, endpoint)


def meaning(error: pymysql.err.OperationalError, endpoint: Endpoint) -> Finding:
    """Return the finding for an error of a login."""
    code = error.args[0] if error.args else 0
    if code == 2026 or "SSL" in str(error):
        return problem("datastore-tls", "the database has no TLS", "TLS, since `cafile` is set", "enable TLS")
    if code == _NO_PLUGIN:
        name = re.search(r"plugin '(?:b')?(\w+)", str(error))
        found, remedy = _PLUGIN
        return problem(
            "datastore-login", found.format(endpoint.user, name[1] if name else "a plugin"), "a login", remedy
        )
    if code in _NO_LOGIN:
        found, remedy = _NO_LOGIN[code]
        return problem("datastore-login", found.format(endpoint.user), "a login", remedy)
    return problem("datastore", f"the login failed (error {code})", "a login", "see the database's log")
