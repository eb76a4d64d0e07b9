"""A third of what drift looks at, as a pyinfra deploy: packages, files' mode and owner, units, links.

Left out, since pyinfra has nothing for it: contents by hash, what a process has read, nodes, settings in force, VIP,
HAProxy's view, certificates, the datastore's inside, room, what somebody added.
"""

from pyinfra import host
from pyinfra.operations import apt, files, systemd

FILES = {
    "datastore": {"/etc/mysql/mariadb.conf.d/90-nornir-k3s.cnf": "644"},
    "servers": {
        "/etc/rancher/k3s/config.yaml": "600",
        "/etc/rancher/k3s/datastore-cafile.pem": "600",
        "/usr/local/bin/k3s": "755",
    },
    "agents": {"/etc/rancher/k3s/config.yaml": "600", "/usr/local/bin/k3s": "755"},
    "lb": {
        "/etc/haproxy/haproxy.cfg": "644",
        "/etc/haproxy/k3s-check.pem": "600",
        "/etc/haproxy/k3s-server-ca.pem": "644",
        "/etc/keepalived/keepalived.conf": "644",
        "/etc/keepalived/nornir-k3s-check": "755",
    },
}
UNITS = {"datastore": ["mariadb"], "servers": ["k3s"], "agents": ["k3s-agent"], "lb": ["haproxy", "keepalived"]}
PACKAGES = {"datastore": ["mariadb-server"], "lb": ["haproxy", "keepalived"]}

for group in host.groups:
    if PACKAGES.get(group):
        apt.packages(name="packages", packages=PACKAGES[group])
    for path, mode in FILES.get(group, {}).items():
        files.file(name=path, path=path, mode=mode, user="root", group="root")
    for unit in UNITS.get(group, []):
        systemd.service(name=unit, service=f"{unit}.service", running=True, enabled=True)
    if group in ("servers", "agents"):
        files.link(name="kubectl", path="/usr/local/bin/kubectl", target="k3s")
