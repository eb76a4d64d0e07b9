"""What containers need of the kernel, and what may stand in their way.

Source: k3s `contrib/util/check-config.sh`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nornir_k3s.facts.fact import Fact, Query, Words
from nornir_k3s.model import machine_facts
from nornir_k3s.model.cluster import NODES
from nornir_k3s.records import Record, RecordError, integer

_MODULES = ("overlay", "br_netfilter", "nf_conntrack", "iptable_nat")
_BACKENDS = {"vxlan": "vxlan", "wireguard-native": "wireguard"}


class Kernel(Fact[machine_facts.Kernel]):
    """cgroup controllers, modules, quotas of kernel keys and inotify, iptables' version, /dev/kmsg."""

    name, source, roles, when = "kernel", "kernel", NODES, "setup"

    def arguments(self, query: Query) -> Iterable[object]:
        """Name the modules; they depend on flannel's backend."""
        backend = _BACKENDS.get(str(query.cluster.server.get("flannel-backend", "vxlan")))
        return [*_MODULES, *([backend] if backend else [])]

    def parse(self, records: Sequence[Record]) -> machine_facts.Kernel:
        """Return it."""
        words: dict[str, str] = {}
        modules: dict[str, str] = {}
        for record in records:
            kind, value = record.take(2)
            name, _, there = value.partition(" ")
            if kind == "module":
                modules[name] = there
            elif kind in ("controllers", "keys", "iptables", "watches", "kmsg"):
                words[kind] = value
            else:
                raise RecordError(f"not a record of the kernel: {record}")
        controllers = tuple(words.get("controllers", "").split())
        return machine_facts.Kernel(
            controllers,
            modules,
            integer(words.get("keys", "")),
            words.get("iptables", ""),
            integer(words.get("watches", "")),
            kmsg=words.get("kmsg") != "no",
        )


class Firewalls(Words):
    """Firewalls that are on: firewalld, nftables, ufw."""

    name, source, when = "firewalls", "kernel", "setup"


class Booleans(Fact[Mapping[str, str]]):
    """SELinux' booleans of the spec, on or off, where it is enforcing (getsebool(8))."""

    name, source = "booleans", "kernel"

    def arguments(self, query: Query) -> Iterable[object] | None:
        """Ask for the spec's booleans."""
        return query.spec.booleans or None

    def parse(self, records: Sequence[Record]) -> Mapping[str, str]:
        """Return the values by name."""
        return dict(record.take(2) for record in records)  # type: ignore[misc]  # two words each


class Selinux(Fact[machine_facts.Selinux]):
    """SELinux' mode, and whether k3s-selinux is installed (docs.k3s.io `advanced.md`)."""

    name, source, roles, when = "selinux", "kernel", NODES, "setup"

    def parse(self, records: Sequence[Record]) -> machine_facts.Selinux:
        """Return both."""
        mode, policy = records[0].take(2)
        return machine_facts.Selinux(mode, policy == "yes")
