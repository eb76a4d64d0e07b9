"""One release of K3s on the controller."""

from __future__ import annotations

from dataclasses import dataclass

from nornir_k3s.model.host_spec import Artifact


@dataclass(frozen=True)
class Bundle:
    """One release of K3s on the controller, verified.

    Arguments:
        binary: `k3s`.
        installer: `install.sh`.
        images: Image archives, none where hosts can pull.
    """

    binary: Artifact
    installer: Artifact
    images: tuple[Artifact, ...] = ()

    def artifacts(self) -> tuple[Artifact, ...]:
        """Return everything a node needs."""
        return (self.binary, self.installer, *self.images)
