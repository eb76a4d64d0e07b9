"""Local hosts for demos and tests: systemd-nspawn containers that boot a real Debian."""

from nornir_k3s_lab.errors import LabConfigError, LabError
from nornir_k3s_lab.lab import Lab
from nornir_k3s_lab.model import RELEASES, HostStatus, LabHost

__all__ = ["RELEASES", "HostStatus", "Lab", "LabConfigError", "LabError", "LabHost"]
