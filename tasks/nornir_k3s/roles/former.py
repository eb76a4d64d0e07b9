"""What a host keeps of a role that it no longer has, and how it is taken down."""

from __future__ import annotations

from collections.abc import Collection

from nornir_k3s.model import family
from nornir_k3s.model.host_spec import Gone, Retired
from nornir_k3s.model.step import Step
from nornir_k3s.roles import datastore, load_balancer

# Where the files of datastores and load balancers are.
OTHERS = (
    *load_balancer.FOLDERS,
    *(f"{one.folder.partition('{')[0].rstrip('/')}/" for kind in datastore.KINDS for one in family.every(kind)),
    *(one.config for one in family.every("etcd")),
)


def load_balancer_steps(files: Collection[str]) -> list[Step]:
    """Return the steps that take a load balancer down that the host was once: it would keep the VIP.

    Arguments:
        files: Those that this tool wrote on the host.
    """
    ours = sorted(one for one in files if one.startswith(load_balancer.FOLDERS))
    why = "the host is no load balancer any more"
    stops = [
        Step("unit", one, f"stop {one}: {why}", payload=Retired(one), action="stop")
        for one in load_balancer.UNITS
        if ours
    ]
    return [*stops, *(Step("remove", one, f"remove {one}: {why}", payload=Gone(one, "")) for one in ours)]
