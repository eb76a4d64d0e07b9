"""Shell lines that read, within the one script of a host, what only drift asks for; each prints `fact` records.

Sources: k3s `pkg/server/handlers/handlers.go` (`/v1-k3s/config`, for the user `node`); docs.k3s.io
`installation/configuration.md` (config.yaml.d), K3s' `install.sh` (environment files of the unit); HAProxy's management
guide (`show stat`).
"""

from __future__ import annotations

import base64
import json

from nornir_k3s import k3s
from nornir_k3s.facts import datastore_health
from nornir_k3s.model.cluster import (
    NODES,
    Cluster,
    Member,
)
from nornir_k3s.model.paths import (
    STATE,
)
from nornir_k3s.model.secret import Secret
from nornir_k3s.roles import datastore

# Whoever holds it is at work on the host: a deploy, maybe from another controller, which a lock that is shared, and let
# go at once, does not disturb.
_COMMON = f"""
for d in / /var/lib /run; do say fact space "$d" "$(stat -f -c '%a %S %d %c' "$d")"; done
if [ -r {STATE}/lock ] && command -v flock >/dev/null 2>&1; then
  ( exec 9<{STATE}/lock && flock -ns 9 ) || say fact busy yes
fi
"""

# Names of settings only: their values may be secrets.
_EXTRA = r"""
extra() { # path pattern
  [ -f "$1" ] || return 0
  names=$(sed -n "$2" "$1" | tr '\n' ' ')
  [ -z "$names" ] || say fact extra "$1" "$names" "$(stat -c %Z "$1")"
}
for f in /etc/rancher/k3s/config.yaml.d/*.y*ml; do
  extra "$f" 's/^"\{0,1\}\([A-Za-z0-9-]\{1,\}\)"\{0,1\} *+\{0,1\} *:.*/\1/p'
done
for f in /etc/default/NAME /etc/sysconfig/NAME /etc/systemd/system/NAME.service.env; do
  extra "$f" 's/^ *\(export  *\)\{0,1\}\([A-Za-z_][A-Za-z0-9_]*\)=.*/\2/p'
done
"""

_CERTIFICATES = r"""
if ls FOLDER/*.crt >/dev/null 2>&1; then say fact certs "$(tail -vn +1 FOLDER/*.crt 2>/dev/null | base64 -w0)"; fi
"""

# The credential travels on the script's stdin, and from there by a pipe: never in argv, never in a file.
_LIVE = r"""
if systemctl is-active -q k3s.service 2>/dev/null && [ -s CA ]; then
  say fact live "$({ printf '%s' 'HEAD' | base64 -d; base64 -w0 <CA; printf '%s' 'TAIL' | base64 -d; } |
    timeout 10 K3S kubectl --kubeconfig /dev/stdin get --raw /v1-k3s/config 2>/dev/null | base64 -w0)"
fi
"""

# Of the connections that K3s has: one made for this and dropped would count as an error with MariaDB and MySQL.
_LATENCY = r"""
ss -Htni "dst ADDRESS and dport = :PORT" 2>/dev/null | sed -n 's/.* rtt:\([0-9.]*\)\/.*/\1/p' | sort -n | {
  read -r best && say fact latency "ADDRESS:PORT" "$best"
}
"""

HAPROXY = r"""
perl -MIO::Socket::UNIX -e '$s = IO::Socket::UNIX->new(Peer => "/run/haproxy/admin.sock") or exit;
  print $s "show stat\n";
  while (<$s>) { @w = split /,/; print "fact\tbackend\t$w[1]\t$w[17]\t$w[23]\n" if $w[0] eq "servers" }' 2>/dev/null
"""


def script(cluster: Cluster, member: Member) -> str:
    """Return the lines for one host; a secret text, where the host is a server."""
    parts = [_COMMON]
    if member.role in NODES:
        unit = k3s.UNITS["server" if member.role == "servers" else "agent"]
        parts.append(_EXTRA.replace("NAME", unit.removesuffix(".service")))
        parts.append(certificates(member))
    if member.role == "servers":
        parts.append(live(cluster).reveal())
        parts.append(_latency(cluster))
    elif member.role == "lb":
        parts.append(HAPROXY)
    elif member.role == "datastore":
        parts.append(datastore_health.look(cluster, member))
    return "\n".join(parts)


def certificates(member: Member) -> str:
    """Return the lines that read K3s' certificates on a server or an agent."""
    folder = f"{k3s.DATA}/server/tls" if member.role == "servers" else f"{k3s.DATA}/agent"
    return _CERTIFICATES.replace("FOLDER", folder)


def live(cluster: Cluster) -> Secret:
    """Return the lines that ask a server itself for its settings in force."""
    port = cluster.server.get("https-listen-port", k3s.API_PORT)
    password = (cluster.agent_token or cluster.token).reveal()
    before = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "k3s",
        "contexts": [{"name": "k3s", "context": {"cluster": "k3s", "user": "node"}}],
        "users": [{"name": "node", "user": {"username": "node", "password": password}}],
        "clusters": [{"name": "k3s", "cluster": {"server": f"https://127.0.0.1:{port}"}}],
    }
    # Of JSON, which is YAML, too; the CA comes from the host, between the two halves.
    head, _, tail = json.dumps(before).rpartition("}}]}")
    head += ', "certificate-authority-data": "'
    text = _LIVE.replace("HEAD", _encoded(head)).replace("TAIL", _encoded('"}}]}' + tail))
    ca = f"{k3s.DATA}/server/tls/server-ca.crt"
    return Secret(text.replace("CA ", f"{ca} ").replace("<CA;", f"<{ca};").replace("K3S ", f"{k3s.BINARY} "))


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _latency(cluster: Cluster) -> str:
    if not cluster.is_managed:
        return ""
    port = datastore.kind(cluster).ports[0]
    # ss wants an IPv6 address in brackets, like everybody else.
    addresses = [f"[{m.address}]" if ":" in m.address else m.address for m in cluster.of("datastore")]
    return "".join(_LATENCY.replace("ADDRESS", address).replace("PORT", str(port)) for address in addresses)
