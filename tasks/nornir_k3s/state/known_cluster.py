"""What the state folder knows of a cluster from its last deploy: its members, its CA, packages.

A Nornir that was filtered shows some of the hosts only. The others are still members: load balancers must not forget a
server, and no second first server may be made, because somebody filtered it away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from nornir_k3s.model.cluster import Member
from nornir_k3s.model.family import DEBIAN
from nornir_k3s.model.secret import Secret
from nornir_k3s.state.store import Store

_MEMBERS, _LEFT, _CA = "members.json", "left.json", "ca.json"
_PACKAGES, _MANAGERS = "packages.json", "package-managers.json"


def members(store: Store) -> list[Member]:
    """Return the members of the last deploy."""
    return _read(store, _MEMBERS)


def stage_members(store: Store, known: Sequence[Member]) -> None:
    """Have the store's `commit` save the members."""
    if store.read(_MEMBERS) != (text := _text(known)) + "\n":
        store.stage(_MEMBERS, Secret(text))


def save_members(store: Store, known: Sequence[Member]) -> None:
    """Save the members now."""
    if store.read(_MEMBERS) != (text := _text(known)) + "\n":
        store.write(_MEMBERS, text + "\n")


def left(store: Store) -> list[Member]:
    """Return the servers and agents that have left the inventory and were not removed yet."""
    return _read(store, _LEFT)


def stage_left(store: Store, known: Sequence[Member]) -> None:
    """Have the store's `commit` save those that have left."""
    if (store.read(_LEFT) or "[]\n") != (text := _text(known)) + "\n":
        store.stage(_LEFT, Secret(text))


def save_left(store: Store, known: Sequence[Member]) -> None:
    """Save those that have left now."""
    if (store.read(_LEFT) or "[]\n") != (text := _text(known)) + "\n":
        store.write(_LEFT, text + "\n")


def _read(store: Store, file: str) -> list[Member]:
    found = store.read_json(file) or []
    return [Member(**{**one, "beside": tuple(one.get("beside", ()))}) for one in found]


def _text(known: Sequence[Member]) -> str:
    return json.dumps([asdict(member) for member in known], indent=1, default=str)  # masks secrets


def ca(store: Store) -> tuple[str, str]:
    """Return the cluster's CA as a server reported it: `K10` with its hash, and the certificate; empty before."""
    found = store.read_json(_CA) or {}
    return str(found.get("prefix", "")), str(found.get("certificate", ""))


def save_ca(store: Store, prefix: str, certificate: str) -> None:
    """Save the cluster's CA."""
    if prefix and certificate and ca(store) != (prefix, certificate):
        store.write(_CA, json.dumps({"prefix": prefix, "certificate": certificate}) + "\n")


def packages(store: Store) -> dict[str, dict[str, str]]:
    """Return the versions of packages by datastore host: files of some are named after them."""
    found: dict[str, dict[str, str]] = store.read_json(_PACKAGES) or {}
    return found


def managers(store: Store) -> dict[str, str]:
    """Return the package managers of hosts that are not Debian's: their family of distributions."""
    found: dict[str, str] = store.read_json(_MANAGERS) or {}
    return found


def save_managers(store: Store, found: Mapping[str, str]) -> None:
    """Save these package managers; only those that are not Debian's."""
    known = {name: manager for name, manager in found.items() if manager != DEBIAN.manager}
    if managers(store) != known:
        store.write(_MANAGERS, json.dumps(known) + "\n")


def save_packages(store: Store, found: Mapping[str, Mapping[str, str]]) -> None:
    """Save these versions."""
    known = {name: dict(versions) for name, versions in found.items()}
    if packages(store) != known:
        store.write(_PACKAGES, json.dumps(known) + "\n")
