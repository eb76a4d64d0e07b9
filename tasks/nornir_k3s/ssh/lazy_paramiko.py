"""Imports paramiko without `invoke`, which paramiko needs only for `Match exec` when it reads an ssh_config itself.

`invoke` imports asyncio and unittest: a sixth of the start-up time of every command. Here OpenSSH reads ssh_config; for
other code in the process, `invoke` is loaded when it is first used, by the standard library's LazyLoader.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_LAZY = "invoke"


class _Finder(MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,  # noqa: ARG002 - the interface of a finder
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname == _LAZY else None
        if spec and spec.loader:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


def import_paramiko() -> None:
    """Import paramiko and leave `invoke` unloaded, unless something has imported it already."""
    if _LAZY in sys.modules:
        return
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        importlib.import_module("paramiko")
    finally:
        sys.meta_path.remove(finder)
