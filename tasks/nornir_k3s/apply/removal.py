"""Steps that take a host out of the cluster."""

from __future__ import annotations

from nornir_k3s import k3s, shell
from nornir_k3s.model.cluster import Member
from nornir_k3s.model.paths import STATE
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.step import Step


def on_host(member: Member) -> list[Step]:
    """Return the steps on the host itself: K3s is uninstalled, then all that this tool has put there."""
    unit = k3s.UNITS[member.role.removesuffix("s")].removesuffix(".service")
    return [
        Step("remove", unit, f"uninstall K3s with {unit}-uninstall.sh", payload=_call("uninstall_k3s", unit)),
        Step("remove", STATE, f"remove what this tool has put there, and {STATE}", payload=_call("forget_host")),
    ]


def of_node(node: str, *, anew: bool = False) -> Step:
    """Return the step on a server that deletes a node and its password.

    Arguments:
        anew: Its host may register it again at once, with another password.
    """
    summary = f"delete node {node} and its secret {node}.node-password.k3s"
    return Step(
        "remove", f"node/{node}", summary, payload=_call("forget_node", k3s.BINARY, node, "yes" if anew else "no")
    )


def _call(function: str, *arguments: object) -> Secret:
    return Secret(shell.source("apply/removal.sh") + shell.call(function, *arguments))
