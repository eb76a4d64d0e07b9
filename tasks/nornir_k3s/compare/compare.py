"""Judge: everything that was read of a cluster in, everything that does not match out. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from datetime import date

from nornir_k3s.checks import preflight
from nornir_k3s.compare import datastore, effective_config, host, load_balancers, nodes
from nornir_k3s.model.drift_limits import Limits
from nornir_k3s.model.finding import CLUSTER, Finding
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.model.settings import (
    KnownDifference,
)
from nornir_k3s.model.step import (
    Step,
)
from nornir_k3s.run.context import Run

_ORDER = ("error", "warning", "note")
_WAITS = ("agents", "lb")


def differences(run: Run, limits: Limits) -> list[Finding]:
    """Return everything that does not match on the hosts that were read, the worst first."""
    cluster, observed = run.cluster, run.observed
    listed = nodes.listed(cluster, observed)
    found: list[Finding] = []
    for name in run.names:
        member, spec, steps = run.member(name), run.spec(name), run.steps(name)
        if member.role in _WAITS and not run.ca_prefix:
            spec, steps = _without_ca(spec, steps)
            found.append(_unread(name))
        found += host.differences(cluster, member, spec, observed[name], steps)
    found += nodes.differences(cluster, observed, listed)
    found += effective_config.differences(cluster, observed, listed or [])
    found += load_balancers.differences(cluster, observed)
    found += datastore.differences(cluster, observed, limits)
    found += _preflight(run)
    return ordered(found)


def ordered(found: Sequence[Finding]) -> list[Finding]:
    """Return the differences, each once, the worst first."""
    once = {difference.id: difference for difference in reversed(found)}
    return sorted(once.values(), key=lambda d: (_ORDER.index(d.severity), d.host == CLUSTER, d.host, d.kind, d.subject))


def _without_ca(spec: HostSpec, steps: list[Step]) -> tuple[HostSpec, list[Step]]:
    return HostSpec(spec.packages, spec.artifacts, spec.install, (), (), spec.units, spec.watch), [
        step for step in steps if step.kind in ("packages", "artifact", "install")
    ]


def _unread(name: str) -> Finding:
    return Finding(
        host=name, kind="unread", subject="files", found="its configuration was not compared: no server could be read",
        expected="a server that says what the cluster's CA is", remedy="look at the servers first", severity="note",
    )  # fmt: skip


def _preflight(run: Run) -> Iterator[Finding]:
    """Yield what a deploy would stop at, or warn of."""
    return (finding for finding in preflight.check(run.cluster, run.observed) if finding.severity != "note")


def accepted(
    found: Sequence[Finding], known: Sequence[KnownDifference], today: date
) -> tuple[list[Finding], list[str]]:
    """Return the differences, those that are known marked, and in words which of the known ones were not met.

    Arguments:
        known: What the inventory accepts; one whose end has passed counts again.
        today: What its end is compared with.
    """
    met: set[str] = set()
    result = []
    for difference in found:
        match = next((one for one in known if fnmatch.fnmatchcase(difference.id, one.id)), None)
        if match is None or difference.accepted:
            result.append(difference)
            continue
        met.add(match.id)
        if match.until < today:
            again = f"{difference.found} (accepted until {match.until}: {match.reason})"
            result.append(difference.model_copy(update={"found": again, "until": match.until}))
        else:
            result.append(difference.model_copy(update={"accepted": match.reason, "until": match.until}))
    notes = [f"known_drift {one.id} was not met: remove it from the inventory" for one in known if one.id not in met]
    return result, notes
