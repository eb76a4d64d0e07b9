"""The certificate of the load balancers' health check: signed by the cluster, renewed before it keeps servers away."""

from __future__ import annotations

import time

from nornir.core.task import Result, Task

from nornir_k3s.apply import check_certificate as signing
from nornir_k3s.errors import UsageError
from nornir_k3s.model.together import few
from nornir_k3s.phases.host_tasks import apply_steps
from nornir_k3s.roles import haproxy
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import gather_host, readable, session_of
from nornir_k3s.state import check_certificate


def is_missing(run: Run) -> bool:
    """Return whether the controller has none of this cluster that lasts."""
    return not run.check_certificate()


def sign(run: Run, server: str) -> None:
    """Have this server sign a new one."""
    run.phase("check certificate", [server], _sign)


def ended(run: Run) -> list[str]:
    """Return the load balancers whose certificate has expired: HAProxy sees none of the servers up."""
    now = time.time()
    return [
        member.name
        for member in run.of("lb")
        for one in run.facts[member.name].certificates
        if one.path == haproxy.CHECK_CERT and one.expires.timestamp() <= now
    ]


def _distrusting(run: Run) -> list[str]:
    """Return the load balancers that do not have the new CA of the servers yet."""
    if not run.new_ca:
        return []
    plans = {member.name: run.planned(member.name).by_role["lb"] for member in run.of("lb")}
    return [name for name, steps in plans.items() if any(step.target == haproxy.SERVER_CA for step in steps)]


def renew_ended(run: Run) -> None:
    """Renew expired ones before a server restarts, or trust its new CA: HAProxy would not see that one up again.

    Raises:
        UsageError: The run is limited to other hosts.
    """
    names = ended(run)
    if missing := [name for name in names if name not in run.chosen(names)]:
        text = f"the certificate of the health check has expired on {few(missing)}: HAProxy sees no server up"
        raise UsageError(text, hint=f"add {few(missing)} to --limit: deploy renews it before a server restarts")
    if names and is_missing(run):
        sign(run, run.ready_servers[0])
    run.phase("check certificate", list(dict.fromkeys([*names, *_distrusting(run)])), _renew, width=1)


def _renew(task: Task, run: Run) -> Result:
    steps = run.planned(task.host.name).by_role["lb"]
    reads = (haproxy.SERVER_CA, haproxy.CHECK_CERT, "haproxy.service")
    chosen = [step for step in steps if step.target in reads]
    result = apply_steps(task, run, chosen, deadline=run.deadlines["apply"], before="PREVIOUS=$STATE/none\n")
    gather_host(task, run)
    return result


def _sign(task: Task, run: Run) -> Result:
    """Have the cluster sign the health check certificate, and save it on the controller."""
    csr, key = check_certificate.request()
    answer = session_of(task, run).run(signing.script(csr), what="signing the health check certificate", timeout=120)
    with readable(task.host.name):
        certificate = signing.parse(answer.stdout)
    check_certificate.save(run.store, run.ca_prefix, certificate, key)
    return Result(host=task.host, changed=False)
