"""`k3s token generate | create | list | delete | rotate` (pkg/cli/token)."""

from __future__ import annotations

import base64
import json
import os
import secrets
import string
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from k3s_standin import tokens
from k3s_standin.balancer import Failure, ask, context
from k3s_standin.kinds import KINDS
from k3s_standin.kubeclient import Client, KubectlError
from k3s_standin.log import Fatal, log
from k3s_standin.places import DATA
from k3s_standin.printers import duration

_LETTERS = string.ascii_lowercase + string.digits
_SECRETS = KINDS["secrets"]
KEEP = (
    "Recommended to keep a record of the old token. If restoring from a snapshot, you must use the token associated"
    " with that snapshot."
)
NO_HASH = (
    "Cluster CA certificate is not trusted by the host CA bundle, but the token does not include a CA hash. Use the full"
    " token from the server's node-token file to enable Cluster CA validation."
)


def run(argv: list[str]) -> int:
    """Run one token command."""
    verb, options, words = _split(argv)
    try:
        if verb == "generate":
            print(_random(options))
        elif verb == "create":
            _create(options, words)
        elif verb == "list":
            _list(options)
        elif verb == "delete":
            for word in words:
                Client(options).ask("DELETE", _SECRETS.path("kube-system", f"bootstrap-token-{word.split('.')[0]}"))
                print(f'bootstrap token "{word}" deleted')
        elif verb == "rotate":
            _rotate(options)
        else:
            raise Fatal(f"Error: No help topic for '{verb}'")
    except KubectlError as error:
        raise Fatal(f"Error: {error}") from None
    return 0


def _split(argv: list[str]) -> tuple[str, dict[str, str], list[str]]:
    options, words, rest = {}, [], iter(argv)
    for word in rest:
        if word.startswith("-"):
            name, equals, value = word.lstrip("-").partition("=")
            options["--" + {"t": "token", "s": "server", "d": "data-dir"}.get(name, name)] = (
                value if equals else next(rest, "")
            )
        else:
            words.append(word)
    return (words[0] if words else ""), options, words[1:]


def _random(_: dict[str, str]) -> str:
    return ".".join("".join(secrets.choice(_LETTERS) for _ in range(length)) for length in (6, 16))


def _create(options: dict[str, str], words: list[str]) -> None:
    token = words[0] if words else _random(options)
    if not tokens.BOOTSTRAP.fullmatch(token):
        raise Fatal(
            f'Error: the bootstrap token "{token}" was not of the form "\\A([a-z0-9]{{6}})\\.([a-z0-9]{{16}})\\z"'
        )
    number, _, secret = token.partition(".")
    end = datetime.now(UTC) + timedelta(hours=24)
    data = {
        "token-id": number,
        "token-secret": secret,
        "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true",
        "auth-extra-groups": "system:bootstrappers:k3s:default-node-token",
        "description": options.get("--description", ""),
        "expiration": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    item = {
        "metadata": {"name": f"bootstrap-token-{number}", "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }
    client = Client(options)
    client.ask("POST", _SECRETS.path("kube-system"), item)
    digest = tokens.ca_hash(_data(options) / "server" / "tls" / "server-ca.crt")
    print(f"K10{digest}::{token}")


def _list(options: dict[str, str]) -> None:
    print("TOKEN     TTL       EXPIRES   USAGES    DESCRIPTION   EXTRA GROUPS")
    for item in Client(options).ask("GET", _SECRETS.path("kube-system"))["items"]:
        if item.get("type") == "bootstrap.kubernetes.io/token":
            data: dict[str, Any] = {key: base64.b64decode(value).decode() for key, value in item["data"].items()}
            left = datetime.fromisoformat(data["expiration"]) - datetime.now(UTC)
            ttl = duration(int(left.total_seconds())) if left.total_seconds() > 0 else "<invalid>"
            words = [data["token-id"], ttl, data["expiration"], "authentication,signing"]
            print("   ".join([*words, data["description"] or "<none>", data["auth-extra-groups"]]))


def _data(options: dict[str, str]) -> Path:
    return Path(options.get("--data-dir") or DATA)


def ask_server(options: dict[str, str], method: str, path: str, body: bytes | None = None) -> bytes:
    """Ask a server as its administrator, with the token given or kept on disk (pkg/clientaccess/token.go)."""
    server = _data(options) / "server"
    text = options.get("--token") or os.environ.get("K3S_TOKEN", "")
    try:
        token = tokens.parse(text or (server / "token").read_text().strip())
    except OSError as error:
        raise Fatal(f"Error: open {error.filename}: no such file or directory") from None
    url = (options.get("--server") or os.environ.get("K3S_URL") or "https://127.0.0.1:6443").rstrip("/")
    address = url.split("//")[1]
    try:
        authority = ask(address, "GET", "/cacerts", tls=context(None))[1]
    except Failure:
        refused = f'Get "{url}/cacerts": dial tcp {address}: connect: connection refused'
        raise Fatal(f"Error: failed to get CA certs: {refused}") from None
    digest = tokens.hash_of(authority.decode())
    if not token.ca_hash:
        log("warning", NO_HASH)
    elif token.ca_hash != digest:
        words = "token CA hash does not match the Cluster CA certificate hash"
        raise Fatal(f"Error: {words}: {token.ca_hash} != {digest}")
    credential = base64.b64encode(f"server:{token.password}".encode()).decode()
    headers = {"Authorization": f"Basic {credential}"}
    code, data = ask(address, method, path, tls=context(None), headers=headers, body=body)
    if code == 401:
        raise Fatal("Error: not authorized")
    if code != 200:
        message = json.loads(data)["message"]
        raise Fatal(f"Error: Internal error occurred: {message}" if code == 500 else f"Error: {message}")
    return data


def _rotate(options: dict[str, str]) -> None:
    print(f"\033[33mWARNING\033[0m: {KEEP}", flush=True)
    ask_server(options, "PUT", "/v1-k3s/token", json.dumps({"newToken": options.get("--new-token", "")}).encode())
    time.sleep(0.2)  # K3s: a second
    print("Token rotated, restart k3s nodes with new token")
