"""Users of a managed database, one per password so that the old and the new one both work; and its connections."""

from __future__ import annotations

import hmac
import math
import re
from collections.abc import Iterable

from nornir_k3s import k3s
from nornir_k3s.model.cluster import Cluster

RESERVE = 50  # connections for administrators and backups
STEP = 5  # servers: PostgreSQL restarts for another limit, so that one more must fit in most cases


def login(cluster: Cluster) -> str:
    """Return the user name of K3s: the inventory's name and eight hex digits that change with the password.

    The digits are keyed with the token, so that nobody can guess the password from them.
    """
    content = f"{cluster.datastore_password.reveal()} {'tls' if cluster.keys else ''}".encode()
    digits = hmac.new(cluster.token.reveal().encode(), content, "sha256").hexdigest()[:8]
    return f"{cluster.managed.user}_{digits}"


def logins(cluster: Cluster, names: Iterable[str]) -> set[str]:
    """Return those names, with or without a host, that `login` has created."""
    found = (name.rpartition("@")[0] or name for name in names)
    return {name for name in found if re.fullmatch(re.escape(cluster.managed.user) + "_[0-9a-f]{8}", name)}


def server_connections(cluster: Cluster) -> int:
    """Return the number of connections that all servers together may open."""
    limit = cluster.datastore_pool.max_open if cluster.datastore_pool else None
    return (limit or k3s.CONNECTIONS) * len(cluster.serving)


def connections(cluster: Cluster) -> int:
    """Return the maximum number of connections for a managed database.

    A smaller pool does not lower it: servers still use their larger one. It has room for more servers than there are.
    """
    limit = cluster.datastore_pool.max_open if cluster.datastore_pool else None
    servers = math.ceil(len(cluster.serving) / STEP) * STEP
    return servers * max(limit or 0, k3s.CONNECTIONS) + RESERVE
