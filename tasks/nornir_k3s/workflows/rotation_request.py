"""What every rotation of a secret is asked for, and what all of them do with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nornir.core import Nornir

from nornir_k3s.errors import Declined
from nornir_k3s.model.rotation import Rotation
from nornir_k3s.run import gather, paths
from nornir_k3s.run.context import Run
from nornir_k3s.run.selection import Choice


@dataclass(frozen=True)
class Request:
    """One rotation.

    Arguments:
        nr, base, state, options: As for `deploy`.
        ignore_window: K3s restarts outside the maintenance window, too.
        confirm: Called with the plan before the first change; False aborts.
    """

    nr: Nornir
    base: Path | str | None = None
    state: Path | str | None = None
    options: Mapping[str, Any] | None = None
    ignore_window: bool = False
    confirm: Callable[[Rotation], bool] | None = None

    @property
    def choice(self) -> Choice:
        """The hosts and phases of the deploy: all."""
        return Choice(ignore_window=self.ignore_window)

    def prepare(self, *, keep: bool = False, artifacts: bool = False) -> Run:
        """Return a run that has contacted no host yet; by default nothing that it generates is saved.

        Raises:
            UsageError: The inventory or an option is wrong.
        """
        folders = paths.of(self.nr, self.base, self.state)
        given: dict[str, Any] = {"base": folders.base, "state": folders.state, "options": self.options or {}}
        return gather.prepare(self.nr, **given, choice=self.choice, keep=keep, artifacts=artifacts)

    def arguments(self, **more: object) -> dict[str, Any]:
        """Return the arguments of a deploy or its plan, with more options."""
        return {"base": self.base, "state": self.state, "options": {**(self.options or {}), **more}}

    def require_confirmed(self, found: Rotation) -> None:
        """Ask before the first change.

        Raises:
            Declined: It was not confirmed.
        """
        if self.confirm and not self.confirm(found):
            raise Declined("Aborted: not confirmed; nothing was changed", hint="--yes rotates without asking")
