"""Phase preflight: every problem of every host, before the first change."""

from __future__ import annotations

from nornir_k3s.checks import preflight
from nornir_k3s.errors import PreflightFailed
from nornir_k3s.model.together import together
from nornir_k3s.phases.phase import Phase
from nornir_k3s.run.context import Run
from nornir_k3s.state import restoring

# Of the content of a datastore, which a restore replaces before a server starts.
_REPLACED = ("datastore-moved", "foreign-data")


def check(run: Run) -> None:
    """Check every host before the first change.

    Raises:
        PreflightFailed: A check failed; with every problem of every host.
    """
    check_all_but(run, *(_REPLACED if run.until == "datastore" and restoring.load(run.store) else ()))


def check_all_but(run: Run, *subjects: str) -> None:
    """Check every host before a change that cures some kinds of problems.

    Raises:
        PreflightFailed: A check failed; with every problem of every host.
    """
    run.report.findings = preflight.check(run.cluster, run.facts, run.address, limit=run.limit)
    errors = [
        finding for finding in run.report.findings if finding.severity == "error" and finding.subject not in subjects
    ]
    if errors:
        raise PreflightFailed(errors, together(errors))


PHASE = Phase("preflight", "find every problem of every host before the first change", check, reads=True)
