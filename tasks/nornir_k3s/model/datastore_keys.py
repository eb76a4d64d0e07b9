"""The certificates and keys of a managed datastore."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nornir_k3s.model.secret import Secret


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: str
    key: Secret


@dataclass(frozen=True)
class Keys:
    """The certificates of a managed datastore and its clients.

    Arguments:
        ca: The CA's certificate, PEM.
        hosts: Each datastore host's own pair, by its name in the inventory.
        client: K3s' client certificate for an etcd.
        text: All of it, with the CA's key, as it is saved on the controller and on the datastore's hosts.
    """

    ca: str
    hosts: Mapping[str, Pair]
    client: Pair
    text: Secret
