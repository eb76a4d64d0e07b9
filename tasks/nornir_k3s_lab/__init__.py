"""Real local hosts (systemd-nspawn): the embedded default, and what the end-to-end tests run on."""

from nornir_k3s_lab.errors import LabConfigError, LabError
from nornir_k3s_lab.lab import HostStatus, Lab
from nornir_k3s_lab.model import LabHost

__all__ = ["HostStatus", "Lab", "LabConfigError", "LabError", "LabHost"]
