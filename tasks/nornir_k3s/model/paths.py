"""Where this tool keeps its own files on a host, and where K3s keeps those that it looks at."""

from __future__ import annotations

STATE = "/var/lib/nornir-k3s"
INSTALLER = f"{STATE}/install.sh"
PREVIOUS = f"{STATE}/previous"  # a server's files as they were before a change
IMAGES = "/var/lib/rancher/k3s/agent/images"
SYSTEMD = "/etc/systemd/system"  # where K3s' installer puts its unit
