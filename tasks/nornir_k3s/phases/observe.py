"""Phases observe and artifacts: read every host, find the release; a failure hides no finding of the preflight."""

from __future__ import annotations

from collections.abc import Sequence

from nornir_k3s.checks import preflight
from nornir_k3s.errors import (
    HostError,
    HostsFailed,
    HostUnreachable,
    Interrupted,
    K3sError,
    OutcomeUnknown,
    PreflightFailed,
)
from nornir_k3s.phases import token
from nornir_k3s.phases.phase import Phase
from nornir_k3s.run import gather, take_back
from nornir_k3s.run.context import Run
from nornir_k3s.state import revision

_DOWN = (HostUnreachable, OutcomeUnknown)  # a host that hangs may take connections, and end no script


def observe(run: Run) -> None:
    """Read every host once; leave out agents that are down, and load balancers if that was asked for.

    Raises:
        K3sError: A host cannot be read; with the problems of those that were.
    """
    for read in (gather.read_all, gather.take_over, token.adopt, gather.look_at_upgrade):
        try:
            read(run)
        except (HostError, HostsFailed) as error:
            _skip(run, error.errors if isinstance(error, HostsFailed) else [error])
    take_back.settle(run)
    gather.look_at_address(run)
    if run.store.keep:
        revision.save(run.store, run.revision())


def _skip(run: Run, errors: Sequence[K3sError]) -> None:
    """Leave out the hosts of these errors, or raise."""
    refused = _refused(run, errors)
    if refused or not set(run.chosen(run.present)) - {one.host for one in errors if isinstance(one, HostError)}:
        run.report.notes += [refused] if run.skip_unreachable and refused else []
        raise _with_findings(run, errors) from None
    for one in errors:
        run.skip(one.host, one.message)  # type: ignore[attr-defined]  # `_refused` lets only those through


def _refused(run: Run, errors: Sequence[K3sError]) -> str:
    """Return why the run does not go on without these hosts, or nothing."""
    down = [one.host for one in errors if type(one) in _DOWN and isinstance(one, HostError)]
    if len(down) < len(errors):
        return "--skip-unreachable leaves out hosts that are down, not those that refuse the login or have another key"
    allowed = {"agents", "lb"} if run.skip_unreachable else {"agents"}
    needed = [name for name in down if set(run.member(name).roles) - allowed]
    if needed:
        return f"--skip-unreachable leaves out agents and load balancers only, not {', '.join(needed)}"
    balancers = [name for name in down if "lb" in run.member(name).roles]
    if not balancers:
        return ""
    others = [run.facts[member.name] for member in run.of("lb")]
    if not others:
        return "--skip-unreachable needs a load balancer that answers"
    vip = str(run.cluster.registration.address or "")
    serving = any(one.unit("keepalived.service").active == "active" for one in others)
    if serving and not any(one.interface_of(vip) for one in others):
        names = ", ".join(balancers)
        return f"--skip-unreachable does not leave out {names}, which may hold the VIP {vip}: no other does"
    return ""


def find_artifacts(run: Run) -> None:
    """Find, download and verify the release.

    Raises:
        K3sError: It cannot be had; with the problems of the hosts.
    """
    try:
        gather.find_artifacts(run)
    except Interrupted:
        raise
    except K3sError as error:
        raise _with_findings(run, [error]) from None


def _with_findings(run: Run, errors: Sequence[K3sError]) -> K3sError:
    """Return an error with these and the problems of the hosts that were read."""
    run.report.findings = preflight.check(run.cluster, run.facts, run.address)
    found = [finding for finding in run.report.findings if finding.severity == "error"]
    every = [*errors, *([PreflightFailed(found)] if found else [])]
    return every[0] if len(every) == 1 else HostsFailed(every)


PHASE = Phase("observe", "read every host once", observe, reads=True)
ARTIFACTS = Phase("artifacts", "download what is not in the cache, verify all of it", find_artifacts, reads=True)
