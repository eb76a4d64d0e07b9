"""What `adopt` tells people of a cluster that exists: its hosts, settings, what is missing, what comes next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nornir_k3s import k3s
from nornir_k3s.adoption.datastore import EMBEDDED, Datastore
from nornir_k3s.adoption.read import Found, Role, agent_token, token_of
from nornir_k3s.adoption.registration import Registration
from nornir_k3s.adoption.settings import Placed
from nornir_k3s.model import masking
from nornir_k3s.model.adoption import AdoptedHost, AdoptedSetting, Adoption, MissingNode
from nornir_k3s.model.k3s_facts import NodeState


def told(  # noqa: PLR0917 - the parts of a description
    name: str,
    version: str,
    found: Mapping[str, Found],
    by: Mapping[Role, Mapping[str, Found]],
    listed: Mapping[str, NodeState],
    store: Datastore,
    address: Registration,
    placed: Mapping[str, Placed],
    *,
    notes: list[str],
) -> Adoption:
    """Return what people are told of a cluster and its inventory.

    Arguments:
        notes: About files.
    """
    known = {one.node_name for one in (*by["servers"].values(), *by["agents"].values())}
    missing = [
        MissingNode(name=one.name, address=one.address, role=_role_of(one), version=one.version)
        for one in listed.values()
        if one.name not in known
    ]
    said = [
        *_embedded(store),
        *address.notes,
        *store.notes,
        *notes,
        *(note for one in placed.values() for note in one.notes),
    ]
    said += _about_hosts(by, listed, version)
    if [one.name for one in missing if one.role == "servers"]:
        said.append("servers are missing: give them before you deploy, or their K3s keeps settings of its own")
    return Adoption(
        cluster=name,
        version=version,
        hosts={
            host: AdoptedHost(
                address=host,
                roles=[role for role, own in by.items() if role and host in own],
                version=listed[one.node_name].version if one.k3s and one.node_name in listed else one.version,
            )
            for host, one in found.items()
        },
        datastore=store.text,
        registration=address.text,
        settings=_settings(placed),
        differences=[one for own in placed.values() for one in own.differences],
        missing=missing,
        notes=list(dict.fromkeys(said)),
        next=_next(store),
    )


def _role_of(node: NodeState) -> str:
    return "servers" if {"control-plane", "master"} & set(node.roles) else "agents"


def _about_hosts(by: Mapping[Role, Mapping[str, Found]], listed: Mapping[str, NodeState], version: str) -> list[str]:
    notes = []
    tokens = {name: agent_token(one) for name, one in by["servers"].items() if token_of(one)}
    if len({token.fingerprint() if token else "" for token in tokens.values()}) > 1:
        have = ", ".join(name for name, token in tokens.items() if token)
        notes.append(
            f"the servers have different agent tokens ({have} one of their own): agents join by some servers only; the"
            " inventory has the first one"
        )
    for one in {**by["servers"], **by["agents"]}.items():
        notes += _about(*one, listed, version)
    for name in by[""]:
        notes.append(f"{name}: neither K3s nor a load balancer nor a database runs there")
    if len(by["servers"]) == 1 and not by["agents"]:
        notes.append("one server alone: when it is down, there is no API")
    return notes


def _about(name: str, found: Found, listed: Mapping[str, NodeState], version: str) -> list[str]:
    own = found.k3s
    notes: list[str] = []
    if own is None:
        return []
    usual = k3s.UNITS[own.role]
    if own.unit != usual:
        notes.append(
            f"{name}: K3s is started by {own.unit}; this tool's unit is {usual}, and both at once do not work: disable"
            f" the other one when the plan asks for it"
        )
    if elsewhere := data_elsewhere(name, found):
        notes.append(elsewhere)
    if not own.active:
        notes.append(f"{name}: {own.unit} does not run: its settings are those of its next start")
    for other in found.installed:
        if other is not own:
            notes.append(f"{name}: {other.unit} is there, too, and {'runs' if other.active else 'does not run'}")
    node = listed.get(found.node_name)
    if listed and node is None and own.active:
        notes.append(
            f"{name}: {own.unit} runs, and {found.node_name} is no node of this cluster: remove the host from the"
            " inventory if it belongs to another one"
        )
    running = node.version if node else found.version
    if running and running != version:
        notes.append(f"{name}: it runs {running}, and the inventory has {version}: a deploy changes it")
    return notes


def data_elsewhere(name: str, found: Found) -> str:
    """Return that K3s has its data in another folder than this tool expects; nothing where it has not."""
    folder = (found.k3s.text("data-dir") if found.k3s else "").rstrip("/")
    if not found.k3s or folder in ("", k3s.DATA):
        return ""
    return (
        f"{name}: K3s has its data in {folder}, and this tool expects them in {k3s.DATA}: a deploy is refused, since it"
        f" would start another cluster. To take it over, on one host after the other: systemctl stop {found.k3s.unit};"
        f" mv {folder} {k3s.DATA}; remove data-dir from its settings ({found.k3s.settings['data-dir'].origin});"
        " start it"
    )


def _embedded(store: Datastore) -> list[str]:
    if not store.embedded:
        return []
    does = (
        "then `nornir-k3s move` sets the database of the inventory up there, stops K3s, copies all objects, compares,"
        " and starts K3s with it (docs/day2.md)"
    )
    if store.embedded == "etcd":
        does = "then `nornir-k3s move --plan` says whether its objects can be moved, and how (docs/day2.md)"
    return [
        f"the data are in {EMBEDDED[store.embedded]}, and this tool runs clusters on an external datastore: until then"
        " a deploy is refused, and K3s runs on",
        f"fill in the host of group datastore in hosts.yaml, unless you gave one; {does}",
    ]


def _next(store: Datastore) -> str:
    return "nornir-k3s move" if store.embedded else "nornir-k3s plan"


def _settings(placed: Mapping[str, Placed]) -> list[AdoptedSetting]:
    found = []
    for role, one in placed.items():
        place = "k3s_cluster.server" if role == "servers" else "k3s_cluster.agent"
        for key, value in one.shared.items():
            found.append(AdoptedSetting(key=key, value=_shown(value), place=place, origin=origin_of(one, key)))
        for host, own in one.own.items():
            for key, value in own.items():
                origin = one.origins.get(key, {}).get(host, "")
                found.append(AdoptedSetting(key=key, value=_shown(value), place=host, origin=origin))
    return found


def origin_of(placed: Placed, key: str) -> str:
    """Return what sets a setting on the hosts."""
    return ", ".join(dict.fromkeys(placed.origins.get(key, {}).values()))


def _shown(value: Any) -> str:  # noqa: ANN401 - a setting
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, Mapping):
        return masking.HIDDEN  # a reference to a secret
    return str(value).lower() if isinstance(value, bool) else str(value)
