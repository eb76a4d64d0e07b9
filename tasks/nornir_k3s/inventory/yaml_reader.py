"""Read a YAML file exactly as Nornir does, and know the line of every key and of every problem.

Nornir's SimpleInventory and `InitNornir` read with ruamel.yaml's safe loader, which is YAML 1.2: `no` is text, `010` is
ten, `0o10` is eight. This reader is that loader; it only collects problems instead of raising the first one.
Source: nornir `plugins/inventory/simple.py`, `core/configuration.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError, YAMLWarning
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

# An inventory of ten thousand hosts is smaller; a larger file is the wrong one, and would be parsed for minutes.
MAX_BYTES = 4 << 20
_STANDARD_TAG = "tag:yaml.org,2002:"

Key = str | int


@dataclass(frozen=True)
class Source:
    """One YAML file, read.

    Arguments:
        path: The file.
        data: Its content as plain Python; None when it is empty or could not be read.
        problems: What is wrong with the file itself, each with its line.
    """

    path: Path
    data: Any = None
    problems: tuple[str, ...] = ()
    _root: Node | None = field(default=None, repr=False)
    _values: Mapping[Node, Any] = field(default_factory=dict, repr=False)

    def line(self, *keys: Key) -> int | None:
        """Return the line (from 1) of the key at the end of this path, or None when the file does not have it."""
        node, line = self._root, None
        for key in keys:
            found = self._child(node, key)
            if found is None:
                return None
            line, node = found
        return line

    def _child(self, node: Node | None, key: Key) -> tuple[int, Node] | None:
        if isinstance(node, SequenceNode) and isinstance(key, int) and 0 <= key < len(node.value):
            return node.value[key].start_mark.line + 1, node.value[key]
        if isinstance(node, MappingNode):
            for name, value in reversed(node.value):  # merged keys come first: the last one counts
                if str(self._values.get(name, name.value)) == str(key):
                    return name.start_mark.line + 1, value
        return None


def read(path: Path, encoding: str = "utf-8") -> Source:
    """Return a YAML file; what is wrong with it is in its problems, never an exception.

    Arguments:
        path: The file.
        encoding: How its text is encoded.
    """
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            return Source(path, problems=(f"{path}: it {what}",))
        if path.stat().st_size > MAX_BYTES:
            size = path.stat().st_size / (1 << 20)
            return Source(path, problems=(f"{path}: it has {size:.1f} MiB; is it the right file?",))
        text = path.read_text(encoding)
    except OSError as error:
        return Source(path, problems=(f"{path}: it cannot be read: {error.strerror}",))
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        name = error.encoding.upper()
        return Source(path, problems=(f"{path}:{line}: it is not {name} text: save it in that encoding",))
    except LookupError:
        return Source(path, problems=(f"{path}: there is no encoding {encoding!r}",))
    document = _parse(text)
    problems = tuple(f"{path}{f':{line}' if line else ''}: {words}" for line, words in document.problems)
    return Source(path, None if problems else document.data, problems, document.root, document.values)


def content(text: str) -> Any:  # noqa: ANN401 - whatever it says
    """Return what a YAML text says; None where that cannot be read."""
    document = _parse(text)
    return None if document.problems else document.data


@dataclass(frozen=True)
class _Document:
    """What one text holds: its data, its tree of nodes, the value of each node, and problems with their lines."""

    data: Any = None
    root: Node | None = None
    values: Mapping[Node, Any] = field(default_factory=dict)
    problems: tuple[tuple[int, str], ...] = ()


class _Constructor(SafeConstructor):
    """The safe loader's own constructor; it collects problems and keeps the nodes, which know their lines."""

    def __init__(self, preserve_quotes: bool | None = None, loader: Any = None) -> None:  # noqa: ANN401 - ruamel's own
        super().__init__(preserve_quotes, loader)
        self._problems: list[tuple[int, str]] = []
        self._checked: set[MappingNode] = set()

    def construct_document(self, node: Node) -> _Document:
        """Return the whole document; `YAML.load` returns what this returns."""
        values, data = self.constructed_objects, None  # the base class drops them at the end
        try:
            data = super().construct_document(node)
        except (YAMLError, AssertionError) as error:
            self._problems.append(_problem(error))
        return _Document(data, node, values, tuple(sorted(self._problems)))

    def construct_non_recursive_object(self, node: Node, tag: str | None = None) -> Any:  # noqa: ANN401 - any value
        """Return the value of one node, or something unique when it has none, so that the others are read as well."""
        try:
            return super().construct_non_recursive_object(node, tag)
        except RecursionError:
            raise
        except Exception:
            self._problems.append((node.start_mark.line + 1, self._no_value(node)))
        return object()

    def flatten_mapping(self, node: MappingNode) -> None:
        """Merge what `<<` names; then find duplicate keys, which the base class does not see beside a merge."""
        super().flatten_mapping(node)
        if node in self._checked:
            return
        self._checked.add(node)
        first: dict[Hashable, int] = {}
        for key_node, _ in node.value[len(getattr(node, "merge", None) or ()) :]:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                continue  # the base class takes a list as a tuple, and refuses the others
            if key in first:
                self._problems.append((line, f"duplicate key `{key}`: it is already in line {first[key]}"))
            first.setdefault(key, line)

    def check_mapping_key(self, node: Node, key_node: Node, mapping: Any, key: Any, value: Any) -> bool:  # noqa: ANN401, ARG002 - ruamel's own
        """Tell whether a key is new; one that is not has been reported already."""
        return key not in mapping

    def _no_value(self, node: Node) -> str:
        tag = str(node.tag)
        name = tag.removeprefix(_STANDARD_TAG)
        if tag == f"{_STANDARD_TAG}value":
            return "put `=` in quotes: YAML has a special meaning for it"
        if tag in self.yaml_constructors:
            return f"this is not a valid YAML {name}: put it in quotes if it is text"
        return f"unknown YAML tag `{name}`"


def _parse(text: str) -> _Document:
    if line := _other_version(text):
        # With it `no` and `010` change their meaning, and Nornir applies it to the files it reads after this one.
        return _Document(problems=((line, "only YAML 1.2 is read: remove this %YAML line"),))
    loader = YAML(typ="safe")
    loader.Constructor = _Constructor
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", YAMLWarning)  # a name is anchored twice, which YAML allows
            return loader.load(text) or _Document()
    except YAMLError as error:
        return _Document(problems=(_problem(error, text),))
    except RecursionError:
        return _Document(problems=((0, "it is not YAML: it is nested too deeply"),))


def _other_version(text: str) -> int:
    """Return the line of a directive that asks for another version of YAML, or 0."""
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if line.startswith("%YAML"):
            return 0 if line.split()[1:2] == ["1.2"] else number
        if line.strip() and not line.startswith(("#", "%")):
            return 0
    return 0


def _problem(error: Exception, text: str = "") -> tuple[int, str]:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be parsed"
    if mark is None:
        return 0, f"it is not YAML: {problem}"
    line = (text.splitlines()[mark.line : mark.line + 1] or [""])[0]
    if "\t" in line[: len(line) - len(line.lstrip())]:
        problem = "there is a tab; indent with spaces"
    elif problem == "but found another document":
        return mark.line + 1, "a second YAML document starts here: a file has one"
    return mark.line + 1, f"it is not YAML: {problem}"
