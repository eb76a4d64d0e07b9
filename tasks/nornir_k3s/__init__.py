"""A highly available K3s cluster on an external datastore, from a Nornir inventory.

`deploy(nr, base=…, state=…)` is the whole chain, `plan(…)` says what it would do, `status(…)` how the
cluster is. They take a Nornir of the caller's,
print nothing and exit nowhere.
"""

from nornir_k3s.errors import (
    ArtifactError,
    AuthenticationFailed,
    CommandFailed,
    Declined,
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
from nornir_k3s.report.data import HostReport, Report
from nornir_k3s.workflows.choice import Choice
from nornir_k3s.workflows.deploy import deploy
from nornir_k3s.workflows.plan import Change, HostPlan, Plan, plan
from nornir_k3s.workflows.status import Status, status

__all__ = [
    "ArtifactError",
    "AuthenticationFailed",
    "Change",
    "Choice",
    "CommandFailed",
    "Declined",
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
    "Status",
    "UsageError",
    "deploy",
    "plan",
    "status",
]
