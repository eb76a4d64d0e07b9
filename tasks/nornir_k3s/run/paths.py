"""The folders of a workflow, with their defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nornir.core import Nornir

from nornir_k3s.run.options import configured


@dataclass(frozen=True)
class Folders:
    """The folder that relative paths of the inventory start from, and the state folder on the controller."""

    base: Path
    state: Path


def of(nr: Nornir, base: Path | str | None, state: Path | str | None) -> Folders:
    """Return the given folders; by default the folder of the inventory's host file, and the state of config.yaml.

    Without any it is `.state`. Relative paths are relative to the current folder, as those of Nornir itself are.

    Raises:
        UsageError: `user_defined.k3s` of config.yaml is wrong.
    """
    own = configured(nr)
    if base is None:
        file = (nr.config.inventory.options or {}).get("host_file")
        base = Path(str(file)).expanduser().resolve().parent if file else Path.cwd()
    return Folders(Path(base).resolve(), Path(state or (own.state if own else ".state")).expanduser().resolve())
