"""Planner: desired state and facts of a host in, the steps of all its roles out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nornir_k3s import k3s, shell
from nornir_k3s.host_steps import NO_TAKEOVER, converge, stage
from nornir_k3s.model.cluster import NODES, Cluster, Member
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.host_spec import HostSpec, together
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.step import Action, Step
from nornir_k3s.roles import datastore, former, load_balancer, restarts
from nornir_k3s.roles.desired import Known, desired_by_role
from nornir_k3s.roles.running import takeover


@dataclass(frozen=True)
class PlannedHost:
    """The plan of one host: desired state, facts, and the steps between them; computed once for the same facts.

    Arguments:
        stage: Steps that restart nothing.
        by_role: Steps of each role that correct files, units and the database.
        tidy: Steps that remove what no host needs any more, after all others.
        returns: K3s' binary may be put back after a failed change: it stays within its minor version.
    """

    member: Member
    desired: HostSpec
    facts: HostFacts
    stage: tuple[Step, ...]
    by_role: Mapping[str, tuple[Step, ...]]
    tidy: tuple[Step, ...]
    returns: bool = False

    @property
    def converge(self) -> tuple[Step, ...]:
        """The steps of all roles that correct files, units and the database."""
        return tuple(step for steps in self.by_role.values() for step in steps)

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps, in order."""
        return (*self.stage, *self.converge, *self.tidy)

    @property
    def starts_k3s(self) -> bool:
        """Whether K3s is started or restarted."""
        install = self.desired.install
        return install is not None and self.acts_on(install.unit, "start", "restart")

    def acts_on(self, unit: str, *actions: Action) -> bool:
        """Return whether a unit is started, restarted or reloaded; or only whether one of these actions is planned."""
        wanted = actions or ("start", "restart", "reload")
        return any(step.target == unit and step.action in wanted for step in self.converge)


def plan_host(cluster: Cluster, member: Member, facts: HostFacts, known: Known) -> PlannedHost:
    """Return one host's plan.

    Arguments:
        known: What else is known: the release, the cluster's CA, the check certificate.
    """
    cluster = replace(cluster, left=known.left)
    parts = desired_by_role(cluster, member, facts, known)
    steps = {
        role: converge(
            part,
            facts,
            others=[one for other, one in parts.items() if other != role],
            takeover=takeover(cluster, member, part, facts) if role in NODES else NO_TAKEOVER,
        )
        for role, part in parts.items()
    }
    tidy: list[Step] = []
    spec, reason = together(parts.values()), ""
    if _has_other_token(cluster, member, facts, known):
        steps["servers"].insert(0, _forget_passwd())
        reason = "its own files have another token than the datastore"
    reason = reason or restarts.reason(cluster, member, spec, facts, known)
    if reason and spec.install:
        steps[member.role] = _with_restart(steps[member.role], spec.install.unit, spec, reason)
    if "datastore" in steps:
        steps["datastore"] += datastore.steps(cluster, facts.database)
        tidy = datastore.tidy_steps(cluster, facts.database)
    if "lb" in steps:
        steps["lb"] += load_balancer.drained_steps(facts.ledger.drained)
    elif cluster.registration.way == "vip":
        steps["lb"] = former.load_balancer_steps(facts.ledger.files)  # another load balancer takes the VIP
    else:
        tidy += former.load_balancer_steps(facts.ledger.files)  # agents use it until they have moved
    if spec.install and member.role == "servers" and known.new_ca not in ("", facts.server.ca_certificate):
        reason = "it takes the new CA from the datastore when it starts"
        steps["servers"] = _with_restart(steps["servers"], spec.install.unit, spec, reason)
    if member.role in NODES and known.renew:
        steps[member.role] = _renewed(steps[member.role], member, spec, facts, known.renew)
    returns = k3s.same_minor((known.nodes or {}).get(member.node_name, ""), cluster.version)
    by_role = {role: tuple(of_role) for role, of_role in steps.items()}
    return PlannedHost(member, spec, facts, tuple(stage(spec, facts)), by_role, tuple(tidy), returns)


def _with_restart(steps: list[Step], name: str, spec: HostSpec, reason: str) -> list[Step]:
    """Return the steps with a restart of this unit; one that starts or restarts it already is enough."""
    if any(step.target == name and step.action in ("start", "restart") for step in steps):
        return steps
    unit = next(one for one in spec.units if one.name == name)
    steps = [step for step in steps if step.target != name]
    return [*steps, Step("unit", name, f"restart {name}: {reason}", payload=unit, action="restart")]


def _has_other_token(cluster: Cluster, member: Member, facts: HostFacts, known: Known) -> bool:
    """Return whether a server's files are of another token than the datastore's data, which is the right one."""
    wanted = cluster.token.fingerprint()
    return member.role == "servers" and known.stored == wanted and facts.server.token not in ("", wanted)


def _forget_passwd() -> Step:
    """Return the step without which K3s may end with `newer than datastore`; it makes the file anew when it starts."""
    summary = f"remove {k3s.PASSWD}, which has another token: K3s takes the right one from the datastore"
    return Step("remove", k3s.PASSWD, summary, payload=Secret(shell.call("forget", k3s.PASSWD)))


def _renewed(steps: list[Step], member: Member, spec: HostSpec, facts: HostFacts, since: float) -> list[Step]:
    """Return the steps with those that make K3s' certificates anew, if some are older.

    A server makes them when it starts where there are none (docs.k3s.io `cli/certificate.md`), an agent always does.
    """
    before = since + facts.skew - facts.skew_error
    own = (one for one in facts.certificates if one.path.startswith(f"{k3s.DATA}/") and one.path.endswith(".crt"))
    own = (one for one in own if not one.authority)
    if not spec.install or all(one.written >= before for one in own):
        return steps
    unit = spec.install.unit
    steps = _with_restart(steps, unit, spec, "it makes new certificates when it starts")
    if member.role != "servers":
        return steps
    call = shell.source("apply/certificates.sh") + shell.call("drop_certificates", k3s.BINARY, unit, k3s.DATA)
    summary = "delete K3s' certificates with `k3s certificate rotate`"
    # At once before the restart: until then, what reads one of these files fails.
    last = next(number for number, step in enumerate(steps) if step.target == unit)
    return [*steps[:last], Step("certificates", unit, summary, payload=Secret(call)), *steps[last:]]
