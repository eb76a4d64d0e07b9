"""What came of using the kubeconfig from the controller."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class KubeconfigAnswer:
    """What came of a request with the kubeconfig, through the registration address.

    Arguments:
        error: Why it failed, in words; empty when it works.
        names: The names in the certificate behind the address.
        missing: There is no kubeconfig.
        expires: When its client certificate expires; None where that cannot be read.
    """

    error: str = ""
    names: tuple[str, ...] = ()
    missing: bool = False
    expires: datetime | None = None
