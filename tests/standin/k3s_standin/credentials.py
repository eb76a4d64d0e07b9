"""What a server's or agent's certificates, kubeconfigs and other files on disk are."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import yaml

from k3s_standin import certs
from k3s_standin.log import log
from k3s_standin.places import KUBECONFIG, folder, write

# file below server/tls: (common name, organizations, authority)
_CLIENTS: dict[str, tuple[str, list[str], str]] = {
    "client-admin": ("system:admin", ["system:masters"], "client-ca"),
    "client-supervisor": ("system:k3s-supervisor", ["system:masters"], "client-ca"),
    "client-controller": ("system:kube-controller-manager", [], "client-ca"),
    "client-scheduler": ("system:kube-scheduler", [], "client-ca"),
    "client-kube-apiserver": ("system:apiserver", ["system:masters"], "client-ca"),
    "client-k3s-cloud-controller": ("k3s-cloud-controller-manager", [], "client-ca"),
    "client-auth-proxy": ("system:auth-proxy", [], "request-header-ca"),
    "etcd/client": ("etcd-client", [], "etcd/server-ca"),
}
_SERVERS = {
    "serving-kube-apiserver": ("kube-apiserver", "server-ca"),
    "kube-scheduler/kube-scheduler": ("kube-scheduler", "server-ca"),
    "kube-controller-manager/kube-controller-manager": ("kube-controller-manager", "server-ca"),
    "etcd/peer-server-client": ("etcd-peer", "etcd/peer-ca"),
    "etcd/server-client": ("etcd-server", "etcd/server-ca"),
}
_KEYS = ("client-kube-proxy", "client-kubelet", "serving-kubelet", "client-k3s-controller")
_KUBECONFIGS = {
    "admin": "client-admin",
    "supervisor": "client-supervisor",
    "controller": "client-controller",
    "scheduler": "client-scheduler",
    "api-server": "client-kube-apiserver",
    "cloud-controller": "client-k3s-cloud-controller",
}


def pair(server: Path, name: str) -> certs.Pair:
    """Return an authority's certificate and key from disk."""
    return (server / "tls" / f"{name}.crt").read_text(), (server / "tls" / f"{name}.key").read_text()


def folders(server: Path) -> None:
    """Make the folders of a server's data."""
    for name in ("", "etc", "cred", "tls", "tls/temporary-certs", "static", "static/charts", "manifests"):
        folder(server / name if name else server)
    for name in ("tls/etcd", "tls/kube-scheduler", "tls/kube-controller-manager"):
        folder(server / name, 0o755)


def write_server(server: Path, settings: dict[str, Any], port: int) -> None:
    """Write all that a server has on disk beside the bootstrap data; what lasts is kept."""
    tls = server / "tls"
    for name, (common, organizations, ca) in _CLIENTS.items():
        _leaf(tls, name, pair(server, ca), common, organizations, ())
    for name, (common, ca) in _SERVERS.items():
        _leaf(tls, name, pair(server, ca), common, [], ("kubernetes", "localhost", "127.0.0.1"))
    for name in _KEYS:
        if not (tls / f"{name}.key").exists():
            write(tls / f"{name}.key", certs.new_key())
    write(tls / "service.current.key", (tls / "service.key").read_text())
    for name in ("server-ca", "client-ca"):
        write(tls / f"{name}.nochain.crt", (tls / f"{name}.crt").read_text(), 0o644)
    for name in ("runtimes", "ccm", "rolebindings"):
        write(server / "manifests" / f"{name}.yaml", f"# {name}\n")
    write(server / "etc" / "egress-selector-config.yaml", "{}\n")
    write(server / "etc" / "cloud-config.yaml", "{}\n")
    for name, user in _KUBECONFIGS.items():
        write(server / "cred" / f"{name}.kubeconfig", _kubeconfig(tls, user, f"https://127.0.0.1:{port + 1}"))
    _admin_kubeconfig(tls, settings, port)


def _leaf(tls: Path, name: str, ca: certs.Pair, common: str, organizations: list[str], sans: tuple[str, ...]) -> None:
    path = tls / f"{name}.crt"
    if certs.fits(path, ca) and path.with_suffix(".key").exists():
        return
    usages = (certs.SERVER,) if sans else (certs.CLIENT,)
    certificate, key = certs.signed(ca, common, organizations, usages=usages, sans=sans)
    write(path, certificate, 0o644)
    write(path.with_suffix(".key"), key)


def _admin_kubeconfig(tls: Path, settings: dict[str, Any], port: int) -> None:
    output = Path(settings.get("write-kubeconfig") or KUBECONFIG)
    folder(output.parent, 0o755)
    bound = str(settings.get("bind-address") or "")  # K3s: BindAddressOrLoopback in pkg/daemons/config/types.go
    host = bound if bound not in ("", "0.0.0.0", "::") else "127.0.0.1"
    write(output, _kubeconfig(tls, "client-admin", f"https://{f'[{host}]' if ':' in host else host}:{port}"))
    mode = str(settings.get("write-kubeconfig-mode") or "")
    try:
        output.chmod(int(mode, 8) if mode else 0o600)
    except ValueError:
        log("error", f'Failed to set {output} to mode {mode}: strconv.ParseInt: parsing "{mode}": invalid syntax')


def _kubeconfig(tls: Path, user: str, url: str) -> str:
    def encoded(name: str) -> str:
        return base64.b64encode((tls / name).read_bytes()).decode()

    config = kubeconfig(url, {"certificate-authority-data": encoded("server-ca.crt")})
    config["users"][0]["user"] = {
        "client-certificate-data": encoded(f"{user}.crt"),
        "client-key-data": encoded(f"{user}.key"),
    }
    return yaml.safe_dump(config)


def kubeconfig(url: str, cluster: dict[str, str]) -> dict[str, Any]:
    """Return a kubeconfig whose user is still empty."""
    return {
        "apiVersion": "v1",
        "clusters": [{"cluster": cluster | {"server": url}, "name": "default"}],
        "contexts": [{"context": {"cluster": "default", "user": "default"}, "name": "default"}],
        "current-context": "default",
        "kind": "Config",
        "users": [{"name": "default", "user": {}}],
    }


def write_agent(agent: Path, port: int) -> None:
    """Write what an agent has on disk beside its certificates."""
    for name, user in (("kubelet", "kubelet"), ("kubeproxy", "kube-proxy"), ("k3scontroller", "k3s-controller")):
        config = kubeconfig(f"https://127.0.0.1:{port}", {"certificate-authority": str(agent / "server-ca.crt")})
        config["users"][0]["user"] = {
            "client-certificate": str(agent / f"client-{user}.crt"),
            "client-key": str(agent / f"client-{user}.key"),
        }
        write(agent / f"{name}.kubeconfig", yaml.safe_dump(config))
    for name, mode in (("containerd", 0o755), ("kubelet.conf.d", 0o700), ("cni", 0o755), ("flannel", 0o755)):
        folder(agent / "etc" / name, mode)
    write(agent / "etc" / "crictl.yaml", "runtime-endpoint: unix:///run/k3s/containerd/containerd.sock\n")
    folder(agent / "containerd")
    write(agent / "containerd" / "containerd.log", "", 0o644)


def load_balancer(agent: Path, url: str, addresses: list[str]) -> None:
    """Keep the list of servers that an agent knows."""
    text = json.dumps({"ServerURL": url, "ServerAddresses": addresses}, indent=2)
    path = agent / "etc" / "k3s-agent-load-balancer.json"
    if not path.exists() or path.read_text() != text:
        write(path, text, 0o644)
