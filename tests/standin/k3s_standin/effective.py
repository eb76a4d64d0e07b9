"""What `/v1-k3s/config` says: the settings in force on a server (pkg/daemons/config/types.go, Control)."""

from __future__ import annotations

import base64
import ipaddress
from pathlib import Path
from typing import Any

from k3s_standin.log import Fatal

_CIPHERS = ",".join(
    f"TLS_ECDHE_{key}_WITH_{cipher}"
    for cipher in ("AES_256_GCM_SHA384", "AES_128_GCM_SHA256", "CHACHA20_POLY1305")
    for key in ("ECDSA", "RSA")
)

_PODS, _SERVICES = ("10.42.0.0/16", "fd00:42::/56"), ("10.43.0.0/16", "fd00:43::/112")


def network(text: str) -> dict[str, str]:
    """Return a range as Go's net.IPNet goes into JSON."""
    net = ipaddress.ip_network(text, strict=False)
    return {"IP": str(net.network_address), "Mask": base64.b64encode(net.netmask.packed).decode()}


def shown(found: dict[str, str]) -> str:
    """Return such a range as text."""
    bits = int.from_bytes(base64.b64decode(found["Mask"]), "big").bit_count()
    return f"{found['IP']}/{bits}"


def pods(settings: dict[str, Any], address: str) -> list[str]:
    """Return the ranges of pods; the default follows the node's first address (pkg/util/net.go, GetDefaultAddresses)."""
    return [str(one) for one in settings.get("cluster-cidr") or [_PODS[":" in address]]]


def services(settings: dict[str, Any], address: str) -> list[str]:
    """Return the ranges of services."""
    return [str(one) for one in settings.get("service-cidr") or [_SERVICES[":" in address]]]


def check_versions(pod: list[str], service: list[str], addresses: list[str]) -> None:
    """End where networks and addresses do not share their IP versions (pkg/agent/run.go)."""
    wanted = [":" in one for one in pod]
    have = [":" in one for one in addresses]
    if set(wanted) != {":" in one for one in service} or wanted[0] != (":" in service[0]):
        raise _mismatch(f"cluster-cidr: {_go(pod)} and service-cidr: {_go(service)}")
    if not set(wanted) <= set(have):
        raise _mismatch(f"cluster-cidr: {_go(pod)} and node-ip: {_go(addresses)}")


def _go(items: list[str]) -> str:
    return f"[{' '.join(items)}]"


def _mismatch(text: str) -> Fatal:
    return Fatal(f"Error: {text}, must share the same IP version (IPv4, IPv6 or dual-stack)")


def _node_ports(text: str) -> dict[str, int]:
    first, _, last = text.partition("-")
    return {"Base": int(first), "Size": int(last) - int(first) + 1}


def effective(settings: dict[str, Any], server: Path, address: str, port: int) -> dict[str, Any]:
    """Return the settings in force."""
    get = settings.get
    disabled = sorted({*get("disable", []), *(["ccm"] if get("disable-cloud-controller") else [])})
    default_dns = [ipaddress.ip_network(one, strict=False)[10] for one in services(settings, address)]
    dns = [str(one) for one in get("cluster-dns") or default_dns]
    pod_nets = [network(one) for one in pods(settings, address)]
    service_nets = [network(one) for one in services(settings, address)]
    flags = {
        "DisableCCM": "disable-cloud-controller",
        "DisableHelmController": "disable-helm-controller",
        "DisableNPC": "disable-network-policy",
        "EncryptSecrets": "secrets-encryption",
        "EmbeddedRegistry": "embedded-registry",
        "FlannelIPv6Masq": "flannel-ipv6-masq",
        "FlannelExternalIP": "flannel-external-ip",
        "SupervisorMetrics": "supervisor-metrics",
        "KineTLS": "kine-tls",
        "DisableAgent": "disable-agent",
        "DisableAPIServer": "disable-apiserver",
        "DisableControllerManager": "disable-controller-manager",
        "DisableETCD": "disable-etcd",
        "DisableKubeProxy": "disable-kube-proxy",
        "DisableScheduler": "disable-scheduler",
        "Rootless": "rootless",
    }
    texts = {
        "KubeConfigOutput": "write-kubeconfig",
        "KubeConfigMode": "write-kubeconfig-mode",
        "KubeConfigGroup": "write-kubeconfig-group",
        "HelmJobImage": "helm-job-image",
        "SystemDefaultRegistry": "system-default-registry",
        "APIServerBindAddress": "apiserver-bind-address",
    }
    extra = {
        "ExtraControllerArgs": "kube-controller-manager-arg",
        "ExtraCloudControllerArgs": "kube-cloud-controller-manager-arg",
        "ExtraEtcdArgs": "etcd-arg",
        "ExtraSchedulerAPIArgs": "kube-scheduler-arg",
    }
    return {
        "ClusterDNSs": dns,
        "ClusterIPRanges": pod_nets,
        "ClusterDNS": dns[0],
        "ClusterDomain": get("cluster-domain") or "cluster.local",
        "ClusterIPRange": pod_nets[0],
        "EncryptProvider": get("secrets-encryption-provider") or "aescbc",
        "FlannelBackend": get("flannel-backend") or "vxlan",
        "EgressSelectorMode": get("egress-selector-mode") or "agent",
        "ServiceIPRange": service_nets[0],
        "ServiceIPRanges": service_nets,
        "AdvertisePort": get("advertise-port") or port,
        "AdvertiseIP": get("advertise-address") or address,
        "HTTPSPort": port,
        "SupervisorPort": get("supervisor-port") or port,
        "APIServerPort": get("apiserver-port") or port + 1,
        "ServiceNodePortRange": _node_ports(str(get("service-node-port-range") or "30000-32767")),
        "DataDir": str(server),
        "Disables": dict.fromkeys(disabled, True),
        "DisableServiceLB": "servicelb" in disabled,
        "ServiceLBNamespace": get("servicelb-namespace") or "kube-system",
        "ExtraAPIArgs": [f"tls-cipher-suites={_CIPHERS}", *get("kube-apiserver-arg", [])],
        **{name: bool(get(flag)) for name, flag in flags.items()},
        **{name: str(get(flag) or "") for name, flag in texts.items()},
        **{name: list(get(flag, [])) or None for name, flag in extra.items()},
    }
