"""The desired state of a load balancer: HAProxy passes TLS through to every ready server, keepalived holds the VIP.

Sources: docs.k3s.io `datastore/cluster-loadbalancer.md`; HAProxy's configuration manual (check-ssl, on-marked-down,
redispatch); keepalived.conf(5): a track script that is not found is disabled without an error; vrrp_rt_priority and
vrrp_no_swap keep a busy host from sending too late, and keepalived goes on without them where they are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial

from nornir_k3s import k3s, shell
from nornir_k3s.model.cluster import (
    NODES,
    Cluster,
    Member,
)
from nornir_k3s.model.host_spec import HEADER, File, HostSpec, Unit
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.step import Step

HAPROXY = "/etc/haproxy/haproxy.cfg"
SOCKET = "/run/haproxy/admin.sock"
CHECK_CERT = "/etc/haproxy/k3s-check.pem"
SERVER_CA = "/etc/haproxy/k3s-server-ca.pem"
KEEPALIVED = "/etc/keepalived/keepalived.conf"
TRACK = "/etc/keepalived/nornir-k3s-check"
FOLDERS = ("/etc/haproxy/", "/etc/keepalived/")
UNITS = ("keepalived.service", "haproxy.service")  # in the order in which they stop: first the VIP goes

_HAPROXY = f"""{HEADER}\
global
    log /dev/log local0
    user haproxy
    group haproxy
    stats socket /run/haproxy/admin.sock mode 660 level admin

defaults
    mode tcp
    log global
    option tcplog
    option redispatch 1
    retries 5
    timeout connect 1s
    timeout client 1h
    timeout server 1h
    timeout check 5s

frontend k3s
    bind BIND
    use_backend living if {{ nbsrv(servers) lt 1 }}
    default_backend servers

backend servers
    balance leastconn
    option httpchk GET /readyz
    http-check expect status 200
    default-server check check-ssl verify required ca-file {SERVER_CA} crt {CHECK_CERT} verifyhost kubernetes \
inter 1s fastinter 500ms downinter 1s fall 3 rise 1 on-marked-down shutdown-sessions
SERVERS
# Where no server passes its health check, because all are slow or its certificate has ended, those that listen serve.
backend living
    balance leastconn
    default-server check inter 1s fall 2 rise 1
SERVERS"""

_KEEPALIVED = f"""{HEADER}\
global_defs {{
    router_id NAME
    vrrp_version 3
    enable_script_security
    script_user root
    vrrp_rt_priority 50
    vrrp_no_swap
}}

vrrp_script haproxy {{
    script "{TRACK}"
    interval 1
    timeout 5
    fall 1
    rise 2
}}

vrrp_instance k3s {{
    state BACKUP
    nopreempt
    interface INTERFACE
    virtual_router_id ROUTER
    priority PRIORITY
    advert_int ADVERT
PEERS    virtual_ipaddress {{
VIPS    }}
    track_script {{
        haproxy
    }}
}}
"""


def _haproxy(cluster: Cluster, member: Member) -> str:
    vip, port = str(cluster.registration.address), int(str(cluster.server.get("https-listen-port", k3s.API_PORT)))
    bind = f"{'[::]' if ':' in vip else '*'}:{cluster.registration.port}"
    if member.role in NODES and cluster.registration.port == port:
        # K3s has this port on the host's own address. `transparent`: also while the other one has the VIP.
        bind = "\n    bind ".join(f"{_host(one)}:{port} transparent" for one in cluster.vips)
    servers = "".join(f"    server {m.node_name} {_host(m.address)}:{port}\n" for m in cluster.of("servers"))
    return _HAPROXY.replace("BIND", bind).replace("SERVERS", servers)


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _keepalived(cluster: Cluster, member: Member, interface: str) -> str:
    members = cluster.of("lb")
    peers = "".join(f"        {m.address}\n" for m in members if m.name != member.name)
    values = {
        "NAME": member.name,
        "INTERFACE": interface,
        "ROUTER": str(cluster.lb.virtual_router_id),
        "ADVERT": f"{cluster.lb.advert_int:g}",
        "PRIORITY": str(200 - min(10, 199 // len(members)) * members.index(member)),  # at least 1
        # keepalived refuses an own address without peers.
        "PEERS": f"    unicast_src_ip {member.address}\n    unicast_peer {{\n{peers}    }}\n" if peers else "",
        "VIPS": "".join(f"        {_with_prefix(cluster, vip)} dev {interface}\n" for vip in cluster.vips),
    }
    return re.sub(rf"\b({'|'.join(values)})\b", lambda match: values[match[1]], _KEEPALIVED)


def _with_prefix(cluster: Cluster, vip: str) -> str:
    return f"{vip}/{cluster.lb.prefix or (128 if ':' in vip else 32)}"


def spec(cluster: Cluster, member: Member, *, interface: str, check_pem: Secret, server_ca: str) -> HostSpec:
    """Return the desired state of a load balancer.

    Arguments:
        interface: Where it holds the VIP.
        check_pem: Certificate and key of the health check; empty until the cluster has signed one.
        server_ca: The CA of the servers' certificates; empty until the first server has created it.
    """
    haproxy_file = partial(File, unit="haproxy.service", action="reload")
    return HostSpec(
        packages=("haproxy", "keepalived"),
        files=(
            haproxy_file(SERVER_CA, Secret(server_ca), 0o644),
            haproxy_file(CHECK_CERT, check_pem, 0o600, masking="all"),
            haproxy_file(HAPROXY, Secret(_haproxy(cluster, member)), 0o644, check="haproxy -c -q -f {}"),
            File(TRACK, Secret(shell.source("roles/keepalived_check.sh")), 0o755),
            File(
                KEEPALIVED,
                Secret(_keepalived(cluster, member, interface)),
                0o644,
                unit="keepalived.service",
                action="reload",
                check="keepalived -t -f {}",
            ),
        ),
        units=(
            Unit("haproxy.service", reloadable=True, proof=f"haproxy_loaded {cluster.registration.port}"),
            Unit("keepalived.service", reloadable=True),
        ),
    )


def rotation(call: str) -> str:
    """Return lines of shell around a call of a function of `apply/rotation.sh`."""
    return f"SOCKET={SOCKET}\n{shell.source('apply/rotation.sh')}{call}\n"


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
