"""HAProxy's configuration: it passes TLS through to the servers that are ready.

Sources: HAProxy's configuration manual. `shutdown-sessions` would cut every session where a slow network or datastore
takes all servers out at once; haproxy_sessions.lua cuts those of a server only while another one is well.
`fd-hard-limit` is a limit and no wish: HAProxy does not start with a `maxconn` that systemd's limit does not allow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from nornir_k3s import k3s, shell
from nornir_k3s.model.cluster import NODES, Cluster, Member
from nornir_k3s.model.host_spec import HEADER
from nornir_k3s.roles.timing import Timing

CONFIG = "/etc/haproxy/haproxy.cfg"
CHECK_CERT = "/etc/haproxy/k3s-check.pem"
SERVER_CA = "/etc/haproxy/k3s-server-ca.pem"
SESSIONS = "/etc/haproxy/k3s-sessions.lua"

_CONFIG = f"""{HEADER}\
# Timeouts for round trips up to LIMIT ms
global
    log /dev/log local0
    user haproxy
    group haproxy
    stats socket SOCKET mode 600 level admin
    .if version_atleast(2.6)
    fd-hard-limit 100000
    .endif
    hard-stop-after 1h
    .if version_atleast(3.1-dev0)
    tune.lua.bool-sample-conversion normal
    .endif
    setenv K3S_SETTLED SETTLED
    lua-load {SESSIONS}

defaults
    mode tcp
    log global
    option dontlognull
    option redispatch 1
    retries 10
    option clitcpka
    clitcpka-idle 1m
    clitcpka-intvl 10s
    clitcpka-cnt 3
    option srvtcpka
    srvtcpka-idle 10s
    srvtcpka-intvl 5s
    srvtcpka-cnt 3
    timeout connect CONNECT
    timeout client 1m
    timeout server 1m
    timeout client-fin 30s
    timeout server-fin 30s
    timeout tunnel 1h
    timeout check ANSWER

frontend k3s
    option tcplog
BINDS    use_backend all if {{ nbsrv(servers) lt 1 }}
    default_backend servers

backend servers
    balance leastconn
    default-server slowstart 10s
TRACKS
# The health checks: `timeout connect` counts for a handshake, too, which a server that is slow for a moment makes late.
backend checks
    timeout connect INTERVAL
    option httpchk GET /readyz
    http-check expect status 200
    default-server check check-ssl verify required ca-file {SERVER_CA} crt {CHECK_CERT} verifyhost kubernetes \
inter INTERVAL fastinter FAST downinter INTERVAL fall 3 rise 1
SERVERS
# Where no server passes its health check, because all are slow or its certificate has ended, each that connects serves.
backend all
    balance roundrobin
SERVERS
frontend stats
    mode http
STATS    no log
    timeout client 10s
    timeout http-request 5s
    http-request return status 200 if {{ path /alive }}
    http-request return status 200 if {{ path /servers }} {{ nbsrv(checks) gt 0 }}
    http-request return status 503 if {{ path /servers }}
    http-request use-service prometheus-exporter if {{ path /metrics }}
    stats enable
    stats uri /
"""


def config(cluster: Cluster, member: Member, timing: Timing, socket: str) -> str:
    """Return haproxy.cfg of one load balancer.

    Arguments:
        timing: How long this load balancer waits for servers.
        socket: Where it takes commands.
    """
    port = int(str(cluster.server.get("https-listen-port", k3s.API_PORT)))
    servers = {m.node_name: f"    server {m.node_name} {_host(m.address)}:{port}" for m in cluster.serving}
    values = {
        "SOCKET": socket,
        "BINDS": "".join(f"    bind {one}\n" for one in _binds(cluster, member, port)),
        "SERVERS": "".join(f"{line}\n" for line in servers.values()),
        "TRACKS": "".join(f"{line} track checks/{name}\n" for name, line in servers.items()),
        "STATS": _stats(cluster),
        "LIMIT": str(timing.limit),
        "SETTLED": str(timing.settled),
        "CONNECT": _milliseconds(timing.connect),
        "ANSWER": _milliseconds(timing.check),
        "INTERVAL": _milliseconds(timing.interval),
        "FAST": _milliseconds(timing.interval / 2),
    }
    return re.sub(rf"\b({'|'.join(values)})\b", lambda match: values[match[1]], _CONFIG)


def sessions() -> str:
    """Return the script that shuts the sessions of a server that is down."""
    return shell.source("roles/haproxy_sessions.lua")


def _binds(cluster: Cluster, member: Member, api: int) -> Iterable[str]:
    port = cluster.registration.port
    if member.role in NODES and port == api:
        # K3s has this port on the host's own address. `transparent`: also while the other one has the VIP.
        return [f"{_host(vip)}:{port} transparent" for vip in cluster.vips]
    return dict.fromkeys(f"[::]:{port} v6only" if ":" in vip else f"*:{port}" for vip in cluster.vips)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms"


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _stats(cluster: Cluster) -> str:
    """Return where HAProxy tells of itself: keepalived asks on loopback, wherever people do."""
    address, port = cluster.lb.stats.address, cluster.lb.stats.port
    addresses = [str(address)] if address.is_unspecified else dict.fromkeys(["127.0.0.1", str(address)])
    return "".join(f"    bind {_host(one)}:{port}\n" for one in addresses)
