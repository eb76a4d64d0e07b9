"""A third of what drift looks at, as a pyinfra deploy: packages, files with content, mode and owner, units, links.

Left out, since pyinfra has nothing for it: what a process has read, nodes, settings in force, VIP, HAProxy's view,
certificates, the datastore's inside, room, what somebody added. BENCH names a folder: below `expected/HOST` are the
files that a host must have, with their modes.
"""

import os
from pathlib import Path

from pyinfra import host
from pyinfra.operations import apt, files, systemd

UNITS = {"datastore": ["mariadb"], "servers": ["k3s"], "agents": ["k3s-agent"], "lb": ["haproxy", "keepalived"]}
PACKAGES = {"datastore": ["mariadb-server"], "lb": ["haproxy", "keepalived"]}

folder = Path(os.environ["BENCH"])
expected = folder / "expected" / host.name
for path in sorted(path for path in expected.rglob("*") if path.is_file()):
    there = f"/{path.relative_to(expected)}"
    mode = f"{path.stat().st_mode & 0o777:o}"
    files.put(name=there, src=str(path), dest=there, mode=mode, user="root")
for group in host.groups:
    if PACKAGES.get(group):
        apt.packages(name="packages", packages=PACKAGES[group])
    for unit in UNITS.get(group, []):
        systemd.service(name=unit, service=f"{unit}.service", running=True, enabled=True)
    if group in ("servers", "agents"):
        binary = str(folder / "bundle" / "k3s")
        files.put(name="k3s", src=binary, dest="/usr/local/bin/k3s", mode="755", user="root", group="root")
        files.link(name="kubectl", path="/usr/local/bin/kubectl", target="k3s")
