"""What the hosts of a living cluster say its secrets are, and whether they agree; messages never have a secret."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from nornir_k3s import k3s, k3s_installed
from nornir_k3s.facts import held
from nornir_k3s.model import pem
from nornir_k3s.model.address import is_address
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.endpoint import Endpoint, parse
from nornir_k3s.model.paths import DATASTORE_KEYS
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.together import few
from nornir_k3s.roles import datastore, haproxy
from nornir_k3s.roles.datastore_login import logins

TOKEN, AGENT_TOKEN, ENDPOINT, PASSWORD = "token", "agent token", "datastore endpoint", "database password"
KEYS, CA, CHECK = "keys of the datastore", "CA of K3s", "certificate of the health check"
# A unit that has no flags.
_OURS = f"[Service]\nEnvironmentFile=-{held.ENVIRONMENT}\nExecStart={k3s.BINARY} server\n"
_CONFIGURED = "token of the settings"
_FULL = re.compile(r"K10[0-9a-f]*::([^:]*):")  # the form of K3s' token files (k3s: pkg/clientaccess/token.go)

Values = Mapping[str, Mapping[str, Secret]]  # by what it is, then by host


def values(cluster: Cluster, texts: Mapping[str, Mapping[str, str]]) -> Values:
    """Return each secret as each host has it; what a host does not have is not there.

    Arguments:
        texts: The fact `held` of each host that was read.
    """
    found: dict[str, dict[str, Secret]] = {}
    for host, files in texts.items():
        for what, text in _of_host(cluster, files):
            if text:
                found.setdefault(what, {})[host] = Secret(text)
    tokens = found.setdefault(TOKEN, {})
    for host, value in found.pop(_CONFIGURED, {}).items():
        if tokens[host] != value:
            tokens[f"{host} ({k3s.CONFIG})"] = value
    return {what: by_host for what, by_host in found.items() if by_host}


def _of_host(cluster: Cluster, files: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if _is_server(files):  # else it is what a cluster of before has left
        yield from _of_server(cluster, files)
    yield CHECK, files.get(haproxy.CHECK_CERT, "")
    yield KEYS, files.get(DATASTORE_KEYS, "")


def _is_server(files: Mapping[str, str]) -> bool:
    """Return whether a server runs there, or this tool has installed one; an agent's config.yaml has a token, too."""
    return k3s.UNITS["server"] in files or files.get(held.INSTALLED, "").startswith("server")


def _of_server(cluster: Cluster, files: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    settings = _settings(files)
    token, agent = files.get(held.TOKEN, "").strip(), files.get(held.AGENT_TOKEN, "").strip()
    yield TOKEN, _FULL.sub("", token or settings.get("token", ""))
    yield _CONFIGURED, _FULL.sub("", settings.get("token", ""))
    by_file = _FULL.sub("", agent) if (match := _FULL.match(agent)) and match[1] == "node" else ""
    yield AGENT_TOKEN, settings.get("agent-token") or by_file
    yield ENDPOINT, settings.get("datastore-endpoint", "")
    if (endpoint := managed(cluster, settings)) is not None:
        yield PASSWORD, endpoint.password.reveal()
    yield CA, files.get(held.SERVER_CA, "")


def ca_prefix(files: Mapping[str, str]) -> str:
    """Return `K10` and the hash of the cluster's CA, as a server's token file has it; nothing of other hosts."""
    prefix, separator, _ = files.get(held.TOKEN, "").partition("::")
    return prefix if separator and prefix.startswith("K10") else ""


def managed(cluster: Cluster, settings: Mapping[str, str]) -> Endpoint | None:
    """Return the endpoint in a server's settings, if it is the managed database with a user of this tool."""
    text = settings.get("datastore-endpoint", "")
    if not text or not cluster.is_managed or cluster.managed.kind == "etcd":
        return None
    try:
        endpoint = parse(Secret(text))
    except ValueError:
        return None
    if endpoint.database.lower() != cluster.managed.database.lower():
        return None  # another cluster's, on a server of databases that both use
    own = {member.address for member in cluster.of("datastore")}
    return endpoint if own & {host for host, _ in endpoint.hosts} and logins(cluster, [endpoint.user]) else None


def has_other_datastore(cluster: Cluster, files: Mapping[str, str]) -> bool:
    """Return whether a server's K3s certainly has another datastore than the inventory's: it may be another cluster's.

    A name and an address may be of one host; settings that cannot be read are not known.
    """
    if not _is_server(files):
        return False
    text = _settings(files).get("datastore-endpoint", "")
    try:
        found, own = parse(Secret(text)), parse(datastore.endpoint(cluster))
    except ValueError:
        return False
    if (found.kind, found.database) != (own.kind, own.database):
        return True
    theirs = {host.lower() for host, _ in found.hosts}
    ours = {host.lower() for host, _ in own.hosts} | {member.address for member in cluster.of("datastore")}
    return not theirs & ours and len({is_address(host) for host in theirs | ours}) == 1


def _settings(files: Mapping[str, str]) -> Mapping[str, str]:
    """Return the settings of K3s, wherever they come from: those of its next start."""
    one = k3s_installed.of_texts(k3s.UNITS["server"], files.get(held.UNIT, _OURS), files)
    return {key: setting.text for key, setting in one.settings.items()} if one else {}


def disagreements(found: Values, wanted: Collection[str]) -> list[str]:
    """Return which of these secrets are not the same on all hosts that have them, and on which hosts."""
    problems = []
    for what in wanted:
        groups: dict[Secret, list[str]] = {}
        for host, value in found.get(what, {}).items():
            groups.setdefault(_same(what, value, groups), []).append(host)
        if len(groups) > 1:
            first, *others = sorted(groups.values(), key=len, reverse=True)
            problems += [f"{what}: {few(names)} has another one than {few(first)}" for names in others]
    return problems


def _same(what: str, value: Secret, groups: Collection[Secret]) -> Secret:
    """Return the value of the group that this one belongs to: CAs do, if they have a certificate in common."""
    if what == CA:
        own = set(pem.blocks(value.reveal()))
        return next((one for one in groups if own & set(pem.blocks(one.reveal()))), value)
    return value


def any_of(found: Values, what: str) -> Secret | None:
    """Return a secret that hosts agree on; None where no host has it."""
    return next(iter(found.get(what, {}).values()), None)
