"""Settings of MySQL and MariaDB, the database's own and those that K3s sets in each session.

Sources: k3s#11816 (increments); kine#721, kine#745 (snapshot isolation); MariaDB's manual, `information_schema`,
"SYSTEM_VARIABLES Table"; go-sql-driver/mysql `connection.go` (`handleParams`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pymysql

from nornir_k3s.datastore_probe import parameters
from nornir_k3s.datastore_probe.answers import problem
from nornir_k3s.model.endpoint import Endpoint
from nornir_k3s.model.finding import Finding

Query = Callable[..., list[tuple[Any, ...]]]
_ORIGIN = "SELECT GLOBAL_VALUE_ORIGIN FROM information_schema.SYSTEM_VARIABLES WHERE VARIABLE_NAME = %s"
_ON_BY_DEFAULT = [11, 6, 2]


def apply(query: Query, endpoint: Endpoint) -> list[Finding]:
    """Set what the endpoint sets in each session, as K3s' driver does."""
    if not (wanted := parameters.session(endpoint.parameters)):
        return []
    try:
        query("SET " + ", ".join(f"{name} = {value}" for name, value in wanted.items()))
    except pymysql.err.Error as error:
        reason = str(error.args[1]) if len(error.args) > 1 else "no reason given"
        found = f"the database refuses a parameter of the endpoint: {reason}"
        remedy = "correct or remove it: K3s' driver sets what it does not know in each session"
        return [problem("datastore-settings", found, "parameters that it has", remedy)]
    return []


def problems(settings: dict[str, str]) -> list[Finding]:
    """Return the problems of these settings."""
    found = []
    if settings.get("auto_increment_increment", "1") != "1":
        value = settings["auto_increment_increment"]
        remedy = "set it to 1, with one writer: K3s loses changes otherwise"
        found.append(problem("datastore-settings", f"auto_increment_increment is {value}", "1", remedy))
    if settings.get("innodb_snapshot_isolation") in ("ON", "1"):
        remedy = (
            "disable it, in its configuration too; or with the endpoint's parameter `innodb_snapshot_isolation: 'OFF'`:"
            " compaction fails with error 1020 otherwise"
        )
        found.append(problem("datastore-settings", "innodb_snapshot_isolation is on", "OFF", remedy))
    if settings.get("wsrep_on") in ("ON", "1") and settings.get("wsrep_cluster_address", "gcomm://") != "gcomm://":
        remedy = "let K3s write to one member only, through a proxy or a floating address"
        found.append(problem("datastore-settings", "the database is a Galera cluster", "one writer", remedy, "warning"))
    return found


def only_until_restart(query: Query, settings: dict[str, str], endpoint: Endpoint) -> list[Finding]:
    """Return a finding if snapshot isolation is off, but a restart or an upgrade of MariaDB turns it on."""
    name = "innodb_snapshot_isolation"
    if settings.get(name) not in ("OFF", "0") or name in endpoint.parameters:
        return []
    origins = query(_ORIGIN, name.upper())
    origin = str(origins[0][0]) if origins else ""
    on_by_default = [int(one) for one in re.findall(r"\d+", settings.get("version", ""))[:3]] >= _ON_BY_DEFAULT
    remedy = "write it into a file that MariaDB reads (`[mysqld]`, `innodb_snapshot_isolation = OFF`)"
    if origin == "SQL" and on_by_default:
        found = f"{name} is off until MariaDB restarts"
        return [problem("datastore-settings", found, "OFF in its configuration", remedy, "warning")]
    if origin in ("SQL", "COMPILE-TIME"):
        found = f"{name} is off, but not by MariaDB's configuration: version 11.6.2 and newer turn it on"
        return [
            problem("datastore-settings", found, "OFF in its configuration", f"before an upgrade, {remedy}", "note")
        ]
    return []
