"""A part of what drift compares, as a pyinfra deploy: 9 of its 32 kinds.

Packages, K3s' binary, links, files (content, mode, owner), units that run and are enabled; and by commands, since
pyinfra has nothing for them, each server's API, who has the VIP, the database. BENCH names a folder: below
`expected/HOST` are the files that a host must have, with their modes.
"""

import os
from pathlib import Path

from pyinfra import host
from pyinfra.facts.server import Command
from pyinfra.operations import apt, files, systemd

UNITS = {"datastore": ["mariadb"], "servers": ["k3s"], "agents": ["k3s-agent"], "lb": ["haproxy", "keepalived"]}
COMMANDS = {
    "servers": ("k3s kubectl get --raw /readyz", {"ok"}),
    "lb": ("ip -o addr show to 10.78.0.100 | wc -l", {"0", "1"}),
    "datastore": ("""mariadb -N -e "SHOW DATABASES LIKE 'k3s'" """, {"k3s"}),
}
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
    if group in COMMANDS:
        command, wanted = COMMANDS[group]
        if (said := host.get_fact(Command, command=command)) not in wanted:
            raise RuntimeError(f"{command}: {said}")
    if group in ("servers", "agents"):
        binary = str(folder / "bundle" / "k3s")
        files.put(name="k3s", src=binary, dest="/usr/local/bin/k3s", mode="755", user="root", group="root")
        files.link(name="kubectl", path="/usr/local/bin/kubectl", target="k3s")
