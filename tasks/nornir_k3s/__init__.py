"""A highly available K3s cluster on an external datastore, from a Nornir inventory.

`deploy(nr)` is the whole chain, `plan(nr)` says what it would do, `drift(nr)` what no longer matches, `status(nr)` how
the cluster is, `upgrade(nr, to="v1.36")` walks over minor versions, `drill(nr)` breaks one thing after the other and
measures, `remove(nr, names)` takes nodes out, `backup(nr)` saves all data, `restore(nr, file)` brings them back,
`rotate(nr, what)` gives new secrets, `adopt(nr, folder)` writes the inventory of a cluster that exists; `k3s_facts` and
the like are Nornir tasks of single steps. They take your Nornir, print nothing and exit nowhere. docs/workflows.md has
examples.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from nornir_k3s.errors import (
    ArtifactError,
    AuthenticationFailed,
    Busy,
    CommandFailed,
    Declined,
    HostError,
    HostKeyError,
    HostsDisagree,
    HostsFailed,
    HostUnreachable,
    Interrupted,
    InventoryError,
    K3sError,
    NotReady,
    OutcomeUnknown,
    OutsideWindow,
    PlanMoved,
    PreflightFailed,
    UnreadableAnswer,
    UsageError,
)

__all__ = [
    "Adoption",
    "ArtifactError",
    "AuthenticationFailed",
    "Backup",
    "Busy",
    "Change",
    "Choice",
    "CommandFailed",
    "Declined",
    "DriftReport",
    "DrillPlan",
    "DrillReport",
    "Facts",
    "Finding",
    "HostError",
    "HostKeyError",
    "HostPlan",
    "HostReport",
    "HostUnreachable",
    "HostsDisagree",
    "HostsFailed",
    "Interrupted",
    "InventoryError",
    "K3sError",
    "Move",
    "NotReady",
    "OutcomeUnknown",
    "OutsideWindow",
    "Plan",
    "PlanMoved",
    "PreflightFailed",
    "Removal",
    "Report",
    "Reset",
    "Restoration",
    "Rotation",
    "SavedPlan",
    "Status",
    "UnreadableAnswer",
    "UpgradeReport",
    "UsageError",
    "adopt",
    "backup",
    "deploy",
    "drift",
    "drill",
    "k3s_backup",
    "k3s_converge",
    "k3s_facts",
    "k3s_join",
    "k3s_kubeconfig",
    "k3s_load_balancer",
    "k3s_plan",
    "k3s_preflight",
    "k3s_ready",
    "k3s_remove",
    "k3s_reset",
    "k3s_rotate",
    "move",
    "move_back",
    "plan",
    "plan_backup",
    "plan_move",
    "plan_removal",
    "plan_replacement",
    "plan_reset",
    "plan_restore",
    "plan_rotation",
    "plan_to_save",
    "remove",
    "replace",
    "reset",
    "restore",
    "rotate",
    "status",
    "upgrade",
]

if TYPE_CHECKING:
    from nornir_k3s.model.adoption import Adoption
    from nornir_k3s.model.backup import Backup
    from nornir_k3s.model.drift_report import DriftReport
    from nornir_k3s.model.drill_report import DrillPlan, DrillReport
    from nornir_k3s.model.finding import Finding
    from nornir_k3s.model.move import Move
    from nornir_k3s.model.plan import Change, HostPlan, Plan
    from nornir_k3s.model.removal import Removal
    from nornir_k3s.model.report import HostReport, Report
    from nornir_k3s.model.reset import Reset
    from nornir_k3s.model.restoration import Restoration
    from nornir_k3s.model.rotation import Rotation
    from nornir_k3s.model.saved_plan import SavedPlan
    from nornir_k3s.model.status import Status
    from nornir_k3s.model.upgrade_report import UpgradeReport
    from nornir_k3s.run.selection import Choice
    from nornir_k3s.tasks import (
        Facts,
        k3s_backup,
        k3s_converge,
        k3s_facts,
        k3s_join,
        k3s_kubeconfig,
        k3s_load_balancer,
        k3s_plan,
        k3s_preflight,
        k3s_ready,
        k3s_remove,
        k3s_reset,
        k3s_rotate,
    )
    from nornir_k3s.workflows.adopt import adopt
    from nornir_k3s.workflows.backup import backup, plan_backup
    from nornir_k3s.workflows.deploy import deploy
    from nornir_k3s.workflows.drift import drift
    from nornir_k3s.workflows.drill import drill
    from nornir_k3s.workflows.move import move, move_back, plan_move
    from nornir_k3s.workflows.plan import plan, plan_to_save
    from nornir_k3s.workflows.remove import plan_removal, remove
    from nornir_k3s.workflows.replace import plan_replacement, replace
    from nornir_k3s.workflows.reset import plan_reset, reset
    from nornir_k3s.workflows.restore import plan_restore, restore
    from nornir_k3s.workflows.rotate import plan_rotation, rotate
    from nornir_k3s.workflows.status import status
    from nornir_k3s.workflows.upgrade import upgrade
else:
    # Each is brought when it is asked for: who only looks neither waits for nor loads what changes hosts.
    _PLACES = {
        "model.finding": "Finding",
        "model.report": "HostReport Report",
        "model.drift_report": "DriftReport",
        "tasks": "Facts k3s_facts k3s_preflight k3s_plan k3s_converge"
        " k3s_backup k3s_join k3s_load_balancer k3s_ready k3s_kubeconfig k3s_remove k3s_reset"
        " k3s_rotate",
        "run.selection": "Choice",
        "model.adoption": "Adoption",
        "workflows.adopt": "adopt",
        "model.backup": "Backup",
        "model.restoration": "Restoration",
        "workflows.backup": "backup plan_backup",
        "workflows.restore": "plan_restore restore",
        "workflows.deploy": "deploy",
        "workflows.drift": "drift",
        "model.drill_report": "DrillPlan DrillReport",
        "workflows.drill": "drill",
        "model.move": "Move",
        "workflows.move": "move move_back plan_move",
        "model.plan": "Change HostPlan Plan",
        "model.status": "Status",
        "workflows.plan": "plan plan_to_save",
        "model.saved_plan": "SavedPlan",
        "model.removal": "Removal",
        "workflows.remove": "plan_removal remove",
        "workflows.replace": "plan_replacement replace",
        "model.reset": "Reset",
        "workflows.reset": "plan_reset reset",
        "model.rotation": "Rotation",
        "workflows.rotate": "plan_rotation rotate",
        "workflows.status": "status",
        "model.upgrade_report": "UpgradeReport",
        "workflows.upgrade": "upgrade",
    }
    _PLACE = {name: f"{__name__}.{module}" for module, names in _PLACES.items() for name in names.split()}

    def __getattr__(name: str) -> object:
        if name not in _PLACE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_PLACE[name]), name)
        return value

    def __dir__() -> list[str]:
        return __all__
