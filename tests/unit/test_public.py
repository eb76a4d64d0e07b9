"""The public surface is small, and changes only on purpose."""

from __future__ import annotations

import inspect
from pathlib import Path

import nornir_k3s
from nornir_k3s import errors

PUBLIC = [
    "adopt",
    "Adoption",
    "ArtifactError",
    "AuthenticationFailed",
    "Backup",
    "backup",
    "Busy",
    "Change",
    "Choice",
    "CommandFailed",
    "Declined",
    "deploy",
    "drift",
    "DriftReport",
    "drill",
    "DrillPlan",
    "DrillReport",
    "Facts",
    "Finding",
    "HostError",
    "HostKeyError",
    "HostPlan",
    "HostReport",
    "HostsDisagree",
    "HostsFailed",
    "HostUnreachable",
    "Interrupted",
    "InventoryError",
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
    "K3sError",
    "Move",
    "move",
    "move_back",
    "NotReady",
    "OutcomeUnknown",
    "OutsideWindow",
    "Plan",
    "plan",
    "plan_backup",
    "plan_move",
    "plan_removal",
    "plan_replacement",
    "plan_reset",
    "plan_restore",
    "plan_rotation",
    "plan_to_save",
    "PlanMoved",
    "PreflightFailed",
    "Removal",
    "remove",
    "replace",
    "Report",
    "Reset",
    "reset",
    "Restoration",
    "restore",
    "rotate",
    "Rotation",
    "SavedPlan",
    "Status",
    "status",
    "UnreadableAnswer",
    "upgrade",
    "UpgradeReport",
    "UsageError",
]


def test_the_public_surface_changes_on_purpose_only() -> None:
    assert sorted(nornir_k3s.__all__, key=str.lower) == PUBLIC
    assert (Path(nornir_k3s.__file__).parent / "py.typed").exists()


def test_everything_public_is_there_and_documented() -> None:
    for name in nornir_k3s.__all__:
        assert inspect.getdoc(getattr(nornir_k3s, name)), name


def test_every_error_is_public_and_in_the_tree_that_is_shown() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.K3sError)]
    assert {kind.__name__ for kind in kinds} <= set(nornir_k3s.__all__)
    for kind in kinds:
        assert kind.__name__ in (errors.__doc__ or "")


def test_exit_codes_are_the_documented_ones() -> None:
    codes = {
        kind.exit_code for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.K3sError)
    }
    assert codes == {1, 2, 4, 5, 6, 7, 130}
