"""Check of the files that K3s settings name: on the host already, or delivered by this deploy."""

from __future__ import annotations

from collections.abc import Iterator

from nornir_k3s.inventory.named_files import named
from nornir_k3s.model.cluster import Cluster, Member
from nornir_k3s.model.finding import Finding, problem
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.roles import agent, node, server


def check(cluster: Cluster, member: Member, facts: HostFacts) -> Iterator[Finding]:
    """Yield the files that settings of a server or agent name and that it will not have."""
    settings = server.settings(cluster, member) if member.role == "servers" else agent.settings(cluster, member, "")
    delivered = {file.path for file in cluster.files if member.role in file.roles}
    if "registries" in cluster.delivered:
        delivered.add(node.REGISTRIES)
    for path, setting in named(settings).items():
        if path not in facts.present and path not in delivered:
            remedy = f"put it there, or let deploy deliver it: `files: [{{path: {path}, source: …}}]`"
            yield problem(member.name, "named-file", f"{setting} names {path}, which is not there", "the file", remedy)
