"""Rotate all certificates: of a managed datastore and its clients, of K3s, and of the load balancers' health check.

Servers make theirs anew one at a time, then agents do. The CAs stay. Source: docs.k3s.io `cli/certificate.md`; k3s
pkg/cli/cert.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

from nornir_k3s.model.report import Report
from nornir_k3s.model.rotation import Rotation
from nornir_k3s.phases.changing import changing
from nornir_k3s.state.store import Store
from nornir_k3s.workflows import plan as plans
from nornir_k3s.workflows.deploy import deploy
from nornir_k3s.workflows.rotation_request import Request

NAME = "certificates-rotation.json"  # in the state folder: when a rotation began that has not ended
RESUMED = 7 * 86400  # seconds after which a rotation that was interrupted begins anew


def plan(request: Request) -> Rotation:
    """Return what `rotate` would do; nothing is changed.

    Raises:
        K3sError: As `rotate` does before its first change.
    """
    return _planned(_begun(request.prepare().store), request)


def rotate(request: Request) -> Report:
    """Make all certificates anew that are older than this rotation, by a deploy.

    Raises:
        K3sError: As `deploy` does.
    """
    run = request.prepare()
    store, begun = run.store, _begun(run.store)
    request.require_confirmed(_planned(begun, request))
    with changing(run, "rotate"):
        store.write(NAME, json.dumps({"begun": begun}) + "\n")
        report = deploy(request.nr, **_arguments(request, begun), choice=request.choice)
    if not report.skipped and not run.away:
        (store.folder / NAME).unlink(missing_ok=True)
    return report


def _arguments(request: Request, begun: float) -> dict[str, Any]:
    return request.arguments(renew=begun, renew_datastore=begun)


def _begun(store: Store) -> float:
    """Return when the rotation began that was interrupted; now, if there is none."""
    now, text = time.time(), store.read(NAME)
    begun = float(json.loads(text)["begun"]) if text else now
    return begun if now - RESUMED < begun <= now else now


def _planned(begun: float, request: Request) -> Rotation:
    deployed = plans.plan(request.nr, **_arguments(request, begun), choice=request.choice)
    found = Rotation(cluster=deployed.cluster, what="certificates")
    found.add_deploy(deployed)
    if time.time() - begun > 1:
        found.notes.append(f"it goes on with the rotation that began at {datetime.fromtimestamp(begun, UTC):%F %T} UTC")
    return found
