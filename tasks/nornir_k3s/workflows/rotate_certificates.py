"""Rotate K3s' certificates: servers make theirs anew one at a time, then agents, then the load balancers' health check.

Source: docs.k3s.io `cli/certificate.md`; k3s pkg/cli/cert. The CAs stay.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nornir.core import Nornir

from nornir_k3s.errors import Declined
from nornir_k3s.model.report import Report
from nornir_k3s.model.rotation import Rotation
from nornir_k3s.run import gather, paths
from nornir_k3s.run.context import Run
from nornir_k3s.run.selection import Choice
from nornir_k3s.state import locks
from nornir_k3s.state.store import Store
from nornir_k3s.workflows import plan as plans
from nornir_k3s.workflows.deploy import deploy

NAME = "certificates-rotation.json"  # in the state folder: when a rotation began that has not ended
RESUMED = 7 * 86400  # seconds after which a rotation that was interrupted begins anew


def plan(
    nr: Nornir, *, base: Path | str | None, state: Path | str | None, options: Mapping[str, Any] | None
) -> Rotation:
    """Return what `rotate` would do; nothing is changed.

    Raises:
        K3sError: As `rotate` does before its first change.
    """
    arguments = {"base": base, "state": state, "options": options}
    return _planned(nr, _begun(_prepared(nr, arguments).store), arguments, Choice())


def rotate(
    nr: Nornir,
    *,
    base: Path | str | None,
    state: Path | str | None,
    options: Mapping[str, Any] | None,
    ignore_window: bool,
    confirm: Callable[[Rotation], bool] | None,
) -> Report:
    """Make all certificates of K3s anew that are older than this rotation, by a deploy.

    Raises:
        K3sError: As `deploy` does.
    """
    arguments: dict[str, Any] = {"base": base, "state": state, "options": options}
    choice = Choice(ignore_window=ignore_window)
    run = _prepared(nr, arguments)
    store, begun = run.store, _begun(run.store)
    if confirm and not confirm(_planned(nr, begun, arguments, choice)):
        raise Declined("Aborted: not confirmed; nothing was changed", hint="--yes rotates without asking")
    with locks.deploy_lock(store.folder):
        store.write(NAME, json.dumps({"begun": begun}) + "\n")
    given = {**arguments, "options": {**(options or {}), "renew": begun}}
    report = deploy(nr, **given, choice=choice)
    if not report.skipped and not run.away:
        (store.folder / NAME).unlink(missing_ok=True)
    return report


def _prepared(nr: Nornir, arguments: Mapping[str, Any]) -> Run:
    folders = paths.of(nr, arguments["base"], arguments["state"])
    given = arguments["options"] or {}
    return gather.prepare(nr, base=folders.base, state=folders.state, options=given, keep=False, artifacts=False)


def _begun(store: Store) -> float:
    """Return when the rotation began that was interrupted; now, if there is none."""
    now, text = time.time(), store.read(NAME)
    begun = float(json.loads(text)["begun"]) if text else now
    return begun if now - RESUMED < begun <= now else now


def _planned(nr: Nornir, begun: float, arguments: Mapping[str, Any], choice: Choice) -> Rotation:
    options = {**(arguments["options"] or {}), "renew": begun}
    deployed = plans.plan(nr, base=arguments["base"], state=arguments["state"], options=options, choice=choice)
    found = Rotation(cluster=deployed.cluster, what="certificates")
    found.add_deploy(deployed)
    if time.time() - begun > 1:
        found.notes.append(f"it goes on with the rotation that began at {datetime.fromtimestamp(begun, UTC):%F %T} UTC")
    return found
