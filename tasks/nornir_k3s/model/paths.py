"""Paths on the hosts: of this tool, and of K3s."""

from __future__ import annotations

STATE = "/var/lib/nornir-k3s"
INSTALLER = f"{STATE}/install.sh"
KEYS_NOTE = f"{STATE}/encryption"  # what a run is doing to the keys of secrets
PREVIOUS = f"{STATE}/previous"  # rollback copies of a server's files
DATASTORE_KEYS = f"{STATE}/datastore-keys.json"  # the CA of a managed datastore, and what it has signed
DUMPS = f"{STATE}/dumps"
IMAGES = "/var/lib/rancher/k3s/agent/images"
SYSTEMD = "/etc/systemd/system"  # where K3s' installer writes its unit
MOVING = f"{STATE}/moving"  # K3s is stopped while its datastore is copied
MOVED = f"{STATE}/moved"  # what leads back to the datastore from before a move
WORK = "/run/nornir-k3s"  # the lock of the run that changes the host: nothing of it outlives a reboot
