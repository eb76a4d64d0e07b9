"""Encryption of secrets in the datastore: what is to be done on a cluster that runs, and what speaks against it.

A server that starts with `secrets-encryption` where there are no keys yet makes one of its own, which is saved nowhere
else: two such servers cannot read each other's secrets, and `rotate-keys` while others run loses what they write (k3s:
pkg/secretsencrypt, pkg/server/handlers/secrets-encrypt.go; docs.k3s.io `cli/secrets-encrypt.md`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Literal

from nornir_k3s import k3s
from nornir_k3s.checks import other_installs, token
from nornir_k3s.model.cluster import Cluster, Member
from nornir_k3s.model.encryption import PREPARE, ROTATE
from nornir_k3s.model.finding import CLUSTER, Finding, problem
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.together import few
from nornir_k3s.roles import left as left_the

Goal = Literal["", "enable", "disable", "rotate", "forget"]
SETTING = "secrets-encryption"
_PROVIDER, _SECRETBOX = "secrets-encryption-provider", "secretbox"


def wanted(cluster: Cluster) -> bool:
    """Return whether the inventory wants secrets encrypted."""
    return bool(k3s.boolean(cluster.server.get(SETTING, False)))


def is_on(cluster: Cluster, facts: HostFacts) -> bool:
    """Return whether a server's own configuration, or its unit, has the setting."""
    return bool(k3s.boolean(other_installs.running(facts, cluster.server).get(SETTING, False)))


def goal(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Goal:
    """Return what must be done to the keys of a cluster that runs: also what an interrupted run was at."""
    on = [is_on(cluster, all_facts[member.name]) for member in running(cluster, all_facts)]
    if not on:
        return ""
    if wanted(cluster) and (not all(on) or is_disabled(cluster, all_facts)):
        return "enable"
    if not wanted(cluster) and any(on):
        return "disable"
    if begun(all_facts):
        return "rotate" if wanted(cluster) else "forget"
    return ""


def is_disabled(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> bool:
    """Return whether all servers have the setting, and K3s stores new secrets as they are: keys were turned off."""
    found = [all_facts[member.name] for member in running(cluster, all_facts)]
    on = bool(found) and all(is_on(cluster, facts) for facts in found)
    return on and all_facts[lead(cluster, all_facts)].encryption.disabled


def running(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> list[Member]:
    """Return the servers that were read and whose K3s, installed by this tool, runs."""
    unit, read = k3s.UNITS["server"], [member for member in cluster.of("servers") if member.name in all_facts]
    ours = [one for one in read if unit not in all_facts[one.name].foreign_units]
    return [one for one in ours if all_facts[one.name].unit(unit).active == "active"]


def lead(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> str:
    """Return the server that is asked for new keys: where that began, else where the newest are, or the first.

    Of servers that all start just now, any: they are waited for.
    """
    read = [member for member in cluster.of("servers") if member.name in all_facts]

    def order(name: str) -> tuple[bool, int]:
        own = all_facts[name].encryption
        return bool(own.goal), own.written

    return max((member.name for member in running(cluster, all_facts) or read), key=order)


def begun(all_facts: Mapping[str, HostFacts]) -> bool:
    """Return whether an earlier run has begun to change keys, and was interrupted."""
    return any(facts.encryption.goal for facts in all_facts.values())


def changing(all_facts: Mapping[str, HostFacts]) -> str:
    """Return the hash of the keys on the server where a run changes them; empty if none does."""
    return next((one.encryption.sha256 for one in all_facts.values() if one.encryption.goal), "")


def check(cluster: Cluster, all_facts: Mapping[str, HostFacts], limit: Collection[str] | None) -> Iterator[Finding]:
    """Yield why encryption of secrets cannot be turned on or off now; a note if it will be."""
    what = goal(cluster, all_facts)
    if not what:
        yield from _stopped(cluster, all_facts)
        return
    servers = [member.name for member in cluster.of("servers")]
    if limit is not None and not set(servers) & set(limit):
        return
    problems = list(_refusals(cluster, all_facts, limit))
    for found, remedy in problems:
        yield problem(CLUSTER, "encryption", found, "keys that all servers get one after the other", remedy)
    if what != "forget" and not problems:
        done = {
            "enable": "turned on",
            "disable": "turned off",
            "rotate": "given new keys: an earlier run was interrupted",
        }
        found = f"encryption of secrets is {done[what]}, with {lead(cluster, all_facts)} as the first server"
        again = "each server restarts up to three times, one after the other"
        yield problem(CLUSTER, "encryption", found, "the inventory's setting", again, "note")


def _refusals(
    cluster: Cluster, all_facts: Mapping[str, HostFacts], limit: Collection[str] | None
) -> Iterator[tuple[str, str]]:
    servers = [member.name for member in cluster.of("servers")]
    if unready := [name for name in servers if not _gets_ready(all_facts, name)]:
        yield f"the keys of secrets cannot change: {few(unready)} is not ready", "bring it back, or let it join, first"
    if limit is not None and (left := [name for name in servers if name not in limit]):
        yield f"the keys of secrets change on all servers, and --limit leaves out {few(left)}", "run without --limit"
    yield from refused(cluster, all_facts)


def _gets_ready(all_facts: Mapping[str, HostFacts], name: str) -> bool:
    """Return whether a server is ready, or is waited for: an interrupted run may have restarted it just now."""
    return name in all_facts and (all_facts[name].ready or name in restarting(all_facts))


def restarting(all_facts: Mapping[str, HostFacts]) -> list[str]:
    """Return the servers that an interrupted change of keys may have restarted just now."""
    states = {name: facts.unit(k3s.UNITS["server"]).active for name, facts in all_facts.items() if not facts.ready}
    return [name for name, state in states.items() if begun(all_facts) and state in ("active", "activating")]


def refused(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[tuple[str, str]]:
    """Yield why K3s, or what is on the servers, does not allow new keys: what was found, and what to do."""
    if _SECRETBOX in (cluster.server.get(_PROVIDER), *_providers(cluster, all_facts)):
        text = (
            "K3s can prepare new keys of aescbc only: with secretbox it replaces them at once, under the other servers"
        )
        yield text, f"remove {_PROVIDER} before there are keys, or do it by hand with only one server running"
    if gone := [one.name for one in left_the.members(cluster, all_facts) if one.role == "servers"]:
        text = f"{few(gone)} left the inventory and is a server: without the new keys it would write what nobody reads"
        yield text, "remove it, or add it to the inventory"
    if before := token.others(cluster, all_facts):
        text = f"the token of {few(before)} is not the cluster's: K3s would save the keys with the old one"
        yield text, "deploy what ends the rotation of the token first, without another change of secrets-encryption"
    if apart := unrelated(cluster, all_facts):
        text = f"{few(apart)} have made a key each, which no other server has"
        yield text, "see docs/day2.md, Servers with different keys"


def _providers(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[object]:
    """Yield what servers encrypt with, or would: a drop-in or a flag may say it, and keys keep their kind."""
    for member in running(cluster, all_facts):
        facts = all_facts[member.name]
        yield facts.encryption.provider
        yield other_installs.running(facts, cluster.server).get(_PROVIDER)


def unrelated(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> list[str]:
    """Return servers whose keys do not come from each other: each has made its own, or they were rotated at once."""
    found = {
        member.name: own
        for member in running(cluster, all_facts)
        if (own := all_facts[member.name].encryption).sha256 and is_on(cluster, all_facts[member.name])
    }
    if len({own.sha256 for own in found.values()}) < 2:
        return []
    staged = {own.stage for own in found.values()} & {PREPARE, ROTATE}
    return [] if staged or begun(all_facts) else sorted(found)


def _stopped(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Yield servers of a cluster that is down: they would start with another setting than they have stopped with."""
    if any(facts.ready for facts in all_facts.values()) or restarting(all_facts):
        return
    remedy = "restore the old value, deploy, then change it: it must be done while the servers run"
    if begun(all_facts):
        remedy = "start k3s.service on all servers, then deploy, which finishes the change of the keys"
    for member in cluster.of("servers"):
        facts = all_facts.get(member.name)
        if facts and facts.server.token and is_on(cluster, facts) != wanted(cluster):
            found = f"the server is down, and has {SETTING} {str(is_on(cluster, facts)).lower()}"
            yield problem(member.name, "encryption", found, "the inventory's on a server that runs", remedy)
