"""The problems of an inventory, each with the file and line it is in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nornir_k3s.inventory.yaml_reader import Key, Source


@dataclass(frozen=True)
class Sources:
    """The files of one inventory, and what is wrong with their form.

    Arguments:
        files: The files that there are, by `hosts`, `groups` and `defaults`.
        problems: What is wrong with them, each with file and line.
    """

    files: Mapping[str, Source]
    problems: tuple[str, ...] = ()

    @property
    def data(self) -> dict[str, dict[str, Any]]:
        """The content of each file; an empty mapping where it has none."""
        return {kind: source.data if isinstance(source.data, dict) else {} for kind, source in self.files.items()}

    @property
    def unreadable(self) -> bool:
        """Whether a file could not be read at all, so that nothing can be said about the rest of the inventory."""
        return any(source.problems or not isinstance(source.data, dict | None) for source in self.files.values())

    def location(self, kind: str, *keys: Key) -> str:
        """Return `file:line` of a key, or of the nearest one above it that the file has; nothing without a file.

        Arguments:
            kind: `hosts`, `groups` or `defaults`.
            keys: The path in the file, as `"s1", "data", "k3s"`.
        """
        source = self.files.get(kind)
        if source is None:
            return ""
        for count in range(len(keys), 0, -1):
            if line := source.line(*keys[:count]):
                return f"{source.path}:{line}"
        return str(source.path)

    def host_location(self, host: str, *keys: Key) -> str:
        """Return where a host gets a setting from: itself, one of its groups, the defaults; else where the host is."""
        inherited: list[tuple[Key, ...]] = [("groups", group) for group in self._groups(host)]
        for kind, *above in [("hosts", host), *inherited, ("defaults",)]:
            source = self.files.get(str(kind))
            if source and keys and source.line(*above, *keys):
                return self.location(str(kind), *above, *keys)
        return self.location("hosts", host)

    def _groups(self, host: str) -> list[str]:
        hosts, groups = self.data.get("hosts", {}), self.data.get("groups", {})
        todo, found = list((hosts.get(host) or {}).get("groups") or []), []
        while todo:
            name = todo.pop(0)
            if name not in found:
                found.append(name)
                todo += (groups.get(name) or {}).get("groups") or []
        return found


class Problems(list[str]):
    """The problems of an inventory, each with its location where that is known."""

    def __init__(self, sources: Sources | None = None) -> None:
        super().__init__(sources.problems if sources else ())
        self._sources = sources

    def cluster(self, text: str, *keys: Key) -> None:
        """Add a problem of the cluster-wide settings; `keys` is the path below `k3s_cluster`."""
        label = ".".join(["k3s_cluster", *(str(key) for key in keys)])
        self.other(f"{label}: {text}", "defaults", "data", "k3s_cluster", *keys)

    def host(self, host: str, text: str, *keys: Key) -> None:
        """Add a problem of a host; `keys` is the path below the host."""
        self._add(self._sources.host_location(host, *keys) if self._sources else "", f"{host}: {text}")

    def other(self, text: str, kind: str, *keys: Key) -> None:
        """Add a problem of another setting; `keys` is its path in the file of this kind."""
        self._add(self._sources.location(kind, *keys) if self._sources else "", text)

    def _add(self, location: str, text: str) -> None:
        self.append(f"{location}: {text}" if location else text)
