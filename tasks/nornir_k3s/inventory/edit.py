"""Edit the user's inventory: the lines of a host are cut out, everything else stays as it is, byte for byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nornir_k3s import atomic_file
from nornir_k3s.errors import UsageError
from nornir_k3s.inventory.problems import Sources
from nornir_k3s.inventory.yaml_reader import content


def without(sources: Sources, names: Sequence[str]) -> tuple[Path, str] | None:
    """Return the file of the hosts, and its text without these; None if it has none of them.

    Raises:
        UsageError: It has no such file, or not in a form in which each host has lines of its own.
    """
    source = sources.files.get("hosts")
    if source is None:
        raise UsageError("this inventory is not in files", hint="remove without --write, and delete the hosts yourself")
    found = [name for name in names if source.line(name)]
    if not found:
        return None
    text = source.path.read_text()
    lines, starts = text.splitlines(keepends=True), sorted(source.line(name) or 0 for name in source.data)
    for start in sorted((source.line(name) or 0 for name in found), reverse=True):
        end = next((one for one in starts if one > start), len(lines) + 1) - 1
        while end > start and not lines[end - 1].strip(" \t\r\n").partition("#")[0]:
            end -= 1  # a comment above a host belongs to it
        del lines[start - 1 : end]
    left = "".join(lines)
    if (content(left) or {}) != {name: value for name, value in source.data.items() if name not in found}:
        text = f"{source.path}: {', '.join(found)} cannot be cut out line by line"
        raise UsageError(text, hint="remove without --write, and delete the hosts yourself")
    return source.path, left


def write(sources: Sources, names: Sequence[str]) -> None:
    """Delete these hosts from their file.

    Raises:
        UsageError: As for `without`, or it cannot be written.
    """
    if edited := without(sources, names):
        path, text = edited
        try:
            atomic_file.write(path.resolve(), text, mode=path.stat().st_mode & 0o7777)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}", hint="delete the hosts yourself") from None
