"""Places: the folders that a workflow needs, where its caller does not name them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nornir.core import Nornir


@dataclass(frozen=True)
class Places:
    """The folder that relative paths in the inventory are relative to, and the one for what is kept."""

    base: Path
    state: Path


def of(nr: Nornir, base: Path | str | None, state: Path | str | None) -> Places:
    """Return the folders: as given, else the inventory's own folder where it is a file's, and `.state` here."""
    if base is None:
        file = (nr.config.inventory.options or {}).get("host_file")
        base = Path(str(file)).expanduser().resolve().parent if file else Path.cwd()
    return Places(Path(base).resolve(), Path(state or ".state").resolve())
