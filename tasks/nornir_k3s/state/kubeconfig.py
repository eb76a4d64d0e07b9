"""The kubeconfig of the last deploy: pointed at the registration address, named after the cluster."""

from __future__ import annotations

from pathlib import Path

import yaml

from nornir_k3s.model.secret import Secret
from nornir_k3s.state.store import Store

FILE = "kubeconfig"


def rewrite(text: str, *, server: str, name: str) -> Secret:
    """Return an administrator's kubeconfig for use from outside the cluster.

    Arguments:
        text: A server's `/etc/rancher/k3s/k3s.yaml`.
        server: The registration address as a URL.
        name: Names cluster, context and user, so that it merges with other kubeconfigs.

    Raises:
        ValueError: The text is not a kubeconfig.
    """
    try:
        data = yaml.safe_load(text)
        data["clusters"][0]["cluster"]["server"] = server
        data["clusters"][0]["name"] = name
        data["users"][0]["name"] = name
        data["contexts"][0] |= {"name": name, "context": {"cluster": name, "user": name}}
        data["current-context"] = name
    except (yaml.YAMLError, KeyError, IndexError, TypeError):
        raise ValueError("the server's k3s.yaml is not a kubeconfig") from None
    return Secret(yaml.safe_dump(data, sort_keys=False))


def has_same_ca(store: Store, text: str) -> bool:
    """Return whether the kubeconfig that is kept is of the same cluster as a server's."""
    try:
        ours, theirs = (
            yaml.safe_load(one)["clusters"][0]["cluster"]["certificate-authority-data"]
            for one in ((store.folder / FILE).read_text(), text)
        )
    except (OSError, yaml.YAMLError, KeyError, IndexError, TypeError):
        return False
    return bool(ours == theirs)


def keep(store: Store, text: str, *, server: str, name: str) -> Path:
    """Keep a server's kubeconfig for use from outside the cluster, 0600, and return its path.

    Arguments:
        text, server, name: As `rewrite` takes them.
    """
    wanted = rewrite(text, server=server, name=name).reveal()
    path = store.folder / FILE
    if not path.exists() or path.read_text() != wanted or path.stat().st_mode & 0o777 != 0o600:
        store.write(FILE, wanted)
    return path
