"""K3s' own part of 6443: `/ping`, `/cacerts` and `/v1-k3s/…` with its credentials (pkg/server/handlers, auth)."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import socket
import struct
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from k3s_standin import bootstrap, certs, credentials, nodes, tokens
from k3s_standin.encryption import Encryption, Refused
from k3s_standin.httpd import Answer, Request, json_answer, status, text_answer
from k3s_standin.log import log
from k3s_standin.places import write
from k3s_standin.resources import PASSWORD
from k3s_standin.store import Store

LEASE = "/registry/masterleases/"
LEASE_SECONDS = 15
REJECTED = (
    "Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' may not match server"
    " node-passwd entry, try enabling a unique node name with the --with-node-id flag"
)


class Supervisor:
    """The state of one server that these answers depend on."""

    def __init__(
        self,
        store: Store,
        server: Path,
        password: str,
        agent_password: str,
        config: dict[str, Any],
        encryption: Encryption,
    ) -> None:
        self.store, self.server, self.config, self.encryption = store, server, config, encryption
        self.password, self.agent_password = password, agent_password
        self.phase = "starting"  # then "core", then "ready"

    def answer(self, request: Request) -> Answer | None:
        """Answer what is K3s' own; None for the rest."""
        if self.phase == "starting":
            return self._failed(request, 503, "starting", "ServiceUnavailable")
        path = request.path
        if path == "/ping":
            return text_answer("pong")
        if path == "/cacerts":
            return text_answer((self.server / "tls" / "server-ca.crt").read_text(), kind="text/plain")
        if path.startswith("/static/"):
            page = '<!doctype html>\n<meta name="viewport" content="width=device-width">\n<pre>\n'
            return text_answer(page + '<a href="charts/">charts/</a>\n</pre>\n', kind="text/html; charset=utf-8")
        if path.startswith("/v1-k3s/"):
            return self._authed(request, path.removeprefix("/v1-k3s/"))
        return None

    def _failed(self, request: Request, code: int, message: str, reason: str) -> Answer:
        log("error", f"Sending {request.version} {code} response to {request.client}: {message}")
        return status(code, message, reason, version=False)

    def _role(self, request: Request) -> str | None:
        """Return agent, server, or nothing for no credential; None for a wrong one."""
        given = request.headers.get("Authorization", "")
        agent = "agent" if "system:nodes" in request.groups else None
        if given.startswith("Bearer "):
            return "agent" if self._bootstrap_token(given[7:].strip()) else None
        if given.startswith("Basic "):
            user, _, password = base64.b64decode(given[6:]).decode(errors="replace").partition(":")
            wanted = {"server": self.password, "node": self.agent_password}.get(user)
            right = wanted is not None and secrets.compare_digest(password.encode(), wanted.encode())
            return {"server": "server", "node": "agent"}[user] if right else agent
        return agent or ""

    def _bootstrap_token(self, text: str) -> bool:
        if not tokens.BOOTSTRAP.fullmatch(text):
            return False
        number, _, secret = text.partition(".")
        entry = self.store.get(f"/registry/secrets/kube-system/bootstrap-token-{number}")
        if entry is None:
            return False
        data = {key: base64.b64decode(value).decode() for key, value in entry.json()["data"].items()}
        alive = "expiration" not in data or datetime.fromisoformat(data["expiration"]) > datetime.now(UTC)
        return alive and secrets.compare_digest(data.get("token-secret", ""), secret)

    def _authed(self, request: Request, name: str) -> Answer:
        role = self._role(request)
        if role is None:
            return self._failed(request, 401, "not authorized", "Unauthorized")
        servers_only: dict[str, Callable[[Request], Answer]] = {
            "token": self._token,
            "cert/cacerts": self._authorities,
            "encrypt/status": self._encryption,
            "encrypt/config": self._encryption,
            "server-bootstrap": lambda r: self._failed(r, 400, "etcd disabled", "BadRequest"),
        }
        if role != ("server" if name in servers_only else "agent"):
            return self._failed(request, 403, "forbidden", "Forbidden")
        if name in servers_only:
            return servers_only[name](request)
        if name == "readyz":
            if self.phase != "ready":
                return self._failed(request, 503, "runtime core not ready", "ServiceUnavailable")
            return text_answer("ok")
        if name == "config":
            return json_answer(self.config)
        if name == "apiservers":
            return json_answer(self.apiservers(), newline=True)
        if name in ("client-ca.crt", "server-ca.crt"):
            return text_answer((self.server / "tls" / name).read_text(), kind="text/plain")
        if name == "connect":
            return self._tunnel(request)
        if name in ("serving-kubelet.crt", "client-kubelet.crt", "client-kube-proxy.crt", "client-k3s-controller.crt"):
            return self._certificate(request, name)
        return self._failed(request, 404, "not found", "NotFound")

    def apiservers(self) -> list[str]:
        """Return the servers whose lease has not run out."""
        found = {key.removeprefix(LEASE): json.loads(entry.value) for key, entry in self.store.list(LEASE)}
        alive = {name: one for name, one in found.items() if time.time() - one["renewed"] < LEASE_SECONDS}
        return [f"{name}:{one['port']}" for name, one in alive.items()]

    def _certificate(self, request: Request, name: str) -> Answer:
        """Sign what a node asks for: its name and its password are in the headers."""
        node, password = request.headers.get("k3s-Node-Name", ""), request.headers.get("k3s-Node-Password", "")
        if "kubelet" in name and (not node or not self.password_fits(node, password)):
            return self._failed(request, 403, REJECTED, "Forbidden")
        try:
            key = x509.load_pem_x509_csr(request.body).public_key()
        except ValueError:
            return self._failed(request, 400, "a certificate request is needed", "BadRequest")
        addresses = [one for one in request.headers.get("k3s-Node-IP", "").split(",") if one]
        pem = node_certificate(self.server, name.removesuffix(".crt"), node, addresses, key)
        return text_answer(pem, kind="text/plain")

    def password_fits(self, name: str, password: str) -> bool:
        """Check a node's password against its secret; the first join makes it."""
        key = PASSWORD.format(name)
        digest = base64.b64encode(hashlib.scrypt(password.encode(), salt=name.encode(), n=2048, r=8, p=1)).decode()
        entry = self.store.get(key)
        if entry:
            return bool(entry.json()["data"]["hash"] == digest)
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "k3s.cattle.io/node-password",
            "immutable": True,
            "metadata": {
                "name": f"{name}.node-password.k3s",
                "namespace": "kube-system",
                "creationTimestamp": nodes.stamp(),
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name}],
            },
            "data": {"hash": digest},
        }
        return self.store.create(key, json.dumps(secret).encode())

    def _token(self, request: Request) -> Answer:
        """Rotate the server token: passwd and token file here, then the bootstrap row of the datastore.

        This process goes on with the old one; the datastore's old key comes from passwd.
        """
        given = str(json.loads(request.body or b"{}").get("newToken") or "") or secrets.token_hex(16)
        if tokens.BOOTSTRAP.fullmatch(given):
            return self._refused(request, "token", tokens.NOT_NORMAL)
        new = tokens.parse(given).password
        digest = tokens.ca_hash(self.server / "tls" / "server-ca.crt")
        passwd = self.server / "cred" / "passwd"
        same = self.agent_password == self.password
        old = next(line for line in passwd.read_text().splitlines() if line.endswith("k3s:server")).partition(",")[0]
        bootstrap.ensure_users(self.server, new, new if same else self.agent_password)
        write(self.server / "token", tokens.full(digest, "server", new) + "\n")
        if self.store.get(bootstrap.key_of(old)) is None:
            return self._refused(request, "token", bootstrap.DIFFERENT)
        bootstrap.rotate(self.store, self.server, old, new)
        return text_answer("")

    def _authorities(self, request: Request) -> Answer:
        """Store other authorities, if those of now lead to them (pkg/server/handlers/cert.go)."""
        before = bootstrap.content(self.server)
        given: dict[str, Any] = json.loads(request.body or b"{}")
        why = [f"{name}: {text}" for name in given if (text := _unfit(name, given, before))]
        if why and request.query.get("force") != "true":
            text = f"failed to validate new CA certificates and keys: {', '.join(why)}"
            return self._refused(request, "certificate", text)
        bootstrap.put(self.store, self.password, before | given)
        return text_answer("")

    def _encryption(self, request: Request) -> Answer:
        """Show the state of the keys of secrets, or change it; why not is only in the journal."""
        try:
            if self.phase != "ready":
                raise Refused("runtime core not ready")
            if request.method == "GET":
                return json_answer(self.encryption.status())
            self.encryption.change(json.loads(request.body or b"{}"))
        except Refused as error:
            number = f"secret-encrypt error ID {secrets.randbelow(100_000):05}"
            log("error", f"{number}: {error}")
            return self._failed(request, 400, f"see server log for details: {number}", "BadRequest")
        return text_answer("")

    def _refused(self, request: Request, what: str, why: str) -> Answer:
        """Answer with a number alone; why is in the journal (pkg/util/apierrors.go, SendErrorWithID)."""
        number = f"{what} error ID {secrets.randbelow(90000) + 10000}"
        log("error", f"{number}: {why}")
        return self._failed(request, 500, number, "InternalError")

    def _tunnel(self, request: Request) -> Answer:
        if "upgrade" not in request.headers.get("Connection", "").lower():
            return self._failed(request, 400, "websocket: the client is not using the websocket protocol", "BadRequest")
        name = request.user.removeprefix("system:node:") or request.headers.get("k3s-Node-Name", "")
        log("info", f"Handling backend connection request [{name}]")
        return Answer(101, "", b"", tunnel=echo)


def _unfit(name: str, given: dict[str, Any], before: dict[str, Any]) -> str:
    """Return why K3s does not take this file."""

    def text(found: dict[str, Any], of: str) -> str:
        return base64.b64decode(found[of]["Content"]).decode()

    if not name.endswith("CA"):
        return ""
    bundle, old = certs.load(text(given, name)), certs.load(text(before, name))
    if len(bundle) == 1:
        return (
            "new CA bundle contains only a single certificate but should include root or intermediate CA certificates"
        )
    if not certs.leads(bundle[0], bundle[1:], old):
        return "new CA cert cannot be verified using old CA chain: x509: certificate signed by unknown authority"
    if certs.public_key(text(given, f"{name}Key")) != bundle[0].public_key():
        return "new CA cert and key cannot be loaded as X590KeyPair: tls: private key does not match public key"
    return ""


def echo(connection: socket.socket) -> None:
    """Keep a tunnel: answer each ping, until the other side is gone or silent."""
    connection.settimeout(30)
    try:
        while head := connection.recv(6):
            if head[0] & 0x0F == 0x8:
                return
            connection.sendall(struct.pack("!BB", 0x8A, 0))
    except OSError:
        return


def node_certificate(server: Path, name: str, node: str, addresses: list[str], key: CertificatePublicKeyTypes) -> str:
    """Return a node's certificate, with its authority behind it."""
    client, serving = credentials.pair(server, "client-ca"), credentials.pair(server, "server-ca")
    if name == "serving-kubelet":
        sans = [node, "localhost", "127.0.0.1", *addresses]
        return certs.sign(serving, node, [], key, usages=(certs.SERVER,), sans=sans) + serving[0]
    common, groups = {
        "client-kubelet": (f"system:node:{node}", ["system:nodes"]),
        "client-kube-proxy": ("system:kube-proxy", []),
        "client-k3s-controller": ("system:k3s-controller", []),
    }[name]
    return certs.sign(client, common, groups, key) + client[0]
