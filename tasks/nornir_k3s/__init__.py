"""A highly available K3s cluster on an external datastore, from a Nornir inventory.

`deploy(nr, base=…, state=…)` is the whole chain, `plan(…)` says what it would do. They take a Nornir of the caller's,
print nothing and exit nowhere.
"""

from nornir_k3s.errors import (
    ArtifactError,
    AuthenticationFailed,
    CommandFailed,
    HostError,
    HostKeyError,
    HostsFailed,
    HostUnreachable,
    Interrupted,
    InventoryError,
    K3sError,
    NotReady,
    OutcomeUnknown,
    PreflightFailed,
    UsageError,
)
from nornir_k3s.workflows.deploy import deploy
from nornir_k3s.workflows.plan import HostPlan, Plan, plan
from nornir_k3s.workflows.run import HostReport, Report

__all__ = [
    "ArtifactError",
    "AuthenticationFailed",
    "CommandFailed",
    "HostError",
    "HostKeyError",
    "HostPlan",
    "HostReport",
    "HostUnreachable",
    "HostsFailed",
    "Interrupted",
    "InventoryError",
    "K3sError",
    "NotReady",
    "OutcomeUnknown",
    "Plan",
    "PreflightFailed",
    "Report",
    "UsageError",
    "deploy",
    "plan",
]
