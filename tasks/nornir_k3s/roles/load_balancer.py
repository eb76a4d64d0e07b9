"""The desired state of a load balancer: HAProxy in front of every server, keepalived for the VIP.

Sources: docs.k3s.io `datastore/cluster-loadbalancer.md`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from nornir_k3s import shell
from nornir_k3s.model.cluster import Cluster, Member
from nornir_k3s.model.family import DEBIAN, Family, every
from nornir_k3s.model.host_spec import File, HostSpec, Unit
from nornir_k3s.model.machine_facts import RoundTrips
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.step import Step
from nornir_k3s.roles import haproxy, keepalived, timing

NOTHING = RoundTrips()
FOLDERS = ("/etc/haproxy/", "/etc/keepalived/", *(f"{one.scripts}/" for one in every("keepalived")))
UNITS = (keepalived.UNIT, "haproxy.service")  # in the order in which they stop: first the VIP goes


def spec(
    cluster: Cluster,
    member: Member,
    *,
    interface: str,
    check_pem: Secret,
    server_ca: str,
    round_trips: RoundTrips = NOTHING,
    family: Family = DEBIAN,
) -> HostSpec:
    """Return the desired state of a load balancer.

    Arguments:
        interface: Where it holds the VIP.
        check_pem: Certificate and key of the health check; empty until the cluster has signed one.
        server_ca: The CA of the servers' certificates; empty until the first server has created it.
        round_trips: Those to the servers; they decide how long HAProxy waits for them.
        family: The host's family of distributions.
    """
    read, script = partial(File, unit="haproxy.service", action="reload"), partial(File, mode=0o755)
    ours, scripts = family.service("haproxy"), family.service("keepalived").scripts
    proof = shell.call("haproxy_loaded", ours.socket, cluster.registration.port, cluster.lb.stats.port)
    config = haproxy.config(cluster, member, timing.choose(round_trips, cluster.lb.timeouts), ours.socket)
    return HostSpec(
        packages=(*ours.packages, *family.service("keepalived").packages),
        booleans=ours.booleans,
        files=(
            read(haproxy.SERVER_CA, Secret(server_ca), 0o644),
            read(haproxy.CHECK_CERT, check_pem, 0o600, masking="all"),
            read(haproxy.SESSIONS, Secret(haproxy.sessions()), 0o644),
            read(haproxy.CONFIG, Secret(config), 0o644, check="haproxy -c -q -f {}"),
            script(keepalived.track_path(scripts), Secret(keepalived.track())),
            script(keepalived.notify_path(scripts), Secret(keepalived.notify())),
            File(
                keepalived.CONFIG,
                Secret(keepalived.config(cluster, member, interface, scripts)),
                0o644,
                unit=keepalived.UNIT,
                action="reload",
                check="keepalived -t -f {}",
            ),
        ),
        units=(
            Unit("haproxy.service", reloadable=True, proof=proof),
            Unit(keepalived.UNIT, reloadable=True),
        ),
    )


def rotation(call: str) -> str:
    """Return lines of shell around a call of a function of `apply/rotation.sh`."""
    socket = f"for SOCKET in {' '.join(sockets())}; do if [ -S $SOCKET ]; then break; fi; done"
    return f"{socket}\n{shell.source('apply/rotation.sh')}{call}\n"


def sockets() -> tuple[str, ...]:
    """Return where HAProxy may take commands: it does so at the first one that is there."""
    return tuple(one.socket for one in every("haproxy"))


def drained_steps(servers: Iterable[str]) -> list[Step]:
    """Return the steps that bring servers back which an interrupted run has taken out of this rotation."""
    did = '\nsay did "$STEP" changed'
    return [
        Step(
            "rotation",
            server,
            f"bring server {server} back into rotation: an interrupted run has taken it out",
            payload=Secret(rotation(shell.call("come_back", server, 0) + did)),
        )
        for server in sorted(servers)
    ]
