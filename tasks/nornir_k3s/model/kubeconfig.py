"""The result of using the kubeconfig from the controller."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class KubeconfigAnswer:
    """The result of a request with the kubeconfig, through the registration address.

    Arguments:
        error: Why it failed; empty if it works.
        names: The names in the API's certificate.
        missing: There is no kubeconfig.
        expires: When its client certificate expires; None if it cannot be read.
    """

    error: str = ""
    names: tuple[str, ...] = ()
    missing: bool = False
    expires: datetime | None = None
