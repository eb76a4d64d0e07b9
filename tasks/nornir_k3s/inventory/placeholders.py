"""Addresses that `nornir-k3s init` has written, and nobody has replaced yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nornir.core.inventory import Inventory

from nornir_k3s.inventory.problems import Problems, Sources
from nornir_k3s.model.address import is_placeholder


def check(inventory: Inventory, sources: Sources) -> Sources:
    """Return the files of the inventory, with a problem for each placeholder."""
    problems = Problems(sources)
    for host in inventory.hosts.values():
        if is_placeholder(str(host.hostname or "")):
            problems.host(host.name, _text(str(host.hostname), "the host's own address"), "hostname")
        own = host.get("k3s")
        for key, value in _addresses(own if isinstance(own, Mapping) else {}):
            problems.host(host.name, _text(value, "the host's own address"), "data", "k3s", key)
    settings = inventory.defaults.data.get("k3s_cluster")
    registration = settings.get("registration") if isinstance(settings, Mapping) else None
    vip = str(registration.get("address") if isinstance(registration, Mapping) else "")
    if is_placeholder(vip):
        problems.cluster(_text(vip, "the address of your cluster"), "registration", "address")
    return Sources(sources.files, tuple(problems))


def _addresses(data: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for key in ("node-ip", "address"):
        values = data.get(key) or []
        for value in values if isinstance(values, list) else str(values).split(","):
            if is_placeholder(str(value).strip()):
                yield key, str(value).strip()


def _text(address: str, wanted: str) -> str:
    return f"{address} is a placeholder, an address for documentation that no host has: write {wanted}"
