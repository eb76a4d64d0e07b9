"""The Lease of the cluster: its object, the scripts that read and write it, and what a server answers.

Sources: kubernetes.io, concepts/architecture/leases and reference `Lease` (coordination.k8s.io/v1); client-go
tools/leaderelection, which records the same fields; kubectl `create --raw` and `replace --raw`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nornir_k3s import k3s, shell
from nornir_k3s.model.lease import HOME, HOSTS, LASTS, NAME, NAMESPACE, OWNER, Lease
from nornir_k3s.model.work import Owner
from nornir_k3s.records import END, SAY, RecordError, decoded, read

_NOW = "@NOW@"


@dataclass(frozen=True)
class Answer:
    """What the API answered: the Lease, or why not, as kubectl says it: `NotFound`, `Conflict`, …; else nothing."""

    lease: Lease | None
    reason: str = ""


def reading() -> str:
    """Return the script that reads the Lease."""
    return _script(shell.call("lease_read", k3s.BINARY, f"{HOME}/{NAME}"))


def taking(before: Lease | None, who: Owner, hosts: Sequence[str]) -> str:
    """Return the script that takes the Lease, or renews it, if it still is as it was read.

    Arguments:
        before: As it was read; None where there was none.
        hosts: The servers whose locks are held.
    """
    spec = dict(before.data.get("spec") or {}) if before else {}
    if before is None or before.holder != who.id:
        spec["acquireTime"] = _NOW
        spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + (1 if before else 0)
    spec |= {"holderIdentity": who.id, "leaseDurationSeconds": LASTS, "renewTime": _NOW}
    return _writing(before, spec, {OWNER: who.text, HOSTS: ",".join(sorted(hosts))})


def leaving(before: Lease) -> str:
    """Return the script that lets the Lease go."""
    return _writing(before, {**before.data["spec"], "holderIdentity": "", "renewTime": _NOW}, {})


def _writing(before: Lease | None, spec: Mapping[str, Any], annotations: Mapping[str, str]) -> str:
    meta: dict[str, Any] = {"name": NAME, "namespace": NAMESPACE, "annotations": annotations}
    if before:
        meta["resourceVersion"] = before.data["metadata"]["resourceVersion"]
    data = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
    word = base64.b64encode(json.dumps(data).encode()).decode()
    verb, path = ("replace", f"{HOME}/{NAME}") if before else ("create", HOME)
    return _script(shell.call("lease_write", k3s.BINARY, verb, path, word))


def _script(call: str) -> str:
    return f"{SAY}{shell.source('apply/lease.sh')}{call}\nsay {END}\n"


def parse(text: str) -> Answer:
    """Return what a server answered.

    Raises:
        RecordError: It printed something else.
    """
    how, word, now = read(text)["lease"][-1].take(3)
    said = decoded(word)
    if how != "ok":
        reasons = ("NotFound", "AlreadyExists", "Conflict")
        return Answer(None, next((one for one in reasons if f"({one})" in said), ""))
    try:
        data = json.loads(said[said.find("{") :])
        return Answer(Lease(data if isinstance(data, dict) else {}, float(now)))
    except ValueError:
        raise RecordError("the Lease is not JSON") from None
