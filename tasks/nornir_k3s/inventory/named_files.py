"""Files that K3s settings name: K3s, or a component of it, does not start without them.

Sources: docs.k3s.io `cli/server.md`, `cli/agent.md`; the command-line references of Kubernetes' components.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from nornir_k3s import k3s, k3s_settings

_FILES = k3s_settings.where(file=True)
# Arguments of components whose value is a path that they read; `log-file` and the like are written.
_READ = re.compile(
    r"((^|-)(file|config|config-dir|conf|kubeconfig|cafile|certfile|keyfile)"
    r"|-certificate|-certificate-authority|client-key)$"
)
_WRITTEN = frozenset(("log-file", "lock-file"))
# K3s makes these itself, some of them when it starts for the first time.
_MADE = (
    f"{k3s.DATA}/server/tls/",
    f"{k3s.DATA}/server/cred/",
    f"{k3s.DATA}/agent/",
    f"{k3s.DATA}/data/",
    "/run/k3s/",
    "/etc/rancher/k3s/k3s.yaml",
)


def named(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the paths that these settings name, each with the setting, except those that K3s makes itself."""
    found: dict[str, str] = {}
    for key, value in settings.items():
        for name, path in _paths(key, value):
            if path.startswith("/") and not path.startswith(_MADE):
                found.setdefault(path, name)
    return found


def _paths(key: str, value: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - a setting
    if key in _FILES:
        yield key, str(value)
    elif key.endswith("-arg"):
        for argument in value if isinstance(value, list) else [value]:
            name, _, path = str(argument).removeprefix("--").partition("=")
            name = name.rstrip("-+")
            if name == "tls-sni-cert-key":  # CERTIFICATE,KEY:NAMES
                yield from ((f"{key} {name}", one) for one in path.partition(":")[0].split(","))
            elif _READ.search(name) and name not in _WRITTEN:
                yield f"{key} {name}", path
