"""Wrong and contradictory K3s settings, found in the inventory instead of when K3s starts.

Sources: docs.k3s.io `cli/server.md`, `cli/agent.md`, `installation/configuration.md`; kubelet's label and taint syntax.
Each rule yields the path of the setting and the problem in words.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import Any

from nornir_k3s import k3s
from nornir_k3s.inventory import named_items, setting_secrets, value_rules
from nornir_k3s.inventory.yaml_reader import Key
from nornir_k3s.model.cluster import Setting
from nornir_k3s.model.suggest import did_you_mean

Found = tuple[tuple[Key, ...], str]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# K3s' defaults, by the IP version of the first node address (k3s: pkg/util/net.go, GetDefaultAddresses).
CIDRS = {
    "cluster-cidr": {4: "10.42.0.0/16", 6: "fd00:42::/56"},
    "service-cidr": {4: "10.43.0.0/16", 6: "fd00:43::/112"},
}
# Components whose logging is configured once for the process (kubernetes: component-base/logs/api/v1, ReapplyHandling).
_LOGGING = frozenset(
    f"{name}-arg"
    for name in (
        "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-cloud-controller-manager", "kubelet",
    )
)  # fmt: skip
_SCALARS = (str, int, float, date)
_EXCLUDE = (("docker", "container-runtime-endpoint"), ("docker", "snapshotter"))


def listed(value: Any) -> list[str]:  # noqa: ANN401 - a setting as it stands in the file
    """Return the items of a setting that K3s splits at commas (`k3s.SPLIT`), given as text or as a list."""
    items = value if isinstance(value, list) else [value]
    return [part.strip() for item in items for part in str(item).split(",") if part.strip()]


def typed(settings: Mapping[str, Any], shared: Mapping[str, Any] | None = None) -> dict[str, Setting]:
    """Return the settings in one form each, however they were written.

    What K3s takes as a list is a list of single items, what it takes as a boolean is one, and `key+` is part of `key`.

    Arguments:
        shared: The cluster-wide settings that `key+` of a host adds to.
    """
    found: dict[str, Setting] = {}
    for name, value in settings.items():
        key = name.rstrip("+")
        one = _typed(key, value)
        before = found[key] if key in found else _typed(key, (shared or {}).get(key, []))
        found[key] = (
            _added(key, before, one) if isinstance(before, list) and isinstance(one, list) and key != name else one
        )
    return found


def _added(key: str, before: list[Any], more: list[Any]) -> list[Any]:
    """Return a list with more items; of labels and taints with the same name the later one counts, as in K3s."""
    names = {named_items.name_of(key, item) for item in more} if key in named_items.OF_NODES else set()
    return [
        *(item for item in before if named_items.name_of(key, item) not in names),
        *more,
    ]


def _typed(key: str, value: Any) -> Setting:  # noqa: ANN401 - a setting as it stands in the file
    if key in k3s.SPLIT:
        return listed(value)
    if key in k3s.BOOLEANS:
        parsed = k3s.boolean(value)
        return value if parsed is None else parsed
    return [value] if key in k3s.LISTS and not isinstance(value, list) else value


def settings(given: Mapping[str, Any], known: frozenset[str]) -> Iterator[Found]:
    """Yield what is wrong with a mapping of K3s settings, each alone and against the others."""
    for key, value in given.items():
        name = str(key)
        if unknown := k3s.unknown_settings([name], known):
            yield from (((name,), text) for text in unknown)
            continue  # what its value may be is not known
        if name.endswith("+") and name.rstrip("+") in known - k3s.LISTS:
            yield (name,), f"`{name}` adds to a list, and `{name.rstrip('+')}` takes one value"
        yield from (((name,), text) for text in _value(name.rstrip("+"), value))
    for one, other in _EXCLUDE:
        if all(given.get(key) and k3s.boolean(given[key]) is not False for key in (one, other)):
            yield (other,), f"`{one}` and `{other}` exclude each other: remove one"


def of_one_host(key: str, value: Any) -> bool:  # noqa: ANN401 - a setting as it stands in the file
    """Return whether two nodes cannot have the same value of this setting."""
    return key in k3s.ONE_HOST or (key == "bind-address" and str(value) not in value_rules.ANY)


def _value(key: str, value: Any) -> Iterator[str]:  # noqa: ANN401, PLR0912 - one case a kind of setting
    if secret := list(setting_secrets.problems(key, value)):
        yield from secret
        return
    if setting_secrets.may_be_reference(key):
        given = [item for item in value if not isinstance(item, Mapping)] if isinstance(value, list) else value
        if isinstance(value, Mapping) or (value and given == []):
            return  # references alone
        value = given
    if value is None or value in ("", []) or (key in k3s.SPLIT and not listed(value)):
        yield f"`{key}` is empty: give a value, or leave it out"
    elif not all(isinstance(item, _SCALARS) for item in (value if isinstance(value, list) else [value])):
        yield f"`{key}` takes text, a number, true or false, or a list of texts"
    elif key in k3s.BOOLEANS:
        if k3s.boolean(value) is None:
            yield f"`{key}` is true or false, not {value!r}"
    elif isinstance(value, list) and key not in k3s.LISTS:
        yield f"`{key}` takes one value, not a list"
    elif other := [item for item in (value if isinstance(value, list) else [value]) if not _is_text(item)]:
        yield f"`{key}` takes text, and YAML reads {other[0]} as a {type(other[0]).__name__}: put it in quotes"
    elif key == "write-kubeconfig-mode" and not _is_mode(value):
        yield f'{value!r} is not a mode: put it in quotes, as "0640"'
    elif key in k3s.CHOICES and value not in k3s.CHOICES[key]:
        yield f"{value!r} is not one of {', '.join(k3s.CHOICES[key])}" + did_you_mean(str(value), k3s.CHOICES[key])
    elif key == "disable":
        for item in listed(value):
            if item not in k3s.PACKAGED:
                yield f"K3s has no packaged component {item!r}" + did_you_mean(item, k3s.PACKAGED)
    elif key == "service-node-port-range":
        if ports(value) is None:
            yield f"{value!r} is not a range of ports, as 30000-32767"
    elif key in named_items.OF_NODES:
        yield from named_items.problems(key, [str(item) for item in (value if isinstance(value, list) else [value])])
    elif key.endswith("-arg"):
        for argument in value if isinstance(value, list) else [value]:
            yield from _argument(key, str(argument))
    elif key in ("node-ip", "node-external-ip", "advertise-address", "bind-address", "cluster-dns"):
        items = listed(value) if key in k3s.SPLIT else [str(value)]
        yield from _each(items, ipaddress.ip_address, "an IP address")
        yield from (text for item in items for text in value_rules.problems(key, item))
    elif key in CIDRS:
        yield from _each(listed(value), _network, "a network, as 10.42.0.0/16")
    elif key in ("https-listen-port", "advertise-port", "lb-server-port") and not _is_port(value):
        yield f"{value!r} is not a port"
    else:
        items = listed(value) if key in k3s.SPLIT else value if isinstance(value, list) else [value]
        yield from (text for item in items for text in value_rules.problems(key, str(item)))


def _argument(key: str, argument: str) -> Iterator[str]:
    # NAME+= adds to K3s' own value, and NAME-= puts it before that (k3s: pkg/util/args.go).
    match = re.match(r"^(--)?([a-zA-Z][-\w.]*?)[-+]?(=|$)", argument)
    if not match:
        yield f"{argument!r} is not NAME=VALUE"
    elif key in _LOGGING and re.match(r"(v|vmodule|log-.*|logging-format)$", match[2]):
        yield (
            f"{argument!r} ends K3s when it starts: its components are one process with one configuration of logging;"
            " set `v` or `vmodule` of K3s itself"
        )


def ports(value: object) -> tuple[int, int] | None:
    """Return the first and last port of a range in any form that K3s takes: 1-9, 1+8 or 1; None for others.

    Source: kubernetes `apimachinery/pkg/util/net/port_range.go`.
    """
    match = re.fullmatch(r"\s*([0-9]{1,5})\s*(?:([-+])\s*([0-9]{1,5}))?\s*", str(value))
    if not match:
        return None
    first = int(match[1])
    last = {"-": int(match[3] or 0), "+": first + int(match[3] or 0), None: first}[match[2]]
    return (first, last) if 0 < first <= last < 65536 else None


def _is_text(value: object) -> bool:
    """Tell whether K3s gets what was written: `1.10` would become 1.1."""
    return isinstance(value, str | int) and not isinstance(value, bool)


def _is_mode(value: object) -> bool:
    """Tell whether a mode is meant as it is read: 0o644 without quotes is the number 420, which K3s reads as octal."""
    return re.fullmatch("0?[0-7]{3}" if isinstance(value, str) else "[04-7]{3}", str(value)) is not None


def _is_port(value: object) -> bool:
    # Go reads a leading zero as octal.
    return re.fullmatch("[1-9][0-9]{0,4}", str(value)) is not None and int(str(value)) < 65536


def _each(items: Iterable[str], parse: Any, what: str) -> Iterator[str]:  # noqa: ANN401 - of ipaddress
    for item in items:
        try:
            parse(item)
        except ValueError:
            yield f"{item!r} is not {what}"


def _network(text: str) -> Network:
    if "/" not in text:
        raise ValueError(text)
    return ipaddress.ip_network(text, strict=False)  # K3s takes an address in it for the network, too


def ip_versions(addresses: Iterable[str]) -> list[int]:
    """Return the IP versions of these addresses, each once, in this order; what is no address is left out."""
    found: dict[int, None] = {}
    for text in addresses:
        try:
            found[ipaddress.ip_address(text).version] = None
        except ValueError:
            continue
    return list(found)


def named(versions: Iterable[int]) -> str:
    """Return IP versions in words."""
    return " and ".join(f"IPv{version}" for version in versions)


def networks(server: Mapping[str, Any], key: str, version: int = 4) -> list[Network]:
    """Return the networks of a CIDR setting or its default; invalid ones are left out.

    Arguments:
        version: The IP version of the servers' first address.
    """
    found: list[Network] = []
    for item in listed(server.get(key, CIDRS[key][version])):
        try:
            found.append(_network(item))
        except ValueError:
            continue  # the check of the setting itself reports it
    return found


def cidrs(server: Mapping[str, Any], version: int = 4) -> Iterator[Found]:
    """Yield the contradictions between the networks of pods and services and the cluster's DNS address.

    Arguments:
        version: The IP version of the servers' first address.
    """
    pods, services = networks(server, "cluster-cidr", version), networks(server, "service-cidr", version)
    for pod in pods:
        for service in services:
            if pod.version == service.version and pod.overlaps(service):
                where = "cluster-cidr" if "cluster-cidr" in server else "service-cidr"
                yield (where,), f"cluster-cidr {pod} overlaps service-cidr {service}"
    if pods and services and [n.version for n in pods] != [n.version for n in services]:
        where = "service-cidr" if "service-cidr" in server else "cluster-cidr"
        text = "cluster-cidr and service-cidr must have the same IP versions in the same order"
        yield (where,), f"{text}: they are {', '.join(map(str, pods))} and {', '.join(map(str, services))}"
    for key, found in (("cluster-cidr", pods), ("service-cidr", services)):
        if len(found) > 2 or len({n.version for n in found}) != len(found):
            yield (key,), "K3s takes one network for each IP version"
    if "coredns" not in listed(server.get("disable", [])):
        yield from _dns(server, services)


def _dns(server: Mapping[str, Any], services: list[Network]) -> Iterator[Found]:
    """Yield what is wrong with the addresses of CoreDNS' service; those of another DNS server are its user's."""
    found = []
    for item in listed(server.get("cluster-dns", [])):
        try:
            found.append(ipaddress.ip_address(item))
        except ValueError:
            continue
    for address in found:
        if services and not any(address in service for service in services):
            yield ("cluster-dns",), f"cluster-dns {address} is not inside service-cidr"
    if len({address.version for address in found}) != len(found):
        # A service has one address of an IP version (kubernetes: pkg/apis/core/validation, clusterIPs).
        yield ("cluster-dns",), "CoreDNS takes one address for each network of service-cidr"


def inside(address: str, server: Mapping[str, Any], version: int = 4) -> str:
    """Return which of the cluster's own networks contains this address of a host, or nothing."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    for key in CIDRS:
        for network in networks(server, key, version):
            if ip in network:
                return f"{key} {network}"
    return ""
