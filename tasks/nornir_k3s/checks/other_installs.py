"""Checks of a K3s that was installed some other way, of what it left, and of other distributions of Kubernetes.

Sources: k3s `install.sh` (flags stand in the unit, which our own run of it writes anew, with its environment file);
docs.k3s.io `installation/configuration.md` and k3s `pkg/configfilearg` (files are made flags, so that they hide the
environment, and flags of the unit hide both; config.yaml.d comes after config.yaml); k3s `pkg/cluster/managed.go`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import yaml

from nornir_k3s import k3s, k3s_installed
from nornir_k3s.checks import extra_settings
from nornir_k3s.k3s_installed import key_of
from nornir_k3s.model import masking
from nornir_k3s.model.cluster import Cluster, Member
from nornir_k3s.model.finding import Finding, problem
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.installed import Installed
from nornir_k3s.model.paths import MOVED
from nornir_k3s.roles import running as running_k3s

SQLITE = f"{k3s.DATA}/server/db/state.db"
_DATASTORE = ("datastore-endpoint", "K3S_DATASTORE_ENDPOINT")
# A value of another origin would make the host part of another cluster, or one that cannot be changed later.
_CRITICAL = {*k3s.OURS, *k3s.MUST_MATCH, "node-name"}
_ENVIRONMENT = ".service.env"


def check(cluster: Cluster, member: Member, facts: HostFacts) -> Iterator[Finding]:
    """Yield what another installation set or left on a server or agent."""
    own = k3s.UNITS["server" if member.role == "servers" else "agent"]
    for name in dict.fromkeys(facts.foreign_units):
        yield from _unit(cluster, member, facts, name, own)
    yield from extra_settings.check(cluster, member, facts, own)
    if member.role == "servers" and on_sqlite(facts) and MOVED not in facts.present:
        found = "files of SQLite in server/db: this host was a cluster of its own, whose objects would be lost"
        if facts.unit(own).active == "active":
            found = (
                "K3s runs on SQLite, with files in server/db: a cluster of this host alone, whose objects would be lost"
            )
        remedy = (
            f"if its objects are needed: {_move(cluster, facts)}; else move it away: systemctl disable --now {own}; "
            f"mv {k3s.DATA}/server {k3s.DATA}/server.before"
        )
        yield problem(member.name, "sqlite", found, "no SQLite, or a server that uses a datastore endpoint", remedy)


def _move(cluster: Cluster, facts: HostFacts) -> str:
    """Return what `move` needs and does with the data of a server on SQLite."""
    known = facts.server.token in ("", cluster.token.fingerprint())
    first = "its token is the one given" if known else f"first give the token in {k3s.DATA}/server/token as `token`"
    return (
        f"`nornir-k3s move` ({first}): it stops K3s here, copies its table to the datastore of the inventory, compares "
        "both, and starts K3s on it; SQLite's files stay"
    )


def on_sqlite(facts: HostFacts) -> bool:
    """Return whether the K3s of this server keeps its data in SQLite, as far as its files tell."""
    return SQLITE in facts.present and not _has_endpoint(facts)


def running(facts: HostFacts, inventory: Mapping[str, object]) -> Mapping[str, object]:
    """Return the settings that the K3s on this server has: its file's, and its flags; secrets may be among them.

    Arguments:
        inventory: The inventory's, for a server whose file is as wanted, or was lost.
    """
    unit, state = k3s.UNITS["server"], facts.files.get(k3s.CONFIG)
    if one := running_k3s.installation(facts, "server"):
        return {key: setting.text for key, setting in one.settings.items()}
    if state is not None and state.text is not None:
        base = _mapping(state.text)
    elif unit in facts.foreign_units and (state is None or state.kind == "absent"):
        base = {}
    else:
        base = inventory
    return {**base, **k3s_installed.flags(facts.unit(unit).command)}


def settings_in(text: str) -> dict[str, str]:
    """Return the settings in the text of a config.yaml that are no lists, as texts; secrets may be among them."""
    found = _mapping(text).items()
    return {key: str(value) for key, value in found if isinstance(value, str | int) and not isinstance(value, bool)}


def _mapping(text: str) -> Mapping[str, object]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return {key_of(str(key)): value for key, value in found.items()} if isinstance(found, dict) else {}


def _other_data(facts: HostFacts, name: str) -> str:
    """Return the folder, if it is another, in which a K3s of others has its data; as far as its files tell."""
    role = "agent" if name == k3s.UNITS["agent"] else "server"
    if one := running_k3s.installation(facts, role):
        folder = (one.text("data-dir") or k3s.DATA).rstrip("/")
        return "" if folder == k3s.DATA else folder
    state = facts.files.get(k3s.CONFIG)
    set_ = {**_mapping(state.text if state and state.text else ""), **k3s_installed.flags(facts.unit(name).command)}
    folder = str(set_.get("data-dir", k3s.DATA)).rstrip("/")
    if folder == k3s.DATA and any("data-dir" in map(key_of, names) for _, names, _ in facts.extra_settings):
        return "another folder"
    return "" if folder == k3s.DATA else folder


def _unit(cluster: Cluster, member: Member, facts: HostFacts, name: str, own: str) -> Iterator[Finding]:
    if name in k3s.UNITS.values():
        if name != own:
            return  # check `role` reports it
        if (taken := _taken_over(cluster, member, facts)) and not _other_data(facts, name):
            yield taken
            return
        lost = sorted(k3s_installed.flags(facts.unit(name).command))
        lost += sorted(
            {key for path, keys, _ in facts.extra_settings if path.endswith(extra_settings.ENVIRONMENT) for key in keys}
        )
        remedy = (
            "if it is another cluster's, use another host, or keep a copy of its data and uninstall it there; "
            "deploy keeps copies of files that it replaces"
        )
        if lost:
            remedy = f"deploy drops {', '.join(lost)} of the unit: give them in the inventory; {remedy}"
        found = f"{name} was not installed by nornir-k3s"
        one = running_k3s.installation(facts, "agent" if name == k3s.UNITS["agent"] else "server")
        if one and one.problems:
            found += f", and not all of its settings can be read ({'; '.join(one.problems)})"
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


def _taken_over(cluster: Cluster, member: Member, facts: HostFacts) -> Finding | None:
    """Return what a deploy makes of a K3s of others; None if its settings are not known."""
    one = running_k3s.installation(facts, "server" if member.role == "servers" else "agent")
    if one is None or one.problems:
        return None
    ours = running_k3s.wanted(extra_settings.spec(cluster, member), one)
    found = f"{one.unit} was not installed by nornir-k3s"
    expected = "a K3s of nornir-k3s, or one that the inventory describes"
    differ = list(running_k3s.differences(cluster, member, facts, one, ours))
    if not differ:
        remedy = f"nothing to do: deploy writes them to {k3s.CONFIG}, and keeps copies of the unit's files"
        found += ", and runs with the settings of the inventory"
        return problem(member.name, "foreign-k3s", found, expected, remedy, "note")
    lost = [key for key in differ if key in one.settings and key not in ours.settings]
    said = [f"{key}: {_shown(one, key)}, {_source(ours, key)}: {_shown(ours, key)}" for key in differ]
    remedy = "deploy changes them, and restarts it: give them in the inventory if they are to stay"
    if lost:
        remedy = f"deploy drops {', '.join(lost)} of the unit: give them in the inventory if they are to stay"
    remedy += "; if it is another cluster's, use another host; copies of the files that it replaces are kept"
    text = f"{found}, and other settings would run: {'; '.join(said)}"
    return problem(member.name, "foreign-k3s", text, expected, remedy, "warning")


def _source(ours: Installed, key: str) -> str:
    """Return what sets a setting after a deploy."""
    dropins = [one for one in (ours.settings[key].origins if key in ours.settings else ()) if one in ours.dropins]
    return dropins[-1] if dropins else "the inventory"


def _shown(one: Installed, key: str) -> str:
    """Return a setting for people; one may have a secret in it under any name."""
    if key not in one.settings:
        return "another" if key in one.variables else "unset"
    return masking.HIDDEN if key in k3s.MASKED else one.settings[key].shown


def _has_endpoint(facts: HostFacts) -> bool:
    """Return whether the K3s of this server uses a datastore endpoint, as far as its files tell."""
    state = facts.files.get(k3s.CONFIG)
    if state is not None and state.kind == "file" and state.text is None and k3s.CONFIG in facts.ledger.files:
        return True
    known = running_k3s.installation(facts, "server") is not None
    names = set() if known else {name for _, keys, _ in facts.extra_settings for name in keys}
    endpoint = str(running(facts, {}).get("datastore-endpoint") or "")
    return bool(names & set(_DATASTORE)) or (not endpoint.startswith(("sqlite:", "sqlite3:")) and bool(endpoint))
