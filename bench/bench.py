#!/usr/bin/env python3
"""Compare a whole deploy, a second run, pushing files and reading a large inventory with the same work by hand."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nornir.core.task import Result, Task
from ruamel.yaml import YAML

from labsite import BenchError, Site, Timing, nornir, open_site
from nornir_k3s import facts
from nornir_k3s.errors import K3sError
from nornir_k3s.inventory import cluster
from nornir_k3s.run.gather import find_artifacts, gather_facts, prepare
from nornir_k3s.ssh.session import session
from nornir_k3s.state.store import Store

PUSHED = 100_000_000
LOADED = 500
MANY = 200


@dataclass
class Measure:
    """One row of the result.

    Arguments:
        title: In words.
        unit: Of the numbers.
        goal: What the ratio of the medians, or without a peer our median, must be.
        most: Whether the goal is the most that may be; otherwise the least.
        ours, peer: One number a round.
    """

    title: str
    unit: str
    goal: float
    most: bool = True
    ours: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)

    @property
    def value(self) -> float:
        """What the goal is about."""
        ours = statistics.median(self.ours)
        return ours / statistics.median(self.peer) if self.peer else ours

    @property
    def met(self) -> bool:
        """Whether the goal is met."""
        return self.value <= self.goal if self.most else self.value >= self.goal


def fresh(site: Site, rounds: int) -> Measure:
    """Bare hosts to five nodes that are Ready through the VIP."""
    measure = Measure("fresh deploy, eight bare hosts", "s", 1.25)
    for number in range(1, rounds + 1):
        site.reset()
        measure.ours.append(told(f"fresh {number}, ours", site.deploy()))
        ours = site.result()
        site.reset()
        measure.peer.append(told(f"fresh {number}, peer", site.by_hand("deploy")))
        compare(ours, site.result())
    return measure


def compare(ours: dict[str, list[str]], peer: dict[str, list[str]]) -> None:
    """Refuse to compare times of different results."""
    for host, lines in ours.items():
        if differing := sorted(set(lines) ^ set(peer[host])):
            raise BenchError(f"the sides made different things of {host}: " + "; ".join(differing[:10]))


def second(site: Site, rounds: int) -> Measure:
    """A finished cluster: ours finds out that nothing is to be done, the peer reads the same on all hosts."""
    measure = Measure("second run, nothing to do", "s", 1.5)
    names = scripts(site, drift=False)
    for number in range(1, rounds + 1):
        measure.ours.append(told(f"second {number}, ours", site.deploy()))
        measure.peer.append(by_ssh(site, f"second {number}", names))
    return measure


def drift(site: Site, rounds: int) -> Measure:
    """A finished cluster: a drift check, and the same script by ssh."""
    measure = Measure("drift check, nothing differs", "s", 1.25)
    names = scripts(site, drift=True)
    for number in range(1, rounds + 1):
        measure.ours.append(told(f"drift {number}, ours", site.drift()))
        measure.peer.append(by_ssh(site, f"drift {number}", names))
    return measure


def pyinfra(site: Site, rounds: int) -> Measure:
    """A finished cluster: a drift check, and pyinfra asserting a third of the same state."""
    measure = Measure("the same, pyinfra with a third of it", "s", 1.0)
    expect(site)
    for number in range(1, rounds + 1):
        measure.ours.append(told(f"pyinfra {number}, ours", site.drift()))
        measure.peer.append(told(f"pyinfra {number}, peer", site.pyinfra()))
    return measure


def scripts(site: Site, *, drift: bool) -> list[str]:
    """Have a finished cluster, write down what our side runs on each host, and return their names."""
    if not site.deployed:
        site.reset()
        told("making the cluster", site.deploy())
    inventory, state = site.folder / "inventory", site.folder / ".state"
    with site.nornir() as nr:
        run = prepare(nr, base=inventory, state=state, options={}, keep=False)
        gather_facts(run)
        find_artifacts(run)
        run.drift = drift
        (site.folder / "look").mkdir(exist_ok=True)
        for member in run.cluster.members:
            (site.folder / "look" / member.name).write_text(facts.script(run.query(member.name)))
    return [member.name for member in run.cluster.members]


def expect(site: Site) -> None:
    """Have a finished cluster, and write down for the peer which files each host must have."""
    scripts(site, drift=True)
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
    """Run these scripts by eight ssh at once, and return the seconds."""
    seconds = told(f"{what}, peer", site.by_hand("look"))
    for name in names:
        if not (site.folder / "look" / f"{name}.seen").read_text().endswith("\n@end\n"):
            raise BenchError(f"the peer did not see all of {name}")
    return seconds


def many(site: Site, rounds: int) -> Measure:
    """Two hundred hosts, which are many addresses of the lab's own: seconds against fifty of them, times four."""
    measure = Measure(f"drift check of {MANY} hosts, 4 times {MANY // 4}", "s", 1.25)
    scripts(site, drift=True)
    for number in range(1, rounds + 1):
        measure.ours.append(told(f"many {number}, {MANY}", site.agents_like(MANY)))
        measure.peer.append(4 * told(f"many {number}, {MANY // 4}", site.agents_like(MANY // 4)))
    return measure


def memory(site: Site, rounds: int) -> Measure:
    """The memory that takes, likewise."""
    measure = Measure(f"its memory, 4 times that of {MANY // 4}", "MiB", 1.0)
    scripts(site, drift=True)
    for number in range(1, rounds + 1):
        measure.ours.append(used(f"memory {number}, {MANY}", site.agents_like(MANY)))
        measure.peer.append(4 * used(f"memory {number}, {MANY // 4}", site.agents_like(MANY // 4)))
    return measure


def push(site: Site, rounds: int) -> Measure:
    """100 MB to five hosts at the same time, from no connection to five files."""
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
        measure.peer.append(everything / told(f"push {number}, peer", site.by_hand("push")))
    return measure


def load(site: Site, rounds: int) -> Measure:  # noqa: ARG001 - all measures look alike; its rounds cost nothing
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


# In this order: the cluster that `second` makes also warms up both sides' files for `fresh`.
MEASURES: dict[str, Callable[[Site, int], Measure]] = {
    "load": load,
    "push": push,
    "second": second,
    "drift": drift,
    "pyinfra": pyinfra,
    "many": many,
    "memory": memory,
    "fresh": fresh,
}


def told(what: str, timing: Timing) -> float:
    """Print how long something took, with what it said when, and return the seconds."""
    print(f"{what}: {timing.seconds:.2f} s", flush=True)
    for at, line in timing.marks:
        print(f"    {at:6.2f}  {line}", flush=True)
    return timing.seconds


def used(what: str, timing: Timing) -> float:
    """Print how much memory something took, and return the MiB."""
    print(f"{what}: {timing.memory:.0f} MiB", flush=True)
    return timing.memory


def machine(site: Site, before: float) -> dict[str, Any]:
    """Return what the numbers depend on; `before` is the load the machine had already."""
    openssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr.strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory": f"{memory:.0f} GiB",
        "load before": round(before, 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "openssh": openssh.partition(",")[0],
        "k3s": site.bundle,
    }


def show(facts: dict[str, Any], results: dict[str, Measure]) -> None:
    """Print the table."""
    print("\n" + ", ".join(f"{key} {value}" for key, value in facts.items()))
    print(f"{'median of the rounds':36} {'ours':>8} {'peer':>8} {'':5} {'ratio':>6}  goal")
    for measure in results.values():
        peer = f"{statistics.median(measure.peer):8.2f}" if measure.peer else f"{'-':>8}"
        ratio = f"{measure.value:6.2f}" if measure.peer else f"{'-':>6}"
        sign = ("≤" if measure.peer else "<") if measure.most else "≥"
        verdict = "met" if measure.met else "missed"
        ours = statistics.median(measure.ours)
        print(f"{measure.title:36} {ours:8.2f} {peer} {measure.unit:5} {ratio}  {sign} {measure.goal}: {verdict}")


def main() -> int:
    """Measure what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="bench.py", description=__doc__)
    parser.add_argument("--only", choices=sorted(MEASURES), action="append", help="just this; may be given repeatedly")
    parser.add_argument("--rounds", type=int, default=3, help="how often, each side in turn (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers to a file")
    options = parser.parse_args()
    wanted = options.only or list(MEASURES)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    # What was begun is ended then, and the hosts are taken down.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    before = os.getloadavg()[0]
    try:
        with open_site(hosts=set(wanted) != {"load"}) as site:
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
