"""Checks of settings that a cluster has for ever, or until it is taken over: wherever they come from.

Sources: docs.k3s.io `cli/server.md` and k3s#3967, k3s#93 (networks); k3s `pkg/cli/server/server.go` (the domain is in
certificates and in kubelets); docs.k3s.io `networking/basic-network-options.md` (another backend of flannel needs all
nodes at once).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from nornir_k3s import k3s, k3s_installed
from nornir_k3s.inventory import rules
from nornir_k3s.model.cluster import Cluster, Member
from nornir_k3s.model.finding import Finding, problem
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.host_spec import settings_yaml
from nornir_k3s.model.installed import Installed, Setting
from nornir_k3s.roles import running

# K3s' environment has none of them.
_STARTED = (*rules.CIDRS, "cluster-domain", "cluster-dns", "flannel-backend")
NEVER = (*rules.CIDRS, "cluster-domain")
_WHY = "it cannot be changed after the first start"
# Of a K3s that others have installed: a deploy that takes it over must not change these.
_LATER = {
    "cluster-dns": "pods have it; change it when the servers have been taken over",
    "flannel-backend": "nodes with another one do not reach each other; change it when they have been taken over",
    # Phase servers turns it on and off on our own.
    "secrets-encryption": "it is turned on or off when the servers have been taken over",
}


def check(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Yield settings that differ from the running servers' and cannot be changed, now or after the first start."""
    for member in cluster.of("servers"):
        facts = all_facts.get(member.name)
        if facts and (one := _in_force(cluster, member, facts)):
            foreign = k3s.UNITS["server"] in facts.foreign_units
            for key in (*NEVER, *(_LATER if foreign else ())):
                yield from _compared(cluster, member, one, key)


def _compared(cluster: Cluster, member: Member, one: Installed, key: str) -> Iterator[Finding]:
    found = ",".join(running.form(cluster, key, one))
    wanted = ",".join(running.form(cluster, key, _of_settings(cluster.server)))
    if found != wanted:
        origin = f" ({one.settings[key].origin})" if key in one.settings and one.settings[key].origin else ""
        remedy = f"restore the old value in the inventory: {_LATER.get(key, _WHY)}"
        text = f"the running cluster has {key} {found}{origin}"
        yield problem(member.name, "for-ever", text, f"the inventory's {wanted}", remedy)


def _in_force(cluster: Cluster, member: Member, facts: HostFacts) -> Installed | None:
    """Return the K3s of a server that has been started, with its settings; None where there is none."""
    unit, state = k3s.UNITS["server"], facts.files.get(k3s.CONFIG)
    one = running.installation(facts, "server")
    foreign = unit in facts.foreign_units
    if not (facts.ready or foreign or (one and facts.server.token)):
        return None
    # What is newer than the process is not in force yet: check `extra-settings` tells of it.
    if one and foreign:
        return _as_started(one, member, facts)
    if one and (one.changed <= facts.unit(unit).started or facts.unit(unit).active != "active"):
        return one
    if state is not None and state.text is not None:
        return _of_text(state.text, facts.unit(unit).command)
    if foreign and (state is None or state.kind == "absent"):
        return _of_text("", facts.unit(unit).command)
    return _of_text(settings_yaml(cluster.server).reveal(), facts.unit(unit).command)


def _as_started(one: Installed, member: Member, facts: HostFacts) -> Installed:
    """Return a K3s of others with what it was started with, as its node says: files may have changed since then."""
    args = next((node.args for node in facts.api.nodes or () if node.name == member.node_name), ())
    if args[:1] != ("server",):
        return one
    started = k3s_installed.given(args)
    settings = dict(one.settings)
    for key in _STARTED:
        values = tuple(part for value in started.get(key, []) for part in value.split(","))
        if key in settings and settings[key].values == values:
            continue
        settings.pop(key, None)
        if values:
            settings[key] = Setting(values, ("k3s.io/node-args",))
    return replace(one, settings=settings)


def _of_settings(settings: Mapping[str, object]) -> Installed:
    return _of_text(settings_yaml(settings).reveal(), "")


def _of_text(text: str, command: str) -> Installed:
    unit = k3s.UNITS["server"]
    start = command if len(command.split()) > 1 else f"{k3s.BINARY} server"
    found = k3s_installed.installed(unit, f"[Service]\nExecStart={start}\n", files=[(k3s.CONFIG, text)])
    return found or Installed(unit, "server")
