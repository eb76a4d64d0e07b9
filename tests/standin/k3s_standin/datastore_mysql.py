"""kine's MySQL driver: what it asks first, its table, and how it fails: at once."""

from __future__ import annotations

import re
import ssl
from typing import Any

import pymysql
from pymysql.constants import CR

from k3s_standin.datastore_sql import Driver, SqlStore, client_context, dial_words, pooling
from k3s_standin.endpoint import WRAP, Endpoint
from k3s_standin.log import Fatal, log
from k3s_standin.store import StoreError

_STATES = {1040: "08004", 1044: "42000", 1045: "28000", 1049: "42000", 1142: "42000", 1146: "42S02", 1698: "28000"}
_TABLE = """CREATE TABLE IF NOT EXISTS kine (
id BIGINT UNSIGNED AUTO_INCREMENT, name VARCHAR(630) CHARACTER SET ascii, created INTEGER, deleted INTEGER,
create_revision BIGINT UNSIGNED, prev_revision BIGINT UNSIGNED, lease INTEGER, value MEDIUMBLOB, old_value MEDIUMBLOB,
PRIMARY KEY (id), UNIQUE KEY kine_name_prev_revision_uindex (name, prev_revision), KEY kine_name_index (name),
KEY kine_name_id_index (name, id), KEY kine_id_deleted_index (id, deleted), KEY kine_prev_revision_index (prev_revision))"""

_KNOWN = {
    "charset",
    "collation",
    "loc",
    "parseTime",
    "readTimeout",
    "timeout",
    "tls",
    "writeTimeout",
    "maxAllowedPacket",
}


class _MySql(Driver):
    def __init__(self, endpoint: Endpoint, files: dict[str, str]) -> None:
        self.endpoint = endpoint
        self.host, self.port = endpoint.hosts[0] if endpoint.hosts else ("", 0)
        self.context: ssl.SSLContext | None
        self.context, self.must = _tls(endpoint, client_context(files))
        # The operating system's own patience, unless the endpoint says otherwise.
        self.patience = _seconds(endpoint.params.get("timeout", "")) or 130.0

    def connect(self, *, quick: bool = False, database: bool = True) -> Any:
        try:
            return self._connect(quick=quick, database=database)
        except pymysql.err.OperationalError as error:
            if error.args[0] != CR.CR_SSL_CONNECTION_ERROR or "support" not in str(error):
                raise
        if self.must:
            raise ConnectionError("TLS requested but server does not support TLS")
        self.context = None
        return self._connect(quick=quick, database=database)

    def _connect(self, *, quick: bool, database: bool) -> Any:
        one = self.endpoint
        where = {"unix_socket": one.socket} if one.socket else {"host": self.host, "port": self.port}
        # What the driver does not know, it sets in each session.
        sets = ", ".join(f"{name} = {value}" for name, value in one.params.items() if name not in _KNOWN)
        return pymysql.connect(
            **where,
            init_command=f"SET {sets}" if sets else None,
            user=one.user,
            password=one.password.encode(),  # as Go sends it; pymysql would make Latin-1 of it
            database=one.database if database else None,
            ssl=self.context,
            ssl_disabled=self.context is None,
            connect_timeout=2 if quick else self.patience,
            read_timeout=2 if quick else 10,
            write_timeout=2 if quick else 10,
            autocommit=True,
        )

    def is_duplicate(self, error: Exception) -> bool:
        return isinstance(error, pymysql.err.IntegrityError)

    def words(self, error: Exception) -> str:
        cause = getattr(error, "original_exception", error)
        if said := dial_words(cause, self.host, self.port):
            return said
        if isinstance(error, pymysql.err.MySQLError) and len(error.args) > 1:
            code, text = error.args[0], str(error.args[1])
            if code in (CR.CR_SERVER_LOST, CR.CR_SERVER_GONE_ERROR):
                return "invalid connection"
            return f"Error {code} ({_STATES.get(code, 'HY000')}): {text}"
        return str(error)


def _tls(endpoint: Endpoint, context: ssl.SSLContext | None) -> tuple[ssl.SSLContext | None, bool]:
    """Return the TLS settings and whether the server must speak TLS; files of the flags override the endpoint."""
    wanted = endpoint.params.get("tls", "false").lower()
    if context is not None:
        return context, True
    if wanted in ("false", "0"):
        return None, False
    if wanted in ("true", "1"):
        return ssl.create_default_context(), True
    if wanted not in ("preferred", "skip-verify"):
        raise Fatal(WRAP + f"invalid value / unknown config name: {wanted}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context, wanted == "skip-verify"


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m)", text)
    return float(match[1]) * {"ms": 0.001, "s": 1, "m": 60}[match[2]] if match else 0.0


def open_mysql(endpoint: Endpoint, files: dict[str, str]) -> SqlStore:
    """Open it; whatever is wrong is fatal at once."""
    driver = _MySql(endpoint, files)
    _ensure_database(driver)
    pooling("mysql")
    driver.patience = min(driver.patience, 10.0)
    store = SqlStore(driver)
    try:
        store.run(_TABLE)
    except StoreError as error:
        raise Fatal(WRAP + str(error)) from None
    return store


def _ensure_database(driver: _MySql) -> None:
    name = driver.endpoint.database
    try:
        driver.connect().close()
        return
    except Exception as error:
        said, missing = driver.words(error), error.args[:1] == (1049,)
    log("warning", f"failed to check existence of database {name}, going to attempt create: {said}")
    if not missing:
        raise Fatal(WRAP + said)
    try:
        connection = driver.connect(database=False)
        connection.cursor().execute(f"CREATE DATABASE IF NOT EXISTS `{name}`")
        connection.close()
    except Exception as error:
        raise Fatal(WRAP + driver.words(error)) from None
