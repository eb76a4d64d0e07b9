"""rotate: gives a running cluster a new secret in place of an old one; the servers restart one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nornir.core import Nornir

from nornir_k3s.errors import UsageError
from nornir_k3s.model.report import Report
from nornir_k3s.model.rotation import Rotation
from nornir_k3s.model.suggest import did_you_mean
from nornir_k3s.workflows import (
    rotate_ca,
    rotate_certificates,
    rotate_database_password,
    rotate_encryption,
    rotate_token,
)
from nornir_k3s.workflows.rotation_request import Request


@dataclass(frozen=True)
class Kind:
    """How one secret is rotated.

    Arguments:
        plan: Returns what `rotate` would do; it changes nothing.
        rotate: Carries it out.
    """

    plan: Callable[[Request], Rotation]
    rotate: Callable[[Request], Report]


KINDS: Mapping[str, Kind] = {
    "token": Kind(rotate_token.plan, rotate_token.rotate),
    "agent-token": Kind(partial(rotate_token.plan, agent=True), partial(rotate_token.rotate, agent=True)),
    "ca": Kind(rotate_ca.plan, rotate_ca.rotate),
    "certificates": Kind(rotate_certificates.plan, rotate_certificates.rotate),
    "database-password": Kind(rotate_database_password.plan, rotate_database_password.rotate),
    "encryption": Kind(rotate_encryption.plan, rotate_encryption.rotate),
}


def rotate(
    nr: Nornir,
    what: str,
    *,
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
    ignore_window: bool = False,
    confirm: Callable[[Rotation], bool] | None = None,
) -> Report:
    """Rotate a secret of a running cluster. A run that was killed is finished by the next one, or by `deploy`.

    Arguments:
        nr: A Nornir with all hosts of the cluster.
        what: `token`, `agent-token`, `ca`, `certificates`, `database-password` or `encryption`.
        base, state, options: As for `deploy`.
        ignore_window: K3s restarts outside the maintenance window, too.
        confirm: Called with the plan before the first change; False aborts.

    Returns:
        The report of the deploy that ends it.

    Raises:
        UsageError: This cluster has no such secret, or this tool does not make it; nothing was changed.
        K3sError: As `deploy` does.
        Declined: It was not confirmed.
    """
    return _kind(what).rotate(Request(nr, base, state, options, ignore_window, confirm))


def plan_rotation(
    nr: Nornir,
    what: str,
    *,
    base: Path | str | None = None,
    state: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
    ignore_window: bool = False,
) -> Rotation:
    """Return what `rotate` would do; nothing is changed.

    Arguments:
        nr, what, base, state, options, ignore_window: As for `rotate`.

    Raises:
        K3sError: As `rotate` does before its first change.
    """
    return _kind(what).plan(Request(nr, base, state, options, ignore_window))


def _kind(what: str) -> Kind:
    if what not in KINDS:
        text = f"{what} cannot be rotated" + did_you_mean(what, KINDS)
        raise UsageError(text, hint=f"what can be: {', '.join(KINDS)}")
    return KINDS[what]
