"""Logging in to a managed database: a user for each password, so that old and new work side by side; and how often."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable

from nornir_k3s import k3s
from nornir_k3s.model.cluster import (
    Cluster,
)

RESERVE = 50  # connections for people and backups


def login(cluster: Cluster) -> str:
    """Return the user that K3s logs in as: the inventory's name and eight digits that change with the password.

    The digits are keyed with the token: nobody can try passwords on them.
    """
    content = f"{cluster.datastore_password.reveal()} {'tls' if cluster.keys else ''}".encode()
    digits = hmac.new(cluster.token.reveal().encode(), content, "sha256").hexdigest()[:8]
    return f"{cluster.managed.user}_{digits}"


def logins(cluster: Cluster, names: Iterable[str]) -> set[str]:
    """Return those of the names, with or without a host, that are users of this kind."""
    found = (name.rpartition("@")[0] or name for name in names)
    return {name for name in found if re.fullmatch(re.escape(cluster.managed.user) + "_[0-9a-f]{8}", name)}


def server_connections(cluster: Cluster) -> int:
    """Return how many connections all servers together may open to a database."""
    bound = cluster.datastore_pool.max_open if cluster.datastore_pool else None
    return (bound or k3s.CONNECTIONS) * len(cluster.of("servers"))


def connections(cluster: Cluster) -> int:
    """Return how many connections a managed database allows.

    A smaller pool does not lower it: the database would be restarted for it, while servers still use their larger one.
    """
    return max(server_connections(cluster), len(cluster.of("servers")) * k3s.CONNECTIONS) + RESERVE
