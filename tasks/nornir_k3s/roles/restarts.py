"""Why K3s must restart although nothing that it reads has changed.

Sources: kubernetes `pkg/kubelet/kubelet_node_status.go` (a node is registered at the start); docs.k3s.io
`cli/certificate.md`, `cli/secrets-encrypt.md` (certificates and keys of secrets are read at the start).
"""

from __future__ import annotations

from nornir_k3s import k3s
from nornir_k3s.model.cluster import Cluster, Member
from nornir_k3s.model.host_facts import HostFacts, UnitState
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.model.k3s_facts import CertificateFile
from nornir_k3s.roles.desired import Known

SETTLED = 10  # seconds after which an active unit's node is registered, with its version
RENEWED = 90 * 86400  # K3s renews a certificate that has less than this left when it starts (older releases: 90 days)
EXPIRING = 7 * 86400


def reason(cluster: Cluster, member: Member, spec: HostSpec, facts: HostFacts, known: Known) -> str:
    """Return why K3s must restart although nothing that it reads has changed; nothing if it need not.

    Only when it starts, a kubelet registers its node (kubernetes: pkg/kubelet/kubelet_node_status.go), and K3s renews
    its certificates (docs.k3s.io `cli/certificate.md`).
    """
    state = facts.unit(spec.install.unit) if spec.install else UnitState()
    if state.active != "active":
        return ""
    return _must_read(member, facts, known, state.started) or _registers(cluster, member, facts, known, state)


def _must_read(member: Member, facts: HostFacts, known: Known, started: int) -> str:
    """Return what K3s does only when it starts, to what it has read before; nothing if it need not."""
    if expiring := [one.path for one in facts.certificates if _is_renewed(one, facts.now, started)]:
        return f"it renews {', '.join(expiring)} when it starts"
    if member.role == "servers" and reads_keys(facts, known, started):
        return "it reads the keys of secrets when it starts"
    if known.went_back and started <= known.went_back.since + facts.skew + facts.skew_error:
        return f"{known.went_back}, and the server answers from its caches"
    return ""


def _registers(cluster: Cluster, member: Member, facts: HostFacts, known: Known, state: UnitState) -> str:
    """Return why the node must be registered anew; nothing if it need not."""
    if known.nodes is None or facts.now - state.changed < SETTLED:
        return ""
    version = known.nodes.get(member.node_name)
    if version is None:
        return f"node {member.node_name} is not listed"
    return f"node {member.node_name} runs {version}" if version != cluster.version else ""


def reads_keys(facts: HostFacts, known: Known, started: int) -> bool:
    """Return whether the keys of secrets have changed since a server started (docs.k3s.io `cli/secrets-encrypt.md`)."""
    own = facts.encryption
    return bool(known.keys) and (own.sha256 != known.keys or (own.restarts and own.written > started))


def _is_renewed(one: CertificateFile, now: float, started: int) -> bool:
    """Return whether a certificate has expired, or soon will, and was no reason to renew it at the last start."""
    end = one.expires.timestamp()
    kept = one.written <= started and end - started < RENEWED
    return one.path.startswith(f"{k3s.DATA}/") and not one.authority and end - now < EXPIRING and not kept
