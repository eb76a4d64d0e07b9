"""Checks of a K3s that was installed some other way, of what it left, and of other distributions of Kubernetes.

Sources: k3s `install.sh` (flags stand in the unit, which our own run of it writes anew, with its environment file);
docs.k3s.io `installation/configuration.md` and k3s `pkg/configfilearg` (files are made flags, so that they hide the
environment, and flags of the unit hide both; config.yaml.d comes after config.yaml); k3s `pkg/cluster/managed.go`.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping

import yaml

from nornir_k3s import k3s
from nornir_k3s.k3s_installed import key_of
from nornir_k3s.model.cluster import Cluster, Member
from nornir_k3s.model.finding import Finding, problem
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.paths import MOVED
from nornir_k3s.roles import agent, node, server

SQLITE = f"{k3s.DATA}/server/db/state.db"
_DATASTORE = ("datastore-endpoint", "K3S_DATASTORE_ENDPOINT")
# A value of another origin would make the host part of another cluster, or one that cannot be changed later.
_CRITICAL = {*k3s.OURS, "node-name", "cluster-cidr", "service-cidr", "secrets-encryption"}
_ENVIRONMENT = ".service.env"


def check(cluster: Cluster, member: Member, facts: HostFacts) -> Iterator[Finding]:
    """Yield what another installation set or left on a server or agent."""
    own = k3s.UNITS["server" if member.role == "servers" else "agent"]
    for name in dict.fromkeys(facts.foreign_units):
        yield from _unit(member, facts, name, own)
    yield from _settings(cluster, member, facts, own)
    if own not in facts.foreign_units:
        yield from _flags(member, facts, own)
    if member.role == "servers" and on_sqlite(facts) and MOVED not in facts.present:
        found = "files of SQLite in server/db: this host was a cluster of its own, whose objects would be lost"
        remedy = (
            f"if its objects are needed: `nornir-k3s move`; else move it away: systemctl disable --now {own}; "
            f"mv {k3s.DATA}/server {k3s.DATA}/server.before"
        )
        yield problem(member.name, "sqlite", found, "no SQLite, or a server that uses a datastore endpoint", remedy)


def on_sqlite(facts: HostFacts) -> bool:
    """Return whether the K3s of this server keeps its data in SQLite, as far as its files tell."""
    return SQLITE in facts.present and not _has_endpoint(facts)


def flags(command: str) -> dict[str, object]:
    """Return the settings in the arguments of `k3s server` or `k3s agent`; lists of those that come several times."""
    try:
        words = shlex.split(command)[2:]
    except ValueError:
        words = command.split()[2:]
    found: dict[str, object] = {}
    while words:
        name, equal, value = words.pop(0).partition("=")
        if not name.startswith("-"):
            continue
        if not equal:
            value = words.pop(0) if words and not words[0].startswith("-") else "true"
        key = key_of(name.lstrip("-"))
        before = found.get(key)
        found[key] = value if before is None else [*(before if isinstance(before, list) else [before]), value]
    return found


def running(facts: HostFacts, inventory: Mapping[str, object]) -> Mapping[str, object]:
    """Return the settings that the K3s on this server has: its file's, and its flags; secrets may be among them.

    Arguments:
        inventory: The inventory's, for a server whose file is as wanted, or was lost.
    """
    unit, state = k3s.UNITS["server"], facts.files.get(k3s.CONFIG)
    if state is not None and state.text is not None:
        base = _mapping(state.text)
    elif unit in facts.foreign_units and (state is None or state.kind == "absent"):
        base = {}
    else:
        base = inventory
    return {**base, **flags(facts.unit(unit).command)}


def _mapping(text: str) -> Mapping[str, object]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return {key_of(str(key)): value for key, value in found.items()} if isinstance(found, dict) else {}


def _other_data(facts: HostFacts, name: str) -> str:
    """Return the folder, if it is another, in which a K3s of others has its data; as far as its files tell."""
    state = facts.files.get(k3s.CONFIG)
    set_ = {**_mapping(state.text if state and state.text else ""), **flags(facts.unit(name).command)}
    folder = str(set_.get("data-dir", k3s.DATA)).rstrip("/")
    if folder == k3s.DATA and any("data-dir" in map(key_of, names) for _, names, _ in facts.extra_settings):
        return "another folder"
    return "" if folder == k3s.DATA else folder


def _unit(member: Member, facts: HostFacts, name: str, own: str) -> Iterator[Finding]:
    if name in k3s.UNITS.values():
        if name != own:
            return  # check `role` reports it
        lost = sorted(flags(facts.unit(name).command))
        lost += sorted({key for path, keys, _ in facts.extra_settings if path.endswith(_ENVIRONMENT) for key in keys})
        remedy = (
            "if it is another cluster's, use another host, or keep a copy of its data and uninstall it there; "
            "deploy keeps copies of files that it replaces"
        )
        if lost:
            remedy = f"deploy drops {', '.join(lost)} of the unit: give them in the inventory; {remedy}"
        found = f"{name} was not installed by nornir-k3s"
        if folder := _other_data(facts, name):
            found += f", and has its data in {folder}, where the next start would not look: its cluster would be lost"
            remedy = (
                f"use another host if that cluster is needed; else disable it, which keeps its data: "
                f"systemctl disable --now {name}; mv /etc/systemd/system/{name} /etc/systemd/system/{name}.before"
            )
            yield problem(member.name, "foreign-k3s", found, f"a K3s with its data in {k3s.DATA}, or none", remedy)
            return
        yield problem(member.name, "foreign-k3s", found, "a K3s of nornir-k3s, or none", remedy, "warning")
    elif name.startswith("k3s"):
        found = f"{name} is another K3s: both use the files in {k3s.DATA}, and the same ports"
        remedy = f"give the host to one of them: systemctl disable --now {name} keeps its files"
        yield problem(member.name, "other-kubernetes", found, f"one K3s, {own}", remedy)
    else:
        found = f"{name} is installed: it uses the ports and the network of K3s"
        remedy = (
            f"use another host; or, if its cluster no longer needs this one, keep a copy of its data, "
            f"systemctl disable --now {name}, and remove it with its own uninstaller"
        )
        yield problem(member.name, "other-kubernetes", found, "no other Kubernetes", remedy)


def _settings(cluster: Cluster, member: Member, facts: HostFacts, own: str) -> Iterator[Finding]:
    delivered = {file.path for file in node.files(cluster, own)[0]} | facts.ledger.files
    written = server.settings(cluster, member) if member.role == "servers" else agent.settings(cluster, member, "")
    for path, names, _ in facts.extra_settings:
        if path in delivered or (own in facts.foreign_units and path.endswith(_ENVIRONMENT)):
            continue
        file = "config.yaml.d" in path
        bad = sorted({name for name in names if key_of(name) in _CRITICAL and (file or key_of(name) not in written)})
        if bad:
            found = f"{path} sets {', '.join(bad)}, which would hold instead of the inventory's"
            yield problem(member.name, "extra-settings", found, "settings of the inventory only", _away(path, bad))
        elif names:
            found = f"{path} sets {', '.join(sorted(set(names)))}, beside the inventory"
            remedy = f"move them into the inventory, and {_away(path, names)}"
            yield problem(member.name, "extra-settings", found, "settings of the inventory only", remedy, "note")


def _flags(member: Member, facts: HostFacts, own: str) -> Iterator[Finding]:
    bad = sorted(set(flags(facts.unit(own).command)) & _CRITICAL)
    if bad:
        found = f"{own} runs with {', '.join(f'--{name}' for name in bad)}, which hold instead of the inventory's"
        remedy = f"remove them from the unit or its drop-in (systemctl cat {own}), then systemctl daemon-reload"
        yield problem(member.name, "extra-settings", found, "settings of the inventory only", remedy)


def _away(path: str, names: Collection[str]) -> str:
    if "config.yaml.d" in path:
        return f"rename the file, and K3s does not read it: mv {path} {path}.before"
    return f"remove {', '.join(sorted(set(names)))} from {path}"


def _has_endpoint(facts: HostFacts) -> bool:
    """Return whether the K3s of this server uses a datastore endpoint, as far as its files tell."""
    state = facts.files.get(k3s.CONFIG)
    if state is not None and state.kind == "file" and state.text is None and k3s.CONFIG in facts.ledger.files:
        return True
    names = {name for _, keys, _ in facts.extra_settings for name in keys}
    endpoint = str(running(facts, {}).get("datastore-endpoint") or "")
    return bool(names & set(_DATASTORE)) or (not endpoint.startswith(("sqlite:", "sqlite3:")) and bool(endpoint))
