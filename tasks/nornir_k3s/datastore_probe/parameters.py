"""What K3s' drivers do with the parameters of an endpoint: what they do not know goes to the database as a setting.

Sources: jackc/pgx `pgconn/config.go` (`notRuntimeParams`), `conn.go` (`ParseConfigWithOptions`), `pgconn/auth_scram.go`
(channel binding, since v5.9.0), which K3s has with kine v0.15.0 (k3s#14068 to #14070); go-sql-driver/mysql `dsn.go`
(`parseDSNParams`), `connection.go` (`handleParams`).
"""

from __future__ import annotations

from collections.abc import Mapping

from nornir_k3s import k3s
from nornir_k3s.datastore_probe.answers import ProbeFailed, problem

_PGX = frozenset((
    "host", "port", "database", "dbname", "user", "password", "passfile", "connect_timeout", "sslmode", "sslkey",
    "sslcert", "sslrootcert", "sslnegotiation", "sslpassword", "sslsni", "krbspn", "krbsrvname", "target_session_attrs",
    "service", "servicefile", "statement_cache_capacity", "description_cache_capacity", "default_query_exec_mode",
))  # fmt: skip
_PGX_NEWER = frozenset(("channel_binding", "min_protocol_version", "max_protocol_version"))
_NEWER_SINCE = ("v1.33.12+k3s1", "v1.34.8+k3s1", "v1.35.5+k3s1", "v1.36.1+k3s1")
_MYSQL = frozenset((
    "allowAllFiles", "allowCleartextPasswords", "allowFallbackToPlaintext", "allowNativePasswords", "allowOldPasswords",
    "checkConnLiveness", "clientFoundRows", "charset", "collation", "columnsWithAlias", "compress", "interpolateParams",
    "loc", "multiStatements", "parseTime", "timeTruncate", "readTimeout", "rejectReadOnly", "serverPubKey", "strict",
    "timeout", "tls", "writeTimeout", "maxAllowedPacket", "connectionAttributes",
))  # fmt: skip
NEWER = f"it, {', '.join(_NEWER_SINCE[:-1])}, or {_NEWER_SINCE[-1]} and newer"
_BINDINGS = ("", "prefer", "disable", "require")


def binds(version: str) -> bool:
    """Return whether this version of K3s knows channel binding."""
    found = k3s.parse_version(version)
    same = [one for one in _NEWER_SINCE if k3s.same_minor(one, version)] or _NEWER_SINCE[-1:]
    return found >= k3s.parse_version(same[0])


def runtime(parameters: Mapping[str, str], version: str) -> dict[str, str]:
    """Return the parameters that K3s sends to PostgreSQL when a session begins.

    Arguments:
        parameters: Of the endpoint.
        version: Of K3s.

    Raises:
        ProbeFailed: K3s ends with one of them.
    """
    known = _PGX | (_PGX_NEWER if binds(version) else frozenset())
    binding = parameters.get("channel_binding", "")
    if binds(version) and binding not in _BINDINGS:
        expected = ", ".join(_BINDINGS[1:])
        found = f"the endpoint's parameter channel_binding is {binding}"
        raise ProbeFailed(problem("datastore-settings", found, expected, "correct or remove it: K3s does not start"))
    return {name: value for name, value in parameters.items() if name not in known}


def session(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters that K3s sets in each session of MySQL or MariaDB."""
    return {name: value for name, value in parameters.items() if name not in _MYSQL}
