"""Where a rotation of the token stands: what the datastore's data are encrypted with, and what the servers have.

`k3s token rotate` changes the datastore, and the files of the server that was asked; running servers go on with the
old token, and one that restarts with the old one in its config.yaml dies (k3s: pkg/server/handlers/token.go,
pkg/cluster/storage.go).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from nornir_k3s import k3s
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.finding import Finding, Severity, problem
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.host_spec import HostSpec, settings_yaml

_AGENT = "agent-token"


def stored(all_facts: Mapping[str, HostFacts]) -> str:
    """Return the fingerprint of the token that the datastore's data are encrypted with; nothing if there is no one."""
    sizes = [one for facts in all_facts.values() for one in facts.database.bootstrap.items()]
    keys = {name for name, _ in sizes}
    return keys.pop().rpartition("/")[2] if len(keys) == 1 and all(size for _, size in sizes) else ""


def holder(cluster: Cluster, all_facts: Mapping[str, HostFacts], ca_prefix: str) -> str:
    """Return a server that has the token which K3s has rotated to, if that is not the one of this cluster here.

    Arguments:
        ca_prefix: `K10` and the hash of the CA of the last deploy: another cluster's token is none of ours.
    """
    found = stored(all_facts)
    if not ca_prefix or found in ("", cluster.token.fingerprint()):
        return ""
    servers = (all_facts[member.name] for member in cluster.of("servers") if member.name in all_facts)
    names = (one.host for one in servers if (one.server.token, one.server.ca_prefix) == (found, ca_prefix))
    return next(names, "")


def others(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> list[str]:
    """Return the servers whose own files are of another token."""
    servers = (all_facts[member.name] for member in cluster.of("servers") if member.name in all_facts)
    return [one.host for one in servers if one.server.token not in ("", cluster.token.fingerprint())]


def is_stale(spec: HostSpec, facts: HostFacts) -> bool:
    """Return whether a server's config.yaml has another token than it must have."""
    state = facts.files.get(k3s.CONFIG)
    wanted = next((file.text.reveal() for file in spec.files if file.path == k3s.CONFIG), "")
    return state is not None and state.text is not None and _line(state.text, "token") != _line(wanted, "token")


def has_other_agent_token(cluster: Cluster, facts: HostFacts) -> bool:
    """Return whether a server has another agent token in its config.yaml than the inventory, or one too many."""
    state = facts.files.get(k3s.CONFIG)
    own = settings_yaml({_AGENT: cluster.agent_token}).reveal() if cluster.agent_token else ""
    return state is not None and state.text is not None and _line(state.text, _AGENT) != _line(own, _AGENT)


def check(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Yield servers that a deploy would give another agent token: running ones, and those of a cluster that is off.

    Each would start with it once, and write it into its cred/passwd, which is newer than the datastore's then: K3s ends
    at every start after that (k3s: pkg/daemons/control/deps, genUsers; pkg/cluster/bootstrap.go). What saves that file
    in the datastore is `k3s token rotate` on that server.
    """
    if others(cluster, all_facts):
        return  # a rotation is under way
    servers = [all_facts[member.name] for member in cluster.of("servers") if member.name in all_facts]
    concerned = [facts for facts in servers if facts.ready]
    remedy = "nornir-k3s rotate agent-token"
    if not concerned and stored(all_facts):
        concerned = [facts for facts in servers if facts.server.token]
        remedy = f"deploy with the previous agent token, then change it and run {remedy}"
    if cluster.token_given:
        remedy = "after the deploy, on one server: `k3s token rotate --new-token NEW`; change `token`, deploy again"
    for facts in concerned:
        if has_other_agent_token(cluster, facts):
            found = "the server has another agent token: with a changed one alone, K3s starts once and never again"
            severity: Severity = "warning" if cluster.token_given else "error"
            yield problem(facts.host, "agent-token", found, "the inventory's", remedy, severity)


def _line(text: str, key: str) -> str:
    found = re.search(rf"""^["']?{key}["']?[ \t]*:[ \t]*(.*?)[ \t]*$""", text, re.M)
    return found[1].strip("\"'") if found else ""
