"""What does not fit between the settings of a cluster and its hosts, found in the inventory alone."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from nornir_k3s import k3s
from nornir_k3s.inventory import network_sizes, rules, shared_hosts, user_files
from nornir_k3s.inventory.rules import Found
from nornir_k3s.inventory.schema import ClusterModel
from nornir_k3s.model.address import is_placeholder, not_of_a_host
from nornir_k3s.model.cluster import NODES, Member, Setting
from nornir_k3s.model.finding import CHECKS, CLUSTER
from nornir_k3s.model.settings import ManagedDatastore
from nornir_k3s.model.suggest import did_you_mean


def absolute(base: Path, path: Path) -> Path:
    """Return a path of the inventory, which is relative to this folder."""
    return (base / path.expanduser()).resolve()


def cluster_problems(
    model: ClusterModel, found: list[Member], base: Path, counts: Mapping[str, int]
) -> Iterator[Found]:
    """Yield the path below `k3s_cluster` and the words of each problem.

    Arguments:
        counts: Hosts of each role, also those that are not in `found` because of problems of their own.
    """
    version = _ip_version(found)
    yield from ((("server", *path), text) for path, text in rules.cidrs(rules.typed(model.server), version))
    nodes = counts["servers"] + counts["agents"]
    sizes = network_sizes.problems(rules.typed(model.server), version, nodes)
    yield from ((("server", *path), text) for path, text in sizes)
    yield from _settings_of_one_host(model, found)
    yield from _settings_of_other_versions(model)
    yield from _counts(model, counts)
    yield from _address_problems(model, found)
    yield from shared_hosts.problems(model, found)
    yield from _load_balancer_problems(model, found)
    for index, name in enumerate(model.take_over):
        if name not in {member.name for member in found}:
            yield ("take_over", index), f"there is no host {name!r}"
    for index, word in enumerate(model.accept):
        host, _, check = word.rpartition(":")
        if check not in CHECKS:
            yield ("accept", index), f"there is no check {word!r}" + did_you_mean(check, CHECKS)
        if host and host not in {CLUSTER, *(member.name for member in found)}:
            yield ("accept", index), f"there is no host {host!r}"
    yield from _datastore_problems(model, base)
    yield from user_files.problems(model, partial(absolute, base))
    if isinstance(model.registries, Path) and not absolute(base, model.registries).is_file():
        yield ("registries",), f"there is no file {absolute(base, model.registries)}"


def _ip_version(found: list[Member]) -> int:
    """Return the IP version of the servers' first address: K3s' default networks follow it."""
    return next((version for m in found if m.role == "servers" for version in rules.ip_versions([m.address])), 4)


def _settings_of_one_host(model: ClusterModel, found: list[Member]) -> Iterator[Found]:
    for mapping, role in (("server", "servers"), ("agent", "agents")):
        hosts = sum(member.role == role for member in found)
        for key, value in getattr(model, mapping).items():
            if rules.of_one_host(key.rstrip("+"), value) and hosts > 1:
                yield (
                    (mapping, key),
                    f"`{key}` is a setting of one host, and {hosts} would get it: set it in the host's `k3s`",
                )


def _settings_of_other_versions(model: ClusterModel) -> Iterator[Found]:
    for mapping in ("server", "agent"):
        for key in getattr(model, mapping):
            if why := k3s.unknown_to_version(key, model.version):
                yield (mapping, key), f"{model.version} has no setting `{key}`: {why}"


def _address_problems(model: ClusterModel, found: list[Member]) -> Iterator[Found]:
    vip, api = str(model.registration.address or ""), str(model.server.get("https-listen-port", k3s.API_PORT))
    for member in found:
        if model.registration.way == "vip" and vip in member.addresses:
            yield ("registration", "address"), f"{vip} is the address of host {member.name}"
    if model.registration.way == "dns" and not vip and str(model.registration.port) != api:
        text = f"the name leads to the servers themselves, which listen on port {api}: set `port: {api}`"
        yield ("registration", "port"), text
    if vip and (where := rules.inside(vip, rules.typed(model.server), _ip_version(found))):
        yield ("registration", "address"), f"{vip} lies inside {where}, which is the cluster's own"
    bits = 128 if ":" in vip else 32
    if model.lb.prefix and model.lb.prefix > bits:
        yield ("lb", "prefix"), f"{model.lb.prefix} is more than the {bits} bits of the VIP"
    elif model.registration.way == "vip" and vip and model.lb.prefix and not _routed(model):
        network = ipaddress.ip_network(f"{vip}/{model.lb.prefix}", strict=False)
        balancers = [member for member in found if "lb" in member.roles]
        if balancers and not any(ipaddress.ip_address(member.address) in network for member in balancers):
            text = f"{vip}/{model.lb.prefix} is outside every load balancer's network: if it is routed to them, say so"
            yield ("registration", "address"), f"{text} with `accept: [vip-network]`"


def _load_balancer_problems(model: ClusterModel, found: list[Member]) -> Iterator[Found]:
    balancers = [member for member in found if "lb" in member.roles]
    if not balancers or model.registration.way != "vip" or model.registration.address is None:
        return
    if model.lb.stats.port == shared_hosts.registration(model, found).port:
        yield ("lb", "stats", "port"), f"{model.lb.stats.port} is the port of the registration address"
    elif owner := shared_hosts.taken(model, found).get(model.lb.stats.port):
        yield ("lb", "stats", "port"), f"K3s has port {model.lb.stats.port} on {owner.name}: choose another"
    yield from _more_vips(model, found)
    version = model.registration.address.version
    for name, own in ((one.name, one.address) for one in balancers if not is_placeholder(one.address)):
        if ipaddress.ip_address(own).version != version:
            text = f"the VIP is IPv{version}, and {name} has the address {own}: keepalived needs the same version"
            yield ("registration", "address"), text


def _more_vips(model: ClusterModel, found: list[Member]) -> Iterator[Found]:
    taken = {address: f"the address of host {member.name}" for member in found for address in member.addresses}
    taken[str(model.registration.address)] = "`registration.address`"
    for vip in map(str, model.lb.vips):
        if vip in taken:
            yield ("lb", "vips"), f"{vip} is {taken[vip]}"
        elif where := rules.inside(vip, rules.typed(model.server), _ip_version(found)):
            yield ("lb", "vips"), f"{vip} lies inside {where}, which is the cluster's own"
        elif ipaddress.ip_address(vip).is_loopback or not_of_a_host(vip):
            yield ("lb", "vips"), not_of_a_host(vip) or f"{vip} is each host itself"
        taken[vip] = "given twice"


def _routed(model: ClusterModel) -> bool:
    """Return whether the inventory says that a VIP outside the load balancers' networks is meant."""
    return any(word.rpartition(":")[2] == "vip-network" for word in model.accept)


def _datastore_problems(model: ClusterModel, base: Path) -> Iterator[Found]:
    kind = getattr(model.datastore, "kind", "")
    if model.datastore_pool and kind == "etcd":
        yield ("datastore_pool",), "etcd has no pool of connections: remove it"
    for key in ("cafile", "certfile", "keyfile"):
        path = getattr(model.datastore, key, None)
        if path is None:
            continue
        if not (path := absolute(base, path)).is_file():
            yield ("datastore", key), f"there is no file {path}"
        elif key == "keyfile" and path.stat().st_mode & 0o007:
            yield ("datastore", key), f"everybody on this machine can read or change {path}: chmod 600"


def _counts(model: ClusterModel, count: Mapping[str, int]) -> Iterator[Found]:
    own = {str(role): name for role, name in model.groups.items()}
    store, lb = f"group {own.get('datastore', 'datastore')}", f"group {own.get('lb', 'lb')}"
    if isinstance(model.datastore, ManagedDatastore):
        kind, have = model.datastore.kind, count["datastore"]
        if kind == "etcd" and have not in (1, 3, 5):
            text = f"{store}: a managed etcd takes 1, 3 or 5 hosts, it has {have}"
            yield ("datastore",), text + (": an even number survives no more losses" if have in (2, 4) else "")
        elif kind != "etcd" and have != 1:
            why = ": this tool sets up no replication" if have else ""
            yield ("datastore",), f"{store}: a managed {kind} takes exactly one host, it has {have}{why}"
    elif count["datastore"]:
        yield ("datastore",), f"{store}: it has hosts, but the inventory names a datastore someone else runs"
    way = model.registration.way
    if way == "vip" and not count["lb"]:
        text = f"{lb}: it has no host; add some, say `way: external` for one you run yourself, or `way: dns`"
        yield ("registration",), text
    if way != "vip" and count["lb"]:
        text = f"{lb}: it has hosts, but `way: {way}` uses none: remove them from the group, or use `way: vip`"
        yield ("registration", "way"), text
    if way != "vip" and "lb" in model.model_fields_set:
        yield ("lb",), f"`way: {way}` uses no load balancer of group lb: remove it"


def host_problems(model: ClusterModel, found: list[Member]) -> Iterator[tuple[str, str]]:
    """Yield the host and the words of each problem of one host with the settings of the cluster."""
    version, server = _ip_version(found), rules.typed(model.server)
    for member in found:
        for address in member.addresses:
            if where := rules.inside(address, server, version):
                yield member.name, f"its address {address} lies inside {where}, which is the cluster's own"
        for key in member.settings:
            if why := k3s.unknown_to_version(key, model.version):
                yield member.name, f"{model.version} has no setting `{key}`: {why}"
        if member.role in NODES:
            yield from ((member.name, text) for text in _node_addresses(server, member, version))


def _node_addresses(server: Mapping[str, Setting], member: Member, version: int) -> Iterator[str]:
    """Yield why K3s would not start with the addresses of a node (k3s: pkg/agent/run.go)."""
    pods = [network.version for network in rules.networks(server, "cluster-cidr", version)]
    own = rules.ip_versions(member.addresses)
    if member.role == "servers" and own[0] != version:
        yield f"its first address is {rules.named(own[:1])}, that of the first server IPv{version}: use the same order"
    elif missing := [one for one in dict.fromkeys(pods) if one not in own]:
        example = "[10.0.0.12, fd00::12]" if len(set(pods)) > 1 else "fd00::12" if 6 in missing else "10.0.0.12"
        yield (
            f"cluster-cidr is {rules.named(dict.fromkeys(pods))}, and its addresses are only {rules.named(own)}: K3s"
            f" does not start; give all its addresses as `k3s.node-ip`, such as {example}"
        )
