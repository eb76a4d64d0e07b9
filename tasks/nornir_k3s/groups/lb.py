"""A load balancer: HAProxy passes TLS through to every ready server, keepalived holds the VIP.

Sources: docs.k3s.io `datastore/cluster-loadbalancer.md`; HAProxy's configuration manual (check-ssl, on-marked-down,
redispatch); keepalived.conf(5) (a track script that is not found is disabled without an error).
"""

from __future__ import annotations

from functools import cache, partial

from jinja2 import Environment, StrictUndefined, Template

from nornir_k3s import k3s
from nornir_k3s.cluster import Cluster, Member
from nornir_k3s.secret import Secret
from nornir_k3s.spec import HEADER, File, HostSpec, Unit

HAPROXY = "/etc/haproxy/haproxy.cfg"
CHECK_CERT = "/etc/haproxy/k3s-check.pem"
SERVER_CA = "/etc/haproxy/k3s-server-ca.pem"
KEEPALIVED = "/etc/keepalived/keepalived.conf"
TRACK = "/etc/keepalived/nornir-k3s-check"

_HAPROXY = """\
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
    timeout connect 400ms
    timeout client 1h
    timeout server 1h
    timeout check 400ms

frontend k3s
    bind {{ bind }}:{{ port }}
    default_backend servers

backend servers
    balance leastconn
    option httpchk GET /readyz
    http-check expect status 200
    default-server check check-ssl verify required ca-file {{ ca }} crt {{ cert }} verifyhost kubernetes inter 500ms \
fastinter 200ms downinter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
{% for server in servers %}
    server {{ server.node_name }} {{ server.address }}:{{ api_port }}
{% endfor %}
"""

_KEEPALIVED = """\
global_defs {
    router_id {{ me.name }}
    vrrp_version 3
    enable_script_security
    script_user root
}

vrrp_script haproxy {
    script "{{ track }}"
    interval 1
    timeout 2
    fall 1
    rise 2
}

vrrp_instance k3s {
    state BACKUP
    nopreempt
    interface {{ interface }}
    virtual_router_id {{ router_id }}
    priority {{ priority }}
    advert_int 0.1
    unicast_src_ip {{ me.address }}
{% if peers %}
    unicast_peer {
{% for peer in peers %}
        {{ peer.address }}
{% endfor %}
    }
{% endif %}
    virtual_ipaddress {
        {{ vip }}/{{ prefix }} dev {{ interface }}
    }
    track_script {
        haproxy
    }
}
"""

# Without psmisc or procps, which a minimal host lacks; the pid file is the master's, written by the unit.
_TRACK = """\
#!/bin/sh
# Managed by nornir-k3s. keepalived gives the VIP away when HAProxy's master is gone.
read -r pid </run/haproxy.pid && kill -0 "$pid"
"""

# A master that cannot load its new configuration keeps the old one, and systemd still calls the reload a success.
_LOADED = """\
ss -Hlnt 'sport = :PORT' | grep -q . && \
! journalctl -u haproxy.service --since "@$begin" -o cat --no-pager | grep -q 'Loading failure'"""


@cache
def _template(text: str) -> Template:
    environment = Environment(  # noqa: S701 - configuration text, not HTML
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(text)


def _render(template: str, **values: object) -> str:
    return HEADER + _template(template).render(**values)


def spec(cluster: Cluster, member: Member, *, interface: str, check_pem: Secret, server_ca: str) -> HostSpec:
    """Return what a load balancer must look like.

    Arguments:
        interface: Where it holds the VIP.
        check_pem: Certificate and key of the health check; empty until the cluster has signed one.
        server_ca: The CA of the servers' certificates; empty until the first server made it.
    """
    members = cluster.of("lb")
    vip = str(cluster.registration.address)
    haproxy = _render(
        _HAPROXY,
        bind="[::]" if ":" in vip else "*",
        port=cluster.registration.port,
        servers=cluster.of("servers"),
        api_port=cluster.server.get("https-listen-port", k3s.API_PORT),
        ca=SERVER_CA,
        cert=CHECK_CERT,
    )
    keepalived = _render(
        _KEEPALIVED,
        me=member,
        peers=[m for m in members if m.name != member.name],
        interface=interface,
        router_id=cluster.lb.virtual_router_id,
        priority=200 - 10 * members.index(member),
        vip=vip,
        prefix=cluster.lb.prefix or (128 if ":" in vip else 32),
        track=TRACK,
    )
    file_of_haproxy = partial(File, unit="haproxy.service", action="reload")
    return HostSpec(
        packages=("haproxy", "keepalived"),
        files=(
            file_of_haproxy(SERVER_CA, Secret(server_ca), 0o644),
            file_of_haproxy(CHECK_CERT, check_pem, 0o600, masking="all"),
            file_of_haproxy(HAPROXY, Secret(haproxy), 0o644, check="haproxy -c -q -f {}"),
            File(TRACK, Secret(_TRACK), 0o755),
            File(
                KEEPALIVED,
                Secret(keepalived),
                0o644,
                unit="keepalived.service",
                action="reload",
                check="keepalived -t -f {}",
            ),
        ),
        units=(
            Unit("haproxy.service", reloadable=True, proof=_LOADED.replace("PORT", str(cluster.registration.port))),
            Unit("keepalived.service", reloadable=True),
        ),
    )
