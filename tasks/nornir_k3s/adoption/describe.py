"""The inventory of a cluster that exists, from what was read of its hosts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nornir_k3s import k3s
from nornir_k3s.adoption import datastore, named, registration, settings
from nornir_k3s.adoption.read import Found, HostFile, Role, agent_token, token_of
from nornir_k3s.adoption.registration import Registration
from nornir_k3s.adoption.settings import Placed
from nornir_k3s.adoption.told import data_elsewhere, origin_of, told
from nornir_k3s.errors import UsageError
from nornir_k3s.model.adoption import Adoption
from nornir_k3s.model.k3s_facts import NodeState
from nornir_k3s.model.secret import Secret

_NOTHING = "nothing was written"


@dataclass(frozen=True)
class Login:
    """How the host was logged in to: the keys of a host in hosts.yaml.

    Arguments:
        keys: hostname, port and username, where they are not the usual ones.
        data: Other data of the host that stays as it is.
    """

    keys: Mapping[str, Any]
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Description:
    """An inventory, and what lies beside it.

    Arguments:
        hosts: hosts.yaml.
        cluster: `k3s_cluster` of defaults.yaml.
        origins: Where settings of the cluster were read, by `server` or `agent` and key.
        files: Texts for the folder of the inventory.
        secrets: Texts for the state folder.
        report: For people.
    """

    hosts: dict[str, dict[str, Any]]
    cluster: dict[str, Any]
    origins: dict[tuple[str, str], str]
    files: dict[str, str]
    secrets: dict[str, Secret]
    report: Adoption


def names(found: Mapping[str, Found]) -> dict[str, str]:
    """Return names for hosts that were given by their addresses: that of the node, else the host's.

    Raises:
        UsageError: Two hosts are the same node.
    """
    made: dict[str, str] = {}
    for given, one in found.items():
        wanted = one.node_name if one.k3s else one.hostname.partition(".")[0].lower()
        if wanted in made.values() and one.k3s:
            other = next(name for name, taken in made.items() if taken == wanted)
            raise UsageError(f"{other} and {given} are the same node, {wanted}", hint=f"give it once; {_NOTHING}")
        made[given] = wanted if wanted and wanted not in made.values() else given
    return made


def roles(found: Mapping[str, Found]) -> dict[Role, dict[str, Found]]:
    """Return the hosts by what runs there.

    Raises:
        UsageError: No K3s server is among them, or they are of several clusters.
    """
    by: dict[Role, dict[str, Found]] = {"servers": {}, "agents": {}, "lb": {}, "datastore": {}, "": {}}
    for name, one in found.items():
        by[one.role][name] = one
        if one.active & {"haproxy", "keepalived"}:
            by["lb"][name] = one  # it may run K3s, too
    if not by["servers"]:
        listed = ", ".join(f"{name}: {one.role or 'nothing'}" for name, one in found.items())
        raise UsageError(f"no K3s server runs on these hosts ({listed})", hint=f"give the servers, too; {_NOTHING}")
    for what, values in (
        ("CA", {name: one.ca for name, one in by["servers"].items() if one.ca}),
        ("token", {name: token_of(one).fingerprint() for name, one in by["servers"].items() if token_of(one)}),
    ):
        first = {value: name for name, value in reversed(values.items())}
        if len(first) > 1:
            said = f"{' and '.join(sorted(first.values()))} have different {what}s: they are of several clusters"
            raise UsageError(said, hint=f"give the servers of one cluster; {_NOTHING}")
    if not any(token_of(one) for one in by["servers"].values()):
        elsewhere = [note for one in by["servers"].items() if (note := data_elsewhere(*one))]
        text = "; ".join(elsewhere) or f"{', '.join(by['servers'])}: there is no token of a cluster"
        raise UsageError(text, hint=_NOTHING if elsewhere else f"start K3s once; {_NOTHING}")
    return by


def nodes(servers: Mapping[str, Found]) -> tuple[NodeState, ...]:
    """Return the nodes of the cluster, as a server lists them."""
    return next((one.nodes for one in servers.values() if one.nodes is not None), ())


def describe(
    found: Mapping[str, Found],
    texts: Mapping[str, Mapping[str, HostFile]],
    resolved: Mapping[str, tuple[str, ...]],
    logins: Mapping[str, Login],
    *,
    name: str,
    state: str,
    more: Mapping[str, Any],
) -> Description:
    """Return the inventory of a cluster.

    Arguments:
        found, texts, logins: What was read of each host, its files, and how it was logged in to.
        resolved: The addresses of names, as a server resolves them.
        name: Of the cluster.
        state: Its state folder, as the inventory names it.
        more: Of `k3s_cluster`, which hosts do not tell.

    Raises:
        UsageError: It is no cluster that an inventory can describe.
    """
    by = roles(found)
    listed = {node.name: node for node in nodes(by["servers"])}
    others = {name: one for name, one in found.items() if name not in by["servers"]}
    store = datastore.of(by["servers"], others, resolved)
    placed = {role: settings.of_role(role, by[role], listed, state) for role in ("servers", "agents") if by[role]}
    own = placed["servers"].shared
    port = int(own.get("https-listen-port", k3s.API_PORT))
    used = registration.urls(by["agents"], by["servers"], listed.values())
    address = registration.of(used, by["servers"], by["lb"], resolved, port=port)
    kept = named.keep({**by["servers"], **by["agents"]}, texts, store.files, state)
    version = _version(by["servers"], listed)
    made = {"name": name, "version": version, "registration": address.inventory}
    made["datastore"] = datastore.inventory(store, state, kept.secrets)
    secrets = {"token": next(filter(None, map(token_of, by["servers"].values()))), **kept.secrets}
    secrets |= {name: one for own_ in placed.values() for name, one in own_.secrets.items()}
    if store.endpoint:
        secrets["endpoint"] = store.endpoint
    if own_token := next(filter(None, map(agent_token, by["servers"].values())), None):
        made["agent_token"], secrets["agent-token"] = {"file": f"{state}/agent-token"}, own_token
    made |= {**more, **kept.settings}
    taints = _taints(placed["servers"])
    _without_registration(placed["servers"], address)
    for role, key in (("servers", "server"), ("agents", "agent")):
        if role in placed and placed[role].shared:
            made[key] = placed[role].shared
    made |= taints
    made |= {key: value for key, value in (("lb", address.lb), ("take_over", address.take_over)) if value}
    hosts = _hosts(by, listed, placed, address, logins)
    if store.embedded:
        hosts |= _new_datastore(by, logins, hosts)
    report = told(name, version, found, by, listed, store, address, placed, notes=kept.notes)
    for host, one in report.hosts.items():
        one.address, one.taken = str(logins[host].keys.get("hostname", host)), host in hosts
    return Description(hosts, made, _origins(placed), kept.files, secrets, report)


def _version(servers: Mapping[str, Found], listed: Mapping[str, NodeState]) -> str:
    count = Counter(
        listed[one.node_name].version if one.node_name in listed else one.version for one in servers.values()
    )
    version = count.most_common(1)[0][0]
    if not k3s.is_version(version):
        said = version or "no version"
        raise UsageError(f"{', '.join(servers)}: K3s says {said}, which is none of K3s'", hint=_NOTHING)
    return version


def _taints(placed: Placed) -> dict[str, Any]:
    """Take the taint that this tool gives servers out of their settings; return `server_taint`."""
    everywhere = k3s.SERVER_TAINT in placed.shared.get("node-taint", []) or (
        bool(placed.own) and all(k3s.SERVER_TAINT in own.get("node-taint", []) for own in placed.own.values())
    )
    if not everywhere:
        return {"server_taint": False}
    for settings_ in (placed.shared, *placed.own.values()):
        if taints := [one for one in settings_.pop("node-taint", []) if one != k3s.SERVER_TAINT]:
            settings_["node-taint"] = taints
    return {}


def _without_registration(placed: Placed, address: Registration) -> None:
    """Take the names of the registration address out of `tls-san`: this tool adds them itself."""
    if left := [one for one in placed.shared.pop("tls-san", []) if one not in address.names]:
        placed.shared["tls-san"] = left


def _hosts(
    by: Mapping[Role, Mapping[str, Found]],
    listed: Mapping[str, NodeState],
    placed: Mapping[str, Placed],
    address: Registration,
    logins: Mapping[str, Login],
) -> dict[str, dict[str, Any]]:
    hosts: dict[str, dict[str, Any]] = {}
    sides: tuple[Role, ...] = ("servers", "agents")
    for role in sides:
        for name, one in by[role].items():
            own = dict(placed[role].own[name])
            given = list(one.k3s.values("node-ip")) if one.k3s else []
            node = listed.get(one.node_name)
            mine = given or ([node.address] if node and node.address else [])
            if mine and (len(mine) > 1 or mine[0] != str(logins[name].keys.get("hostname", name))):
                own = {"node-ip": mine if len(mine) > 1 else mine[0], **own}
            if one.node_name != name.lower():
                own = {"node-name": one.node_name, **own}
            hosts[name] = _host(logins[name], role, own)
    for name, own in address.hosts.items():
        if name in hosts:
            hosts[name]["groups"].append("lb")
            _add_settings(hosts[name], own)
        else:
            hosts[name] = _host(logins[name], "lb", own)
    return hosts


def _host(login: Login, group: str, own: Mapping[str, Any]) -> dict[str, Any]:
    data = {**login.data, **({"k3s": own} if own else {})}
    return {**login.keys, "groups": [group], **({"data": data} if data else {})}


def _add_settings(host: dict[str, Any], own: Mapping[str, Any]) -> None:
    if own:
        data = host.setdefault("data", {})
        data["k3s"] = {**data.get("k3s", {}), **own}


def _new_datastore(
    by: Mapping[Role, Mapping[str, Found]], logins: Mapping[str, Login], hosts: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return the host of the new datastore: one that was given and is for nothing else, or a placeholder."""
    free = [*by["datastore"], *by[""]]
    if free:
        return {free[0]: _host(logins[free[0]], "datastore", {})}
    name = next(one for one in ("db1", "database1", "new-datastore") if one not in hosts)
    return {name: datastore.placeholder()}


def _origins(placed: Mapping[str, Placed]) -> dict[tuple[str, str], str]:
    keys = {"servers": "server", "agents": "agent"}
    return {(keys[role], key): origin_of(one, key) for role, one in placed.items() for key in one.shared}
