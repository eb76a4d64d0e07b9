"""deploy: bare hosts in, a highly available cluster out. The body of `deploy` is the list of phases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nornir.core import Nornir

from nornir_k3s import artifacts, certificate, cluster, kubeconfig, preflight, verify
from nornir_k3s.errors import K3sError, NotReady, PreflightFailed
from nornir_k3s.remote.retry import wait_until
from nornir_k3s.vault import Vault
from nornir_k3s.workflows import steps
from nornir_k3s.workflows.run import DEADLINES, WIDTHS, HostReport, Report, Run


def deploy(nr: Nornir, *, base: Path, state: Path, options: Mapping[str, Any] | None = None) -> Report:
    """Make the inventory's cluster true, phase by phase; what is right already is left alone.

    Arguments:
        nr: A Nornir whose inventory describes the cluster.
        base: The folder that relative paths in the inventory are relative to.
        state: The folder on the controller for generated secrets and the kubeconfig.
        options: `deadlines` (seconds) and `widths` (hosts at the same time), by name.

    Returns:
        What happened: changes and restarts by host, seconds by phase, and the kubeconfig's path.

    Raises:
        K3sError: See `nornir_k3s.errors`; the phases before have been finished, the ones after not begun.
    """
    run = prepare(nr, base=base, state=state, options=options or {})
    observe_all(run)
    check(run)
    stage_everything(run)
    prepare_datastore(run)
    start_first_server(run)
    converge_other_servers(run)
    converge_load_balancers(run)
    converge_agents(run)
    verify_cluster(run)
    return run.report


def prepare(nr: Nornir, *, base: Path, state: Path, options: Mapping[str, Any], keep: bool = True) -> Run:
    """Validate the inventory and the artefacts; no host is contacted. Without `keep` nothing is written here either."""
    name = str((nr.inventory.defaults.data.get("k3s_cluster") or {}).get("name", "cluster"))
    vault = Vault(state / name, base=base, keep=keep)
    wanted = cluster.load(nr.inventory, vault=vault, base=base)
    bundle = artifacts.from_folder(wanted.artifacts.folder, version=wanted.version)
    hosts = {m.name: HostReport(m.role) for m in wanted.members}
    return Run(
        nr,
        wanted,
        bundle,
        vault,
        deadlines={**DEADLINES, **options.get("deadlines", {})},
        widths={**WIDTHS, **options.get("widths", {})},
        report=Report(wanted.name, hosts, url=wanted.url),
    )


def observe_all(run: Run) -> None:
    """Read every host once."""
    run.phase("observe", [m.name for m in run.cluster.members], steps.observe_host, width=run.widths["stage"])


def check(run: Run) -> None:
    """Stop before the first change when a host has a problem.

    Raises:
        PreflightFailed: With every problem of every host.
    """
    findings = preflight.check(run.cluster, run.observed)
    run.report.warnings += [str(f) for f in findings if f.level == "warning"]
    errors = [str(f) for f in findings if f.level == "error"]
    if errors:
        raise PreflightFailed(errors)


def stage_everything(run: Run) -> None:
    """Bring artefacts and packages to every host that lacks them; nothing restarts."""
    names = [m.name for m in run.cluster.members if run.stage_steps(m.name)]
    run.phase("stage", names, steps.stage_host, width=run.widths["stage"])


def prepare_datastore(run: Run) -> None:
    """Bring the managed datastore up, with a database and a user for this cluster only."""
    names = [m.name for m in run.cluster.of("datastore") if run.converge_steps(m.name)]
    run.phase("datastore", names, steps.converge_host, width=1)


def start_first_server(run: Run) -> None:
    """Start one server alone until it is really ready; skipped when the cluster has a ready server already."""
    servers = run.cluster.of("servers")
    if any(run.observed[m.name].ready for m in servers):
        return
    # One that has been a server of this cluster before goes first: it has the cluster's files.
    known = [m for m in servers if run.observed[m.name].token == run.cluster.token.fingerprint()]
    first = (known or list(servers))[0].name
    run.phase("first server", [first], steps.converge_server, width=1)
    run.phase("bootstrap data", [m.name for m in run.cluster.of("datastore")], steps.bootstrap_row)


def converge_other_servers(run: Run) -> None:
    """Bring servers that have never joined up together, then change running ones one at a time: never two down."""
    todo = [m.name for m in run.cluster.of("servers") if run.converge_steps(m.name) or not run.observed[m.name].ready]
    todo = [name for name in todo if name not in run.done]
    down = [name for name in todo if not run.observed[name].ready]
    run.phase("servers", down, steps.converge_server)
    for name in todo:
        if name not in down:
            run.phase("servers", [name], steps.converge_server, width=1)


def converge_load_balancers(run: Run) -> None:
    """Put HAProxy and keepalived in front of all servers, with a health check certificate of the cluster's own CA."""
    balancers = [m.name for m in run.cluster.of("lb")]
    if not balancers:
        return
    if not certificate.kept(run.vault, run.ca_prefix):
        run.phase("check certificate", [_ready_server(run)], steps.sign_check_certificate)
    names = [name for name in balancers if run.converge_steps(name)]
    run.phase("load balancers", names, steps.converge_host, width=1 if _serving(run) else len(names) or 1)


def _serving(run: Run) -> bool:
    return any(run.observed[m.name].unit("haproxy.service").active == "active" for m in run.cluster.of("lb"))


def _ready_server(run: Run) -> str:
    return next(m.name for m in run.cluster.of("servers") if run.observed[m.name].ready)


def converge_agents(run: Run) -> None:
    """Join the agents through the registration address."""
    names = [m.name for m in run.cluster.of("agents") if run.converge_steps(m.name)]
    run.phase("agents", names, steps.converge_agent, width=run.widths["agents"])


def verify_cluster(run: Run) -> None:
    """Prove that it works, through the registration address, and write the kubeconfig.

    Raises:
        NotReady: With everything that is still wrong at the deadline.
    """
    server = _ready_server(run)
    names = [server] + [m.name for m in (*run.cluster.of("agents"), *run.cluster.of("lb"))]
    problems = ["not looked at"]
    answers: dict[str, verify.Seen] = {}

    def works() -> bool:
        answers.update(run.phase("verify", names, steps.verify_host, width=run.widths["stage"]))
        problems[:] = verify.problems(run.cluster, answers)
        return not problems

    try:
        wait_until(
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
    path = run.vault.folder / "kubeconfig"
    if not path.exists() or path.read_text() != text.reveal() or path.stat().st_mode & 0o777 != 0o600:
        run.vault.keep("kubeconfig", text.reveal())
    run.report.kubeconfig = path
