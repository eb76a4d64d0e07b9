"""`k3s server`: from the datastore to a Ready node, in K3s' order (pkg/cli/server, pkg/cluster)."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

from k3s_standin import bootstrap, certs, config, credentials, events, host, images, nodes, tokens
from k3s_standin.apiserver import ApiServer, Pulse
from k3s_standin.control import Control
from k3s_standin.effective import check_versions, effective, pods, services
from k3s_standin.encryption import Encryption
from k3s_standin.endpoint import parse
from k3s_standin.httpd import Answer, Request, Server
from k3s_standin.kubelet import Kubelet
from k3s_standin.log import Fatal, log
from k3s_standin.places import data_dir, folder, link, write
from k3s_standin.process import delay, hold, log_to, on_stop, ready, title
from k3s_standin.resources import PASSWORD, Resources, defaults
from k3s_standin.sealed import Sealed
from k3s_standin.serving import Serving, wanted_names
from k3s_standin.store import Store, StoreError, open_sqlite, open_store
from k3s_standin.supervisor import Supervisor, node_certificate

PREPARE = "Error: preparing server: "
CLUSTER = PREPARE + "failed to bootstrap cluster data: "


def run(argv: list[str], version: str) -> None:
    """Run until stopped."""
    settings, args = config.load("server", argv)
    title("server")
    on_stop(_goodbye)
    if settings.get("log"):
        log_to(str(settings["log"]))
    for flag in ("disable-apiserver", "disable-etcd"):
        if settings.get(flag) and settings.get("datastore-endpoint"):
            raise Fatal(f"Error: invalid flag use; cannot use --{flag} with --datastore-endpoint")
    _Server(settings, args, version).start()


def _goodbye() -> int:
    log("info", "Waiting up to 2s for graceful shutdown of Kine GRPC server...")
    return 0


def _password(settings: dict[str, Any], server: Path) -> str:
    """Return the server token's password: as set, else as kept from an earlier start, else none."""
    text = str(settings.get("token") or "")
    if not text and (server / "token").exists():
        text = (server / "token").read_text().strip()
    return tokens.server_password(text) if text else ""


class _Server:
    """A server between its start and its end."""

    def __init__(self, settings: dict[str, Any], args: list[str], version: str) -> None:
        self.settings, self.args, self.version = settings, args, version
        self.data = data_dir(settings)
        self.server, self.agent = self.data / "server", self.data / "agent"
        self.name = host.node_name(settings)
        self.addresses = host.addresses(settings)
        self.port = int(settings.get("https-listen-port") or 6443)
        self.held: list[socket.socket] = []

    def start(self) -> None:
        """Start, and work until the process ends."""
        folder(self.data, 0o755)
        credentials.folders(self.server)
        password = _password(self.settings, self.server)
        log("info", f"Starting k3s {self.version} (ae112bdf)")
        self.store = Sealed(self._datastore())
        self._kine_socket()
        log("info", "Opening etcd client connection with endpoints [unix://kine.sock]")
        first = self._bootstrap(password)
        self.password = password or secrets.token_hex(16)
        agent_token = str(self.settings.get("agent-token") or "")
        self.agent_password = tokens.parse(agent_token).password if agent_token else self.password
        if first:
            bootstrap.make_files(self.server, self.password, self.agent_password)
        bootstrap.ensure_users(self.server, self.password, self.agent_password)
        self.encryption = Encryption(
            self.store, self.server, self.name, on=bool(self.settings.get("secrets-encryption"))
        )
        self.encryption.begin(self.password)
        credentials.write_server(self.server, self.settings, self.port)
        self._listen()
        self._supervise(first=first)
        self._serve()
        self.control.run()

    def _datastore(self) -> Store:
        endpoint = str(self.settings.get("datastore-endpoint") or "")
        member = self.server / "db" / "etcd" / "member"
        # K3s looks for this first: with it on disk an endpoint counts for nothing.
        if (member / "wal").exists() or (self.settings.get("cluster-init") and not endpoint):
            log("info", "Managed etcd cluster bootstrap already complete and initialized")
            folder(member / "wal")
            return open_sqlite(member / "standin.db")
        if not endpoint:
            return open_sqlite(self.server / "db" / "state.db")
        files = {key: str(self.settings.get(f"datastore-{key}") or "") for key in ("cafile", "certfile", "keyfile")}
        try:
            return open_store(parse(endpoint), files)
        except (Fatal, StoreError, OSError) as error:
            raise Fatal(CLUSTER + str(error)) from None

    def _kine_socket(self) -> None:
        path = self.server / "kine.sock"
        path.unlink(missing_ok=True)
        # A Unix socket's path may be no longer than 107 bytes; a test's folder may be.
        with contextlib.suppress(OSError):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.bind(str(path))
            path.chmod(0o600)
            sock.listen(1)
            self.held.append(sock)

    def _bootstrap(self, password: str) -> bool:
        try:
            return bootstrap.prepare(self.store, self.server, password)
        except Fatal as error:
            if "newer than datastore" in str(error):
                raise
            _goodbye()
            raise Fatal(CLUSTER + str(error)) from None
        except StoreError as error:
            raise Fatal(CLUSTER + str(error)) from None

    def _listen(self) -> None:
        names = wanted_names(self.settings, self.name, self.addresses)
        self.serving = Serving(self.server, credentials.pair(self.server, "server-ca"), names, self.port)
        shown = effective(self.settings, self.server, self.addresses[0], self.port)
        self.supervisor = Supervisor(
            self.store, self.server, self.password, self.agent_password, shown, self.encryption
        )
        self.pulse = Pulse(self.store)
        resources = Resources(self.store, pods(self.settings, self.addresses[0])[0])
        advertised = str(self.settings.get("advertise-address") or self.addresses[0])
        self.api = ApiServer(resources, self.pulse, self.version, advertised)
        self.serving.preload()
        bind = str(self.settings.get("bind-address") or "")
        try:
            listener = self._listener(bind)
        except OSError as error:
            _goodbye()
            where = f"{bind}:{self.port}: bind: {str(error.strerror).lower()}"
            raise Fatal(PREPARE + f"failed to start supervisor listener: listen tcp {where}") from None
        threading.Thread(target=listener.serve_forever, daemon=True).start()

    def _listener(self, bind: str) -> Server:
        def context() -> Any:
            return self.serving.context

        if bind and bind not in ("0.0.0.0", "::"):
            return Server(bind, self.port, context, self._route)
        if socket.has_dualstack_ipv6():
            return _Dual("::", self.port, context, self._route)
        return Server("0.0.0.0", self.port, context, self._route)

    def _route(self, request: Request) -> Answer:
        answer = self.supervisor.answer(request)
        if answer is not None:
            return answer
        answer = self.api.answer(request)
        if answer.code == 503:
            log("error", f"Sending {request.version} 503 response to {request.client}: apiserver not ready")
        return answer

    def _supervise(self, *, first: bool) -> None:
        """Come up as far as agents can ask: certificates, node password, bootstrap data, token files."""
        self._own_node_files()
        self.supervisor.phase = "core"
        delay("BOOTSTRAP", 0.3)
        if first:
            try:
                bootstrap.save(self.store, self.server, self.password)
            except Fatal:
                _goodbye()
                raise
        self._until_stored(lambda: self.serving.share(self.store))
        self._token_files()
        log("info", "Connection to etcd is ready")
        log("info", "ETCD server is now running")

    def _own_node_files(self) -> None:
        folder(self.agent)
        folder(self.agent / "etc", 0o755)
        write(self.agent / "server-ca.crt", (self.server / "tls" / "server-ca.crt").read_text())
        write(self.agent / "client-ca.crt", (self.server / "tls" / "client-ca.crt").read_text())
        # A server verifies itself locally: a lost node password does not keep it out.
        self.node_password = host.node_password()
        log("info", f"Password verified locally for node {self.name}")
        for name in ("serving-kubelet", "client-kubelet", "client-kube-proxy", "client-k3s-controller"):
            pem = (self.server / "tls" / f"{name}.key").read_text()
            key = certs.public_key(pem)
            write(self.agent / f"{name}.crt", node_certificate(self.server, name, self.name, self.addresses, key))
            write(self.agent / f"{name}.key", pem)
        credentials.write_agent(self.agent, self.port + 1)

    def _until_stored(self, step: Any) -> None:
        while True:
            try:
                step()
            except StoreError as error:
                log("error", f"Failed to save TLS secret for kube-system/k3s-serving: {error}")
                time.sleep(0.5)
            else:
                return

    def _verify_password(self) -> None:
        """Compare the node password late, and only say so where it is another (pkg/nodepassword, the deferred check)."""
        before = self.store.get(PASSWORD.format(self.name)) is not None
        if not self.supervisor.password_fits(self.name, self.node_password):
            why = f"unable to verify password for node {self.name}: hash does not match"
            text = f"Deferred node password secret validation failed: {why}"
            events.record(self.store, self.name, "Warning", "NodePasswordValidationFailed", text)
        elif before:
            text = "Deferred node password secret validation complete"
            events.record(self.store, self.name, "Normal", "NodePasswordValidationComplete", text)

    def _token_files(self) -> None:
        digest = tokens.ca_hash(self.server / "tls" / "server-ca.crt")
        write(self.server / "token", tokens.full(digest, "server", self.password) + "\n")
        link(self.server / "node-token", self.server / "token")
        if self.agent_password == self.password:
            link(self.server / "agent-token", self.server / "token")
        else:
            (self.server / "agent-token").unlink(missing_ok=True)
            write(self.server / "agent-token", tokens.full(digest, "node", self.agent_password) + "\n")
        log("info", f"Server node token is available at {self.server}/token")
        log(
            "info",
            f"To join server node to cluster: k3s server -s https://{self.addresses[0]}:{self.port} -t ${{SERVER_NODE_TOKEN}}",
        )

    def _serve(self) -> None:
        """Come up as far as the API: this is where systemd is told, and where the node begins."""
        log("info", f"Running kube-apiserver --advertise-address={self.addresses[0]} --advertise-port={self.port}")
        log(
            "info",
            "Polling for API server readiness: GET /readyz failed: the server is currently unable to handle the request",
        )
        self.held.append(hold("127.0.0.1", self.port + 1, "Error: apiserver exited: failed to create listener"))
        self.pulse.start()
        kubelet = Kubelet(self._node(), self._call, lambda: host.no_network(self.settings))
        delay("START", 1.0)
        while not self.pulse.good:
            time.sleep(0.2)
        self.control = Control(self.store, self.server, self.name, self.addresses[0], self.port, self.serving)
        self._until_stored(lambda: defaults(self.store, services(self.settings, self.addresses[0])[0]))
        self._until_stored(self.control.announce)
        self.encryption.wait_until_readable()
        self._until_stored(self._verify_password)
        self.api.ready = True
        self.supervisor.phase = "ready"
        log("info", "Kube API server is now running")
        first = self.addresses[0]
        check_versions(pods(self.settings, first), services(self.settings, first), self.addresses)
        log("info", "k3s is up and running")
        ready()
        # Only now the kubelet starts: half a second to seven seconds later.
        delay("KUBELET", 0.5)
        kubelet.check(self.settings, self.version)
        port = int(host.kubelet_args(self.settings).get("port") or 10250)
        self.held.append(hold("0.0.0.0", port, "Error: kubelet exited: failed to listen and serve"))
        if not self.settings.get("disable-agent"):
            kubelet.start()
            self.encryption.announce()

    def _node(self) -> dict[str, Any]:
        node = nodes.describe(self.name, "server", self.settings, self.args, self.version, self.addresses)
        node["status"]["images"] = images.load(self.agent)
        return node

    def _call(self, method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        """Ask this server's own API, as its administrator."""

        request = Request(method, path, "HTTP/1.1", {}, json.dumps(body).encode() if body else b"", None, "127.0.0.1")
        request.user, request.groups = "system:admin", ["system:masters"]
        answer = self.api.answer(request)
        return answer.code, json.loads(answer.body)


class _Dual(Server):
    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()
