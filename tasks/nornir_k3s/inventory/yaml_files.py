"""The YAML files behind config and inventory: read with care, and known by line, so that a problem has a place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

# An inventory of ten thousand hosts has less; what is larger is another file, and YAML would read it for minutes.
MAX_BYTES = 4 << 20
_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Key = str | int


@dataclass(frozen=True)
class Source:
    """One YAML file, read.

    Arguments:
        path: Where it is.
        data: What is in it, as plain Python; None when it could not be read.
        problems: What is wrong with it as a file, in words, each with its line.
    """

    path: Path
    data: Any = None
    problems: tuple[str, ...] = ()
    _root: yaml.Node | None = field(default=None, repr=False)

    def line(self, *keys: Key) -> int | None:
        """Return the line (from 1) of the key that this path leads to, or None when the file does not have it."""
        node, line = self._root, None
        for key in keys:
            found = _child(node, key)
            if found is None:
                return None
            line, node = found
        return line


def read(path: Path) -> Source:
    """Return a YAML file; what is wrong with it is in its problems, never an exception."""
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            return Source(path, problems=(f"{path}: it {what}",))
        if path.stat().st_size > MAX_BYTES:
            size = path.stat().st_size / (1 << 20)
            return Source(path, problems=(f"{path}: it has {size:.1f} MiB; is it the right file?",))
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        return Source(path, problems=(f"{path}: it cannot be read: {error.strerror}",))
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        return Source(path, problems=(f"{path}:{line}: it is not UTF-8 text: save it in that encoding",))
    return _parse(path, text)


def _parse(path: Path, text: str) -> Source:
    try:
        root = yaml.compose(text, Loader=_LOADER)
        if root is None:
            return Source(path, problems=(f"{path}: it is empty",))
        duplicates = tuple(f"{path}:{line}: {words}" for line, words in _duplicates(root, set()))
        if duplicates:
            return Source(path, problems=duplicates, _root=root)
        data = yaml.load(text, Loader=_LOADER)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        return Source(path, problems=(f"{path}{_words(error, text)}",))
    except (ValueError, RecursionError) as error:
        return Source(path, problems=(f"{path}: it is not YAML: {error}",))
    return Source(path, data, (), root)


def _words(error: yaml.YAMLError, text: str) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    if mark is None:
        return f": it is not YAML: {problem}"
    line = (text.splitlines()[mark.line : mark.line + 1] or [""])[0]
    if "\t" in line[: len(line) - len(line.lstrip())]:
        problem = "there is a tab where YAML wants blanks"
    return f":{mark.line + 1}: it is not YAML: {problem}"


def _duplicates(node: yaml.Node, seen: set[int]) -> Iterator[tuple[int, str]]:
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is not None and name in first and key.tag != "tag:yaml.org,2002:merge":
                yield line, f"`{name}` stands twice: here and in line {first[name]}"
            elif name is not None:
                first[name] = line
            yield from _duplicates(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _duplicates(item, seen)


def _child(node: yaml.Node | None, key: Key) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and 0 <= key < len(node.value):
        return node.value[key].start_mark.line + 1, node.value[key]
    if not isinstance(node, yaml.MappingNode):
        return None
    merged: list[yaml.Node] = []
    for name, value in node.value:
        if name.tag == "tag:yaml.org,2002:merge":
            merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
        elif name.value == str(key):
            return name.start_mark.line + 1, value
    return next((found for part in merged if (found := _child(part, key))), None)


@dataclass(frozen=True)
class Sources:
    """The files of one inventory, by what is in them (hosts, groups, defaults), and what is wrong with their form."""

    files: Mapping[str, Source]
    problems: tuple[str, ...] = ()

    def place(self, *where: Key) -> str:
        """Return `file:line` of the nearest thing that a path leads to, or nothing.

        Arguments:
            where: The file's kind and the keys in it, as `"hosts", "s1", "data", "k3s"`.
        """
        kind, *keys = where
        source = self.files.get(str(kind))
        if source is None:
            return ""
        while keys:
            line = source.line(*keys)
            if line:
                return f"{source.path}:{line}"
            keys.pop()
        return str(source.path)

    def host_place(self, host: str, *keys: Key) -> str:
        """Return where a host's setting stands: with the host, one of its groups, the defaults; else the host."""
        ways: list[tuple[Key, ...]] = [("hosts", host), *(("groups", g) for g in self._groups(host)), ("defaults",)]
        for kind, *rest in ways:
            source = self.files.get(str(kind))
            if source and keys and source.line(*rest, *keys):
                return self.place(kind, *rest, *keys)
        return self.place("hosts", host)

    def _groups(self, host: str) -> list[str]:
        data = {kind: source.data if isinstance(source.data, dict) else {} for kind, source in self.files.items()}
        todo, found = list((data.get("hosts", {}).get(host) or {}).get("groups") or []), []
        while todo:
            name = todo.pop(0)
            if name not in found:
                found.append(name)
                todo += (data.get("groups", {}).get(name) or {}).get("groups") or []
        return found


class Problems(list[str]):
    """The problems of an inventory, each with its place where that is known."""

    def __init__(self, sources: Sources | None = None) -> None:
        super().__init__(sources.problems if sources else ())
        self._sources = sources

    def cluster(self, text: str, *keys: Key) -> None:
        """Add a problem of the cluster-wide settings, `keys` being the path below `k3s_cluster`."""
        place = self._sources.place("defaults", "data", "k3s_cluster", *keys) if self._sources else ""
        label = ".".join(["k3s_cluster", *(str(key) for key in keys)])
        self.append(f"{place + ': ' if place else ''}{label}: {text}")

    def host(self, host: str, text: str, *keys: Key) -> None:
        """Add a problem of a host, `keys` being the path below the host."""
        place = self._sources.host_place(host, *keys) if self._sources else ""
        self.append(f"{place + ': ' if place else ''}{host}: {text}")

    def other(self, text: str, *where: Key) -> None:
        """Add a problem of another place."""
        place = self._sources.place(*where) if self._sources and where else ""
        self.append(f"{place + ': ' if place else ''}{text}")
