"""upgrade: walks over several minor versions, each a complete and verified deploy, as far as it goes well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from nornir.core import Nornir

from nornir_k3s import k3s
from nornir_k3s.artifacts import channels
from nornir_k3s.checks import upgrade as checks
from nornir_k3s.errors import Declined, Interrupted, K3sError, UsageError
from nornir_k3s.model.report import ErrorReport
from nornir_k3s.model.upgrade_report import UpgradeReport, UpgradeStep
from nornir_k3s.phases.changing import locked
from nornir_k3s.run import gather, paths
from nornir_k3s.run.context import Run
from nornir_k3s.run.options import complete
from nornir_k3s.run.selection import Choice
from nornir_k3s.workflows.deploy import deploy

Confirm = Callable[[UpgradeReport], bool]
Tell = Callable[[str], None]


def plan(
    nr: Nornir,
    *,
    to: str,
    via: Sequence[str] = (),
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
) -> UpgradeReport:
    """Return the path of an upgrade; no host is changed. What every step needs is downloaded and verified.

    Arguments:
        nr, base, state, options: As for `deploy`.
        to: The version at the end, `v1.36.3+k3s1`, or its minor version, `v1.36`.
        via: The versions to take of minor versions.

    Raises:
        UsageError: There is no such path, or it must be said which patch of a minor version to take.
        ArtifactError: What one of the steps needs cannot be had.
        K3sError: No server answers.
    """
    folders, given = paths.of(nr, base, state), complete(nr, options)
    run = _read(nr, folders, given)
    running = checks.running(run.cluster, run.facts)
    if not running:
        raise UsageError(
            "no server answers, so the versions of the nodes are unknown: "
            + ("; ".join(run.unread.values()) or "none is ready"),
            hint="nornir-k3s status shows what is wrong; for a new cluster, run deploy",
        )
    report = UpgradeReport(
        cluster=run.cluster.name,
        inventory_version=run.cluster.version,
        inventory_line=_line(given),
        nodes={run.member(name).node_name: version for name, version in running.items()},
        notes=list(run.unread.values()),
    )
    report.steps = [UpgradeStep(version=one) for one in _path(run, list(running.values()), to, via)]
    report.ways = {
        node: [one for one in report.path if k3s.parse_version(one) > k3s.parse_version(version)]
        for node, version in report.nodes.items()
    }
    for step in report.steps:  # settings that a version does not know, and missing artefacts, before the first change
        one = gather.prepare(
            nr,
            base=folders.base,
            state=folders.state,
            options={**given, "version": step.version},
            choice=Choice(),
            keep=False,
        )
        one.facts = dict(run.facts)
        gather.find_artifacts(one)
    return report


def upgrade(
    nr: Nornir,
    *,
    to: str,
    via: Sequence[str] = (),
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
    choice: Choice | None = None,
    confirm: Confirm | None = None,
    tell: Tell | None = None,
) -> UpgradeReport:
    """Upgrade the cluster, one minor version after the other; each step is a deploy that ends with a verified cluster.

    Arguments:
        nr, base, state, options: As for `deploy`.
        to, via: As for `plan` of this module: the version at the end, and those between.
        choice: Its `skip_unreachable`, `ignore_window` and `trial` count.
        confirm: Gets the path before the first change; returns whether to go on.
        tell: Gets one line at the beginning and the end of each step.

    Returns:
        The report. Its `exit_code` is 4, and the upgrade has stopped, where a step left out hosts that are down.

    Raises:
        K3sError: As `plan` and `deploy`. The steps before the failed one are complete, those after it have not begun;
            its `report` is the `UpgradeReport`, which says where the cluster stands.
    """
    asked, said = choice or Choice(), tell or (lambda _: None)
    given: dict[str, Any] = {"base": base, "state": state, "options": options}
    report = plan(nr, to=to, via=via, **given)
    if asked.trial:
        require_return(report)
    if report.steps and confirm is not None and not confirm(report):
        raise Declined("Aborted: not confirmed; nothing was changed", hint="--yes upgrades without asking")
    with locked(paths.of(nr, base, state).state / report.cluster, "upgrade"):
        _walk(nr, report, given, replace(asked, confirm=None), said)
    return report


def _walk(nr: Nornir, report: UpgradeReport, given: Mapping[str, Any], choice: Choice, said: Tell) -> None:
    """Deploy one version after the other; the lock is held in between."""
    for number, step in enumerate(report.steps, 1):
        said(f"step {number} of {len(report.steps)}: {step.version}")
        own = {**given, "options": {**(given["options"] or {}), "version": step.version}}
        try:
            step.report = deploy(nr, **own, choice=choice)
        except K3sError as error:
            step.state, step.report = "failed", error.report
            now = {} if isinstance(error, Interrupted) else _nodes(nr, **given)
            raise _stopped(report, step, error, now) from None
        step.state = "done"
        report.exit_code = step.report.exit_code
        report.nodes = dict.fromkeys(report.nodes, step.version)
        if report.exit_code:
            step.state = "failed"
            report.nodes = _nodes(nr, **given) or report.nodes
            left_out = ", ".join(step.report.skipped)
            report.notes.append(f"stopped after {step.version}: {_stand(report)}; {left_out} left out")
            break
        said(f"every node runs {step.version}")


def require_return(report: UpgradeReport) -> None:
    """Check that an upgrade on trial stays within a minor version.

    Raises:
        UsageError: It does not.
    """
    if _crosses_minor(report):
        text = "--try is for changes that can be rolled back: K3s does not go back over a minor version"
        raise UsageError(text, hint="upgrade without --try; nothing was changed")


def _read(nr: Nornir, folders: paths.Folders, options: Mapping[str, Any]) -> Run:
    """Return a run that has read every host that answers; the artefacts of the inventory's version are not needed."""
    run = gather.prepare(
        nr, base=folders.base, state=folders.state, options=options, choice=Choice(), keep=False, artifacts=False
    )
    gather.gather_facts(run, lenient=run.present)
    return run


def _path(run: Run, running: Sequence[str], to: str, via: Sequence[str]) -> list[str]:
    """Return the versions of the steps, in order.

    Raises:
        UsageError: With every reason why there is no path.
    """
    end = to if k3s.is_version(to) else ""
    try:
        wanted = k3s.minor(end) if end else to.removeprefix("v")
        major, last = map(int, wanted.split("."))
        given = {k3s.minor(one): one for one in (*via, *([end] if end else []))}
    except ValueError:
        text = f"{', '.join([to, *via])}: not all of them are versions of K3s"
        raise UsageError(text, hint="--to takes v1.36 or v1.36.3+k3s1, --via v1.35.7+k3s1") from None
    lowest, highest = min(running, key=k3s.parse_version), max(running, key=k3s.parse_version)
    first = k3s.parse_version(lowest).release
    minors = [f"{major}.{number}" for number in range(first[1], last + 1)] if major == first[0] else []
    minors = minors[1:] or minors  # a patch of the lowest one is a step only if it is the last one, too
    own = run.cluster.version
    if k3s.parse_version(own) > k3s.parse_version(highest):
        given.setdefault(k3s.minor(own), own)
    found = {one: given.get(one) or channels.newest(run.cluster.artifacts, one) for one in minors}
    problems = [_missing(one) for one, version in found.items() if not version]
    problems += [f"--via {one}: it is not between {lowest} and {to}" for one in via if k3s.minor(one) not in minors]
    for one in {k3s.minor(version) for version in running} | {wanted}:
        newest = max((v for v in running if k3s.minor(v) == one), key=k3s.parse_version, default="")
        if newest and found.get(one) and k3s.parse_version(newest) > k3s.parse_version(found[one]):
            problems.append(f"nodes run {newest}: K3s cannot be downgraded to {found[one]}")
    if not minors or tuple(map(int, k3s.minor(highest).split("."))) > (major, last):
        problems.append(f"nodes run {highest}: K3s cannot be downgraded to {to}")
    if problems:
        raise UsageError("; ".join(problems), hint="no host was changed; docs/upgrade.md explains the path")
    return [one for one in found.values() if k3s.parse_version(one) > k3s.parse_version(lowest)]


def _missing(minor: str) -> str:
    return f"which patch of {minor} to take cannot be asked: name it with --via v{minor}.…+k3s1"


def _line(options: Mapping[str, Any]) -> str:
    sources = options.get("sources")
    return sources.location("defaults", "data", "k3s_cluster", "version") if sources else ""


def _nodes(
    nr: Nornir, base: Path | str | None, state: Path | str | None, options: Mapping[str, Any] | None
) -> dict[str, str]:
    """Return the versions of the nodes now, or nothing where no server tells them."""
    with suppress(K3sError):
        run = _read(nr, paths.of(nr, base, state), complete(nr, options))
        running = checks.running(run.cluster, run.facts)
        return {run.member(name).node_name: version for name, version in running.items()}
    return {}


def _stand(report: UpgradeReport) -> str:
    counts = Counter(report.nodes.values())
    versions = sorted(counts, key=k3s.parse_version)
    return ", ".join(f"{counts[one]} node{'s run' if counts[one] > 1 else ' runs'} {one}" for one in versions)


def _stopped(report: UpgradeReport, step: UpgradeStep, error: K3sError, now: Mapping[str, str]) -> K3sError:
    """Return the error of a step, which says where the cluster stands.

    Arguments:
        now: The versions of the nodes, if they are known.
    """
    report.nodes = now or report.nodes
    where = _stand(report) if now else "status shows which version each node runs"
    number = report.steps.index(step) + 1
    stopped = f"the upgrade has stopped at {step.version}, step {number} of {len(report.steps)}: {where}"
    error.message += f"\n{stopped}; to go on, run upgrade again: the inventory asks for {report.inventory_version}"
    report.exit_code = error.exit_code
    report.error = ErrorReport(kind=type(error).__name__, message=error.message, next=error.hint)
    error.report = report
    return error


def _crosses_minor(report: UpgradeReport) -> bool:
    return any(
        not k3s.same_minor(report.nodes.get(name, ""), version)
        for name, versions in report.ways.items()
        for version in versions
    )
