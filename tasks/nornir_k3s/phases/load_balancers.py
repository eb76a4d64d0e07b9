"""Phase load-balancers: HAProxy and keepalived in front of all servers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from nornir.core.task import Result, Task

from nornir_k3s.apply import script as apply
from nornir_k3s.errors import NotReady
from nornir_k3s.facts.network import Addresses, Vrrp
from nornir_k3s.model.machine_facts import VrrpRouter
from nornir_k3s.phases import check_certificate
from nornir_k3s.phases.host_tasks import converge_host
from nornir_k3s.phases.phase import Phase
from nornir_k3s.phases.servers import require_ready
from nornir_k3s.retry import wait_until
from nornir_k3s.roles import haproxy, keepalived
from nornir_k3s.run.context import Run
from nornir_k3s.run.gather import read_facts, session_of

_HEARD = 30.0  # seconds; after that the others are needed in any case


def converge(run: Run) -> None:
    """Set up HAProxy and keepalived in front of all servers; the cluster's CA signs the health check certificate.

    Those that serve change one after the other, the one with the VIP last. Those of hosts that are no load balancers
    any more stop after that.
    """
    balancers = run.chosen(m.name for m in run.of("lb"))
    if balancers and check_certificate.is_missing(run):
        check_certificate.sign(run, require_ready(run))
    names = [name for name in balancers if run.planned(name).by_role["lb"]]
    if _serving(run):
        order, alone = _in_order(run, names)
        for name in order:  # the next one only if this one has not failed
            run.phase("load balancers", [name], _converge, width=1)
            if name == alone:
                run.phase("load balancers", [one for one in order if one != alone], _hear, reads=True)
    else:
        run.phase("load balancers", names, _converge)
    retired = [name for name in run.names if name not in balancers and run.planned(name).by_role.get("lb")]
    run.phase("former load balancers", retired, _converge)


def _serving(run: Run) -> bool:
    return any(run.facts[m.name].unit("haproxy.service").active == "active" for m in run.of("lb"))


def _in_order(run: Run, names: Sequence[str]) -> tuple[list[str], str]:
    """Return the load balancers in the order of their changes, and the one that runs alone for a while.

    The one with the VIP is the last. What does not work is found where nobody needs it yet, and if the VIP has to leave
    its holder, it goes to one that is as it shall be. Not so with another virtual_router_id or version of VRRP: the
    first one would not hear the holder any more, and take the VIP while the holder has it, too. The others stop then,
    until the holder has it.
    """
    if len(names) < 2:
        return list(names), ""
    holds = run.phase("load balancers", names, _has_vip, reads=True)
    holder, others = ([name for name in names if bool(holds[name]) is has] for has in (True, False))
    if len(names) < len(run.cluster.of("lb")) or not (holder and all(_leaves_group(run, name) for name in names)):
        return [*others, *holder], ""
    run.phase("load balancers", others, _stop)
    return [*holder, *others], holder[-1]


def _leaves_group(run: Run, name: str) -> bool:
    """Return whether keepalived gets another virtual_router_id, or another way to tell the others of it."""
    found = run.planned(name).facts.files.get(keepalived.CONFIG)
    before = keepalived.group(found.text or "") if found else ("", "", False)
    wanted = (str(run.cluster.lb.virtual_router_id), keepalived.VERSION, len(run.cluster.of("lb")) > 1)
    return before[0] != "" and before != wanted


def in_order(run: Run, step: Sequence[Phase]) -> list[Phase]:
    """Return the phases of one step in their order.

    Load balancers that others have set up take no server out of rotation before it restarts: they change first.
    """
    first = bool(run.ready_servers) and any(
        run.facts[m.name].unit("haproxy.service").active == "active"
        and haproxy.CONFIG not in run.facts[m.name].ledger.files
        for m in run.of("lb")
    )
    return sorted(step, key=lambda phase: phase is not PHASE) if first else list(step)


def _stop(task: Task, run: Run) -> Result:
    """Stop keepalived where the VIP is not; its change starts it."""
    name, unit = task.host.name, keepalived.UNIT
    script = apply.wrapped(f"unit:{unit}", f"systemctl stop {unit}\n")
    session_of(task, run).run(script, what="stopping keepalived", timeout=run.deadlines["apply"])
    facts = run.facts[name]
    units = {**facts.units, unit: replace(facts.unit(unit), active="inactive")}
    run.facts[name] = replace(facts, units=units)
    return Result(host=task.host)


def _has_vip(task: Task, run: Run) -> Result:
    """Read it anew: the VIP may have moved since the run began."""
    found = read_facts(task, run, [Addresses()])
    return Result(host=task.host, result=any(found.interface_of(vip) for vip in run.cluster.vips))


def _hear(task: Task, run: Run) -> Result:
    """Wait until another load balancer sends VRRP as this one will hear it: the holder has its new configuration.

    keepalived reads it after the reload has ended. One that starts before that takes the VIP, and ends connections.
    """
    router, name = str(run.cluster.lb.virtual_router_id), task.host.name
    wanted = {VrrpRouter(m.address, router, keepalived.VERSION) for m in run.cluster.of("lb") if m.name != name}
    link = session_of(task, run)

    def heard() -> bool:
        return not wanted.isdisjoint(read_facts(task, run, [Vrrp()]).vrrp)

    with suppress(NotReady):
        wait_until(heard, what="the holder of the VIP is heard", host=name, deadline=_HEARD, stop=link.stop)
    return Result(host=task.host)


def _converge(task: Task, run: Run) -> Result:
    return converge_host(task, run, "lb")


PHASE = Phase("load-balancers", "HAProxy and keepalived: the fixed registration address", converge, beside="servers")
