"""Cluster: what must be true, typed, from a Nornir inventory. No host is contacted here.

Cluster-wide settings stand once, in the inventory's defaults under `k3s_cluster`; those of one host (or group) stand in
its data under `k3s`, by the names K3s gives them. All problems are reported at once.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from nornir.core.inventory import Inventory
from pydantic import ValidationError

from nornir_k3s import k3s
from nornir_k3s.errors import ArtifactError, InventoryError, K3sError
from nornir_k3s.inventory import rules
from nornir_k3s.inventory.members import (
    listed,
    members,
)
from nornir_k3s.inventory.schema import (
    ClusterModel,
    explain,
)
from nornir_k3s.inventory.yaml_files import Key, Problems, Sources
from nornir_k3s.model.cluster import (
    ROLES,
    Cluster,
    Member,
)
from nornir_k3s.model.datastore_keys import (
    Keys,
)
from nornir_k3s.model.endpoint import parse as parse_endpoint
from nornir_k3s.model.finding import CHECKS
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.settings import (
    DatastoreFields,
    ExternalDatastore,
    ManagedDatastore,
)
from nornir_k3s.state.datastore_keys import load as load_keys
from nornir_k3s.state.store import Store


def load(
    inventory: Inventory,
    *,
    store: Store,
    base: Path,
    sources: Sources | None = None,
    away: Sequence[Member] = (),
) -> Cluster:
    """Return the cluster an inventory describes.

    Arguments:
        inventory: Nornir's inventory, from any plugin.
        store: Where generated secrets are kept and references are resolved.
        base: The folder that relative paths in the inventory are relative to.
        sources: The files it was read from, where there are some: problems then come with file and line.
        away: Members that this inventory does not show, because it was filtered.

    Raises:
        InventoryError: With every problem found.
    """
    problems = Problems(sources)
    model = _model(inventory, problems)
    found = members(inventory, {str(k): v for k, v in model.groups.items()} if model else {}, problems, away)
    if not any(member.role == "servers" for member in found):
        problems.other("group servers: it has no host; a cluster needs at least one server", "groups", "servers")
    if model is None:
        raise InventoryError(problems)
    for where, text in _cluster_problems(model, found, base):
        problems.cluster(text, *where)
    for name, text, path in _host_problems(model, found):
        problems.host(name, text, *path)
    resolved: dict[str, Secret | None] = {}
    if not problems:  # references may run commands and generation writes files: only for an inventory that is right
        resolved = _secrets(model, store, problems)
    token = resolved.get("token")
    if problems or token is None:
        raise InventoryError(problems)
    return replace(_cluster(model, found, resolved, token, base), keys=_keys(model, found, store))


def _cluster(
    model: ClusterModel, found: list[Member], resolved: dict[str, Secret | None], token: Secret, base: Path
) -> Cluster:
    artifacts = model.artifacts
    if artifacts.folder:
        artifacts = artifacts.model_copy(update={"folder": _absolute(base, artifacts.folder)})
    return Cluster(
        name=model.name,
        version=model.version,
        token=token,
        agent_token=resolved["agent_token"],
        registration=model.registration,
        datastore=_absolute_files(model.datastore, base),
        datastore_password=resolved["password"] or Secret(""),
        keys=None,
        endpoint=resolved["endpoint"] or _built(model, resolved["password"]),
        datastore_pool=model.datastore_pool,
        artifacts=artifacts,
        delivered=_delivered(model, base),
        proxy=model.proxy,
        server=listed(model.server),
        agent=listed(model.agent),
        server_taint=model.server_taint,
        lb=model.lb,
        accept=tuple(model.accept),
        known_drift=tuple(model.known_drift),
        members=tuple(found),
    )


def _delivered(model: ClusterModel, base: Path) -> dict[str, Secret]:
    """Return the texts of the operator's files that go to hosts.

    Raises:
        ArtifactError: One cannot be read.
    """
    wanted = {"registries": model.registries}
    wanted |= {f"datastore-{key}": getattr(model.datastore, key, None) for key in ("cafile", "certfile", "keyfile")}
    return {setting: _text(_absolute(base, path), setting) for setting, path in wanted.items() if path}


def _text(path: Path, setting: str) -> Secret:
    try:
        return Secret(path.read_text())
    except OSError as error:
        raise ArtifactError(f"{setting}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ArtifactError(f"{setting}: {path} is not text") from None


def _built(model: ClusterModel, password: Secret | None) -> Secret | None:
    if not isinstance(model.datastore, DatastoreFields):
        return None
    return model.datastore.endpoint(password or Secret(""))


def _keys(model: ClusterModel, found: list[Member], store: Store) -> Keys | None:
    if not isinstance(model.datastore, ManagedDatastore) or not model.datastore.tls:
        return None
    hosts = {member.name: [member.address] for member in found if member.role == "datastore"}
    return load_keys(store, cluster=model.name, hosts=hosts)


def _absolute(base: Path, path: Path) -> Path:
    return (base / path.expanduser()).resolve()


def _absolute_files(
    datastore: ManagedDatastore | ExternalDatastore | DatastoreFields, base: Path
) -> ManagedDatastore | ExternalDatastore | DatastoreFields:
    if isinstance(datastore, ManagedDatastore):
        return datastore
    paths = {key: getattr(datastore, key) for key in ("cafile", "certfile", "keyfile")}
    return datastore.model_copy(update={key: _absolute(base, path) for key, path in paths.items() if path})


def _model(inventory: Inventory, problems: Problems) -> ClusterModel | None:
    data = inventory.defaults.data
    raw = data.get("k3s_cluster")
    if not isinstance(raw, dict):
        near = difflib.get_close_matches("k3s_cluster", [str(key) for key in data], n=1)
        state = (
            "is no mapping" if "k3s_cluster" in data else f"is missing; there is `{near[0]}`" if near else "is missing"
        )
        text = f"defaults: `data.k3s_cluster` {state}: it holds the settings of the whole cluster"
        problems.other(text, "defaults", "data", *near)
        return None
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


def _cluster_problems(model: ClusterModel, found: list[Member], base: Path) -> Iterator[tuple[tuple[Key, ...], str]]:
    yield from ((("server", *path), text) for path, text in rules.cidrs(model.server))
    yield from _counts(model, found)
    vip = str(model.registration.address or "")
    for member in found:
        if model.registration.managed and member.address == vip:
            yield ("registration", "address"), f"{vip} is the address of host {member.name}"
    if vip and (where := rules.inside(vip, model.server)):
        yield ("registration", "address"), f"{vip} lies inside {where}, which is the cluster's own"
    bits = 128 if ":" in vip else 32
    if model.lb.prefix and model.lb.prefix > bits:
        yield ("lb", "prefix"), f"{model.lb.prefix} is more than the {bits} bits of the VIP"
    elif model.registration.managed and vip and model.lb.prefix:
        network = ipaddress.ip_network(f"{vip}/{model.lb.prefix}", strict=False)
        balancers = [member for member in found if member.role == "lb"]
        if balancers and not any(ipaddress.ip_address(member.address) in network for member in balancers):
            yield ("registration", "address"), f"{vip}/{model.lb.prefix} is outside every load balancer's network"
    for index, word in enumerate(model.accept):
        if word.rpartition(":")[2] not in CHECKS:
            near = difflib.get_close_matches(word.rpartition(":")[2], CHECKS, n=1)
            text = f"there is no check {word!r}" + (f"; did you mean `{near[0]}`?" if near else "")
            yield ("accept", index), text
        if (host := word.rpartition(":")[0]) and host not in {member.name for member in found}:
            yield ("accept", index), f"there is no host {host!r}"
    yield from _datastore_problems(model, base)
    if model.registries and not _absolute(base, model.registries).is_file():
        yield ("registries",), f"there is no file {_absolute(base, model.registries)}"


def _datastore_problems(model: ClusterModel, base: Path) -> Iterator[tuple[tuple[Key, ...], str]]:
    kind = getattr(model.datastore, "kind", "")
    if model.datastore_pool and kind == "etcd":
        yield ("datastore_pool",), "etcd has no pool of connections: remove it"
    for key in ("cafile", "certfile", "keyfile"):
        path = getattr(model.datastore, key, None)
        if path is None:
            continue
        if not (path := _absolute(base, path)).is_file():
            yield ("datastore", key), f"there is no file {path}"
        elif key == "keyfile" and path.stat().st_mode & 0o007:
            yield ("datastore", key), f"everybody on this machine can read or change {path}: chmod 600"


def _counts(model: ClusterModel, found: list[Member]) -> Iterator[tuple[tuple[Key, ...], str]]:
    count = {role: sum(m.role == role for m in found) for role in ROLES}
    if isinstance(model.datastore, ManagedDatastore):
        kind, have = model.datastore.kind, count["datastore"]
        if kind == "etcd" and have not in (1, 3, 5):
            text = f"group datastore: a managed etcd takes 1, 3 or 5 hosts, it has {have}"
            yield ("datastore",), text + (": an even number survives no more losses" if have in (2, 4) else "")
        elif kind != "etcd" and have != 1:
            why = ": this tool sets up no replication" if have else ""
            yield ("datastore",), f"group datastore: a managed {kind} takes exactly one host, it has {have}{why}"
    elif count["datastore"]:
        yield ("datastore",), "group datastore: it has hosts, but the inventory names a datastore someone else runs"
    if model.registration.managed and not count["lb"]:
        text = "group lb: it has no host; add some, or say `registration: {managed: false}` for one you run yourself"
        yield ("registration",), text
    if not model.registration.managed and count["lb"]:
        yield ("registration", "managed"), "group lb: it has hosts, but `managed` is false"


def _host_problems(model: ClusterModel, found: list[Member]) -> Iterator[tuple[str, str, tuple[Key, ...]]]:
    for member in found:
        if where := rules.inside(member.address, model.server):
            yield member.name, f"its address {member.address} lies inside {where}, which is the cluster's own", ()


def _secrets(model: ClusterModel, store: Store, problems: Problems) -> dict[str, Secret | None]:
    external = model.datastore if isinstance(model.datastore, ExternalDatastore) else None
    wanted: dict[str, Callable[[], Secret | None]] = {
        "token": lambda: store.secret("token", model.token, make=k3s.new_token),
        "agent_token": lambda: store.secret("agent-token", model.agent_token) if model.agent_token else None,
        "password": lambda: _password(model, store),
        "endpoint": lambda: store.secret("endpoint", external.endpoint) if external else None,
    }
    places = {"password": ("datastore", "password"), "endpoint": ("datastore", "endpoint")}
    found: dict[str, Secret | None] = {}
    for key, get in wanted.items():
        where = places.get(key, (key,))
        try:
            found[key] = get() or None
        except K3sError as error:
            problems.cluster(error.message, *where)
            continue
        secret = found[key]
        if secret and (problem := _refused(key, secret)):
            problems.cluster(problem, *where)
    return found


def _refused(key: str, secret: Secret) -> str | None:
    if key == "endpoint":
        try:
            parse_endpoint(secret)
        except ValueError as error:
            return str(error)
    if key == "password" and not secret.reveal().isprintable():
        return "the password has control characters or line breaks in it"
    return k3s.token_problem(secret) if key in ("token", "agent_token") else None


def _password(model: ClusterModel, store: Store) -> Secret | None:
    if isinstance(model.datastore, ExternalDatastore):
        return None  # it is part of the endpoint
    if model.datastore.kind == "etcd":
        return None  # it knows certificates only
    if isinstance(model.datastore, DatastoreFields):
        return store.secret("datastore-password", model.datastore.password)
    return store.secret("datastore-password", model.datastore.password, make=k3s.new_token)
