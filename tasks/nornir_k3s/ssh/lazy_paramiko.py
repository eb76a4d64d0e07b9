"""Later: paramiko brought without `invoke`, which it needs for `Match exec` in an ssh_config only.

`invoke` brings asyncio and unittest with it: a sixth of what a command of ours waits for before its first connection.
It is loaded when it is first used, by whomever, as the standard library's LazyLoader does it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

LATER = "invoke"
_lock = threading.Lock()


class _Finder(MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,  # noqa: ARG002 - a finder gets it
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname == LATER else None
        if spec and spec.loader:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


def import_paramiko() -> None:
    """Import paramiko, where nobody has yet, and leave `invoke` for later."""
    if LATER in sys.modules:
        return
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        importlib.import_module("paramiko")
    finally:
        sys.meta_path.remove(finder)


def load() -> None:
    """Load what was left for later: LazyLoader itself must not be asked by two threads at once."""
    with _lock:
        getattr(sys.modules.get(LATER), "run", None)
