"""The fixed registration address of a cluster that exists: what its agents use, and who leads it to the servers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from nornir_k3s.adoption import balancers
from nornir_k3s.adoption.balancers import Instance
from nornir_k3s.adoption.read import Found
from nornir_k3s.model.address import is_address
from nornir_k3s.model.k3s_facts import NodeState
from nornir_k3s.roles.running import CERTIFIED


@dataclass
class Registration:
    """The address in the inventory.

    Arguments:
        inventory: `k3s_cluster.registration`.
        lb: `k3s_cluster.lb`.
        hosts: The load balancers in the inventory, the one with the highest priority first, with their own settings.
        take_over: Those of them whose configuration others have written.
        text: For people.
        names: Its names and addresses, which this tool adds to `tls-san` itself.
    """

    inventory: dict[str, Any]
    text: str
    lb: dict[str, Any] = field(default_factory=dict)
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    take_over: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Url:
    """Host and port of an URL that agents use."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as people write it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def urls(agents: Mapping[str, Found], servers: Mapping[str, Found], nodes: Iterable[NodeState]) -> dict[str, Url]:
    """Return the URL that each agent uses, of agents that were not given as their node tells it; else the servers'."""
    found = {name: url for name, one in agents.items() if one.k3s and (url := _url(one.k3s.text("server")))}
    known = {one.node_name for one in (*agents.values(), *servers.values())}
    told = next((one.urls for one in servers.values() if one.urls), {})
    for node in nodes:
        words = list(node.args)
        given = next((words[at + 1] for at, word in enumerate(words[:-1]) if word in ("--server", "-s")), "")
        if node.name not in known and words[:1] != ["server"] and (url := _url(given or told.get(node.name, ""))):
            found[node.name] = url
    own = {name: url for name, one in servers.items() if one.k3s and (url := _url(one.k3s.text("server")))}
    return found or own


def _url(text: str) -> Url | None:
    try:
        parts = urlsplit(text if "//" in text else f"//{text}")
        return Url(parts.hostname, parts.port or 6443) if text and parts.hostname else None
    except ValueError:
        return None


def of(
    used: Mapping[str, Url],
    servers: Mapping[str, Found],
    lbs: Mapping[str, Found],
    names: Mapping[str, tuple[str, ...]],
    *,
    port: int,
) -> Registration:
    """Return the registration address.

    Arguments:
        used: The URL that each agent uses.
        servers, lbs: What is on the hosts, by name.
        names: The addresses of names, as a server resolves them.
        port: Of K3s' API.
    """
    own = {cidr.split("/")[0]: name for name, one in servers.items() for _, cidr in one.addresses}
    vips = {name: balancers.instances(balancers.own(one.texts, "keepalived")) for name, one in lbs.items()}
    url, notes = _chosen(used, servers, vips, own, port)
    addresses = [url.host] if is_address(url.host) else list(names.get(url.host, ()))
    held = [one for one in addresses if any(one in i.plain for found in vips.values() for i in found)]
    if not addresses and (first := _first_vip(vips)):
        held = [first]  # a name that the server does not resolve
    if held:
        found = _vip(url, held[0], lbs, vips, servers)
    elif not is_address(url.host) and addresses and set(addresses) <= own.keys() and url.port == port:
        found = Registration({"way": "dns", "name": url.host}, f"{url}: a DNS name of the servers")
        if url.port != 6443:
            found.inventory["port"] = url.port
    else:
        found = _external(url, own)
    found.names = [*dict.fromkeys([str(found.inventory.get("address", url.host)), url.host])]
    found.notes = [*notes, *found.notes]
    left = [name for name in lbs if name not in found.hosts and name not in servers]
    if left:
        found.notes.append(
            f"{', '.join(left)}: HAProxy or keepalived is there, and no member of the inventory: see above"
        )
    return found


def _chosen(
    used: Mapping[str, Url],
    servers: Mapping[str, Found],
    vips: Mapping[str, list[Instance]],
    own: Mapping[str, str],
    port: int,
) -> tuple[Url, list[str]]:
    """Return the address that most agents use; without agents a VIP, or a name of the certificate."""
    if used:
        count = Counter(used.values())
        url = count.most_common(1)[0][0]
        others = {name: one for name, one in used.items() if one != url}
        said = ", ".join(f"{name} uses {one}" for name, one in others.items())
        return url, [f"most agents use {url}, and {said}: a deploy gives all of them the same"] if others else []
    if first := _first_vip(vips):
        return Url(first, port), []
    sans = [one for found in servers.values() if found.k3s for one in found.k3s.values("tls-san")]
    known = {*own, *servers, *CERTIFIED, *(one.node_name for one in servers.values())}
    named = next((one for one in sans if one not in known), "")
    if named:
        return Url(named, port), [f"no agent tells the registration address: it is taken from tls-san, {named}"]
    name = next(iter(servers))
    address = next(
        (address for address, one in own.items() if one == name and address[0].isdigit() and address != "127.0.0.1"),
        name,
    )
    return Url(address, port), ["there is no fixed registration address yet: give `registration` one before you deploy"]


def _first_vip(vips: Mapping[str, list[Instance]]) -> str:
    return next((address for found in vips.values() for one in found for address in one.plain), "")


def _vip(
    url: Url, vip: str, lbs: Mapping[str, Found], vips: Mapping[str, list[Instance]], servers: Mapping[str, Found]
) -> Registration:
    """Return the registration address of load balancers that were given."""
    own = {cidr.split("/")[0] for one in servers.values() for _, cidr in one.addresses}
    held = {name: one for name, found in vips.items() for one in found if vip in one.plain}
    if foreign := _others(held, lbs, vips, own, vip):
        found = _external(url, {})
        found.notes.append(
            f"the load balancers serve others, too ({foreign}), which a deploy would take from them: they stay yours,"
            " `way: external`"
        )
        return found
    order = sorted(held, key=lambda name: -held[name].priority)
    first = held[order[0]]
    inventory: dict[str, Any] = {"address": vip}
    if url.host != vip and not is_address(url.host):
        inventory["name"] = url.host
    if url.port != 6443:
        inventory["port"] = url.port
    hosts: dict[str, dict[str, Any]] = {}
    for name in order:
        usual = {
            interface for interface, cidr in lbs[name].addresses if cidr.split("/")[0] != vip and interface != "lo"
        }
        other = held[name].interface and usual != {held[name].interface}
        hosts[name] = {"interface": held[name].interface} if other else {}
    found = Registration(inventory, f"{url}: the VIP of {', '.join(order)}", _lb(first, vip), hosts)
    found.take_over = [name for name in order if not lbs[name].ours]
    if found.take_over:
        what = "HAProxy and keepalived get this tool's configuration; a copy of each file is kept"
        found.notes.append(f"{', '.join(found.take_over)}: {what}; keepalived then speaks VRRP version 3")
    dropped = sorted({one for name in found.take_over for one in held[name].more})
    if dropped:
        found.notes.append(f"keepalived's {' and '.join(dropped)}: not taken over")
    if len({one.router for one in held.values()}) > 1:
        found.notes.append("the load balancers have different virtual_router_ids: both hold the VIP at once")
    return found


def _others(
    held: Mapping[str, Instance],
    lbs: Mapping[str, Found],
    vips: Mapping[str, list[Instance]],
    own: set[str],
    vip: str,
) -> str:
    """Return what load balancers serve besides these servers; nothing if they serve nobody else."""
    foreign = []
    for name in held:
        fronts = balancers.frontends(balancers.own(lbs[name].texts, "haproxy"))
        more = [one.name for one in fronts if not {host for host, _ in one.servers} <= own]
        more += [f"VRRP {one.name}" for one in vips[name] if vip not in one.plain]
        if more and not lbs[name].ours:
            foreign.append(f"{name}: {', '.join(more)}")
    return "; ".join(foreign)


def _lb(first: Instance, vip: str) -> dict[str, Any]:
    """Return `k3s_cluster.lb`, as far as it is not what an inventory has without it."""
    lb: dict[str, Any] = {}
    if first.router.isdigit() and first.router != "51":
        lb["virtual_router_id"] = int(first.router)
    if first.prefix:
        lb["prefix"] = first.prefix
    if more := [one for one in first.plain if one != vip]:
        lb["vips"] = more
    if first.preempt_delay.isdigit():
        lb["preempt_delay"] = int(first.preempt_delay)
    return lb


def _external(url: Url, own: Mapping[str, str]) -> Registration:
    inventory: dict[str, Any] = {"way": "external", "address" if is_address(url.host) else "name": url.host}
    if url.port != 6443:
        inventory["port"] = url.port
    if url.host in own:
        found = Registration(inventory, f"{url}: {own[url.host]} itself")
        found.notes.append(
            f"agents use {url.host}, the address of {own[url.host]}: without this host no agent joins, and kubectl has"
            " no cluster; a VIP, a load balancer or a DNS name of all servers removes that (docs/registration.md)"
        )
        return found
    return Registration(inventory, f"{url}: a load balancer or an address of others")
