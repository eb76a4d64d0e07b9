"""Rotate the CAs of K3s: new ones, signed by the old ones too, come to all hosts; then all certificates are made anew.

Source: docs.k3s.io `cli/certificate.md`. Servers restart twice: while some have the old CA, they share a certificate of
port 6443 that it has signed.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from nornir_k3s.errors import CommandFailed, K3sError, UsageError
from nornir_k3s.model.report import Report
from nornir_k3s.model.rotation import Rotation
from nornir_k3s.model.together import few
from nornir_k3s.phases import cluster_ca, window
from nornir_k3s.phases.changing import changing
from nornir_k3s.roles import left
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run
from nornir_k3s.run.selection import Choice
from nornir_k3s.state import cluster_ca as state_of
from nornir_k3s.workflows import plan as plans
from nornir_k3s.workflows.deploy import deploy
from nornir_k3s.workflows.rotation_request import Request

BUNDLE = "server-ca.crt"


def plan(request: Request) -> Rotation:
    """Return what `rotate` would do; nothing is changed.

    Raises:
        K3sError: As `rotate` does before its first change.
    """
    return _planned(_look(request), request)


def rotate(request: Request) -> Report:
    """Make new CAs, have K3s store them, and bring them to all hosts.

    Raises:
        UsageError: K3s has not made the present ones, or a server is not ready; nothing was changed.
        OutsideWindow: K3s may not restart now; nothing was changed.
        K3sError: K3s refuses them, or as `deploy` does.
    """
    run = _look(request)
    window.require_open(run, run.ready_servers)  # a server that restarts by itself takes CAs that are stored
    request.require_confirmed(_planned(run, request))
    with changing(run, "rotate"):
        return _carry_out(run, request)


def _carry_out(run: Run, request: Request) -> Report:
    files, restarted = state_of.load(run.store)
    first = None
    if not restarted:
        files = _stored(run, files)
        first = deploy(request.nr, **request.arguments(new_ca=files[BUNDLE].reveal()), choice=request.choice)
        restarted = time.time()
        state_of.save(run.store, files, restarted)
    try:
        report = deploy(request.nr, **request.arguments(renew=restarted), choice=_only_servers(run))
    except K3sError as error:
        error.report = error.report and _joined(first, error.report)
        raise
    (run.store.folder / state_of.FILE).unlink(missing_ok=True)
    return _joined(first, report)


def _only_servers(run: Run) -> Choice:
    """Return the choice of the second restart."""
    return Choice(limit=tuple(member.name for member in run.cluster.of("servers")), ignore_window=run.ignore_window)


def _look(request: Request) -> Run:
    """Return a run that has read the servers; what it generates on the controller is not saved.

    Raises:
        UsageError: One of them is not in this inventory, or not ready where no rotation was interrupted.
    """
    run = request.prepare()
    servers = [member.name for member in run.cluster.of("servers")]
    run.phase("observe", [name for name in servers if name not in run.away], gather.gather_host, reads=True)
    files, restarted = state_of.load(run.store)
    ready = [*run.ready_servers, *(set(run.facts) if restarted or (files and run.ready_servers) else ())]
    if missing := [name for name in servers if name not in ready]:
        text = f"{', '.join(missing)} is not ready: every server must get the new CA"
        raise UsageError(text, hint="nothing was changed; run deploy first")
    if gone := [one.name for one in left.members(run.cluster, run.facts) if one.role == "servers"]:
        text = f"{few(gone)} left the inventory, and K3s runs there: every server must get the new CA"
        raise UsageError(text, hint="nothing was changed; remove it, or add it to the inventory")
    return run


def _stored(run: Run, begun: state_of.Files) -> state_of.Files:
    """Have K3s store new CAs, or those of a rotation that was begun; return them.

    Raises:
        CommandFailed: K3s refuses them: new ones are thrown away.
    """
    files = begun or _made(run)
    try:
        cluster_ca.store(run, run.ready_servers[0], files)
    except CommandFailed as error:
        if not begun and error.status == 1:  # else its script was killed, and they may be stored
            (run.store.folder / state_of.FILE).unlink(missing_ok=True)
        raise
    return files


def _made(run: Run) -> state_of.Files:
    """Return the files of new CAs, and save them: a run that is killed goes on with the same ones.

    Raises:
        UsageError: K3s has not made the present ones.
    """
    try:
        files = state_of.renewed(cluster_ca.read(run, run.ready_servers[0]), datetime.now(UTC))
    except ValueError as error:
        hint = "nothing was changed; for CAs of your own see docs.k3s.io, cli/certificate: `k3s certificate rotate-ca`"
        raise UsageError(str(error), hint=hint) from None
    state_of.save(run.store, files)
    return files


def _planned(run: Run, request: Request) -> Rotation:
    """Return the plan; the preflight of the deploy is part of it."""
    files, restarted = state_of.load(run.store)
    bundle = files[BUNDLE].reveal() if files else "a new one"
    given = request.arguments(renew=restarted) if restarted else request.arguments(new_ca=bundle)
    choice = _only_servers(run) if restarted else request.choice
    deployed = plans.plan(request.nr, **given, choice=choice)
    found = Rotation(cluster=run.cluster.name, what="ca")
    servers = [member.name for member in run.cluster.of("servers")]
    if not restarted:
        if not files:
            found.add(["controller"], f"make new CAs, signed by the old ones, too: {run.store.folder / state_of.FILE}")
        found.add([run.ready_servers[0]], "store them in the datastore with `k3s certificate rotate-ca`")
    found.add_deploy(deployed)
    if not restarted:
        agents, balancers = ([member.name for member in run.cluster.of(role)] for role in ("agents", "lb"))
        found.add(agents, "restart k3s-agent.service with the new CA's hash in the token")
        found.add(balancers, "renew the certificate of the health check")
        found.add(servers, "make all certificates anew, and restart k3s.service a second time")
    if files:
        found.notes.append("it goes on with a rotation that was interrupted")
    found.notes.append("kubeconfigs that others have go on while the old CA lasts; give them the new one")
    return found


def _joined(first: Report | None, report: Report) -> Report:
    """Return the report of the second deploy, with what the first has changed, noted and left out."""
    if first is None:
        return report
    for name, host in report.hosts.items():
        if name in first.hosts:
            host.changes = [*first.hosts[name].changes, *host.changes]
            host.restarts = [*first.hosts[name].restarts, *host.restarts]
            host.error = host.error or first.hosts[name].error
    report.notes = list(dict.fromkeys([*first.notes, *report.notes]))
    report.skipped = list(dict.fromkeys([*first.skipped, *report.skipped]))
    report.exit_code = report.exit_code or first.exit_code
    return report
