"""The datastore of servers that exist: what they use, whether they agree, and what stands for it in the inventory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from nornir_k3s.adoption.read import DATABASES, Found
from nornir_k3s.checks.moving import describe
from nornir_k3s.errors import UsageError
from nornir_k3s.model.endpoint import Endpoint, parse
from nornir_k3s.model.secret import Secret

FILES = ("datastore-cafile", "datastore-certfile", "datastore-keyfile")
EMBEDDED = {"sqlite": "SQLite", "etcd": "an embedded etcd"}
_NOTHING = "nothing was written"
# As `nornir-k3s init` writes them: no host has such an address.
_PLACEHOLDER = "192.0.2.11"


@dataclass
class Datastore:
    """What the servers use.

    Arguments:
        text: For people, without a secret.
        endpoint: K3s' endpoint string; None for an embedded one.
        embedded: `sqlite`, `etcd` or nothing.
        files: The paths of its TLS files on a server, by K3s' setting.
        hosts: Hosts that were given, and run it; the inventory does not have them.
        notes: What to know of it.
    """

    text: str
    endpoint: Secret | None = None
    embedded: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    hosts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def of(servers: Mapping[str, Found], others: Mapping[str, Found], resolved: Mapping[str, tuple[str, ...]]) -> Datastore:
    """Return what these servers use.

    Arguments:
        others: The other hosts, of which some may run it.
        resolved: The addresses of names, as a server resolves them.

    Raises:
        UsageError: They use several, or one that this tool cannot have.
    """
    if unknown := [f"{name}: {one.k3s.problems[0]}" for name, one in servers.items() if _unknown(one) and one.k3s]:
        text = "; ".join(unknown) + ": the datastore is not among what is known"
        raise UsageError(text, hint=f"give K3s its settings in config.yaml, or as flags of the unit; {_NOTHING}")
    used = {name: _used(one) for name, one in servers.items()}
    kinds = {kind for kind, _ in used.values()}
    if len(kinds) > 1:
        raise _several({name: EMBEDDED.get(kind, "an endpoint") for name, (kind, _) in used.items()})
    kind = next(iter(kinds))
    if kind:
        return Datastore(f"{EMBEDDED[kind]} on {', '.join(servers)}", embedded=kind)
    parsed = {name: _parsed(name, text) for name, (_, text) in used.items()}
    first_one = next(iter(parsed.values()))
    if not all(_is_same(first_one, one, resolved) for one in parsed.values()):
        raise _several({name: describe(one) for name, one in parsed.items()})
    text = Counter(text for _, text in used.values()).most_common(1)[0][0]
    first = next(name for name, (_, one) in used.items() if one == text)
    own = servers[first].k3s
    found = Datastore(describe(parsed[first]), Secret(text))
    found.files = {key: own.text(key) for key in FILES if own and own.text(key)}
    if other := sorted(name for name, (_, one) in used.items() if one != text):
        found.notes.append(
            f"{', '.join(other)}: another login or other parameters in the datastore endpoint than {first}, or another"
            " name of its host; the inventory has those of the latter: a deploy makes them the same"
        )
    found.hosts = _hosts(parsed[first], others, resolved)
    for name in found.hosts:
        runs = ", ".join(sorted({DATABASES[unit] for unit in others[name].active & DATABASES.keys()}))
        found.notes.append(
            f"{name} runs {runs}, which the servers use: it stays as it is, `external`, and no member of the inventory"
        )
    return found


def endpoint(found: Found) -> Endpoint | None:
    """Return the datastore endpoint of a server; None where it has none, or one that cannot be read."""
    try:
        return parse(Secret(_used(found)[1]))
    except ValueError:
        return None


def _parsed(name: str, text: str) -> Endpoint:
    try:
        return parse(Secret(text))
    except ValueError as error:
        raise UsageError(f"{name}: its datastore endpoint: {error}", hint=_NOTHING) from None


def _is_same(one: Endpoint, other: Endpoint, resolved: Mapping[str, tuple[str, ...]]) -> bool:
    """Return whether both are one database, though one may have a name and the other its address."""
    if (one.kind, one.database) != (other.kind, other.database):
        return False
    both = [[(_addresses(host, resolved), port) for host, port in each.hosts] for each in (one, other)]
    return all(
        any(port == port_ and found & found_ for found_, port_ in theirs)
        for mine, theirs in (both, both[::-1])
        for found, port in mine
    )


def _addresses(host: str, resolved: Mapping[str, tuple[str, ...]]) -> set[str]:
    return {host.lower(), *resolved.get(host, ())}


def _unknown(found: Found) -> bool:
    """Return whether a server may have an endpoint that could not be read."""
    own = found.k3s
    return bool(own and own.problems) and not (found.etcd or found.sqlite or _used(found)[1])


def _used(found: Found) -> tuple[str, str]:
    own = found.k3s
    endpoint = own.text("datastore-endpoint") if own else ""
    if own and (own.text("cluster-init") == "true" or found.etcd) and not endpoint:
        return "etcd", ""
    if not endpoint or endpoint.startswith(("sqlite:", "sqlite3:")):
        return ("etcd" if own and own.text("server") else "sqlite"), ""
    return "", endpoint


def _several(uses: Mapping[str, str]) -> UsageError:
    listed = "; ".join(f"{name}: {use}" for name, use in uses.items())
    return UsageError(
        f"the servers are not of one cluster: their datastores differ: {listed}",
        hint=f"give the servers of one cluster; {_NOTHING}",
    )


def _hosts(used: Endpoint, others: Mapping[str, Found], resolved: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the hosts that run a database, and have an address of the endpoint."""
    wanted = {address for host, _ in used.hosts for address in (host, *_addresses(host, resolved))}
    return [
        name
        for name, one in others.items()
        if one.active & DATABASES.keys()
        and (wanted & {cidr.split("/")[0] for _, cidr in one.addresses} or wanted & {one.hostname, name})
    ]


def inventory(found: Datastore, state: str, secrets: Collection[str]) -> dict[str, Any]:
    """Return `k3s_cluster.datastore`.

    Arguments:
        secrets: The files in the state folder.
        state: The state folder of the cluster, as the inventory names it.
    """
    if found.embedded:
        return {"kind": "mariadb"}
    own: dict[str, Any] = {"endpoint": {"file": f"{state}/endpoint"}}
    for key in found.files:
        name = f"{key}.pem"
        own[key.removeprefix("datastore-")] = (
            f"{state}/{name}" if key == "datastore-keyfile" or name in secrets else f"files/{name}"
        )
    return own


def placeholder() -> dict[str, Any]:
    """Return a host for the new datastore of a cluster that has an embedded one."""
    return {"hostname": _PLACEHOLDER, "groups": ["datastore"]}
