"""Flags, config files and environment, merged as K3s merges them (pkg/configfilearg, pkg/cli/cmds)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from k3s_standin.log import Fatal, log


def _words(text: str) -> set[str]:
    return set(text.split())


NODE_FLAGS = _words("""
    node-name with-node-id node-label node-taint node-ip node-external-ip node-internal-dns node-external-dns
    docker image-credential-provider-bin-dir image-credential-provider-config container-runtime-endpoint
    image-service-endpoint default-runtime disable-default-registry-endpoint nonroot-devices pause-image
    snapshotter private-registry resolv-conf flannel-iface flannel-conf flannel-cni-conf kubelet-arg
    kube-proxy-arg protect-kernel-defaults enable-pprof rootless prefer-bundled-bin selinux lb-server-port
    vpn-auth vpn-auth-file bind-address airgap-extra-registry data-dir debug v vmodule log alsologtostderr token
    token-file server config
""")
AGENT_FLAGS = NODE_FLAGS | {"disable-apiserver-lb"}
SERVER_FLAGS = NODE_FLAGS | _words("""
    https-listen-port supervisor-port apiserver-port advertise-address advertise-port tls-san tls-san-security
    cluster-cidr service-cidr service-node-port-range cluster-dns cluster-domain flannel-backend flannel-ipv6-masq
    flannel-external-ip egress-selector-mode servicelb-namespace write-kubeconfig write-kubeconfig-mode
    write-kubeconfig-group helm-job-image agent-token agent-token-file cluster-init cluster-reset
    cluster-reset-restore-path kube-apiserver-arg etcd-arg kube-controller-manager-arg kube-scheduler-arg
    kube-cloud-controller-manager-arg datastore-endpoint datastore-cafile datastore-certfile datastore-keyfile
    etcd-expose-metrics etcd-disable-snapshots default-local-storage-path disable disable-scheduler
    disable-cloud-controller disable-kube-proxy disable-network-policy disable-helm-controller disable-agent
    disable-apiserver disable-controller-manager disable-etcd embedded-registry supervisor-metrics
    secrets-encryption secrets-encryption-provider system-default-registry kine-tls
""")
LISTS = _words("""
    tls-san node-label node-taint kubelet-arg kube-proxy-arg kube-apiserver-arg etcd-arg
    kube-controller-manager-arg kube-scheduler-arg kube-cloud-controller-manager-arg disable node-ip
    node-external-ip node-internal-dns node-external-dns cluster-cidr service-cidr cluster-dns
    airgap-extra-registry
""")
BOOLS = _words("""
    with-node-id docker disable-default-registry-endpoint nonroot-devices protect-kernel-defaults enable-pprof
    rootless prefer-bundled-bin selinux debug alsologtostderr cluster-init cluster-reset flannel-ipv6-masq
    flannel-external-ip tls-san-security disable-scheduler disable-cloud-controller disable-kube-proxy
    disable-network-policy disable-helm-controller disable-agent disable-apiserver disable-controller-manager
    disable-etcd embedded-registry supervisor-metrics secrets-encryption kine-tls disable-apiserver-lb
""")
ALIASES = {"t": "token", "s": "server", "d": "data-dir", "c": "config"}
SPLIT = {"tls-san", "disable", "node-ip", "node-external-ip", "cluster-cidr", "service-cidr", "cluster-dns"}
ENV = {
    "K3S_TOKEN": "token",
    "K3S_TOKEN_FILE": "token-file",
    "K3S_AGENT_TOKEN": "agent-token",
    "K3S_URL": "server",
    "K3S_AGENT_TOKEN_FILE": "agent-token-file",
    "K3S_DATASTORE_ENDPOINT": "datastore-endpoint",
    "K3S_DATASTORE_CAFILE": "datastore-cafile",
    "K3S_DATASTORE_CERTFILE": "datastore-certfile",
    "K3S_DATASTORE_KEYFILE": "datastore-keyfile",
    "K3S_DATA_DIR": "data-dir",
    "K3S_NODE_NAME": "node-name",
    "K3S_KUBECONFIG_OUTPUT": "write-kubeconfig",
    "K3S_KUBECONFIG_MODE": "write-kubeconfig-mode",
    "K3S_RESOLV_CONF": "resolv-conf",
    "K3S_SYSTEM_DEFAULT_REGISTRY": "system-default-registry",
}
SECRET = {"token", "agent-token", "datastore-endpoint", "vpn-auth"}


def read_files(path: Path) -> dict[str, Any]:
    """Return the merged main file and drop-ins: a later file replaces a key, `key+` appends."""
    merged: dict[str, Any] = {}
    files = [path] if path.exists() else []
    folder = Path(f"{path}.d")
    if folder.is_dir():
        files += sorted(p for p in folder.iterdir() if p.suffix in (".yaml", ".yml"))
    for file in files:
        try:
            data = yaml.load(file.read_text(), yaml.SafeLoader) or {}
        except yaml.YAMLError as error:
            raise Fatal(f"failed to load config file {file}: {error}") from None
        for key, value in data.items():
            name = str(key)
            if name.endswith("+"):
                name = name[:-1]
                before = merged.get(name, [])
                before = before if isinstance(before, list) else [before]
                merged[name] = before + (value if isinstance(value, list) else [value])
            else:
                merged[name] = value
    return merged


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def to_args(settings: dict[str, Any], known: set[str], *, server: bool) -> list[str]:
    """Return settings as flags; an unknown key is skipped with a warning on a server, and passed on by an agent."""
    args = []
    for key, value in settings.items():
        if server and key not in known and key not in ALIASES:
            log("warning", f"Unknown flag --{key} found in config.yaml, skipping\n")
            continue
        dash = "-" if len(key) == 1 else "--"
        for item in value if isinstance(value, list) else [value]:
            args.append(f"{dash}{key}={_text(item)}")
    return args


def parse(command: str, argv: list[str], environ: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Return the effective settings, and the arguments as the node annotation shows them."""
    server = command == "server"
    known = SERVER_FLAGS if server else AGENT_FLAGS
    path = Path(environ.get("K3S_CONFIG_FILE", "/etc/rancher/k3s/config.yaml"))
    for index, word in enumerate(argv):
        if word.startswith(("--config=", "-c=")):
            path = Path(word.split("=", 1)[1])
        elif word in ("--config", "-c"):
            path = Path(argv[index + 1])
    from_env: dict[str, Any] = {
        flag: environ[name] for name, flag in ENV.items() if environ.get(name) and flag in known
    }
    words = to_args(read_files(path), known, server=server) + argv
    result: dict[str, Any] = {}
    shown = [command]
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if not word.startswith("-"):
            continue
        name, equals, value = word.lstrip("-").partition("=")
        name = ALIASES.get(name, name)
        if name not in known:
            raise Fatal(f"Error: flag provided but not defined: -{name}")
        if not equals:
            if name in BOOLS:
                value = "true"
            elif index < len(words):
                value = words[index]
                index += 1
        shown += [f"--{name}"] + (
            [] if name in BOOLS and value == "true" else ["********" if name in SECRET else value]
        )
        if name in LISTS:
            parts = [p.strip() for p in value.split(",")] if name in SPLIT else [value]
            result.setdefault(name, []).extend(p for p in parts if p)
        elif name in BOOLS:
            result[name] = value.lower() in ("true", "1")
        else:
            result[name] = value
    return {**from_env, **result}, shown


def load(command: str, argv: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Parse with the process' environment, and read the token files."""
    settings, shown = parse(command, argv, dict(os.environ))
    for key in ("token", "agent-token"):
        if not settings.get(key) and settings.get(f"{key}-file"):
            settings[key] = Path(settings[f"{key}-file"]).read_text().strip()
    return settings, shown
