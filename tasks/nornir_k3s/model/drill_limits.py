"""The faults of a drill, and the limits that the cluster must keep in each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from pydantic import Field

from nornir_k3s.model.value_types import Strict

FaultKind = Literal[
    "haproxy-stop",
    "keepalived-stop",
    "keepalived-kill",
    "holder-cut",
    "server-stop",
    "server-kill",
    "server-cut",
    "datastore-stop",
    "datastore-cut",
    "rolling-restart",
]
FAULTS: tuple[FaultKind, ...] = get_args(FaultKind)


class Limit(Strict):
    """What a fault may cost; each probe must keep it. `null` stands for no limit."""

    failed: int | None = Field(None, ge=0, description="requests of a probe that failed")
    gap: float | None = Field(None, ge=0, description="longest time without an answer, in seconds")
    back: float | None = Field(None, ge=0, description="seconds from the end of the fault to the next answer")
    died: int | None = Field(0, ge=0, description="processes of K3s that ended, except where the fault ends them")


DEFAULTS: Mapping[FaultKind, Limit] = {
    "haproxy-stop": Limit(gap=0.5),
    "keepalived-stop": Limit(failed=0),
    "keepalived-kill": Limit(gap=0.5),
    "holder-cut": Limit(gap=0.5),
    "server-stop": Limit(failed=0),
    "server-kill": Limit(failed=1),
    "server-cut": Limit(gap=0.3),
    "datastore-stop": Limit(back=1.0),
    "datastore-cut": Limit(gap=1.5),
    "rolling-restart": Limit(failed=0),
}


class DrillOptions(Strict):
    """Options of a drill."""

    rate: float = Field(20, gt=0, le=100, description="requests a second of each probe")
    limits: dict[FaultKind, Limit] = Field(default_factory=dict, description="other limits than the usual ones")

    def limit(self, kind: FaultKind) -> Limit:
        """Return the limits of a fault: the usual ones, changed by what is given."""
        given = self.limits.get(kind, Limit.model_validate({}))
        return DEFAULTS[kind].model_copy(update={name: getattr(given, name) for name in given.model_fields_set})
