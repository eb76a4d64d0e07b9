"""The facts of a host: one class per fact, all of them read by one script.

To add one: a class with its shell function, its parser and its field of `HostFacts`, a line in `FACTS`, and cases below
`tests/facts/`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nornir_k3s import k3s, shell
from nornir_k3s.errors import UnreadableAnswer
from nornir_k3s.facts import (
    database,
    encryption,
    files,
    held,
    k3s_installed,
    k3s_node,
    k3s_server,
    kernel,
    load_balancer,
    made,
    network,
    others,
    packages,
    storage,
    stored,
    system,
    units,
    upgrade,
)
from nornir_k3s.facts.fact import Fact, Query
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.family import Family
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.records import END, SAY, RecordError, read
from nornir_k3s.roles import datastore

__all__ = ["FACTS", "Fact", "Query", "main_unit", "parse", "script"]

FACTS: tuple[Fact[Any], ...] = (
    system.Clock(),
    files.AtWork(),
    system.System(),
    system.Distribution(),
    system.Capacity(),
    system.SshSessions(),
    network.Addresses(),
    network.DefaultRoutes(),
    network.Routes(),
    network.Sockets(),
    network.Nameservers(),
    network.Names(),
    network.Reach(),
    network.Neighbours(),
    network.Vrrp(),
    network.UnreachableDatastore(),
    packages.Packages(),
    packages.Repositories(),
    files.Files(),
    files.Artifacts(),
    files.Present(),
    files.OwnLedger(),
    units.Units(),
    units.MissingLinks(),
    units.ForeignUnits(),
    storage.Mounts(),
    storage.FreeSpace(),
    kernel.Kernel(),
    kernel.Firewalls(),
    kernel.Selinux(),
    kernel.Booleans(),
    k3s_server.ServerFiles(),
    k3s_server.Api(),
    encryption.Encryption(),
    k3s_server.ClusterLease(),
    k3s_server.Kubeconfig(),
    k3s_server.EffectiveConfig(),
    k3s_server.PasswordRefused(),
    k3s_node.AgentCA(),
    k3s_node.NodePassword(),
    k3s_node.ThroughAddress(),
    k3s_node.Certificates(),
    k3s_node.ExtraSettings(),
    k3s_installed.Installations(),
    others.Others(),
    load_balancer.Backends(),
    load_balancer.RoundTrips(),
    stored.StoredData(),
    database.Database(),
    database.DatastoreHealth(),
    database.Latency(),
    upgrade.RequestedApis(),
    upgrade.ContainerdTemplates(),
    upgrade.SystemPods(),
    upgrade.TraefikValues(),
    upgrade.InstalledVersion(),
    made.MadeByUs(),
    held.Held(),
)


def script(query: Query, facts: Iterable[Fact[Any]] | None = None) -> str:
    """Return the script that reads a host; it writes nothing there.

    Arguments:
        facts: Only these, whatever their `when`; by default all that a deploy, or a drift check, needs.
    """
    wanted = [(fact, fact.when_for(query)) for fact in FACTS] if facts is None else [(fact, "always") for fact in facts]
    left = ("upgrade", "reset", "held", "status", *(() if query.drift else ("drift",)))
    wanted = [(fact, when) for fact, when in wanted if when not in left]
    calls = {fact: list(fact.calls(query)) for fact, _ in wanted}
    sources = dict.fromkeys(f"facts/{fact.source}.sh" for fact, _ in wanted if calls[fact])
    lines = [SAY, *(shell.source(name) for name in sources)]
    lines += [line for fact, when in wanted if when != "setup" for line in calls[fact]]
    setup: dict[str, list[str]] = {}
    for fact, when in wanted:
        if when == "setup":
            setup.setdefault(_not_set_up(query, fact), []).extend(calls[fact])
    for condition, of_setup in setup.items():
        lines += [f"if {condition}; then", *of_setup, "fi"] if of_setup else []
    return "\n".join([*lines, f"say {END}", ""])


def _not_set_up(query: Query, fact: Fact[Any]) -> str:
    """Return the condition, as shell, that one of the services a fact is read for does not run yet."""
    units_ = [main_unit(query.cluster, role, query.family) for role in query.member.roles if role in fact.roles]
    return " || ".join(f"! {shell.call('systemctl', 'is-active', '-q', unit)} 2>/dev/null" for unit in units_)


def main_unit(cluster: Cluster, role: str, family: Family) -> str:
    """Return the unit that is active when a host of this role is set up."""
    units_ = {"servers": k3s.UNITS["server"], "agents": k3s.UNITS["agent"], "lb": "haproxy.service"}
    return units_[role] if role in units_ else datastore.unit(cluster, family)


def parse(host: str, text: str, *, whole: bool = True) -> HostFacts:
    """Return the facts in the output of a host's script.

    Arguments:
        whole: The output must be complete.

    Raises:
        UnreadableAnswer: It is incomplete, too large, or contains something that our scripts do not print.
    """
    try:
        records = read(text, whole=whole)
    except RecordError as error:
        raise UnreadableAnswer(host, str(error)) from None
    values = {}
    for fact in FACTS:
        if fact.name in records:
            try:
                values[fact.name] = fact.parse(records[fact.name])
            except RecordError as error:
                raise UnreadableAnswer(host, f"fact {fact.name}: {error}") from None
    return HostFacts(host, **values)
