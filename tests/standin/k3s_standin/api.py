"""What a server answers on 6443 (pkg/server/handlers, pkg/server/auth, kube-apiserver)."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from cryptography import x509

from k3s_standin import certs, nodes
from k3s_standin.httpd import Answer, Request, status
from k3s_standin.log import log
from k3s_standin.store import Store, StoreError

PUBLIC = ("/readyz", "/livez", "/healthz", "/version")
CHECKS = [
    "ping",
    "log",
    "etcd",
    "etcd-readiness",
    "informer-sync",
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/bootstrap-controller",
    "autoregister-completion",
    "shutdown",
]
KINDS = {
    "nodes": ("/registry/minions/", "v1", "Node"),
    "secrets": ("/registry/secrets/", "v1", "Secret"),
    "certificatesigningrequests": (
        "/registry/certificatesigningrequests/",
        "certificates.k8s.io/v1",
        "CertificateSigningRequest",
    ),
}
DELETED = b""


class Api:
    """A server's state that its answers depend on."""

    def __init__(
        self, store: Store, server: Path, token: str, agent_token: str, config: dict[str, Any], version: str
    ) -> None:
        self.store, self.server, self.token, self.agent_token = store, server, token, agent_token
        self.config, self.version = config, version
        self.phase = "starting"  # then "core", then "ready"
        self.lock = threading.Lock()
        self._etcd = (0.0, True)

    def route(self, request: Request) -> Answer:
        """Answer one request."""
        try:
            return self._route(request)
        except StoreError as error:
            return status(500, f"etcdserver: request timed out: {error}", "InternalError")

    def _route(self, request: Request) -> Answer:
        path = request.path
        if self.phase == "starting":
            log("error", f"Sending HTTP/1.1 503 response to {request.client}: starting")
            return status(503, "starting", "ServiceUnavailable")
        if path == "/ping":
            return 200, "text/plain; charset=utf-8", b"pong"
        if path == "/cacerts":
            return 200, "text/plain", (self.server / "tls" / "server-ca.crt").read_bytes()
        if path.startswith("/static/"):
            return 200, "text/html; charset=utf-8", b'<pre>\n<a href="charts/">charts/</a>\n</pre>\n'
        if path.startswith("/v1-k3s/"):
            return self._supervisor(request)
        return self._apiserver(request)

    # -- supervisor -----------------------------------------------------------------------------------------------

    def _user(self, request: Request) -> str | None:
        """Return node, server, or None for wrong credentials; empty for none at all."""
        given = request.headers.get("Authorization", "")
        if not given.startswith("Basic "):
            return ""
        user, _, password = base64.b64decode(given[6:]).decode(errors="replace").partition(":")
        if user == "server" and password == self.token:
            return "server"
        if user == "node" and password == self.agent_token:
            return "node"
        return None

    def _supervisor(self, request: Request) -> Answer:
        name = request.path.removeprefix("/v1-k3s/")
        user = self._user(request)
        if user is None:
            return status(401, "not authorized", "Unauthorized", full=False)
        if user == "":
            return status(403, "forbidden", "Forbidden", full=False)
        if name == "readyz":
            if self.phase != "ready":
                log("error", f"Sending HTTP/1.1 503 response to {request.client}: runtime core not ready")
                return status(503, "runtime core not ready", "ServiceUnavailable", full=False)
            return 200, "text/plain; charset=utf-8", b"ok"
        if name == "config":
            return 200, "application/json", json.dumps(self.config).encode()
        if name == "apiservers":
            return 200, "application/json", (json.dumps(self.apiservers()) + "\n").encode()
        if name in ("client-ca.crt", "server-ca.crt"):
            return 200, "text/plain", (self.server / "tls" / name).read_bytes()
        if name == "serving-kubelet.crt":
            return self._kubelet(request)
        if name == "server-bootstrap":
            return status(400, "etcd disabled", "BadRequest", full=False)
        return status(404, "not found", "NotFound", full=False)

    def apiservers(self) -> list[str]:
        """Return the servers whose lease has not run out."""
        found = []
        for name, value in self.store.list("/registry/masterleases/"):
            if time.time() - json.loads(value)["time"] < 15:
                found.append(f"{name.rsplit('/', 1)[1]}:6443")
        return found

    def _kubelet(self, request: Request) -> Answer:
        name, password = request.headers.get("k3s-Node-Name", ""), request.headers.get("k3s-Node-Password", "")
        if not self.password_fits(name, password):
            return status(
                403,
                "Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' may not match server"
                " node-passwd entry, try enabling a unique node name with the --with-node-id flag",
                "Forbidden",
                full=False,
            )
        authority = self.authority("client-ca")
        certificate, key = certs.signed(authority, f"system:node:{name}", ["system:nodes"])
        serving = certs.signed(self.authority("server-ca"), name, [], sans=[name, "localhost", "127.0.0.1"])
        body = {"client": [certificate, key], "serving": list(serving), "client-ca": authority[0]}
        return 200, "application/json", json.dumps(body).encode()

    def password_fits(self, name: str, password: str) -> bool:
        """Check a node's password against its secret; the first join makes it."""
        key = f"/registry/secrets/kube-system/{name}.node-password.k3s"
        digest = hashlib.scrypt(password.encode(), salt=name.encode(), n=2048, r=8, p=1).hex()
        kept = self.store.get(key)
        if kept:
            return bool(json.loads(kept)["data"]["hash"] == digest)
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
        self.store.create(key, json.dumps(secret).encode())
        return True

    def authority(self, name: str) -> certs.Pair:
        """Return an authority's certificate and key from disk."""
        folder = self.server / "tls"
        return (folder / f"{name}.crt").read_text(), (folder / f"{name}.key").read_text()

    # -- kube-apiserver -------------------------------------------------------------------------------------------

    def _apiserver(self, request: Request) -> Answer:
        if self.phase != "ready":
            return status(503, "apiserver not ready", "ServiceUnavailable")
        names = request.subject.get("commonName", [])
        if not names:
            return status(401, "Unauthorized", "Unauthorized")
        groups = request.subject.get("organizationName", [])
        if request.path.split("/")[1] in ("readyz", "livez", "healthz"):
            return self._health(request)
        if request.path == "/version":
            return (
                200,
                "application/json",
                json.dumps({"major": "1", "minor": "34", "gitVersion": self.version}).encode(),
            )
        admin = "system:masters" in groups
        node = "system:nodes" in groups and "/nodes" in request.path and request.method in ("GET", "PUT")
        if not admin and not node:
            return status(403, f'User "{names[-1]}" cannot {request.method.lower()} path "{request.path}"', "Forbidden")
        return self._resources(request)

    def etcd_answers(self) -> bool:
        """Ask the datastore, at most once a second."""
        with self.lock:
            at, good = self._etcd
            if time.monotonic() - at > 1:
                try:
                    self.store.get("/registry/health")
                    good = True
                except StoreError:
                    good = False
                self._etcd = (time.monotonic(), good)
            return good

    def _health(self, request: Request) -> Answer:
        name = request.path.strip("/").split("/")[0]
        good = self.etcd_answers()
        lines = [
            f"[+]{check} ok" if good or not check.startswith("etcd") else f"[-]{check} failed: reason withheld"
            for check in CHECKS
        ]
        if good and "verbose" not in request.query:
            return 200, "text/plain; charset=utf-8", b"ok"
        text = "\n".join(lines) + f"\n{name} check {'passed' if good else 'failed'}\n"
        return (200 if good else 500), "text/plain; charset=utf-8", text.encode()

    def _resources(self, request: Request) -> Answer:
        parts = [p for p in request.path.split("/") if p]
        for plural, (prefix, version, kind) in KINDS.items():
            if plural in parts:
                rest = parts[parts.index(plural) + 1 :]
                if plural == "secrets" and "namespaces" in parts:
                    prefix += parts[parts.index("namespaces") + 1] + "/"
                return self._resource(request, plural, prefix, version, kind, rest)
        if parts in (["api"], ["api", "v1"], ["apis"]):
            return 200, "application/json", json.dumps({"kind": "APIVersions", "versions": ["v1"]}).encode()
        return status(404, "the server could not find the requested resource", "NotFound")

    def _resource(self, request: Request, plural: str, prefix: str, version: str, kind: str, rest: list[str]) -> Answer:
        if not rest and request.method == "GET":
            found = [json.loads(value) for _, value in self.store.list(prefix)]
            if plural == "nodes":
                found = [nodes.as_seen(node) for node in found]
            return self._json(
                200,
                {"apiVersion": version, "items": found, "kind": f"{kind}List", "metadata": {"resourceVersion": "1"}},
            )
        if not rest:
            return self._create(request, plural, prefix)
        key = prefix + rest[0]
        kept = self.store.get(key)
        if kept is None and not (plural == "nodes" and request.method == "PUT"):
            group = "" if "/" not in version else "." + version.split("/")[0]
            return status(404, f'{plural}{group} "{rest[0]}" not found', "NotFound")
        if request.method == "GET":
            found_one = json.loads(kept or b"{}")
            return self._json(200, nodes.as_seen(found_one) if plural == "nodes" else found_one)
        if request.method == "DELETE":
            self.store.delete(key)
            if plural == "nodes":
                self.store.delete(f"/registry/secrets/kube-system/{rest[0]}.node-password.k3s")
            return self._json(200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
        if plural == "nodes" and rest[1:] == ["status"]:
            wanted = json.loads(request.body)
            nodes.heartbeat(self.store, wanted["node"], ready=wanted["ready"])
            return self._json(200, {})
        if rest[1:] == ["approval"]:
            return self._approve(key, json.loads(kept or b"{}"))
        if request.method in ("PUT", "PATCH"):
            found_one = json.loads(kept or b"{}")
            found_one = (
                json.loads(request.body) if request.method == "PUT" else _merge(found_one, json.loads(request.body))
            )
            self.store.put(key, json.dumps(found_one).encode())
            return self._json(200, found_one)
        return status(405, "the server does not allow this method on the requested resource", "MethodNotAllowed")

    def _create(self, request: Request, plural: str, prefix: str) -> Answer:
        item = json.loads(request.body)
        item["metadata"] |= {"creationTimestamp": nodes.stamp(), "uid": str(uuid.uuid4())}
        item.setdefault("status", {})
        name = item["metadata"]["name"]
        if not self.store.create(prefix + name, json.dumps(item).encode()):
            return status(409, f'{plural} "{name}" already exists', "AlreadyExists")
        return self._json(201, item)

    def _approve(self, key: str, item: dict[str, Any]) -> Answer:
        """Approve a request, and sign it as the controller manager does a moment later."""
        item["status"]["conditions"] = [{"type": "Approved", "status": "True", "reason": "KubectlApprove"}]
        if item["spec"]["signerName"] == "kubernetes.io/kube-apiserver-client":
            csr = x509.load_pem_x509_csr(base64.b64decode(item["spec"]["request"]))
            pem = certs.sign(self.authority("client-ca"), csr)
            item["status"]["certificate"] = base64.b64encode(pem.encode()).decode()
        self.store.put(key, json.dumps(item).encode())
        return self._json(200, item)

    @staticmethod
    def _json(code: int, data: dict[str, Any]) -> Answer:
        return code, "application/json", json.dumps(data).encode()


def _merge(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            target[key] = _merge(target.get(key) or {}, value)
        else:
            target[key] = value
    return target
