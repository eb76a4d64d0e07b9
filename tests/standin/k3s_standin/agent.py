"""`k3s agent`: joins through the registration address, then knows every server (pkg/agent, pkg/clientaccess)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import platform
import signal
import ssl
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from k3s_standin import bootstrap, config, nodes
from k3s_standin.log import Fatal, log
from k3s_standin.notify import delay, ready
from k3s_standin.server import address_of, hold, node_password

REJECTED = "Node password rejected"


class Waiting(Exception):
    """A step that is tried again."""


def run(argv: list[str], version: str) -> None:
    """Run until stopped."""
    settings, shown = config.load("agent", argv)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if not settings.get("token"):
        raise Fatal("Error: --token is required")
    if not settings.get("server"):
        raise Fatal("Error: --server is required")
    _Agent(settings, shown, version).start()


class _Agent:
    def __init__(self, settings: dict[str, Any], shown: list[str], version: str) -> None:
        self.settings, self.shown, self.version = settings, shown, version
        self.url = str(settings["server"]).rstrip("/")
        parts = urlsplit(self.url)
        self.default = f"{parts.hostname}:{parts.port or 443}"
        self.folder = Path(settings.get("data-dir") or "/var/lib/rancher/k3s") / "agent"
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.folder / "etc").mkdir(exist_ok=True)
        self.name = str(settings.get("node-name") or platform.node()).lower()
        self.address = address_of(settings)
        self.balancer = self.folder / "etc" / "k3s-agent-load-balancer.json"
        self.servers: list[str] = self._saved()
        self.connected: set[str] = set()

    def start(self) -> None:
        """Join, tell systemd, and keep the node alive."""
        log("info", f"Starting k3s agent {self.version} (ae112bdf)")
        port = int(self.settings.get("lb-server-port") or 6444)
        self.ports = [hold("127.0.0.1", port), hold("0.0.0.0", 10250)]
        log("info", f"Updated load balancer k3s-agent-load-balancer default server: {self.default}")
        shown = " ".join(self.servers)
        log(
            "info",
            f"Running load balancer k3s-agent-load-balancer 127.0.0.1:{port} -> [{shown}] [default: {self.default}]",
        )
        self._until(self._trust)
        self._until(self._join)
        log("info", "Getting list of apiserver endpoints from server")
        self._until(self._learn)
        self._until(self._reach)
        log("info", "k3s agent is up and running")
        ready()
        threading.Thread(target=self._tunnels, daemon=True).start()
        self._heartbeats()

    def _saved(self) -> list[str]:
        try:
            kept = json.loads(self.balancer.read_text())
        except (OSError, ValueError):
            return []
        return list(kept["ServerAddresses"]) if kept.get("ServerURL") == self.url else []

    @staticmethod
    def _until(step: Any) -> None:
        said = ""
        while True:
            try:
                step()
            except Waiting as error:
                if str(error) != said:
                    log("info" if str(error).startswith("Waiting") else "error", str(error))
                said = str(error)
                time.sleep(2)
            else:
                return

    def _get(
        self,
        address: str,
        path: str,
        *,
        trust: bool = True,
        headers: dict[str, str] | None = None,
        client: bool = False,
        method: str = "GET",
        body: bytes | None = None,
    ) -> tuple[int, bytes]:
        # K3s reaches every server through 127.0.0.1:6444: the name it checks is always in the certificate.
        context = (
            ssl.create_default_context(cafile=str(self.folder / "server-ca.crt"))
            if trust
            else ssl._create_unverified_context()
        )
        context.check_hostname = False
        if client:
            context.load_cert_chain(self.folder / "client-kubelet.crt", self.folder / "client-kubelet.key")
        host, _, port = address.rpartition(":")
        connection = http.client.HTTPSConnection(host.strip("[]"), int(port), timeout=8, context=context)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _candidates(self) -> list[str]:
        return [*self.servers, self.default]

    def _any(self, path: str, **how: Any) -> tuple[int, bytes]:
        """Ask the servers in turn, the registration address last."""
        last: Exception = OSError("no server")
        for address in self._candidates():
            try:
                return self._get(address, path, **how)
            except (OSError, http.client.HTTPException) as error:
                last = error
        raise last

    def _trust(self) -> None:
        token = str(self.settings["token"])
        where = f"Failed to validate connection to cluster at {self.url}: "
        try:
            code, pem = self._any("/cacerts", trust=False)
        except (OSError, http.client.HTTPException):
            raise Waiting(where + 'failed to get CA certs: Get "https://127.0.0.1:6444/cacerts": EOF') from None
        if code != 200:
            raise Waiting(where + f"failed to get CA certs: https://127.0.0.1:6444/cacerts: {code} Service Unavailable")
        digest = hashlib.sha256(pem).hexdigest()
        if token.startswith("K10"):
            wanted = token[3:67]
            if wanted != digest:
                raise Waiting(
                    where + f"token CA hash does not match the Cluster CA certificate hash: {wanted} != {digest}"
                )
        else:
            log(
                "warning",
                "Cluster CA certificate is not trusted by the host CA bundle, but the token does not include a CA hash. Use the"
                " full token from the server's node-token file to enable Cluster CA validation.",
            )
        (self.folder / "server-ca.crt").write_bytes(pem)

    def _credentials(self) -> dict[str, str]:
        token = str(self.settings["token"])
        user, password = "node", token
        if token.startswith("K10"):
            user, _, password = token.partition("::")[2].partition(":")
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}

    def _join(self) -> None:
        wait = "Waiting to retrieve agent configuration; server is not ready: "
        headers = self._credentials()
        try:
            code, text = self._any("/v1-k3s/config", headers=headers)
            if code != 200:
                message = "not authorized" if code == 401 else json.loads(text).get("message", str(code))
                raise Waiting(wait + f"failed to retrieve configuration from server: {message}")
            headers |= {"k3s-Node-Name": self.name, "k3s-Node-Password": node_password()}
            code, text = self._any("/v1-k3s/serving-kubelet.crt", headers=headers)
            if code != 200:
                raise Waiting(wait + f"{self.folder}/serving-kubelet.crt: {json.loads(text).get('message', code)}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Waiting(wait + f"failed to retrieve configuration from server: {error}") from None
        given = json.loads(text)
        for name, (certificate, key) in (("client-kubelet", given["client"]), ("serving-kubelet", given["serving"])):
            bootstrap.write(self.folder / f"{name}.crt", certificate)
            bootstrap.write(self.folder / f"{name}.key", key)
        bootstrap.write(self.folder / "client-ca.crt", given["client-ca"])
        bootstrap.write(self.folder / "kubelet.kubeconfig", "apiVersion: v1\nkind: Config\n")

    def _learn(self) -> None:
        try:
            code, text = self._any("/v1-k3s/apiservers", headers=self._credentials())
            found = sorted(json.loads(text)) if code == 200 else []
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Waiting(f"Failed to retrieve list of apiservers from server: {error}") from None
        if not found:
            raise Waiting("Waiting for supervisor to provide apiserver addresses")
        self.servers = found
        self.balancer.write_text(json.dumps({"ServerURL": self.url, "ServerAddresses": found}, indent=2))

    def _reach(self) -> None:
        try:
            code, _ = self._any("/readyz", client=True)
        except (OSError, http.client.HTTPException) as error:
            raise Waiting(f"Polling for API server readiness: GET /readyz failed: {error}") from None
        if code != 200:
            raise Waiting(
                "Waiting: Polling for API server readiness: GET /readyz failed: the server is currently unable"
            )

    def _tunnels(self) -> None:
        """Hold a connection to every server directly, as the tunnels do; tell when one cannot be reached."""
        while True:
            for address in list(self.servers):
                try:
                    self._get(address, "/ping")
                    if address not in self.connected:
                        log("info", f"Remotedialer connected to proxy url=wss://{address}/v1-k3s/connect")
                    self.connected.add(address)
                except (OSError, http.client.HTTPException) as error:
                    self.connected.discard(address)
                    log("error", f"Failed to connect to proxy. Empty dialer response: dial tcp {address}: {error}")
            time.sleep(5)
            with contextlib.suppress(Waiting):
                self._learn()

    def _heartbeats(self) -> None:
        wanted = nodes.describe(self.name, "agent", self.settings, self.shown, self.version, self.address)
        delay("NODE", 1.0)
        is_ready = False
        while True:
            body = json.dumps({"node": wanted, "ready": is_ready}).encode()
            try:
                code, _ = self._any(f"/api/v1/nodes/{self.name}/status", client=True, method="PUT", body=body)
            except (OSError, http.client.HTTPException):
                code = 0
            if code != 200:
                log("error", f'"Failed to update lease, will retry" err="{code}" node={self.name}')
                time.sleep(2)
            elif is_ready:
                time.sleep(10)
            else:
                delay("READY", 1.0)
                is_ready = True
