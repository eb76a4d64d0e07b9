#!/usr/bin/env python3
"""Compare a whole deploy, a second run, pushing files and reading a large inventory with the same work by hand."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from nornir.core.task import Result, Task
from ruamel.yaml import YAML

from labsite import Site, nornir, open_site
from nornir_k3s import facts
from nornir_k3s.errors import K3sError
from nornir_k3s.inventory import cluster
from nornir_k3s.run.gather import find_artifacts, gather_facts, prepare
from nornir_k3s.ssh.session import session
from nornir_k3s.state.store import Store
from results import Measure, machine, report_memory, report_seconds, show
from timing import BenchError
from vip import failover, moves

PUSHED = 100_000_000
LOADED = 500
MANY = 200


def fresh(site: Site, rounds: int) -> Measure:
    """Deploy bare hosts until five nodes are Ready through the VIP."""
    measure = Measure("fresh deploy, eight bare hosts", "s", 1.25)
    for number in range(1, rounds + 1):
        site.reset()
        measure.peer.append(report_seconds(f"fresh {number}, peer", site.by_hand("deploy")))
        peer = site.result()
        site.reset()
        measure.ours.append(report_seconds(f"fresh {number}, ours", site.deploy()))
        compare(site.result(), peer)
    return measure


def compare(ours: dict[str, list[str]], peer: dict[str, list[str]]) -> None:
    """Raise BenchError when the sides have made different things of a host."""
    for host, lines in ours.items():
        if differing := sorted(set(lines) ^ set(peer[host])):
            raise BenchError(f"the results of the sides differ on {host}: " + "; ".join(differing[:10]))


def second(site: Site, rounds: int) -> Measure:
    """On a finished cluster: our deploy finds nothing to do, the peer gathers the same facts of all hosts."""
    measure = Measure("second run, nothing to do", "s", 1.5)
    names = write_scripts(site, drift=False)
    for number in range(1, rounds + 1):
        measure.ours.append(report_seconds(f"second {number}, ours", site.deploy()))
        measure.peer.append(by_ssh(site, f"second {number}", names))
    return measure


def drift(site: Site, rounds: int) -> Measure:
    """On a finished cluster: our drift check, and the same script run by ssh."""
    measure = Measure("drift check, nothing differs", "s", 1.25)
    names = write_scripts(site, drift=True)
    for number in range(1, rounds + 1):
        measure.ours.append(report_seconds(f"drift {number}, ours", site.drift()))
        measure.peer.append(by_ssh(site, f"drift {number}", names))
    return measure


def upgrade(site: Site, rounds: int) -> Measure:
    """On a finished cluster: to the next patch of K3s, one node after the other."""
    measure = Measure("upgrade, one node after the other", "s", 1.15)
    write_scripts(site, drift=False)
    for number in range(1, rounds + 1):
        site.newer()
        measure.ours.append(report_seconds(f"upgrade {number}, ours", site.deploy("--yes")))
        ours = site.result()
        site.newer()
        measure.peer.append(report_seconds(f"upgrade {number}, peer", site.by_hand("upgrade")))
        compare(ours, site.result())
    return measure


def pyinfra(site: Site, rounds: int) -> Measure:
    """On a finished cluster: our drift check, and pyinfra checking a third of the same state."""
    measure = Measure("the same, pyinfra with a third of it", "s", 1.0)
    write_expected(site)
    for number in range(1, rounds + 1):
        measure.ours.append(report_seconds(f"pyinfra {number}, ours", site.drift()))
        measure.peer.append(report_seconds(f"pyinfra {number}, peer", site.pyinfra()))
    return measure


def write_scripts(site: Site, *, drift: bool) -> list[str]:
    """Deploy a cluster unless there is one, and write the script that our side runs on each host; return the hosts."""
    if not site.deployed:
        site.reset()
        report_seconds("deploying the cluster", site.deploy())
    inventory, state = site.folder / "inventory", site.folder / ".state"
    with site.nornir() as nr:
        run = prepare(nr, base=inventory, state=state, options={}, keep=False)
        gather_facts(run)
        find_artifacts(run)
        run.drift = drift
        (site.folder / "scripts").mkdir(exist_ok=True)
        for member in run.cluster.members:
            (site.folder / "scripts" / member.name).write_text(facts.script(run.query(member.name)))
    return [member.name for member in run.cluster.members]


def write_expected(site: Site) -> None:
    """Deploy a cluster unless there is one, and write for pyinfra the files that each host must have."""
    write_scripts(site, drift=True)
    with site.nornir() as nr:
        run = prepare(nr, base=site.folder / "inventory", state=site.folder / ".state", options={}, keep=False)
        gather_facts(run)
        for member in run.cluster.members:
            for file in run.planned(member.name).desired.files:
                path = site.folder / "expected" / member.name / file.path.removeprefix("/")
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                path.touch(file.mode)
                path.write_text(file.text.reveal())
                path.chmod(file.mode)


def by_ssh(site: Site, what: str, names: list[str]) -> float:
    """Run the scripts by eight ssh in parallel, and return the seconds."""
    seconds = report_seconds(f"{what}, peer", site.by_hand("gather"))
    for name in names:
        if not (site.folder / "scripts" / f"{name}.out").read_text().endswith("\n@end\n"):
            raise BenchError(f"the peer did not gather all facts of {name}")
    return seconds


def many(site: Site, rounds: int) -> Measure:
    """Seconds of a drift check of 200 hosts, and four times those of 50 (many addresses of the two agents)."""
    measure = Measure(f"drift check of {MANY} hosts, 4 times {MANY // 4}", "s", 1.25)
    write_scripts(site, drift=True)
    for number in range(1, rounds + 1):
        measure.ours.append(report_seconds(f"many {number}, {MANY}", site.agents_like(MANY)))
        measure.peer.append(4 * report_seconds(f"many {number}, {MANY // 4}", site.agents_like(MANY // 4)))
    return measure


def memory(site: Site, rounds: int) -> Measure:
    """Memory of a drift check of 200 hosts, and four times that of 50."""
    measure = Measure(f"its memory, 4 times that of {MANY // 4}", "MiB", 1.0)
    write_scripts(site, drift=True)
    for number in range(1, rounds + 1):
        measure.ours.append(report_memory(f"memory {number}, {MANY}", site.agents_like(MANY)))
        measure.peer.append(4 * report_memory(f"memory {number}, {MANY // 4}", site.agents_like(MANY // 4)))
    return measure


def push(site: Site, rounds: int) -> Measure:
    """Push 100 MB to five hosts in parallel, connections included."""
    measure = Measure("push, 100 MB to five hosts at once", "MB/s", 0.8, most=False)
    file = site.folder / "file"
    content = os.urandom(PUSHED)
    file.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()

    def ours(task: Task) -> Result:
        session(task).push(file, "/var/tmp/bench", sha256=digest, timeout=600)  # noqa: S108 - on the lab's hosts
        return Result(host=task.host)

    everything = 5 * PUSHED / 1e6
    for number in range(1, rounds + 1):
        with site.nornir() as nr:
            begin = time.monotonic()
            result = nr.filter(filter_func=lambda host: host.name[0] in "sa").run(task=ours)
            seconds = time.monotonic() - begin
            if result.failed:
                raise BenchError(f"pushing failed: {next(iter(result.failed_hosts.values())).exception}")
        print(f"push {number}, ours: {seconds:.2f} s", flush=True)
        measure.ours.append(everything / seconds)
        measure.peer.append(everything / report_seconds(f"push {number}, peer", site.by_hand("push")))
    return measure


def load(site: Site, rounds: int) -> Measure:  # noqa: ARG001 - all measures have these parameters
    """Read and validate an inventory of 500 hosts."""
    measure = Measure(f"load, an inventory of {LOADED} hosts", "s", 1.0)
    folder = site.folder / "large"
    shutil.copytree(site.folder / "inventory", folder)
    roles = ["datastore", "lb", "lb", *["servers"] * 3] + ["agents"] * (LOADED - 6)
    hosts = {
        f"{role}{number}": {"hostname": f"10.64.{number // 250}.{number % 250 + 1}", "groups": [role]}
        for number, role in enumerate(roles)
    }
    YAML().dump(hosts, folder / "hosts.yaml")
    store = Store(site.folder / ".state" / "large", base=folder, keep=False)
    for _ in range(5):
        begin = time.monotonic()
        loaded = cluster.load(nornir(folder).inventory, store=store, base=folder)
        measure.ours.append(time.monotonic() - begin)
        if len(loaded.members) != LOADED:
            raise BenchError(f"{len(loaded.members)} hosts of {LOADED} were loaded")
    return measure


def on_a_cluster(measure: Callable[[Site, int], Measure]) -> Callable[[Site, int], Measure]:
    """Deploy a cluster before the measure, unless there is one."""

    def run(site: Site, rounds: int) -> Measure:
        write_scripts(site, drift=False)
        return measure(site, rounds)

    return run


# In this order: the cluster of `fresh` is that of those after it. An upgrade leaves another K3s, so it is the last.
MEASURES: dict[str, Callable[[Site, int], Measure]] = {
    "load": load,
    "push": push,
    "fresh": fresh,
    "second": second,
    "drift": drift,
    "pyinfra": pyinfra,
    "many": many,
    "memory": memory,
    "failover": on_a_cluster(failover),
    "moves": on_a_cluster(moves),
    "upgrade": upgrade,
}


def main() -> int:
    """Run the chosen measures; return the exit code."""
    parser = argparse.ArgumentParser(prog="bench.py", description=__doc__)
    parser.add_argument(
        "--only", choices=sorted(MEASURES), action="append", help="run this measure only; can be repeated"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds, each side in turn (default: %(default)s)")
    parser.add_argument("--short", action="store_true", help="with a stand-in that has short delays: to try the bench")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers to a file")
    options = parser.parse_args()
    wanted = options.only or list(MEASURES)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    # All signals raise KeyboardInterrupt, so that commands are ended and the hosts removed.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    before = os.getloadavg()[0]
    try:
        with open_site(hosts=set(wanted) != {"load"}, short=options.short) as site:
            facts = machine(site, before)
            results = {name: run(site, options.rounds) for name, run in MEASURES.items() if name in wanted}
    except (BenchError, K3sError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    show(facts, results)
    if options.json:
        rows = {n: {**vars(m), "value": m.value, "met": m.met} for n, m in results.items()}
        options.json.write_text(json.dumps({"machine": facts, "results": rows}, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
