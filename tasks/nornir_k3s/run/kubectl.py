"""The version of the kubectl on this machine, which people use with the cluster's kubeconfig."""

from __future__ import annotations

import json
import shutil
import subprocess

TIMEOUT = 5.0  # seconds


def version() -> str:
    """Return its version, as `v1.34.2`; nothing if there is none, or it does not say."""
    path = shutil.which("kubectl")
    if path is None:
        return ""
    command = [path, "version", "--client", "--output=json"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True).stdout
        return str(json.loads(answer)["clientVersion"]["gitVersion"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return ""
