"""Kernel features that containers need, firewalls and SELinux.

Source: k3s `contrib/util/check-config.sh`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nornir_k3s.facts.fact import Fact, Query
from nornir_k3s.model import host_facts
from nornir_k3s.model.cluster import NODES
from nornir_k3s.records import Record, RecordError, integer

_MODULES = ("overlay", "br_netfilter", "nf_conntrack", "iptable_nat")
_BACKENDS = {"vxlan": "vxlan", "wireguard-native": "wireguard"}


class Kernel(Fact[host_facts.Kernel]):
    """cgroup controllers, modules, the quota of kernel keys, iptables' version."""

    name, source, when = "kernel", "kernel", "setup"

    def calls(self, query: Query) -> Iterable[str]:
        """Ask nodes; the modules depend on flannel's backend."""
        if query.member.role not in NODES:
            return []
        backend = _BACKENDS.get(str(query.cluster.server.get("flannel-backend", "vxlan")))
        return [self.call(*_MODULES, *([backend] if backend else []))]

    def parse(self, records: Sequence[Record]) -> host_facts.Kernel:
        """Return the kernel's features."""
        words: dict[str, str] = {}
        modules: dict[str, str] = {}
        for record in records:
            kind, value = record.take(2)
            name, _, there = value.partition(" ")
            if kind == "module":
                modules[name] = there
            elif kind in ("controllers", "keys", "iptables"):
                words[kind] = value
            else:
                raise RecordError(f"not a record of the kernel: {record}")
        controllers = tuple(words.get("controllers", "").split())
        return host_facts.Kernel(controllers, modules, integer(words.get("keys", "")), words.get("iptables", ""))


class Firewalls(Fact[tuple[str, ...]]):
    """Active firewalls: firewalld, nftables, ufw."""

    name, source, when = "firewalls", "kernel", "setup"

    def parse(self, records: Sequence[Record]) -> tuple[str, ...]:
        """Return their names."""
        return tuple(record.take(1)[0] for record in records)


class Selinux(Fact[host_facts.Selinux]):
    """SELinux' mode, and whether k3s-selinux is installed (docs.k3s.io `advanced.md`)."""

    name, source, when = "selinux", "kernel", "setup"

    def calls(self, query: Query) -> Iterable[str]:
        """Ask nodes."""
        return [self.call()] if query.member.role in NODES else []

    def parse(self, records: Sequence[Record]) -> host_facts.Selinux:
        """Return both."""
        mode, policy = records[0].take(2)
        return host_facts.Selinux(mode, policy == "yes")
