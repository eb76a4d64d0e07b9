"""Bundle: the files of one K3s release on the controller."""

from __future__ import annotations

from dataclasses import dataclass

from nornir_k3s.model.host_spec import Artifact


@dataclass(frozen=True)
class Bundle:
    """The files of one K3s release on the controller, verified.

    Arguments:
        binary: `k3s`.
        installer: `install.sh`.
        images: Image archives; none if the hosts pull images.
    """

    binary: Artifact
    installer: Artifact
    images: tuple[Artifact, ...] = ()

    def artifacts(self) -> tuple[Artifact, ...]:
        """Return all files that a node needs."""
        return (self.binary, self.installer, *self.images)
