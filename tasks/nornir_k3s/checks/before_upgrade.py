"""Checks before any change of K3s' version: what is not ready already, and what the new version does differently.

Sources: K3s' release notes of 1.34.10, 1.35.7 and 1.36.2 (chart of Traefik); k3s `install.sh` (create_env_file).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from nornir_k3s import k3s
from nornir_k3s.checks import upgrade
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.finding import CLUSTER, Finding, problem
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import SystemPod

_CHART_40 = ("1.33.13", "1.34.10", "1.35.7", "1.36.2")
_RENAMED, _NEW_NAME = "kubernetesIngressNginx", "kubernetesIngressNGINX"


def check(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Yield what matters before a newer version, of a patch too."""
    names = upgrade.older(cluster, all_facts)
    if not names:
        return
    yield from _nodes(cluster, all_facts)
    pods = next((facts.system_pods for facts in all_facts.values() if facts.system_pods is not None), ())
    yield from _pods(pods)
    yield from _traefik(cluster, all_facts, names)
    if upgrade.upgraded(cluster, all_facts):
        yield from _dump(cluster, all_facts)
    for name in names:
        if name in all_facts:
            yield from _variables(cluster, name, all_facts[name])


def _nodes(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    listed = {node.name: node for node in upgrade.nodes(all_facts)}
    for member in (*cluster.of("servers"), *cluster.of("agents")):
        node = listed.get(member.node_name)
        if node and not node.ready and not (cluster.own_cni and node.lacks_cni):
            found = f"node {node.name} is not Ready, before anything is changed"
            remedy = f"see why (kubectl describe node {node.name}): an upgrade does not fix it"
            yield problem(member.name, "node-ready", found, "Ready", remedy, "warning")


def lost(before: Sequence[SystemPod], after: Sequence[SystemPod], left_out: Collection[str]) -> list[str]:
    """Return what of kube-system has fewer pods ready than before an upgrade, one sentence each.

    What has no pods at all is not among them: it may have been disabled.

    Arguments:
        left_out: Nodes whose pods do not count.
    """
    had, has = (_by_owner([pod for pod in pods if pod.node not in left_out]) for pods in (before, after))
    return [
        f"kube-system: {owner} has {has[owner][0]} pods ready, before the upgrade {ready}"
        for owner, (ready, _) in had.items()
        if owner in has and has[owner][0] < ready
    ]


def gone(before: Sequence[SystemPod], after: Sequence[SystemPod]) -> list[str]:
    """Return what of kube-system had pods before an upgrade, and has none now."""
    return sorted({pod.owner for pod in before} - {pod.owner for pod in after})


def _by_owner(pods: Sequence[SystemPod]) -> dict[str, tuple[int, int]]:
    ready, every = Counter(pod.owner for pod in pods if pod.ready), Counter(pod.owner for pod in pods)
    return {owner: (ready[owner], count) for owner, count in every.items()}


def _pods(pods: Sequence[SystemPod]) -> Iterator[Finding]:
    for owner, (ready, count) in _by_owner(pods).items():
        if ready < count:
            found = f"{owner} has {ready} of {count} pods ready, before anything is changed"
            remedy = "see why (kubectl -n kube-system describe pods): an upgrade does not fix it"
            yield problem(CLUSTER, "kube-system", found, "all of them ready", remedy, "warning")


def _dump(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    readable = any(facts.database.bootstrap for facts in all_facts.values())
    if cluster.is_managed or getattr(cluster.datastore, "dump_command", None):
        return
    if not readable:
        found = "nothing dumps the external datastore: K3s does not go back over a minor version without a dump"
        remedy = "set `datastore.dump_command`, or dump it yourself and `accept: [datastore-dump]`"
        yield problem(CLUSTER, "datastore-dump", found, "a dump from before the upgrade", remedy, "warning")


def _traefik(cluster: Cluster, all_facts: Mapping[str, HostFacts], names: Sequence[str]) -> Iterator[Finding]:
    running = upgrade.running(cluster, all_facts)
    crosses = any(not k3s.reached(running[name], *_CHART_40) for name in names)
    if not k3s.reached(cluster.version, *_CHART_40) or not crosses or not _installed(cluster):
        return
    values = _own_values(cluster) or next((f.traefik_values for f in all_facts.values() if f.traefik_values), "")
    expected = f"values for chart 40, which K3s {cluster.version} brings"
    if _RENAMED in values:
        found = f"the HelmChartConfig of Traefik sets {_RENAMED}, which its chart 40 does not know"
        remedy = f"write {_NEW_NAME} together with the upgrade (in `manifests`); or `accept: [traefik]`"
        yield problem(CLUSTER, "traefik", found, expected, remedy)
    elif values:
        found = "Traefik has values of its own (HelmChartConfig), made for an earlier chart"
        remedy = "compare them with https://github.com/traefik/traefik-helm-chart/releases/tag/v40.0.0"
        yield problem(CLUSTER, "traefik", found, expected, remedy, "warning")
    else:
        found = f"K3s {cluster.version} brings chart 40 of Traefik, and reverts manual changes of its objects"
        remedy = "nothing to do if there are none; make changes in a HelmChartConfig"
        yield problem(CLUSTER, "traefik", found, "Traefik as K3s brings it", remedy, "note")


def _installed(cluster: Cluster) -> bool:
    given = cluster.server.get("disable", [])
    disabled = {part for item in (given if isinstance(given, list) else [given]) for part in str(item).split(",")}
    return "traefik" not in disabled and not k3s.boolean(cluster.server.get("disable-helm-controller", False))


def _own_values(cluster: Cluster) -> str:
    """Return what the inventory's manifests say of Traefik, which this deploy brings."""
    texts = (file.text.reveal() for file in cluster.files)
    return next((text for text in texts if "kind: HelmChartConfig" in text and "name: traefik" in text), "")


def _variables(cluster: Cluster, name: str, facts: HostFacts) -> Iterator[Finding]:
    unit = k3s.UNITS["server" if cluster.member(name).role == "servers" else "agent"]
    for path, names, _ in facts.extra_settings:
        if path == f"/etc/systemd/system/{unit}.env" and path not in facts.ledger.files and names:
            found = f"{path}, which K3s' installer overwrites, sets {', '.join(sorted(set(names)))}"
            remedy = f"move them to /etc/default/{unit.removesuffix('.service')}, which K3s' unit reads, too"
            yield problem(name, "install-variables", found, "nothing that an upgrade loses", remedy, "warning")
