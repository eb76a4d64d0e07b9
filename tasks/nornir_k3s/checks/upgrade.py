"""Checks of an upgrade: the path of versions, APIs that go, and templates that the new K3s cannot use.

Sources: docs.k3s.io `upgrades/upgrades.md`; kubernetes.io `releases/version-skew-policy`, `reference/using-api/
deprecation-guide`; k3s#13680 (K3s 1.36 has `imports` in its own configuration of containerd).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from nornir_k3s import k3s
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.finding import CLUSTER, Finding, problem
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import NodeState

_IMPORTS = re.compile(r"^\s*imports\s*=", re.MULTILINE)
_BASE = re.compile(r"\{\{-?\s*template\s+\"base\"")


def upgraded(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> list[str]:
    """Return the servers and agents whose node runs an earlier minor version than is wanted."""
    return [name for name, version in running(cluster, all_facts).items() if _minor(version) < _minor(cluster.version)]


def older(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> list[str]:
    """Return the servers and agents whose node runs an earlier version than is wanted."""
    wanted = k3s.parse_version(cluster.version)
    return [name for name, one in running(cluster, all_facts).items() if k3s.parse_version(one) < wanted]


def nodes(all_facts: Mapping[str, HostFacts]) -> Sequence[NodeState]:
    """Return the nodes as a ready server lists them."""
    return next((facts.api.nodes for facts in all_facts.values() if facts.ready and facts.api.nodes), ())


def running(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> dict[str, str]:
    """Return the versions that the nodes of servers and agents say they run."""
    listed = nodes(all_facts)
    versions = {node.name: node.version for node in listed if k3s.same_minor(node.version, node.version)}
    members = (*cluster.of("servers"), *cluster.of("agents"))
    return {member.name: versions[member.node_name] for member in members if member.node_name in versions}


def _minor(version: str) -> tuple[int, ...]:
    return k3s.parse_version(version).release[:2]


def check(
    cluster: Cluster, all_facts: Mapping[str, HostFacts], *, limit: Collection[str] | None = None
) -> Iterator[Finding]:
    """Yield what stands in the way of the wanted version.

    Arguments:
        limit: The hosts that may be changed; None for all of them.
    """
    versions = running(cluster, all_facts)
    yield from _path(cluster, versions)
    if not versions:
        yield from _path(cluster, _installed(cluster, all_facts), back=True)
    if limit is not None:
        yield from _order(cluster, versions, limit)
    if names := upgraded(cluster, all_facts):
        yield from _removed(cluster, all_facts)
        for name in names:
            if name in all_facts:
                yield from _templates(cluster, name, all_facts[name])


def _installed(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> dict[str, str]:
    """Return the versions of K3s that this tool has installed on hosts where it does not run."""
    members = (*cluster.of("servers"), *cluster.of("agents"))
    known = [all_facts[m.name] for m in members if m.name in all_facts and all_facts[m.name].ledger.installed]
    return {one.host: one.installed_version for one in known if k3s.is_version(one.installed_version)}


def _path(cluster: Cluster, versions: Mapping[str, str], *, back: bool = False) -> Iterator[Finding]:
    """Yield nodes for which the wanted version is none of the next ones.

    Arguments:
        back: An earlier version is right: while K3s is stopped, a dump from before an upgrade may be restored.
    """
    major, wanted = _minor(cluster.version)
    for name, version in versions.items():
        its_major, minor = _minor(version)
        found = f"{'K3s, which does not run, is' if back else 'the node runs'} {version}"
        if k3s.parse_version(cluster.version) < k3s.parse_version(version):
            if back:
                continue
            remedy = f"set version to {version} or newer in the inventory: K3s cannot be downgraded"
            yield problem(name, "version", found, f"not newer than {cluster.version}", remedy)
        elif major == its_major and wanted > minor + 1:
            path = ", then ".join(f"{major}.{between}" for between in range(minor + 1, wanted))
            found = f"{found}: {cluster.version} skips a minor version"
            yield problem(name, "version", found, "one minor version at a time", f"upgrade to {path} first")


def _order(cluster: Cluster, versions: Mapping[str, str], limit: Collection[str]) -> Iterator[Finding]:
    servers = [member.name for member in cluster.of("servers") if member.name not in limit and member.name in versions]
    older = ", ".join(name for name in servers if _minor(versions[name]) < _minor(cluster.version))
    for member in cluster.of("agents"):
        if older and member.name in limit and versions.get(member.name) != cluster.version:
            found, remedy = f"{older} would be older than this agent", "leave out --limit, or add the servers to it"
            yield problem(member.name, "skew", found, "servers first, then agents", remedy)


def _removed(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    users: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, facts in all_facts.items():
        for api in facts.requested_apis:
            if _lacks(cluster.version, api.removed):
                what = f"{api.resource} of {'/'.join(part for part in (api.group, api.version) if part)}"
                users[what, api.removed].append(name)
    for (what, removed), names in users.items():
        found = f"{what} was requested since {', '.join(names)} started; Kubernetes {removed} does not have it"
        remedy = (
            "find the clients that use it (audit log: k8s.io/deprecated) and change them; or `accept: [removed-api]`"
        )
        yield problem(CLUSTER, "removed-api", found, "no API in use that the new version lacks", remedy)


def _lacks(version: str, removed: str) -> bool:
    """Return whether a version is not older than the release that removes something, as `1.36`."""
    numbers = re.findall(r"\d+", removed)
    return len(numbers) > 1 and _minor(version) >= (int(numbers[0]), int(numbers[1]))


def _templates(cluster: Cluster, name: str, facts: HostFacts) -> Iterator[Finding]:
    delivered = {file.path: file.text.reveal() for file in cluster.files}
    for path, on_host in facts.containerd_templates.items():
        text = delivered.get(path, on_host)
        if _minor(cluster.version) >= (1, 36) and _IMPORTS.search(text) and _BASE.search(text):
            found = f"{path} sets `imports`, as K3s itself does from 1.36 on: containerd refuses to start"
            remedy = f"remove that line, and put what it imports into {path.removesuffix('.tmpl')}.d"
            yield problem(name, "containerd-template", found, "`imports` once", remedy)
        else:
            found = f"containerd is configured by a template, {path}, which was made for an earlier K3s"
            remedy = "compare it with the new version's own configuration"
            expected = "a template that fits the new version"
            yield problem(name, "containerd-template", found, expected, remedy, "warning")
