"""What an interrupted run has left out of rotation or cordoned is put back before another one can fail."""

from __future__ import annotations

from nornir_k3s.phases import drain, rotation
from nornir_k3s.run.context import Run


def put_back(run: Run) -> None:
    """Bring servers back into rotation and uncordon nodes, whatever else this run does.

    Raises:
        K3sError: A load balancer does not do it.
    """
    rotation.bring_all_back(run)
    drain.put_back(run)
