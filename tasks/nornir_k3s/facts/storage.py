"""File systems."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nornir_k3s import k3s
from nornir_k3s.facts.fact import Fact, Query
from nornir_k3s.model.cluster import NODES
from nornir_k3s.model.machine_facts import Mount, Space
from nornir_k3s.records import Record, integer

_MIB = 1 << 20


class Mounts(Fact[tuple[Mount, ...]]):
    """Where the host's data will lie: file system, free KiB, mount options (statfs(2), findmnt(8))."""

    name, source, when = "mounts", "storage", "setup"

    def arguments(self, query: Query) -> Iterable[object]:
        """Ask nodes for K3s' folders, others for /var/lib."""
        of_node = query.member.role in NODES
        others = set(query.member.roles) - set(NODES)
        return (*((k3s.DATA, "/usr/local/bin") if of_node else ()), *(("/var/lib",) if others else ()))

    def parse(self, records: Sequence[Record]) -> tuple[Mount, ...]:
        """Return each path's."""
        rows = (record.take(4) for record in records)
        return tuple(Mount(path, kind, integer(free), tuple(options.split(","))) for path, kind, free, options in rows)


class FreeSpace(Fact[tuple[Space, ...]]):
    """Free MiB and inodes of the file systems that a cluster fills (statfs(2))."""

    name, source, when = "space", "storage", "drift"

    def arguments(self, query: Query) -> Iterable[object]:  # noqa: ARG002 - as every fact
        """Name the folders."""
        return ("/", "/var/lib", "/run")

    def parse(self, records: Sequence[Record]) -> tuple[Space, ...]:
        """Return each path's."""
        found = []
        for record in records:
            path, *sizes = record.take(5)
            blocks, size, inodes, all_inodes = map(integer, sizes)
            found.append(Space(path, blocks * size // _MIB, inodes, all_inodes))
        return tuple(found)
