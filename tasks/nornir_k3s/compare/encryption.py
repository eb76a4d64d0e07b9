"""The keys of secrets, which all servers must have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nornir_k3s.checks import encryption as checks
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.encryption import PREPARE, ROTATE
from nornir_k3s.model.finding import CLUSTER, Finding
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.together import hosts_by


def differences(cluster: Cluster, all_facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """Yield servers whose keys differ, and a change of keys that was left half-done."""
    names = [member.name for member in checks.running(cluster, all_facts)]
    keys = {name: all_facts[name].encryption for name in names}
    noted = checks.goal(cluster, all_facts)
    if len({own.sha256 for own in keys.values()}) > 1:
        yield _apart(cluster, all_facts, noted)
    elif noted and any(own.goal for own in keys.values()):
        yield Finding(
            host=CLUSTER, kind="encryption", subject="stage", expected="a change of keys that was carried through",
            found="a run that changes the keys of secrets was interrupted",
            remedy="the next deploy finishes it", fixed_by="deploy",
        )  # fmt: skip
    elif checks.wanted(cluster) and checks.is_disabled(cluster, all_facts):
        yield Finding(
            host=CLUSTER, kind="encryption", subject="disabled", expected="secrets that are encrypted",
            found="K3s stores new secrets as they are: somebody has used `k3s secrets-encrypt disable`",
            remedy="deploy turns encryption on again, with a new key", fixed_by="deploy",
        )  # fmt: skip
    elif half := {own.stage for own in keys.values()} & {PREPARE, ROTATE}:
        yield Finding(
            host=CLUSTER, kind="encryption", subject="stage", expected="a rotation that was carried through",
            found=f"somebody has begun to rotate the keys of secrets, and all servers are at stage {min(half)}",
            remedy="nornir-k3s rotate encryption finishes it",
        )  # fmt: skip


def _apart(cluster: Cluster, all_facts: Mapping[str, HostFacts], noted: str) -> Finding:
    servers = checks.running(cluster, all_facts)
    groups = hosts_by((one.name, all_facts[one.name].encryption.sha256[:12] or "none") for one in servers)
    text = "; ".join(f"{', '.join(names)}: {sha256}" for sha256, names in groups.items())
    if noted:
        remedy = "deploy finishes the change of the keys"
    elif checks.unrelated(cluster, all_facts):
        remedy = "create no secrets until it is fixed: see docs/day2.md, Servers with different keys"
    else:
        remedy = "nornir-k3s rotate encryption finishes the rotation"
    return Finding(
        host=CLUSTER, kind="encryption", subject="keys", severity="error",
        found=f"the servers have different keys of secrets, so that some cannot read what others write ({text})",
        expected="the same keys on all servers", remedy=remedy, fixed_by="deploy" if noted else "person",
    )  # fmt: skip
