"""Real local hosts (systemd-nspawn): the embedded default, and what the end-to-end tests run on."""

from nornir_k3s.lab.lab import HostStatus, Lab
from nornir_k3s.lab.model import LabHost
from nornir_k3s.lab.system import LabError

__all__ = ["HostStatus", "Lab", "LabError", "LabHost"]
