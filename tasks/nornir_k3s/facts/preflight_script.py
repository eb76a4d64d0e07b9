"""Shell lines that read what only a host that is yet to be set up is asked for; each prints `fact` records.

They cost a few tenths of a second, so a host whose service runs already is not asked most of it.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from nornir_k3s import k3s
from nornir_k3s.model.cluster import (
    NODES,
    Cluster,
    Member,
)
from nornir_k3s.model.paths import (
    STATE,
)
from nornir_k3s.roles import datastore

_COMMON = r"""
fact() { say fact "$@"; }
fact cpus "$(nproc 2>/dev/null)"
read -r _ version _ <<V
$(systemctl --version 2>/dev/null)
V
fact systemd "$version"
# The nearest folder that is there already tells where its content will lie.
room() { d=$1; while [ ! -d "$d" ]; do d=${d%/*}; d=${d:-/}; done
  fact room "$1" "$(stat -f -c %T "$d")" "$(df -Pk "$d" | { read -r _; read -r _ _ _ free _; echo "$free"; })" \
    "$(findmnt -no OPTIONS -T "$d" 2>/dev/null)"; }
for unit in firewalld nftables; do if systemctl is-active -q $unit 2>/dev/null; then fact active $unit; fi; done
if [ -r /etc/ufw/ufw.conf ] && grep -qi '^ENABLED=yes' /etc/ufw/ufw.conf; then fact active ufw; fi
"""

_PACKAGES = r"""
fact dpkg "$(dpkg --audit 2>/dev/null | sed -n 's/^ \([^ ]*\) .*/\1/p' | tr '\n' ' ')"
fact sources "$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -cE '^(deb |Types:|URIs:)')"
"""

# Where there are no lists yet, apt itself tells later.
_KNOWN = r"""
if ls /var/lib/apt/lists/*Packages* >/dev/null 2>&1; then
  for p in NAMES; do apt-cache show "$p" >/dev/null 2>&1 || fact nopackage "$p"; done
fi
"""

_NODE = r"""
room DATA
room /usr/local/bin
fact controllers "$(cat /sys/fs/cgroup/cgroup.controllers 2>/dev/null ||
  sed -n 's/^\([a-z]*\)\t.*\t1$/\1/p' /proc/cgroups | tr '\n' ' ')"
for m in MODULES; do
  if [ -d "/sys/module/$m" ] || grep -qw "$m" /proc/filesystems; then fact module "$m" yes
  elif ! command -v modprobe >/dev/null 2>&1 || [ ! -d "/lib/modules/$(uname -r)" ]; then fact module "$m" unknown
  elif modprobe -nq "$m" 2>/dev/null; then fact module "$m" yes
  else fact module "$m" no; fi
done
fact keys "$(cat /proc/sys/kernel/keys/root_maxkeys 2>/dev/null)"
fact watches "$(cat /proc/sys/fs/inotify/max_user_watches 2>/dev/null)"
if command -v iptables >/dev/null 2>&1; then fact iptables "$(iptables --version 2>/dev/null)"; fi
if command -v getenforce >/dev/null 2>&1; then
  fact selinux "$(getenforce)" "$(rpm -q k3s-selinux >/dev/null 2>&1 && echo yes || echo no)"
fi
sed -n 's/^nameserver[ \t]*\([^ \t]*\).*/\1/p' /etc/resolv.conf 2>/dev/null |
  while read -r a; do fact nameserver "$a"; done
for u in k3s k3s-agent; do
  if [ -e "/etc/systemd/system/$u.service" ] && [ ! -e STATE/installed ]; then fact foreign "$u.service"; fi
done
if [ -s DATA/agent/server-ca.crt ]; then fact agentca "$(sha256sum <DATA/agent/server-ca.crt | cut -c1-64)"; fi
ip -o -4 route show 2>/dev/null | while read -r to a dev b; do
  case $to in default|unreachable|blackhole) ;; *) fact route "$to" "$a $dev $b";; esac
done
"""

# In one bash for all, together: a port that is closed answers at once, a firewall that drops takes the whole deadline.
_REACH = r"""
if command -v bash >/dev/null 2>&1; then bash -s <<'PROBES'
probe() {
  out=$(timeout 3 bash -c "exec 3<>/dev/tcp/$2/$3" 2>&1); rc=$?
  case $rc:$out in
    0:*) how=open;; *refused*) how=closed;; 124:*) how=silent;; *route*|*unreachable*) how=unroutable;; *) how=failed;;
  esac
  printf 'fact\treach\t%s\t%s\t%s\n' "$1" "$2:$3" "$how"
}
LINES
wait
PROBES
fi
"""

_VIP = r"""
if command -v bash >/dev/null 2>&1 && ! ip -o addr show | grep -qF ' VIP/'; then
  timeout 0.7 bash -c 'exec 3<>/dev/tcp/VIP/PORT' 2>/dev/null || :
  ip neigh show VIP 2>/dev/null | while read -r line; do
    case $line in *lladdr*) fact neighbour VIP "$line";; esac
  done
fi
"""
_MODULES = ("overlay", "br_netfilter", "nf_conntrack", "iptable_nat")
_BACKENDS = {"vxlan": "vxlan", "wireguard-native": "wireguard"}


def script(cluster: Cluster, member: Member) -> str:
    """Return the lines for one host."""
    parts = [_COMMON]
    if member.role in NODES:
        backend = str(cluster.server.get("flannel-backend", "vxlan"))
        modules = [*_MODULES, *([_BACKENDS[backend]] if backend in _BACKENDS else [])]
        parts.append(_NODE.replace("MODULES", " ".join(modules)))
    else:
        parts += [_PACKAGES, "room /var/lib\n"]
    if member.role == "datastore":
        names = datastore.spec(cluster, member, None).packages
        parts.append(_KNOWN.replace("NAMES", " ".join(names)))
    vip = str(cluster.registration.address or "")
    if member.role == "lb" and vip:
        parts.append(_VIP.replace("VIP", vip).replace("PORT", str(cluster.registration.port)))
    text = f"if ! systemctl is-active -q {unit(cluster, member.role)} 2>/dev/null; then\n{''.join(parts)}\nfi\n"
    return text.replace("DATA", k3s.DATA).replace("STATE", STATE) + _reach(cluster, member)


def _reach(cluster: Cluster, member: Member) -> str:
    lines = [f"probe {shlex.quote(name)} {address} {port} &" for name, address, port in targets(cluster, member)]
    if not lines:
        return ""
    text = _REACH.replace("LINES", "\n".join(lines))
    # An agent's tunnels need every server at all times; the others show by their work whom they reach.
    return (
        text
        if member.role == "agents"
        else f"if ! systemctl is-active -q {unit(cluster, member.role)}; then {text}\nfi\n"
    )


def unit(cluster: Cluster, role: str) -> str:
    """Return the unit that shows that a host of this role is set up and at work."""
    units = {"servers": k3s.UNITS["server"], "agents": k3s.UNITS["agent"], "lb": "haproxy.service"}
    return units[role] if role in units else datastore.kind(cluster).unit


def targets(cluster: Cluster, member: Member) -> Sequence[tuple[str, str, int]]:
    """Return whom a host must reach: name, address, port. Nobody may listen there yet: to be refused is to arrive."""
    api = int(str(cluster.server.get("https-listen-port", k3s.API_PORT)))
    servers = [(server.name, server.address, api) for server in cluster.of("servers") if server.name != member.name]
    if member.role == "servers":
        return [*servers, *((db.name, db.address, datastore.kind(cluster).ports[0]) for db in cluster.of("datastore"))]
    return servers if member.role in ("agents", "lb") else []
