"""The machine: clock, system, capacity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nornir_k3s.facts.fact import Fact, Words
from nornir_k3s.model import machine_facts
from nornir_k3s.records import Record, RecordError, integer

_TEXTS = (
    *("arch", "kernel", "hostname", "machine_id", "os_name"),
    *("init", "package_manager", "cgroup"),
)


class Clock(Fact[float]):
    """The host's clock, in seconds since the epoch; read first, to compare it with the controller's."""

    name, source = "now", "system"

    def parse(self, records: Sequence[Record]) -> float:
        """Return the time."""
        (text,) = records[0].take(1)
        try:
            return float(text)
        except ValueError:
            raise RecordError(f"{text[:40]!r} is not a time") from None


class System(Fact[machine_facts.System]):
    """Architecture, kernel, names, distribution, init system, memory and disk in KiB (uname, os-release, /proc)."""

    name, source = "system", "system"

    def parse(self, records: Sequence[Record]) -> machine_facts.System:
        """Return the machine."""
        *words, inotify, memory, disk = records[0].take(11)
        texts: dict[str, Any] = dict(zip(_TEXTS, words, strict=True))
        return machine_facts.System(
            **texts, inotify_instances=integer(inotify), memory_kib=integer(memory), disk_kib=integer(disk)
        )


class Distribution(Words):
    """The distribution, and those that it is like: ID and ID_LIKE (os-release(5))."""

    name, source = "distribution", "system"


class SshSessions(Fact[int]):
    """How many sessions sshd allows on one connection (sshd_config(5), MaxSessions); 0 if it does not say."""

    name, source = "ssh_sessions", "system"

    def parse(self, records: Sequence[Record]) -> int:
        """Return the number."""
        return integer(records[0].take(1)[0])


class Capacity(Fact[machine_facts.Capacity]):
    """The number of CPU cores, and systemd's version."""

    name, source, when = "capacity", "system", "setup"

    def parse(self, records: Sequence[Record]) -> machine_facts.Capacity:
        """Return both."""
        cpus, systemd = records[0].take(2)
        return machine_facts.Capacity(integer(cpus), systemd)
