"""Probe an etcd member through its JSON gateway.

Sources: etcd `Documentation/dev-guide/api_grpc_gateway.md` (`/v3/kv/range`, and that it knows no user by certificate),
`op-guide/monitoring.md` (`/health`), `op-guide/maintenance.md` (alarms).
"""

from __future__ import annotations

import base64
import email.utils
import http.client
import json
from dataclasses import replace
from typing import Any

from nornir_k3s.datastore_probe.answers import Answers, ProbeFailed, problem
from nornir_k3s.datastore_probe.connector import Connector
from nornir_k3s.facts.database import etcd_size
from nornir_k3s.model.endpoint import Endpoint
from nornir_k3s.model.finding import Finding


def ask(endpoint: Endpoint, connector: Connector) -> Answers:
    """Read as K3s does: with a client certificate, if there is one, and no password.

    Raises:
        ProbeFailed: It does not answer as an etcd does.
        ssl.SSLError: The TLS handshake failed.
    """
    connection = http.client.HTTPConnection(connector.address, timeout=10)
    sock = connector.connect()
    connection.sock = (
        connector.context.wrap_socket(sock, server_hostname=connector.address) if connector.context else sock
    )
    try:
        return _read(connection, endpoint)
    except (http.client.HTTPException, json.JSONDecodeError, KeyError) as error:
        found = f"the endpoint does not answer as an etcd ({type(error).__name__})"
        raise ProbeFailed(
            problem("datastore", found, "etcd", "check address, port and scheme of the endpoint")
        ) from None
    finally:
        connection.close()


def _read(connection: http.client.HTTPConnection, endpoint: Endpoint) -> Answers:
    version = str(_get(connection, "/version")["etcdserver"])
    answers = Answers("etcd", version)
    answers.problems += _health(connection)
    status, found = _post(
        connection, "/v3/kv/range", {"key": _encoded("/bootstrap/"), "range_end": _encoded("/bootstrap0")}
    )
    if status == http.HTTPStatus.OK:
        pairs = {base64.b64decode(item["key"]).decode(): item.get("value", "") for item in found.get("kvs", [])}
        answers.bootstrap = {key: len(base64.b64decode(value)) for key, value in pairs.items()}
    elif not answers.problems:
        answers.problems.append(_unreadable(str(found.get("error") or found.get("message") or status)))
    answers.problems += _members(connection, endpoint)
    status, found = _post(connection, "/v3/maintenance/status", {})
    if status == http.HTTPStatus.OK:  # as etcdctl prints it, except that numbers are text
        answers.health = replace(answers.health, etcd_size=etcd_size(json.dumps([{"Status": found}])))
    status, found = _post(connection, "/v3/kv/range", {"key": _encoded("compact_rev_key")})
    if status == http.HTTPStatus.OK and found.get("kvs"):
        compacted = base64.b64decode(found["kvs"][0].get("value", "")).decode()
        if compacted.isdigit():
            revisions = int(found["header"]["revision"]), int(compacted)
            answers.health = replace(answers.health, revisions=revisions)
    answers.clock(lambda: _date(connection))
    answers.measure(lambda: _get(connection, "/version"))
    return answers


def _health(connection: http.client.HTTPConnection) -> list[Finding]:
    health = _get(connection, "/health")
    if str(health.get("health")) == "true":
        return []
    status, alarms = _post(connection, "/v3/maintenance/alarm", {"action": "GET"})
    names = (
        ", ".join(str(alarm.get("alarm")) for alarm in alarms.get("alarms", [])) if status == http.HTTPStatus.OK else ""
    )
    found = f"the etcd member is not healthy: {names or health.get('reason') or 'no leader'}"
    remedy = "check its log and its peers"
    if "NOSPACE" in names:
        remedy = "its space quota is used up: compact, defragment, then `etcdctl alarm disarm`"
    return [problem("datastore", found, "a healthy member", remedy)]


def _unreadable(reason: str) -> Finding:
    if "user name is empty" in reason or "permission denied" in reason:
        remedy = "K3s has no password for etcd: disable authentication, or accept this if the certificate names a user"
        return problem("datastore-login", f"etcd requires a user: {reason}", "read access", remedy, "warning")
    found = f"etcd's data cannot be read: {reason}"
    remedy = "enable etcd's JSON gateway, or accept this"
    return problem("datastore-asked", found, "a check of the datastore before the first change", remedy, "warning")


def _members(connection: http.client.HTTPConnection, endpoint: Endpoint) -> list[Finding]:
    status, found = _post(connection, "/v3/cluster/member/list", {})
    count = len(found.get("members", [])) if status == http.HTTPStatus.OK else 0
    if count <= len(endpoint.hosts):
        return []
    text = f"the endpoint has {len(endpoint.hosts)} of {count} etcd members"
    remedy = "add the others: K3s loses its datastore when these members fail"
    return [problem("datastore-members", text, "all members", remedy, "warning")]


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _date(connection: http.client.HTTPConnection) -> float:
    connection.request("GET", "/version")
    response = connection.getresponse()
    response.read()
    # The header has whole seconds: on average half a second too early.
    return email.utils.parsedate_to_datetime(response.headers["Date"]).timestamp() + 0.5


def _get(connection: http.client.HTTPConnection, path: str) -> dict[str, Any]:
    connection.request("GET", path)
    response = connection.getresponse()
    answer: dict[str, Any] = json.loads(response.read())
    return answer


def _post(connection: http.client.HTTPConnection, path: str, body: dict[str, str]) -> tuple[int, dict[str, Any]]:
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read()
    try:
        answer = json.loads(text)
    except json.JSONDecodeError:
        answer = {}
    return response.status, answer if isinstance(answer, dict) else {}
