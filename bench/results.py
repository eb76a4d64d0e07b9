"""The results of the benchmark: one row a measure, and the machine that they depend on."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from dataclasses import dataclass, field
from typing import Any

from labsite import Site
from timing import Timing


@dataclass
class Measure:
    """One row of the result.

    Arguments:
        title: Its name in the table.
        unit: The unit of the numbers.
        goal: The goal of the ratio of the medians, or of our median without a peer.
        most: Whether the goal is an upper limit; otherwise a lower one.
        ours: Our numbers, one a round.
        peer: Those of the peer.
    """

    title: str
    unit: str
    goal: float
    most: bool = True
    ours: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)

    @property
    def value(self) -> float:
        """The number that is compared with the goal."""
        ours = statistics.median(self.ours)
        return ours / statistics.median(self.peer) if self.peer else ours

    @property
    def met(self) -> bool:
        """Whether the goal is met."""
        return self.value <= self.goal if self.most else self.value >= self.goal


def report_seconds(what: str, timing: Timing) -> float:
    """Print how long something took, with its progress, and return the seconds."""
    print(f"{what}: {timing.seconds:.2f} s", flush=True)
    for at, line in timing.progress:
        print(f"    {at:6.2f}  {line}", flush=True)
    return timing.seconds


def report_memory(what: str, timing: Timing) -> float:
    """Print the peak memory of something, and return the MiB."""
    print(f"{what}: {timing.memory:.0f} MiB", flush=True)
    return timing.memory


def machine(site: Site, before: float) -> dict[str, Any]:
    """Return what the numbers depend on; `before` is the load average before the benchmark."""
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
