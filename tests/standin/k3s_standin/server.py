"""`k3s server`: from the datastore to a Ready node, in K3s' order (pkg/cli/server, pkg/cluster)."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import os
import platform
import re
import secrets
import signal
import socket
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Any

import yaml

from k3s_standin import bootstrap, certs, config, nodes
from k3s_standin.api import Api
from k3s_standin.endpoint import parse
from k3s_standin.httpd import Server
from k3s_standin.log import Fatal, log
from k3s_standin.notify import delay, ready
from k3s_standin.store import Store, StoreError, open_sqlite, open_store

PREPARE = "Error: preparing server: "
CLUSTER = PREPARE + "failed to bootstrap cluster data: "
SERVING = "/registry/secrets/kube-system/k3s-serving"
LEASE_LOST_AFTER = 15.0


def run(argv: list[str], version: str) -> None:
    """Run until stopped."""
    settings, shown = config.load("server", argv)
    signal.signal(signal.SIGTERM, _stop)
    for flag in ("disable-apiserver", "disable-etcd"):
        if settings.get(flag) and settings.get("datastore-endpoint"):
            raise Fatal(f"Error: invalid flag use; cannot use --{flag} with --datastore-endpoint")
    data = Path(settings.get("data-dir") or "/var/lib/rancher/k3s")
    server = data / "server"
    server.mkdir(parents=True, exist_ok=True, mode=0o700)
    (server / "tls").mkdir(exist_ok=True, mode=0o700)
    (server / "cred").mkdir(exist_ok=True, mode=0o700)
    token = _token(settings, server)
    log("info", f"Starting k3s {version} (ae112bdf)")
    store = _store(settings, server)
    log("info", "Kine available at unix://kine.sock")
    try:
        first = bootstrap.prepare(store, server, token)
    except Fatal as error:
        text = str(error)
        raise Fatal(text if "newer than datastore" in text else CLUSTER + text) from None
    token = token or secrets.token_hex(16)
    agent_token = str(settings.get("agent-token") or token)
    if first:
        bootstrap.make_files(server, token, agent_token)
    _Running(settings, shown, version, data, store, token, agent_token).start(first=first)


def _stop(*_: object) -> None:
    log("info", "Waiting up to 2s for graceful shutdown of Kine GRPC server...")
    os._exit(0)


def _token(settings: dict[str, Any], server: Path) -> str:
    token = str(settings.get("token") or "")
    kept = server / "token"
    if not token and kept.exists():
        token = kept.read_text().strip()
    if token.startswith("K10"):
        return token.partition("::")[2].partition(":")[2]
    if re.fullmatch(r"[a-z0-9]{6}\.[a-z0-9]{16}", token):
        raise Fatal(
            PREPARE
            + "failed to normalize server token; must be in format K10<CA-HASH>::<USERNAME>:<PASSWORD> or <PASSWORD>"
        )
    return token


def _store(settings: dict[str, Any], server: Path) -> Store:
    wal = server / "db" / "etcd" / "member" / "wal"
    endpoint = str(settings.get("datastore-endpoint") or "")
    if wal.exists():
        log("info", "Managed etcd cluster bootstrap already complete and initialized")
        return open_sqlite(server / "db" / "embedded.db")
    if not endpoint:
        return open_sqlite(server / "db" / "state.db")
    files = {key: str(settings.get(f"datastore-{key}") or "") for key in ("cafile", "certfile", "keyfile")}
    try:
        return open_store(parse(endpoint), files)
    except (Fatal, StoreError, OSError) as error:
        raise Fatal(CLUSTER + str(error)) from None


def address_of(settings: dict[str, Any]) -> str:
    """Return the node's address: node-ip, else the one the default route leaves from."""
    if settings.get("node-ip"):
        return str(settings["node-ip"][0])
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    except OSError:
        raise Fatal('Error: failed to find any default route: no default routes found in "/proc/net/route"') from None
    finally:
        probe.close()


def node_password() -> str:
    """Return this node's password; the first call makes it."""
    path = Path("/etc/rancher/node/password")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        bootstrap.write(path, secrets.token_hex(16) + "\n")
    return path.read_text().strip()


class _Running:
    """A server between its start and its end."""

    def __init__(
        self,
        settings: dict[str, Any],
        shown: list[str],
        version: str,
        data: Path,
        store: Store,
        token: str,
        agent_token: str,
    ) -> None:
        self.settings, self.shown, self.version, self.data = settings, shown, version, data
        self.server = data / "server"
        self.store, self.token, self.agent_token = store, token, agent_token
        self.name = str(settings.get("node-name") or platform.node()).lower()
        self.address = address_of(settings)
        self.port = int(settings.get("https-listen-port") or 6443)
        self.context: ssl.SSLContext | None = None
        self.sans: list[str] = []
        self.api = Api(store, self.server, token, agent_token, self._effective(), version)

    def start(self, *, first: bool) -> None:
        self._serving()
        self._listen()
        self.api.phase = "core"
        self._write_files()
        log("info", "Opening etcd client connection with endpoints [unix://kine.sock]")
        if first:
            try:
                bootstrap.save(self.store, self.server, self.token)
            except Fatal as error:
                log("info", "Waiting up to 2s for graceful shutdown of Kine GRPC server...")
                raise Fatal(str(error)) from None
        bootstrap.write(self.server / "token", self._full("server", self.token) + "\n")
        _link(self.server / "node-token", self.server / "token")
        if self.agent_token == self.token:
            _link(self.server / "agent-token", self.server / "token")
        else:
            (self.server / "agent-token").unlink(missing_ok=True)
            bootstrap.write(self.server / "agent-token", self._full("node", self.agent_token) + "\n")
        log("info", f"Password verified locally for node {self.name}")
        self.api.password_fits(self.name, node_password())
        log("info", "ETCD server is now running")
        delay("START", 1.0)
        while not self.api.etcd_answers():
            time.sleep(0.5)
        self._lease()
        self.api.phase = "ready"
        log("info", "Kube API server is now running")
        log("info", f"Server node token is available at {self.server}/token")
        log("info", "k3s is up and running")
        ready()
        threading.Thread(target=self._node, daemon=True).start()
        self._forever()

    def _full(self, user: str, password: str) -> str:
        digest = hashlib.sha256((self.server / "tls" / "server-ca.crt").read_bytes()).hexdigest()
        return f"K10{digest}::{user}:{password}"

    def _listen(self) -> None:
        try:
            listener = Server(self.port, lambda: self.context, self.api.route)  # type: ignore[arg-type,return-value]
        except OSError as error:
            log("info", "Waiting up to 2s for graceful shutdown of Kine GRPC server...")
            raise Fatal(
                PREPARE
                + f"failed to start supervisor listener: listen tcp :{self.port}: bind: {str(error.strerror).lower()}"
            ) from None
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        self.ports = [hold("127.0.0.1", self.port + 1), hold("0.0.0.0", 10250)]

    def _serving(self) -> None:
        """Make the certificate on 6443: its names are shared by all servers through the datastore."""
        service = next(ipaddress.ip_network(self._ranges("service-cidr", "10.43.0.0/16")[0]).hosts())
        domain = self.settings.get("cluster-domain") or "cluster.local"
        own = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            f"kubernetes.default.svc.{domain}",
            "localhost",
            "127.0.0.1",
            "::1",
            self.name,
            self.address,
            str(service),
            *self.settings.get("tls-san", []),
            *self.settings.get("node-external-ip", []),
        ]
        kept = self.store.get(SERVING)
        shared = json.loads(kept)["sans"] if kept else []
        wanted = sorted(set(shared) | set(own))
        if wanted != shared:
            self.store.put(SERVING, json.dumps({"sans": wanted}).encode())
        if wanted == self.sans:
            return
        certificate, key = certs.signed(self.api.authority("server-ca"), "k3s", ["k3s"], sans=wanted)
        folder = self.server / "tls" / "temporary-certs"
        folder.mkdir(exist_ok=True, mode=0o700)
        bootstrap.write(folder / "serving.pem", certificate + key)
        bootstrap.write(self.server / "tls" / "dynamic-cert.json", json.dumps({"data": {"tls.crt": certificate}}))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "serving.pem")
        context.load_verify_locations(self.server / "tls" / "client-ca.crt")
        context.verify_mode = ssl.CERT_OPTIONAL
        self.context, self.sans = context, wanted

    def _ranges(self, key: str, default: str) -> list[str]:
        return [str(v) for v in self.settings.get(key) or [default]]

    def _effective(self) -> dict[str, Any]:
        """Return what `/v1-k3s/config` says: the settings in force."""
        get = self.settings.get

        def network(text: str) -> dict[str, str]:
            net = ipaddress.ip_network(text)
            return {"IP": str(net.network_address), "Mask": base64.b64encode(net.netmask.packed).decode()}

        pods, services = self._ranges("cluster-cidr", "10.42.0.0/16"), self._ranges("service-cidr", "10.43.0.0/16")
        dns = [str(v) for v in get("cluster-dns") or [str(list(ipaddress.ip_network(services[0]).hosts())[9])]]
        disables = dict.fromkeys(sorted(get("disable", [])), True)
        return {
            "ClusterDNSs": dns,
            "ClusterIPRanges": [network(p) for p in pods],
            "ClusterDNS": dns[0],
            "ClusterDomain": get("cluster-domain") or "cluster.local",
            "ClusterIPRange": network(pods[0]),
            "DisableCCM": bool(get("disable-cloud-controller")),
            "DisableHelmController": bool(get("disable-helm-controller")),
            "DisableNPC": bool(get("disable-network-policy")),
            "EncryptSecrets": bool(get("secrets-encryption")),
            "EncryptProvider": get("secrets-encryption-provider") or "aescbc",
            "EmbeddedRegistry": bool(get("embedded-registry")),
            "FlannelBackend": get("flannel-backend") or "vxlan",
            "FlannelIPv6Masq": bool(get("flannel-ipv6-masq")),
            "FlannelExternalIP": bool(get("flannel-external-ip")),
            "EgressSelectorMode": get("egress-selector-mode") or "agent",
            "ServiceIPRange": network(services[0]),
            "ServiceIPRanges": [network(s) for s in services],
            "SupervisorMetrics": bool(get("supervisor-metrics")),
            "AdvertisePort": self.port,
            "AdvertiseIP": self.address,
            "HTTPSPort": self.port,
            "SupervisorPort": self.port,
            "APIServerPort": self.port + 1,
            "APIServerBindAddress": "",
            "ServiceNodePortRange": {"Base": 30000, "Size": 2768},
            "DataDir": str(self.server),
            "Disables": disables,
            "DisableAgent": False,
            "DisableAPIServer": False,
            "DisableControllerManager": False,
            "DisableETCD": False,
            "DisableKubeProxy": bool(get("disable-kube-proxy")),
            "DisableScheduler": bool(get("disable-scheduler")),
            "DisableServiceLB": "servicelb" in disables,
            "Rootless": False,
            "ServiceLBNamespace": "kube-system",
            "ExtraAPIArgs": list(get("kube-apiserver-arg", [])),
        }

    def _write_files(self) -> None:
        folder = self.server / "tls"
        client, server_ca = self.api.authority("client-ca"), self.api.authority("server-ca")
        people = {
            "client-admin": ("system:admin", ["system:masters"]),
            "client-supervisor": ("system:k3s-supervisor", ["system:masters"]),
            "client-controller": ("system:kube-controller-manager", []),
            "client-scheduler": ("system:kube-scheduler", []),
            "client-kube-apiserver": ("system:apiserver", ["system:masters"]),
        }
        for name, (common, groups) in people.items():
            if not (folder / f"{name}.crt").exists():
                certificate, key = certs.signed(client, common, groups)
                (folder / f"{name}.crt").write_text(certificate)
                bootstrap.write(folder / f"{name}.key", key)
                who = ",".join([f"CN={common}", *(f"O={g}" for g in groups)])
                log("info", f"certificate {who} signed by CN=k3s-client-ca: notBefore=now notAfter=+1y")
        if not (folder / "serving-kube-apiserver.crt").exists():
            certificate, key = certs.signed(server_ca, "kube-apiserver", [], sans=["kubernetes", "127.0.0.1"])
            (folder / "serving-kube-apiserver.crt").write_text(certificate)
            bootstrap.write(folder / "serving-kube-apiserver.key", key)
        text = self._kubeconfig(folder, server_ca[0])
        bootstrap.write(self.server / "cred" / "admin.kubeconfig", text)
        output = Path(self.settings.get("write-kubeconfig") or "/etc/rancher/k3s/k3s.yaml")
        output.parent.mkdir(parents=True, exist_ok=True)
        bootstrap.write(output, text)
        output.chmod(int(str(self.settings.get("write-kubeconfig-mode") or "600"), 8))

    def _kubeconfig(self, folder: Path, ca: str) -> str:
        def encoded(text: str) -> str:
            return base64.b64encode(text.encode()).decode()

        user = {
            "client-certificate-data": encoded((folder / "client-admin.crt").read_text()),
            "client-key-data": encoded((folder / "client-admin.key").read_text()),
        }
        cluster = {"certificate-authority-data": encoded(ca), "server": f"https://127.0.0.1:{self.port}"}
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "clusters": [{"cluster": cluster, "name": "default"}],
                "contexts": [{"context": {"cluster": "default", "user": "default"}, "name": "default"}],
                "current-context": "default",
                "kind": "Config",
                "users": [{"name": "default", "user": user}],
            }
        )

    def _lease(self) -> None:
        self.store.put(f"/registry/masterleases/{self.address}", json.dumps({"time": time.time()}).encode())

    def _node(self) -> None:
        """Register the server's own node: some time after the API is ready; Ready comes later still."""
        wanted = nodes.describe(self.name, "server", self.settings, self.shown, self.version, self.address)
        delay("NODE", 1.0)
        is_ready = False
        while True:
            try:
                nodes.heartbeat(self.store, wanted, ready=is_ready)
            except StoreError as error:
                log("error", f"Error updating node status, will retry: {error}")
                time.sleep(2)
                continue
            if is_ready:
                time.sleep(10)
            else:
                delay("READY", 1.0)
                is_ready = True

    def _forever(self) -> None:
        lost = 0.0
        while True:
            time.sleep(3)
            try:
                self._lease()
                self._serving()
                lost = 0.0
            except StoreError as error:
                lost = lost or time.monotonic()
                log("error", f"error retrieving resource lock kube-system/kube-controller-manager: {error}")
                if time.monotonic() - lost > LEASE_LOST_AFTER:
                    log("fatal", "leaderelection lost for k3s")
                    sys.stderr.flush()
                    os._exit(1)


def hold(address: str, port: int) -> socket.socket:
    """Listen on a port of which only the presence matters."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((address, port))
        sock.listen(8)
    except OSError as error:
        raise Fatal(f"Error: listen tcp {address}:{port}: bind: {str(error.strerror).lower()}") from None
    return sock


def _link(path: Path, target: Path) -> None:
    if path.is_symlink() or path.exists():
        path.unlink()
    path.symlink_to(target)
