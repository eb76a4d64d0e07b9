"""What a client of the registration address found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CONTROLLER = "the controller"


@dataclass(frozen=True)
class AddressAnswer:
    """What the controller found at the registration address, or an agent if the controller cannot connect.

    Arguments:
        resolved: The addresses that the controller resolves its name to; None if it has no name.
        via: Who connected: CONTROLLER, or the name of a host.
        failure: What did not work: the connection; TLS; the certificate, which the cluster's CA has not signed.
        error: Why, in words.
        unreached: The error of the controller's own connection, if another host was asked instead.
        names: The names in the certificate.
        answers: How many connections a server answered.
        refused: How many of them did not take the client certificate of a server's administrator.
        seen: The advertised addresses of the servers that answered, as far as they told them.
        ttl: Seconds that the records of its name may be cached; None if that is not known.
        idle: Seconds after which an idle connection was closed; None if it stayed open, or none was tried.
    """

    resolved: tuple[str, ...] | None = None
    via: str = CONTROLLER
    failure: Literal["", "connection", "tls", "certificate"] = ""
    error: str = ""
    unreached: str = ""
    names: tuple[str, ...] = ()
    answers: int = 0
    refused: int = 0
    seen: frozenset[str] = frozenset()
    idle: float | None = None
    ttl: int | None = None
