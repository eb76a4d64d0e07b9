"""What a drill does on hosts: begin a fault, end it, look. Scripts of a moment; nothing stays."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nornir.core.task import Result, Task

from nornir_k3s import k3s, shell
from nornir_k3s.checks import works
from nornir_k3s.compare import load_balancers
from nornir_k3s.errors import HostError
from nornir_k3s.facts.load_balancer import Backends
from nornir_k3s.facts.network import Addresses
from nornir_k3s.faults.catalogue import HAPROXY, KEEPALIVED, Fault
from nornir_k3s.faults.objects import NAMESPACE
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.records import SAY, Record, read
from nornir_k3s.roles import datastore
from nornir_k3s.roles.datastore_etcd import FOLDER, PORT, url
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run

UNDO = "systemctl stop nornir-k3s-drill"  # what a person runs to end a fault at once
_SOURCES = SAY + shell.source("faults/fault.sh") + shell.source("faults/drill.sh")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Look:
    """What a host looks like.

    Arguments:
        active: The state of each unit.
        processes: The main process of each of K3s' units; 0 where there is none.
        cut: How its network can be cut: devices, nft, iptables, or empty.
        runs: Whether it has systemd-run.
        fault: Whether a fault is in progress.
    """

    active: Mapping[str, str] = field(default_factory=dict)
    processes: Mapping[str, str] = field(default_factory=dict)
    cut: str = ""
    runs: bool = False
    fault: bool = False


def units(cluster: Cluster, name: str) -> list[str]:
    """Return the units that must be active on a host; of several in a word the first one that it has."""
    found: list[str] = []
    for role, names in (("lb", (HAPROXY, KEEPALIVED)), ("servers", (k3s.UNITS["server"],))):
        if any(member.name == name for member in cluster.of(role)):
            found += names
    if cluster.is_managed and any(member.name == name for member in cluster.of("datastore")):
        found.append(datastore.units(cluster))
    return found


def look(run: Run, names: Iterable[str]) -> dict[str, Look]:
    """Return what these hosts look like."""

    def task(task: Task, run: Run) -> Result:
        call = shell.call("drill_look", *units(run.cluster, task.host.name))
        found = _ask(task, run, call, "looking")
        return Result(
            host=task.host,
            result=Look(
                active=_pairs(found, "active"),
                processes=_pairs(found, "process"),
                cut=found["cut"][0].take(1)[0],
                runs=bool(found["run"][0].take(1)[0]),
                fault=found["fault"][0].take(1)[0] == "yes",
            ),
        )

    return run.phase("look", list(names), task, reads=True)


def begin(run: Run, fault: Fault, host: str) -> None:
    """Begin a fault on a host: a unit of systemd's makes it there, and undoes it when its time is over.

    Raises:
        K3sError: It could not be begun.
    """
    # Containers go on without K3s: its own process alone is killed (KillMode=process in its unit).
    who = "main" if fault.unit == k3s.UNITS["server"] else "all"
    values = {"KIND": fault.how, "WHO": who, "SECONDS_OF_IT": f"{fault.seconds:g}"}
    lines = [f"{name}='{value}'" for name, value in values.items()]
    end = 'case $1 in make) make ;; undo) undo && rm -f "$0" ;; esac\n'
    lines.append(f"for UNIT in {fault.unit or '-'}; do if systemctl cat -- $UNIT >/dev/null 2>&1; then break; fi; done")
    text = "\n".join([*lines, shell.source("faults/fault.sh"), end])
    call = shell.call("drill_begin", base64.b64encode(text.encode()).decode())
    run.phase("begin", [host], _script(call, f"beginning {fault.kind}"))


def heal(run: Run, host: str) -> None:
    """End the fault of a host, if there is one, and wait until it is undone.

    Raises:
        K3sError: It is not undone.
    """
    run.nr.data.recover_host(host)  # Nornir leaves a host out that failed before
    if link := run.sessions.get(host):
        link.close()  # after a cut it may be dead without knowing
    run.phase("heal", [host], _script("drill_heal", "ending the fault", timeout=330))


def objects(run: Run, selector: str) -> dict[str, set[str]]:
    """Return the names of the objects that each server lists itself."""

    def task(task: Task, run: Run) -> Result:
        call = shell.call("drill_objects", k3s.BINARY, NAMESPACE, selector)
        found = _ask(task, run, call, "listing what was written", timeout=120)
        return Result(host=task.host, result={record.take(1)[0] for record in found.get("object", ())})

    return run.phase("objects", [member.name for member in run.cluster.of("servers")], task)


def leader(run: Run) -> str:
    """Return the host of the etcd member that leads; empty if none says so."""

    def task(task: Task, run: Run) -> Result:
        member = run.member(task.host.name)
        found = _ask(task, run, shell.call("drill_leads", url(member, PORT), FOLDER), "asking etcd")
        text = base64.b64decode(found["etcd"][0].take(1)[0]) if "etcd" in found else b"[]"
        return Result(host=task.host, result=leads(text))

    found = run.phase("leader", [member.name for member in run.cluster.of("datastore")], task)
    return next((name for name, is_leader in found.items() if is_leader), "")


def leads(status: str | bytes) -> bool:
    """Return whether the member that answered `etcdctl endpoint status -w json` leads."""
    try:
        one = json.loads(status)[0]["Status"]
        return bool(one["leader"] == one["header"]["member_id"])
    except (ValueError, LookupError, TypeError):
        return False


@dataclass(frozen=True)
class Rotation:
    """What the load balancers say: who holds the VIP, and what is not right."""

    holders: tuple[str, ...]
    wrong: tuple[str, ...]


def rotation(run: Run, without: Collection[str] = ()) -> Rotation:
    """Return what the load balancers say.

    Arguments:
        without: Hosts that are not asked.
    """
    names = [member.name for member in run.cluster.of("lb") if member.name not in without]

    def task(task: Task, run: Run) -> Result:
        return Result(host=task.host, result=gather.read_facts(task, run, (Addresses(), Backends()), timeout=15))

    found: dict[str, HostFacts] = run.phase("rotation", names, task)
    holders = tuple(load_balancers.holders(run.cluster, found))
    held = ((vip, load_balancers.holders(run.cluster, found, vip)) for vip in (run.cluster.vips if names else ()))
    wrong = [problem for vip, who in held if (problem := works.vip_problem(vip, who))]
    for name, facts in found.items():
        for server in run.cluster.of("servers"):
            state = load_balancers.states(facts).get(server.node_name, "missing")
            if not state.startswith("UP"):
                wrong.append(f"server {server.node_name} is {state} in HAProxy on {name}")
    return Rotation(holders, tuple(wrong))


def _pairs(found: Mapping[str, list[Record]], name: str) -> dict[str, str]:
    pairs = (record.take(2) for record in found.get(name, ()))
    return {pair[0]: pair[1] for pair in pairs}


def _script(call: str, what: str, timeout: float = 30) -> Any:  # noqa: ANN401 - a task
    def task(task: Task, run: Run) -> Result:
        gather.session_of(task, run).run(f"{_SOURCES}{call}\n", what=what, timeout=timeout)
        return Result(host=task.host, severity_level=logging.DEBUG)

    return task


def _ask(task: Task, run: Run, call: str, what: str, timeout: float = 30) -> Mapping[str, list[Record]]:
    answer = gather.session_of(task, run).run(f"{_SOURCES}{call} || exit 1\nsay end\n", what=what, timeout=timeout)
    with gather.readable(task.host.name):
        return read(answer.stdout)


def wait_until_reached(run: Run, host: str, seconds: float) -> None:
    """Wait until a host whose network was cut can be reached again.

    Raises:
        HostError: It cannot.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            heal(run, host)
        except HostError:
            if time.monotonic() > until:
                raise
            time.sleep(1)
        else:
            return
