"""Step: one change on one host, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nornir_k3s.model.host_spec import Artifact, File, Forget, Gone, Install, Packages, Retired, Unit
from nornir_k3s.model.secret import Secret

Kind = Literal[
    "packages", "artifact", "install", "file", "remove", "database", "unit", "rotation", "selinux", "certificates"
]
Action = Literal["start", "restart", "reload", "enable", "stop"]


@dataclass(frozen=True)
class Step:
    """One change on one host.

    Arguments:
        kind: What kind of change.
        target: Package names, path, unit, server or SELinux boolean.
        summary: What it does, starting with a verb.
        diff: Unified, secrets masked; files only.
        payload: What `apply` needs.
        action: For units only.
    """

    kind: Kind
    target: str
    summary: str
    diff: str = ""
    payload: Packages | Artifact | Install | File | Gone | Forget | Retired | Secret | Unit | None = field(
        default=None, repr=False
    )
    action: Action | None = None

    @property
    def id(self) -> str:
        """Stable name of the change."""
        return f"{self.kind}:{self.target}"
