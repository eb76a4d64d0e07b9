"""Phase load-balancers: HAProxy and keepalived in front of all servers."""

from __future__ import annotations

from nornir.core.task import Result, Task

from nornir_k3s.apply import check_certificate as signing
from nornir_k3s.phases.host_tasks import converge_host
from nornir_k3s.phases.phase import Phase
from nornir_k3s.phases.servers import require_ready
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import readable, session_of
from nornir_k3s.state import check_certificate


def converge(run: Run) -> None:
    """Set up HAProxy and keepalived in front of all servers; the cluster's CA signs the health check certificate.

    Those of hosts that are no load balancers any more stop after that.
    """
    balancers = run.chosen(m.name for m in run.of("lb"))
    if balancers and not check_certificate.load(run.store, run.ca_prefix):
        run.phase("check certificate", [require_ready(run)], _sign)
    names = [name for name in balancers if run.planned(name).by_role["lb"]]
    run.phase("load balancers", names, _converge, width=1 if _serving(run) else len(names) or 1)
    retired = [name for name in run.names if name not in balancers and run.planned(name).by_role.get("lb")]
    run.phase("former load balancers", retired, _converge)


def _serving(run: Run) -> bool:
    return any(run.facts[m.name].unit("haproxy.service").active == "active" for m in run.of("lb"))


def _converge(task: Task, run: Run) -> Result:
    return converge_host(task, run, "lb")


def _sign(task: Task, run: Run) -> Result:
    """Have the cluster sign the health check certificate, and save it on the controller."""
    csr, key = check_certificate.request()
    answer = session_of(task, run).run(signing.script(csr), what="signing the health check certificate", timeout=120)
    with readable(task.host.name):
        certificate = signing.parse(answer.stdout)
    check_certificate.save(run.store, run.ca_prefix, certificate, key)
    return Result(host=task.host, changed=False)


PHASE = Phase("load-balancers", "HAProxy and keepalived: the fixed registration address", converge, beside="servers")
