"""The effective configuration: the settings that servers and agents run with, whatever their files say by now.

With an external datastore K3s does not compare them between servers (k3s: `compareConfig` runs with embedded etcd
only). Sources: k3s `pkg/daemons/config/types.go` (Control, as `/v1-k3s/config` shows it), `pkg/nodeconfig` (the
annotation `k3s.io/node-args`), docs.k3s.io `cli/server.md` (defaults).
"""

from __future__ import annotations

import base64
import ipaddress
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nornir_k3s import k3s, k3s_installed
from nornir_k3s.inventory import rules
from nornir_k3s.model import masking
from nornir_k3s.model.cluster import (
    Cluster,
    Member,
)
from nornir_k3s.model.finding import Finding
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import NodeState
from nornir_k3s.model.secret import Secret
from nornir_k3s.roles import agent as agent_role
from nornir_k3s.roles import server as server_role

Config = Mapping[str, Any]
# Boolean settings, and their fields of Control.
_FLAGS = {
    "disable-cloud-controller": "DisableCCM",
    "disable-helm-controller": "DisableHelmController",
    "disable-network-policy": "DisableNPC",
    "disable-kube-proxy": "DisableKubeProxy",
    "disable-scheduler": "DisableScheduler",
    "secrets-encryption": "EncryptSecrets",
    "embedded-registry": "EmbeddedRegistry",
    "flannel-ipv6-masq": "FlannelIPv6Masq",
    "flannel-external-ip": "FlannelExternalIP",
    "supervisor-metrics": "SupervisorMetrics",
}
_TEXTS = {
    "cluster-domain": ("ClusterDomain", "cluster.local"),
    "secrets-encryption-provider": ("EncryptProvider", "aescbc"),
    "flannel-backend": ("FlannelBackend", "vxlan"),
    "egress-selector-mode": ("EgressSelectorMode", "agent"),
    "system-default-registry": ("SystemDefaultRegistry", ""),
    "servicelb-namespace": ("ServiceLBNamespace", "kube-system"),
    "https-listen-port": ("HTTPSPort", str(k3s.API_PORT)),
}
_ARGUMENTS = {"kube-apiserver-arg": "ExtraAPIArgs", "kube-controller-manager-arg": "ExtraControllerArgs"}
_NODE_PORTS = "30000-32767"


def differences(cluster: Cluster, all_facts: Mapping[str, HostFacts], nodes: Sequence[NodeState]) -> Iterator[Finding]:
    """Yield the effective settings that differ from those in the inventory; secrets are masked."""
    secrets = cluster.secrets()
    for one in _differences(cluster, all_facts, nodes):
        value = cluster.settings_of(cluster.member(one.host)).get(one.subject)
        if isinstance(value, list) and any(isinstance(item, Secret) for item in value):
            # What runs may be an earlier secret, which nobody knows any more.
            shown = {"found": f"K3s runs with another {one.subject}", "expected": masking.HIDDEN}
        else:
            shown = {key: masking.without(getattr(one, key), secrets) for key in ("found", "expected")}
        yield one.model_copy(update=shown)


def _differences(cluster: Cluster, all_facts: Mapping[str, HostFacts], nodes: Sequence[NodeState]) -> Iterator[Finding]:
    listed = {node.name: node for node in nodes}
    configs = {
        m.name: config
        for m in cluster.of("servers")
        if m.name in all_facts and (config := all_facts[m.name].effective_config) is not None
    }
    for member in cluster.of("servers"):
        if member.name not in all_facts:
            continue
        node = listed.get(member.node_name)
        config = configs.get(member.name)
        wanted = server_role.settings(cluster, member)
        if config is not None:
            for key, (read, default) in _READERS.items():
                if (found := read(config)) is not None:
                    values = Counter(value for one in configs.values() if (value := read(one)) is not None)
                    expected = _expected(cluster, key, wanted.get(key, default))
                    yield from _compared(member, key, found, expected, values)
        elif all_facts[member.name].ready:
            yield Finding(
                host=member.name, kind="setting", subject="config", severity="note",
                found="the effective configuration cannot be read", expected="an answer at /v1-k3s/config",
                remedy="nothing to do if this K3s is too old to have it",
            )  # fmt: skip
        # How settings are written counts there: what was taken over has the same ones in another form.
        if node and node.args and not all_facts[member.name].has_read_before(k3s.UNITS["server"]):
            covered = set(_READERS) if config is not None else set()
            yield from _arguments(member, node, wanted, covered)
    for member in cluster.of("agents"):
        node = listed.get(member.node_name)
        facts = all_facts.get(member.name)
        if node and node.args and facts and not facts.has_read_before(k3s.UNITS["agent"]):
            yield from _arguments(member, node, agent_role.settings(cluster, member, ""), set())


def _compared(member: Member, key: str, found: str, expected: str, all_values: Counter[str]) -> Iterator[Finding]:
    if found == expected:
        return
    servers = all_values.total()
    count = f"; {all_values[found]} of {servers} servers have it" if servers > 1 else ""
    immutable = "restore the value of the first start: it cannot be changed later"
    yield Finding(
        host=member.name, kind="setting", subject=key, found=f"K3s runs with {key} {found or 'unset'}{count}",
        expected=expected or "unset", remedy=immutable if key in rules.CIDRS else _remedy(member), severity="error",
    )  # fmt: skip


def _remedy(member: Member) -> str:
    unit = k3s.UNITS["server" if member.role == "servers" else "agent"]
    return f"remove a drop-in that sets it; deploy if a file differs, else restart {unit} on this host"


def _expected(cluster: Cluster, key: str, wanted: Any) -> str:  # noqa: ANN401 - a setting
    found: list[str] = [str(wanted).lower() if key in _FLAGS else str(wanted)]
    if key in rules.CIDRS:
        found = [str(network) for network in rules.networks(cluster.server, key, cluster.ip_version)]
    elif key == "cluster-dns":
        # K3s takes the tenth address of each network (pkg/cli/server/server.go).
        default = [network[10] for network in rules.networks(cluster.server, "service-cidr", cluster.ip_version)]
        found = [str(ipaddress.ip_address(one)) for one in rules.listed(wanted or default)]
    elif key == "service-node-port-range":
        found = ["-".join(map(str, rules.ports(wanted) or ()))]
    elif key in _ARGUMENTS:
        found = sorted(set(_words(wanted)))
    elif key == "disable":
        found = sorted(set(rules.listed(wanted)))
    return ",".join(found)


def _range(config: Config, key: str) -> str | None:
    found = config.get(key)
    if not isinstance(found, list):
        return None
    networks = []
    for item in found:
        mask = base64.b64decode(item["Mask"])
        prefix = sum(bin(byte).count("1") for byte in mask)
        networks.append(str(ipaddress.ip_network(f"{item['IP']}/{prefix}", strict=False)))
    return ",".join(networks)


def _dns(config: Config) -> str | None:
    found = config.get("ClusterDNSs")
    return ",".join(map(str, found)) if isinstance(found, list) else None


def _disables(config: Config) -> str | None:
    found = config.get("Disables")
    if not isinstance(found, dict):
        return None
    # K3s adds more by itself, such as `ccm` for disable-cloud-controller, which are not in `disable`.
    return ",".join(sorted(name for name, value in found.items() if value and name in k3s.PACKAGED))


def _ports(config: Config) -> str | None:
    found = config.get("ServiceNodePortRange")
    return f"{found['Base']}-{found['Base'] + found['Size'] - 1}" if isinstance(found, dict) else None


def _flag(field: str) -> Callable[[Config], str | None]:
    return lambda config: str(bool(config[field])).lower() if field in config else None


def _text(field: str) -> Callable[[Config], str | None]:
    return lambda config: str(config[field] or "") if field in config else None


def _list(field: str) -> Callable[[Config], str | None]:
    def read(config: Config) -> str | None:
        if field not in config:
            return None
        # K3s itself adds the cipher suites, unless they are asked for.
        own = [str(item) for item in config[field] or []]
        return ",".join(
            sorted(item for item in own if not item.startswith("tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_256"))
        )

    return read


_READERS: Mapping[str, tuple[Callable[[Config], str | None], Any]] = {
    "cluster-cidr": (lambda config: _range(config, "ClusterIPRanges"), ""),
    "service-cidr": (lambda config: _range(config, "ServiceIPRanges"), ""),
    "cluster-dns": (_dns, ""),
    "disable": (_disables, []),
    "service-node-port-range": (_ports, _NODE_PORTS),
    **{key: (_flag(field), False) for key, field in _FLAGS.items()},
    **{key: (_text(field), default) for key, (field, default) in _TEXTS.items()},
    **{key: (_list(field), []) for key, field in _ARGUMENTS.items()},
}


def _arguments(member: Member, node: NodeState, wanted: Mapping[str, Any], covered: set[str]) -> Iterator[Finding]:
    """Compare the arguments that a node was started with (its annotation) with those it would be started with now."""
    started = k3s_installed.given(node.args)
    expected = {key: _words(value) for key, value in wanted.items()}
    for key in sorted((set(started) | set(expected)) - covered):
        if key in k3s.MASKED:
            continue
        ours, theirs = expected.get(key, []), started.get(key, [])
        if sorted(ours) != sorted(theirs) and not (ours in ([], ["false"]) and theirs in ([], ["false"])):
            yield Finding(
                host=member.name, kind="setting", subject=key,
                found=f"K3s was started with {key} {', '.join(theirs) or 'unset'}",
                expected=", ".join(ours) or "unset", remedy=_remedy(member),
                severity="error" if key in k3s.MUST_MATCH else "warning",
            )  # fmt: skip


def running(config: Config) -> dict[str, str]:
    """Return the settings that a server runs with, as far as `/v1-k3s/config` has them; items of lists with commas."""
    return {key: found for key, (read, _) in _READERS.items() if (found := read(config)) is not None}


def _words(value: Any) -> list[str]:  # noqa: ANN401 - a setting
    if isinstance(value, bool):
        return [str(value).lower()]
    items = value if isinstance(value, list) else [value]
    return [item.reveal() if isinstance(item, Secret) else str(item) for item in items]
