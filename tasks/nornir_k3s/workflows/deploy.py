"""deploy: bare hosts in, a highly available cluster out. The body of `deploy` is the list of phases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nornir.core import Nornir

from nornir_k3s import k3s
from nornir_k3s.checks import preflight
from nornir_k3s.errors import Declined, Interrupted, K3sError, NotReady, PreflightFailed, UsageError
from nornir_k3s.model.report import PhaseReport, Report
from nornir_k3s.phases import dump, host_tasks, rolling
from nornir_k3s.retry import wait_until
from nornir_k3s.run import paths, verify
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import find_artifacts, observe_all, prepare
from nornir_k3s.run.selection import Choice
from nornir_k3s.state import check_certificate, known_cluster, kubeconfig, locks
from nornir_k3s.workflows.chain import Phase, carry_out, in_steps


def phases() -> tuple[Phase, ...]:
    """Return the phases of a deploy, in their order."""
    return (
        Phase("observe", "read every host once", observe_all, reads=True),
        Phase("artifacts", "fetch what is not in the cache, verify all of it", find_artifacts, reads=True),
        Phase("preflight", "find every problem of every host before the first change", check, reads=True),
        Phase("dump", "dump a living cluster's managed datastore before what could hurt it", dump.dump_datastore),
        Phase("stage", "bring artefacts and packages to every host; nothing restarts", stage_everything),
        Phase("datastore", "set the managed datastore up, for this cluster only", prepare_datastore),
        Phase("first-server", "start one server alone, until it is ready", start_first_server),
        Phase("servers", "join the others; change running ones one at a time", converge_other_servers),
        Phase(
            "load-balancers",
            "HAProxy and keepalived: the fixed registration address",
            converge_load_balancers,
            beside="servers",
        ),
        Phase("agents", "join the agents through that address", converge_agents, beside="servers"),
        Phase("tidy", "remove users of the datastore that no server needs any more", tidy_datastore),
        Phase("verify", "prove that it works, write the kubeconfig", verify_cluster, reads=True),
    )


def deploy(
    nr: Nornir,
    *,
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
    choice: Choice | None = None,
) -> Report:
    """Make the inventory's cluster true, phase by phase; what is right already is left alone.

    Arguments:
        nr: A Nornir whose inventory describes the cluster.
        base: The folder that relative paths in the inventory are relative to; the inventory's own by default.
        state: The folder on the controller for generated secrets and the kubeconfig; `.state` by default.
        options: `deadlines` (seconds) and `widths` (hosts at the same time), by name; `cache` and `sources`; `whole`:
            this Nornir has all members, and those that the last deploy had beside them have left.
        choice: Which hosts and phases, and who is asked; everything, and nobody, by default.

    Returns:
        What happened: changes and restarts by host, seconds by phase, and the kubeconfig's path.

    Raises:
        K3sError: See `nornir_k3s.errors`; the phases before have been finished, the ones after not begun. Its `report`
            says what was done until then.
    """
    choice, where = choice or Choice(), paths.of(nr, base, state)
    chain = choice.chain(phases())
    dry = bool(nr.data.dry_run)
    run = prepare(nr, base=where.base, state=where.state, options=options or {}, choice=choice, keep=not dry)
    if dry:
        return _would(run, chain)
    run.report.phases = [PhaseReport(name=phase.name) for phase in chain]
    try:
        with locks.deploy_lock(run.store.folder):
            for step in in_steps(chain):
                if step[0].name == choice.first_change(chain):
                    _ask(run, choice)
                carry_out(run, step, together=not _changes_running_servers(run))
    except K3sError as error:
        run.report.end(error, "interrupted" if isinstance(error, Interrupted) else "failed")
        error.report = run.report
        raise
    except KeyboardInterrupt:
        stopped = Interrupted("stopped between two steps", hint="run deploy again: it goes on where it stopped")
        run.report.end(stopped, "interrupted")
        stopped.report = run.report
        raise stopped from None
    run.report.end(None, "ok")
    return run.report


def _would(run: Run, chain: Sequence[Phase]) -> Report:
    """Return the report of a dry run: after what only looks, the changes that would be made."""
    run.report.dry_run = True
    for phase in chain:
        if phase.name in ("observe", "artifacts", "preflight"):
            phase.work(run)
    for name in run.names:
        run.report.hosts[name].changes = [step.id for step in run.steps(name)]
    run.report.end(None, "ok")
    return run.report


def _changes_running_servers(run: Run) -> bool:
    ready = [m.name for m in run.of("servers") if run.observed[m.name].ready and m.name not in run.done]
    return any(run.converge_steps(name) for name in ready)


def _ask(run: Run, choice: Choice) -> None:
    """Ask once before a running cluster is changed."""
    if choice.confirm is None or not any(run.observed[m.name].ready for m in run.of("servers")):
        return
    steps = {name: [step.summary for step in run.steps(name)] for name in run.names}
    steps = {name: summaries for name, summaries in steps.items() if summaries}
    if steps and not choice.confirm(steps):
        raise Declined("nothing was changed: the question was not answered with yes", hint="use --yes for no question")


def check(run: Run) -> None:
    """Stop before the first change when a host has a problem.

    Raises:
        PreflightFailed: With every problem of every host.
    """
    run.report.findings = preflight.check(run.cluster, run.observed)
    errors = [finding for finding in run.report.findings if finding.level == "error"]
    if errors:
        raise PreflightFailed(errors)


def stage_everything(run: Run) -> None:
    """Bring artefacts and packages to every host that lacks them; nothing restarts."""
    names = [name for name in run.names if run.stage_steps(name)]
    run.phase("stage", names, host_tasks.stage_host, width=run.widths["stage"])


def prepare_datastore(run: Run) -> None:
    """Bring the managed datastore up, with a database and a user for this cluster only."""
    names = run.chosen(m.name for m in run.of("datastore") if run.converge_steps(m.name))
    # Members of a new etcd wait for each other; those of a living one must not be away together.
    living = any(run.observed[m.name].ready for m in run.of("servers"))
    run.phase("datastore", names, host_tasks.converge_host, width=1 if living else len(names) or 1)


def start_first_server(run: Run) -> None:
    """Start one server alone until it is really ready; skipped when the cluster has a ready server already."""
    if any(run.observed[m.name].ready for m in run.of("servers")):
        return
    if run.away and not run.of("servers"):
        return  # none is to be started
    refuse_second_first(run)
    first = first_server(run)
    if not first:
        raise UsageError("no server is ready, and the run is limited to other hosts", hint="add a server to --limit")
    run.phase("first server", [first], rolling.change_server, width=1)
    run.phase("bootstrap data", [m.name for m in run.of("datastore")], host_tasks.bootstrap_row)


def refuse_second_first(run: Run) -> None:
    """Refuse to start a first server while another one may be it, and cannot be looked at.

    Raises:
        UsageError: A server was filtered away, and the datastore was not seen to hold the cluster.
    """
    away = [m.name for m in run.cluster.of("servers") if m.name in run.away]
    if away and not has_data(run):
        text = f"no server here is ready, and {', '.join(away)} cannot be looked at: this Nornir does not have it"
        raise UsageError(text, hint="run it with the whole inventory: a cluster has one first server")


def has_data(run: Run) -> bool:
    """Say whether the datastore holds this cluster already: a server that starts then joins it."""
    key = k3s.bootstrap_key(run.cluster.token)
    rows = [row for seen in run.observed.values() for row in seen.database]
    return any(what == "bootstrap" and name == key and size != "0" for what, name, size in rows)


def first_server(run: Run) -> str:
    """Return the server that starts alone, or nothing where one is ready already or none may be changed."""
    servers = run.of("servers")
    if any(run.observed[m.name].ready for m in servers):
        return ""
    # One that has been a server of this cluster before goes first: it has the cluster's files.
    known = [m for m in servers if run.observed[m.name].token == run.cluster.token.fingerprint()]
    return next(iter(run.chosen(m.name for m in (known or servers))), "")


def converge_other_servers(run: Run) -> None:
    """Bring servers that have never joined up together, then change running ones one at a time: never two down."""
    if run.away and not run.of("servers"):
        return
    todo = [m.name for m in run.of("servers") if run.converge_steps(m.name) or not run.observed[m.name].ready]
    todo = [name for name in run.chosen(todo) if name not in run.done]
    down = [name for name in todo if not run.observed[name].ready]
    _ready_server(run)
    run.phase("servers", down, rolling.change_server)
    for name in todo:
        if name not in down:
            run.phase("servers", [name], rolling.change_server, width=1)


def converge_load_balancers(run: Run) -> None:
    """Put HAProxy and keepalived in front of all servers, with a health check certificate of the cluster's own CA."""
    balancers = run.chosen(m.name for m in run.of("lb"))
    if not balancers:
        return
    if not check_certificate.load(run.store, run.ca_prefix):
        run.phase("check certificate", [_ready_server(run)], host_tasks.sign_check_certificate)
    names = [name for name in balancers if run.converge_steps(name)]
    run.phase("load balancers", names, host_tasks.converge_host, width=1 if _serving(run) else len(names) or 1)


def _serving(run: Run) -> bool:
    return any(run.observed[m.name].unit("haproxy.service").active == "active" for m in run.of("lb"))


def _ready_server(run: Run) -> str:
    ready = [m.name for m in run.of("servers") if run.observed[m.name].ready]
    if not ready:
        raise UsageError("no server is ready", hint="run the phase first-server before this one")
    return ready[0]


def converge_agents(run: Run) -> None:
    """Join the agents through the registration address."""
    names = [m.name for m in run.of("agents") if run.converge_steps(m.name)]
    if names and run.of("servers"):
        _ready_server(run)
    run.phase("agents", run.chosen(names), host_tasks.converge_agent, width=run.widths["agents"])


def tidy_datastore(run: Run) -> None:
    """Remove users of earlier passwords, once every server has the new one."""
    servers = run.cluster.of("servers")
    moved = all(m.name in run.done or not run.converge_steps(m.name) for m in run.of("servers"))
    if run.limit is None and moved and len(run.of("servers")) == len(servers):
        names = [m.name for m in run.of("datastore") if run.tidy_steps(m.name)]
        run.phase("tidy", names, host_tasks.tidy_host, width=1)


def verify_cluster(run: Run) -> None:
    """Prove that it works, through the registration address, and write the kubeconfig.

    Raises:
        NotReady: With everything that is still wrong at the deadline.
    """
    if not run.of("servers"):
        run.report.notes.append("not proved that it works, no kubeconfig: this Nornir has no server")
        return
    server = _ready_server(run)
    known_cluster.save_ca(run.store, run.ca_prefix, run.ca_cert)
    if run.limit is None:
        known_cluster.save_packages(run.store, {m.name: run.observed[m.name].packages for m in run.of("datastore")})
    names = [server] + [m.name for m in (*run.of("agents"), *run.of("lb"))]
    # Where nothing was changed, what was observed is the proof already.
    answers = {} if run.report.changed else verify.observed(run.cluster, {n: run.observed[n] for n in names})
    problems = verify.problems(run.cluster, answers, only=run.limit) if answers else ["not looked at"]

    def works() -> bool:
        answers.update(run.phase("verify", names, host_tasks.verify_host, width=run.widths["stage"]))
        problems[:] = verify.problems(run.cluster, answers, only=run.limit)
        return not problems

    try:
        _ = not problems or wait_until(
            works,
            what="the cluster works",
            host=run.cluster.name,
            deadline=run.deadlines["verify"],
            stop=getattr(run.nr.runner, "stop", None),
        )
    except NotReady:
        raise K3sError(
            "the cluster does not work yet:\n" + "\n".join(f"  - {p}" for p in problems),
            hint="look at the hosts named above, then run deploy again: it goes on where it stopped",
        ) from None
    text = kubeconfig.rewrite(answers[server].kubeconfig, server=run.cluster.url, name=run.cluster.name)
    path = run.store.folder / "kubeconfig"
    if not path.exists() or path.read_text() != text.reveal() or path.stat().st_mode & 0o777 != 0o600:
        run.store.write("kubeconfig", text.reveal())
    run.report.kubeconfig = path
