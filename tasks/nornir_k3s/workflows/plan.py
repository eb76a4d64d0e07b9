"""plan: what a deploy would do, as data; nothing is changed, on no host and not on the controller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nornir.core import Nornir

from nornir_k3s.plan import Step
from nornir_k3s.workflows import deploy


@dataclass(frozen=True)
class HostPlan:
    """What would be done on one host, in order.

    Arguments:
        role: datastore, servers, agents or lb.
        steps: With diffs, secrets masked.
        estimate: Files of it wait for what an earlier phase finds out (the cluster's CA), and may differ in the end.
    """

    role: str
    steps: tuple[Step, ...]
    estimate: bool


@dataclass(frozen=True)
class Plan:
    """What would be done on every host, by name, and the preflight's warnings."""

    cluster: str
    hosts: Mapping[str, HostPlan]
    warnings: tuple[str, ...] = field(default=())

    @property
    def changes(self) -> bool:
        """Whether anything would be changed."""
        return any(host.steps for host in self.hosts.values())


def plan(nr: Nornir, *, base: Path, state: Path, options: Mapping[str, Any] | None = None) -> Plan:
    """Return what `deploy` with the same arguments would do now.

    Arguments:
        nr, base, state, options: As `deploy` takes them.

    Raises:
        K3sError: As `deploy` does before its first change.
    """
    run = deploy.prepare(nr, base=base, state=state, options=options or {}, keep=False)
    deploy.observe_all(run)
    deploy.check(run)
    hosts = {
        member.name: HostPlan(
            member.role,
            (*run.stage_steps(member.name), *run.converge_steps(member.name)),
            estimate=member.role in ("agents", "lb") and not run.ca_prefix,
        )
        for member in run.cluster.members
    }
    return Plan(run.cluster.name, hosts, tuple(run.report.warnings))
