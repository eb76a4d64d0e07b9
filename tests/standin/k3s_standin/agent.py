"""`k3s agent`: joins through the registration address, then knows every server (pkg/agent, pkg/clientaccess)."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from k3s_standin import certs, config, credentials, host, images, nodes, tokens
from k3s_standin.balancer import Balancer, Failure, context, words
from k3s_standin.effective import check_versions, shown
from k3s_standin.kubelet import Kubelet
from k3s_standin.log import Fatal, log
from k3s_standin.places import data_dir, folder, write
from k3s_standin.process import hold, log_to, on_stop, ready, title
from k3s_standin.tunnel import Tunnels

NO_HASH = (
    "Cluster CA certificate is not trusted by the host CA bundle, but the token does not include a CA hash. Use the full"
    " token from the server's node-token file to enable Cluster CA validation."
)
SAID_AGAIN = 5  # seconds after which K3s says the same once more (pkg/agent/config, `Get`)
_FILES = ("serving-kubelet", "client-kubelet", "client-kube-proxy", "client-k3s-controller")


class _WaitingError(Exception):
    """A step that is tried again."""


def run(argv: list[str], version: str) -> None:
    """Run until stopped."""
    settings, args = config.load("agent", argv)
    title("agent")
    if settings.get("log"):
        log_to(str(settings["log"]))
    for name in ("token", "server"):
        if not settings.get(name):
            raise Fatal(f"Error: --{name} is required")
    _Agent(settings, args, version).start()


class _Agent:
    """An agent between its start and its end."""

    def __init__(self, settings: dict[str, Any], args: list[str], version: str) -> None:
        self.settings, self.args, self.version = settings, args, version
        self.folder = folder(folder(data_dir(settings), 0o755) / "agent")
        folder(self.folder / "etc", 0o755)
        self.name = host.node_name(settings)
        self.addresses = host.addresses(settings)
        self.port = int(settings.get("lb-server-port") or 6444)
        self.held: list[socket.socket] = []
        self.refused = ""
        on_stop(self._goodbye)

    def _goodbye(self) -> int:
        if self.refused:
            log("fatal", f"Error: failed to retrieve agent configuration: {self.refused}")
        return 1 if self.refused else 0

    def start(self) -> None:
        """Join, tell systemd, and keep the node alive."""
        log("info", f"Starting k3s agent {self.version} (ae112bdf)")
        self.held.append(hold("127.0.0.1", self.port, "Error: failed to create load balancer"))
        url = str(self.settings["server"]).rstrip("/")
        parts = urlsplit(url)
        self.balancer = Balancer(self.folder, url, f"{parts.hostname}:{parts.port or 443}", self.port)
        self._until(self._trust)
        self.settings = {**self._until(self._configuration), **self.settings}
        self._until(self._certificates)
        self.refused = ""
        kubelet = self._kubelet()
        log("info", "Getting list of apiserver endpoints from server")
        self._until(self._learn)
        self._until(self._reach)
        kubelet.check(self.settings, self.version)
        port = int(host.kubelet_args(self.settings).get("port") or 10250)
        self.held.append(hold("0.0.0.0", port, "Error: kubelet exited: failed to listen and serve"))
        self.tunnels.want(list(self.balancer.servers))
        kubelet.start()
        # The network policy controller waits for a Ready node, and systemd is told when it has started.
        while not self.settings.get("disable-network-policy") and host.no_network(self.settings):
            time.sleep(0.5)
        self._policies()
        log("info", "k3s agent is up and running")
        ready()
        self._watch()

    def _policies(self) -> None:
        """Wait for a Ready node that was reported after this moment, if a test asks for it (pkg/agent/netpol).

        K3s always does; mostly the kubelet reports that it is Ready a moment later.
        """
        asked = Path("/run/k3s-standin-policies-wait")
        if not asked.exists():
            return
        asked.unlink()
        path, begin, since = f"/api/v1/nodes/{self.name}", nodes.stamp(), ""
        while True:
            with contextlib.suppress(*Failure):
                node = self._call("GET", path, None)[1]
                status = next(c for c in node["status"]["conditions"] if c["type"] == "Ready")
                if status["status"] == "True" and status["lastHeartbeatTime"] >= begin:
                    since = since or status["lastHeartbeatTime"]
                    if status["lastHeartbeatTime"] > since:
                        return
            time.sleep(1)

    def _until(self, step: Callable[[], Any]) -> Any:
        said, at = "", 0.0
        while True:
            try:
                return step()
            except _WaitingError as error:
                # The local port in a message is another one each time.
                text = re.sub(r"127\.0\.0\.1:\d+->", "", str(error))
                if text != said or time.monotonic() - at >= SAID_AGAIN:
                    log("info" if text.startswith(("Waiting", "Polling")) else "error", str(error))
                    said, at = text, time.monotonic()
                time.sleep(1)

    def _trust(self) -> None:
        """Fetch the cluster's CA, and compare it with the hash in the token."""
        where = f"Failed to validate connection to cluster at {self.balancer.url}: "
        if not self.balancer.url.startswith("https://"):
            raise _WaitingError(where + f"only https:// URLs are supported, invalid scheme: {self.balancer.url}")
        try:
            self.token = tokens.parse(str(self.settings["token"]))
        except ValueError as error:
            raise _WaitingError(where + str(error)) from None
        try:
            code, pem = self.balancer.ask("GET", "/cacerts", tls=context(None))
        except Failure as error:
            text = f'Get "https://127.0.0.1:{self.port}/cacerts": {words(error, self.port)}'
            raise _WaitingError(where + f"failed to get CA certs: {text}") from None
        if code != 200:
            text = f"https://127.0.0.1:{self.port}/cacerts: {code} {http.client.responses.get(code, '')}"
            raise _WaitingError(where + f"failed to get CA certs: {text}")
        write(self.folder / "server-ca.crt", pem)
        digest = tokens.ca_hash(self.folder / "server-ca.crt")
        if not self.token.ca_hash:
            log("warning", NO_HASH)
        elif self.token.ca_hash != digest:
            (self.folder / "server-ca.crt").unlink()
            text = f"token CA hash does not match the Cluster CA certificate hash: {self.token.ca_hash} != {digest}"
            raise _WaitingError(where + text)

    def _supervisor(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
        """Ask as the user node: whatever user a full token names, an agent's is always this one."""
        credential = f"Bearer {self.token.bootstrap}"
        if not self.token.bootstrap:
            credential = "Basic " + base64.b64encode(f"node:{self.token.password}".encode()).decode()
        sent = {"Authorization": credential, **{name.replace("_", "-"): value for name, value in headers.items()}}
        authority, kubelet = self.folder / "server-ca.crt", self.folder / "client-kubelet"
        if not self.token.ca_hash and kubelet.with_suffix(".crt").exists():
            # One that has joined before shows its certificate: a wrong short token does not matter then.
            with contextlib.suppress(*Failure):
                tls = context(authority, kubelet)
                code, text = self.balancer.ask(method, path, tls=tls, headers=sent, body=body)
                return code, text.decode()
        code, text = self.balancer.ask(method, path, tls=context(authority), headers=sent, body=body)
        return code, text.decode()

    def _refuse(self, what: str) -> _WaitingError:
        self.refused = what
        return _WaitingError(f"Waiting to retrieve agent configuration; server is not ready: {what}")

    def _configuration(self) -> dict[str, Any]:
        """Return what the servers tell an agent."""
        what = "failed to retrieve configuration from server: "
        try:
            code, text = self._supervisor("GET", "/v1-k3s/config")
            found = json.loads(text)
        except (*Failure, ValueError) as error:
            raise self._refuse(what + words(error, self.port)) from None
        if code != 200:
            raise self._refuse(what + str(found.get("message") or code))
        ranges = {key: [shown(one) for one in found[key]] for key in ("ClusterIPRanges", "ServiceIPRanges")}
        check_versions(ranges["ClusterIPRanges"], ranges["ServiceIPRanges"], self.addresses)
        return {"flannel-backend": found["FlannelBackend"], "disable-network-policy": found["DisableNPC"]}

    def _certificates(self) -> None:
        """Have the node's certificates signed; the node password decides whether the name is ours."""
        for name in _FILES:
            path = self.folder / f"{name}.key"
            key = path.read_text() if path.exists() else certs.new_key()
            pem = self._file("POST", f"{name}.crt", certs.request(key, self.name).encode())
            write(path, key)
            write(path.with_suffix(".crt"), pem)
        write(self.folder / "client-ca.crt", self._file("GET", "client-ca.crt"))
        credentials.write_agent(self.folder, self.port)

    def _file(self, method: str, name: str, body: bytes | None = None) -> str:
        headers = {
            "k3s_Node_Name": self.name,
            "k3s_Node_Password": host.node_password(),
            "k3s_Node_IP": ",".join(self.addresses),
        }
        try:
            code, text = self._supervisor(method, f"/v1-k3s/{name}", body, **headers)
        except Failure as error:
            raise self._refuse(f"{self.folder}/{name}: {words(error, self.port)}") from None
        if code != 200:
            raise self._refuse(f"{self.folder}/{name}: {json.loads(text).get('message', code)}")
        return text

    def _learn(self) -> None:
        try:
            code, text = self._supervisor("GET", "/v1-k3s/apiservers")
            found = json.loads(text) if code == 200 else []
        except (*Failure, ValueError) as error:
            raise _WaitingError(f"Failed to retrieve list of apiservers from server: {error}") from None
        if not found:
            raise _WaitingError("Waiting for supervisor to provide apiserver addresses")
        self.balancer.learn(found)

    def _reach(self) -> None:
        head = "Polling for API server readiness: GET /readyz failed: "
        try:
            code, _ = self.balancer.ask("GET", "/readyz", tls=self._client())
        except Failure as error:
            raise _WaitingError(head + str(error)) from None
        if code != 200:
            raise _WaitingError(head + "the server is currently unable to handle the request")

    def _client(self) -> Any:
        return context(self.folder / "server-ca.crt", self.folder / "client-kubelet")

    def _call(self, method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        data = json.dumps(body).encode() if body is not None else None
        code, text = self.balancer.ask(method, path, tls=self._client(), body=data)
        return code, json.loads(text)

    def _kubelet(self) -> Kubelet:
        def direct() -> Any:
            made = self._client()
            made.check_hostname = True
            return made

        self.tunnels = Tunnels(direct)
        wanted = nodes.describe(self.name, "agent", self.settings, self.args, self.version, self.addresses)
        wanted["status"]["images"] = images.load(self.folder)
        return Kubelet(wanted, self._call, lambda: host.no_network(self.settings) or self.tunnels.missing())

    def _watch(self) -> None:
        """Follow the list of servers."""
        while True:
            self.tunnels.want(list(self.balancer.servers))
            time.sleep(5)
            try:
                self._learn()
            except _WaitingError as error:
                log("warning", str(error))
