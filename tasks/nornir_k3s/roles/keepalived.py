"""keepalived's configuration: it holds the VIP on one load balancer whose HAProxy answers.

Sources: keepalived.conf(5). A track script that is not found is disabled without an error. vrrp_priority and
vrrp_no_swap keep a busy host from sending too late; keepalived goes on without them where they are refused. It has no
real time (vrrp_rt_priority): in a reload, 2.2 sets its limit RLIMIT_RTTIME to 0, and the kernel kills it. The interface
of an instance is tracked in any case. A holder whose network is cut goes on with the VIP: without servers its priority
is lower than that of the others, so that it yields when they meet. The one that stays sends no ARP then, unless it does
so every second.
"""

from __future__ import annotations

import re

from nornir_k3s import shell
from nornir_k3s.model.cluster import Cluster, Member
from nornir_k3s.model.host_spec import HEADER

CONFIG = "/etc/keepalived/keepalived.conf"
UNIT = "keepalived.service"
VERSION = "3"  # of VRRP

_CONFIG = f"""{HEADER}\
global_defs {{
    router_id NAME
    vrrp_version {VERSION}
    enable_script_security
    script_user root
    vrrp_priority -20
    vrrp_no_swap
    vrrp_garp_master_delay 1
    vrrp_garp_master_repeat 3
    vrrp_garp_master_refresh 1
}}

vrrp_script haproxy {{
    script "TRACK STATS"
    interval 1
    timeout 5
    fall 1
    rise 2
}}

vrrp_script servers {{
    script "TRACK STATS servers"
    interval 1
    timeout 5
    fall 2
    rise 2
    weight -50
}}

vrrp_instance k3s {{
    state BACKUP
    PREEMPT
    interface INTERFACE
    virtual_router_id ROUTER
    priority PRIORITY
    advert_int ADVERT
PEERS    virtual_ipaddress {{
SAME    }}
OTHER    track_script {{
        haproxy
        servers
    }}
    notify "NOTIFY VIPS"
}}
"""


def config(cluster: Cluster, member: Member, interface: str, scripts: str) -> str:
    """Return keepalived.conf of one load balancer.

    Arguments:
        interface: Where it holds the VIP.
        scripts: The folder of its scripts.
    """
    members, lb = cluster.of("lb"), cluster.lb
    same, other = _addresses(cluster, interface)
    peers = "".join(f"        {m.address}\n" for m in members if m.name != member.name)
    values = {
        "TRACK": track_path(scripts),
        "NOTIFY": notify_path(scripts),
        "NAME": member.name,
        "INTERFACE": interface,
        "ROUTER": str(lb.virtual_router_id),
        "ADVERT": f"{lb.advert_int:g}",
        "PREEMPT": "nopreempt" if lb.preempt_delay is None else f"preempt_delay {lb.preempt_delay}",
        "PRIORITY": str(200 - min(10, 199 // len(members)) * members.index(member)),  # at least 1
        # keepalived refuses an own address without peers.
        "PEERS": f"    unicast_src_ip {member.address}\n    unicast_peer {{\n{peers}    }}\n" if peers else "",
        "SAME": same,
        "OTHER": f"    virtual_ipaddress_excluded {{\n{other}    }}\n" if other else "",
        "VIPS": ",".join(cluster.vips),
        "STATS": str(lb.stats.port),
    }
    return re.sub(rf"\b({'|'.join(values)})\b", lambda match: values[match[1]], _CONFIG)


def group(text: str) -> tuple[str, str, bool]:
    """Return what keepaliveds of one group have alike: virtual_router_id, version of VRRP, and whether it is unicast.

    They do not hear each other where one of it differs. All is empty where a configuration has no instance.
    """
    router = re.search(r"^\s*virtual_router_id\s+(\d+)", text, re.M)
    version = re.search(r"^\s*vrrp_version\s+(\d)", text, re.M)
    if not router:
        return "", "", False
    return router[1], version[1] if version else "2", re.search(r"^\s*unicast_peer\b", text, re.M) is not None


def _addresses(cluster: Cluster, interface: str) -> tuple[str, str]:
    """Return the lines of the VIPs: those that are advertised, and those of the other IP version, which are not."""
    lines: dict[bool, list[str]] = {True: [], False: []}
    for vip in cluster.vips:
        same = (":" in vip) == (":" in cluster.vips[0])
        prefix = (cluster.lb.prefix if same else None) or (128 if ":" in vip else 32)
        lines[same].append(f"        {vip}/{prefix} dev {interface}\n")
    return "".join(lines[True]), "".join(lines[False])


def track_path(scripts: str) -> str:
    """Return where the script of `track` lies."""
    return f"{scripts}/nornir-k3s-check"


def notify_path(scripts: str) -> str:
    """Return where the script of `notify` lies."""
    return f"{scripts}/nornir-k3s-notify"


def track() -> str:
    """Return the script that says whether HAProxy works."""
    return shell.source("roles/keepalived_check.bash")


def notify() -> str:
    """Return the script that logs where the VIP is."""
    return shell.source("roles/keepalived_notify.sh")
