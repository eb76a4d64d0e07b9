"""Ask a member of an etcd what K3s needs to know of it, by its JSON gateway.

Sources: etcd `Documentation/dev-guide/api_grpc_gateway.md` (`/v3/kv/range`), `op-guide/monitoring.md` (`/health`).
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from typing import Any

from nornir_k3s.datastores.endpoint import Endpoint
from nornir_k3s.datastores.problem import Answers, Problem


def ask(endpoint: Endpoint, sock: socket.socket, address: str, context: ssl.SSLContext | None) -> Answers:  # noqa: ARG001
    """Read as K3s will: with a client certificate, where there is one, and no password.

    Raises:
        Problem: It does not answer as an etcd, or not well.
        ssl.SSLError: Its certificate is not trusted.
    """
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.sock = context.wrap_socket(sock, server_hostname=address) if context else sock
    try:
        return _read(connection)
    except (http.client.HTTPException, json.JSONDecodeError, KeyError) as error:
        found = f"what answers is no etcd ({type(error).__name__})"
        raise Problem("datastore", found, "etcd", "check address, port and scheme of the endpoint") from None
    finally:
        connection.close()


def _read(connection: http.client.HTTPConnection) -> Answers:
    version = _get(connection, "/version")
    answers = Answers(version=str(version["etcdserver"]))
    health = _get(connection, "/health")
    if str(health.get("health")) != "true":
        reason = health.get("reason") or "it says no more"
        found = f"the member is not healthy: {reason}"
        answers.problems.append(Problem("datastore", found, "a healthy member", "check its log and its peers"))
        return answers
    begin, end = (base64.b64encode(key).decode() for key in (b"/bootstrap/", b"/bootstrap0"))
    body = json.dumps({"key": begin, "range_end": end, "keys_only": True})
    connection.request("POST", "/v3/kv/range", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    found = json.loads(response.read())
    if response.status in (401, 403):
        todo = "K3s has no password for etcd: give a client certificate, or turn authentication off"
        answers.problems.append(Problem("datastore-login", "the member refuses to be read", "a login", todo))
        return answers
    answers.bootstrap = [base64.b64decode(item["key"]).decode() for item in found.get("kvs", [])]
    answers.measure(lambda: _get(connection, "/version"))
    return answers


def _get(connection: http.client.HTTPConnection, path: str) -> dict[str, Any]:
    connection.request("GET", path)
    response = connection.getresponse()
    answer: dict[str, Any] = json.loads(response.read())
    return answer
