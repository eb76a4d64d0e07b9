"""The cluster that a Nornir inventory describes: typed and checked, with all problems at once. No host is contacted.

Cluster-wide settings are in the inventory's defaults under `k3s_cluster`; those of one host or group are in its data
under `k3s`, by the names that K3s gives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nornir.core.inventory import Inventory
from pydantic import ValidationError

from nornir_k3s import k3s
from nornir_k3s.errors import InventoryError
from nornir_k3s.inventory import cluster_secrets, host_roles, merged, rules, shared_hosts, user_files
from nornir_k3s.inventory.cluster_rules import absolute, cluster_problems, host_problems
from nornir_k3s.inventory.explain import explain
from nornir_k3s.inventory.members import members
from nornir_k3s.inventory.problems import Problems, Sources
from nornir_k3s.inventory.schema import ClusterModel
from nornir_k3s.model.cluster import ROLES, Cluster, Member
from nornir_k3s.model.datastore_keys import Keys
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.settings import DatastoreFields, ExternalDatastore, ManagedDatastore
from nornir_k3s.model.suggest import closest
from nornir_k3s.state.datastore_keys import load as load_keys
from nornir_k3s.state.store import Store

_URLS = ("proxy.http", "proxy.https", "artifacts.url")


def load(
    inventory: Inventory,
    *,
    store: Store,
    base: Path,
    sources: Sources | None = None,
    away: Sequence[Member] = (),
    version: str = "",
    renew: float = 0,
) -> Cluster:
    """Return the cluster that an inventory describes.

    Arguments:
        inventory: Nornir's inventory, from any plugin.
        store: Keeps generated secrets and resolves references.
        base: The folder that relative paths in the inventory are relative to.
        sources: The files it was read from, if any: problems then come with file and line.
        away: Members that are not in this inventory because it was filtered.
        version: Of K3s, instead of the inventory's.
        renew: Certificates of the managed datastore that are older are made anew, in seconds since the epoch.

    Raises:
        InventoryError: With every problem found.
    """
    problems = Problems(sources)
    if circles := host_roles.circles(inventory):  # nothing about their hosts can be asked
        for name in circles:
            problems.other(f"{name}: the group contains itself through its parent groups", "groups", name, "groups")
        raise InventoryError(problems)
    model = _model(inventory, problems, version)
    groups = _groups(model, inventory)
    shared = {"servers": rules.typed(model.server), "agents": rules.typed(model.agent)} if model else {}
    if groups is None:  # which host has which role cannot be said
        raise InventoryError(problems)
    host_roles.check(inventory, groups, problems)
    note = host_roles.note(inventory, groups)
    hidden: list[tuple[str, merged.Hidden]] = []
    found = members(inventory, groups, problems, away, shared=shared, hidden=hidden)
    counts = host_roles.counts(inventory, groups, away)
    if not counts["servers"]:
        group = groups.get("servers", "servers")
        problems.other(f"group {group}: it has no host; a cluster needs at least one server", "groups", group)
    if model is None:
        raise InventoryError(problems)
    for path, text in cluster_problems(model, found, base, counts):
        problems.cluster(text, *path)
    for name, text in host_problems(model, found):
        problems.host(name, text)
    if problems and note and not all(counts[role] for role in ("datastore", "servers", "lb")):
        problems.append(note)  # it may be the reason: a group whose name is misspelt
    resolved: dict[str, Secret | None] = {}
    if not problems:  # references may run commands and generation writes files: only for an inventory that is right
        resolved = cluster_secrets.resolve(model, store, problems)
        resolver = cluster_secrets.SettingSecrets(store, problems)
        model, found = resolver.model(model), [resolver.member(member) for member in found]
    token = resolved.get("token")
    if problems or token is None:
        raise InventoryError(problems)
    made = _cluster(model, found, resolved, token, base)
    notes = tuple(filter(None, (note, shared_hosts.note(model, found))))
    return replace(made, keys=_keys(model, found, store, renew), notes=notes, hidden=merged.notes(hidden))


def _cluster(
    model: ClusterModel, found: list[Member], resolved: dict[str, Secret | None], token: Secret, base: Path
) -> Cluster:
    artifacts = model.artifacts
    if artifacts.folder:
        artifacts = artifacts.model_copy(update={"folder": absolute(base, artifacts.folder)})
    return Cluster(
        name=model.name,
        version=model.version,
        token=token,
        token_given=model.token is not None,
        agent_token=resolved["agent_token"],
        registration=shared_hosts.registration(model, found),
        datastore=_absolute_files(model.datastore, base),
        datastore_password=resolved["password"] or Secret(""),
        keys=None,
        endpoint=resolved["endpoint"] or _built(model, resolved["password"]),
        datastore_pool=model.datastore_pool,
        artifacts=artifacts,
        delivered=_delivered(model, base, resolved.get("registries")),
        proxy=model.proxy,
        server=rules.typed(model.server),
        agent=rules.typed(model.agent),
        server_taint=model.server_taint,
        lb=model.lb,
        rolling_update=model.rolling_update,
        accept=tuple(model.accept),
        take_over=tuple(model.take_over),
        known_drift=tuple(model.known_drift),
        members=tuple(found),
        files=user_files.delivered(model, partial(absolute, base), resolved),
        urls={name: url for name, url in resolved.items() if url and name in _URLS},
        file_secrets=tuple(text for file in model.files if (text := resolved.get(f"file {file.path}"))),
    )


def _delivered(model: ClusterModel, base: Path, registries: Secret | None) -> dict[str, Secret]:
    """Return the texts of the operator's files that go to hosts.

    Arguments:
        registries: The text of registries.yaml, if that is a reference.

    Raises:
        ArtifactError: One cannot be read.
    """
    wanted: dict[str, Path | None] = {"registries": None if isinstance(model.registries, dict) else model.registries}
    wanted |= {f"datastore-{key}": getattr(model.datastore, key, None) for key in ("cafile", "certfile", "keyfile")}
    found = {setting: user_files.read(absolute(base, path), setting) for setting, path in wanted.items() if path}
    return found | ({"registries": Secret(registries.reveal() + "\n")} if registries else {})


def _built(model: ClusterModel, password: Secret | None) -> Secret | None:
    if not isinstance(model.datastore, DatastoreFields):
        return None
    return model.datastore.endpoint(password or Secret(""))


def _keys(model: ClusterModel, found: list[Member], store: Store, renew: float) -> Keys | None:
    if not isinstance(model.datastore, ManagedDatastore) or not model.datastore.tls:
        return None
    hosts = {member.name: [member.address] for member in found if "datastore" in member.roles}
    return load_keys(store, cluster=model.name, hosts=hosts, since=renew)


def _absolute_files(
    datastore: ManagedDatastore | ExternalDatastore | DatastoreFields, base: Path
) -> ManagedDatastore | ExternalDatastore | DatastoreFields:
    if isinstance(datastore, ManagedDatastore):
        return datastore
    paths = {key: getattr(datastore, key) for key in ("cafile", "certfile", "keyfile")}
    return datastore.model_copy(update={key: absolute(base, path) for key, path in paths.items() if path})


def _model(inventory: Inventory, problems: Problems, version: str) -> ClusterModel | None:
    for kind, entries in (("hosts", inventory.hosts), ("groups", inventory.groups)):
        for name in (name for name, entry in entries.items() if "k3s_cluster" in entry.data):
            text = f"{name}: `k3s_cluster` is for the whole cluster: move it to the `data` of the defaults file"
            problems.other(text, kind, name, "data", "k3s_cluster")
    raw = inventory.defaults.data.get("k3s_cluster")
    if not isinstance(raw, dict):
        _no_settings(inventory.defaults.data, problems)
        return None
    raw = {**raw, "version": version} if version else raw
    for key, known in (("server", k3s.SERVER_SETTINGS), ("agent", k3s.AGENT_SETTINGS)):
        if isinstance(raw.get(key), dict):
            for path, text in rules.settings(raw[key], known):
                problems.cluster(text, key, *path)
    try:
        return ClusterModel.model_validate(raw)
    except ValidationError as error:
        for path, text in explain(error, ClusterModel):
            problems.cluster(text, *path)
        return None


def _groups(model: ClusterModel | None, inventory: Inventory) -> dict[str, str] | None:
    """Return the names of the roles' groups, also where other settings are wrong; None if they are unknown."""
    if model:
        return {str(role): name for role, name in model.groups.items()}
    raw = inventory.defaults.data.get("k3s_cluster")
    own = raw.get("groups", {}) if isinstance(raw, dict) else None
    if not isinstance(own, dict) or not all(role in ROLES and isinstance(name, str) for role, name in own.items()):
        return None
    return dict(own)


def _no_settings(data: dict[str, Any], problems: Problems) -> None:
    near = "k3s_cluster" if "k3s_cluster" in data else closest("k3s_cluster", data)
    state = "is no mapping" if near == "k3s_cluster" else f"is missing; there is `{near}`" if near else "is missing"
    text = f"defaults: `data.k3s_cluster` {state}: it holds the settings of the whole cluster"
    problems.other(text, "defaults", "data", *([near] if near else []))
