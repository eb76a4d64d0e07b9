"""The result of a drill, as `drill` returns it and `--json` writes it; documented in docs/drill.md."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, Field, computed_field

from nornir_k3s.model.drill_limits import FaultKind, Limit

FORMAT = 1
STEP = 0.25  # seconds of a field in a timeline


class ProbeResult(BaseModel):
    """What the requests from one place met during a fault, each on a new connection."""

    place: str = Field(description="`controller`, or the agent the connections came from")
    kind: Literal["read", "write"]
    requests: int
    failed: int
    gap: float = Field(description="longest time without an answer, in seconds")
    back: float = Field(description="seconds from the end of the fault to the answer that ended the longest gap")
    errors: dict[str, int] = Field(default_factory=dict, description="how often each error came")
    timeline: str = Field(
        "", description="a letter for each quarter of a second: `a` answered, `f` failed, `-` no answer came"
    )


class WatchResult(BaseModel):
    """What a watch saw during a fault, compared with the datastore."""

    events: int
    reconnects: int = Field(description="how often its connection ended and was made again")
    missed: int = Field(description="objects that the datastore holds and the watch did not see")
    phantom: int = Field(description="objects that the watch saw and the datastore does not hold")


class FaultResult(BaseModel):
    """One fault, and what it cost."""

    kind: FaultKind
    host: str
    what: str
    started: datetime
    seconds: float = Field(description="how long the fault lasted")
    rotation: float | None = Field(
        None, description="seconds from its end until every server is up in every HAProxy and one host has the VIP"
    )
    holders: list[str] = Field(default_factory=list, description="who had the VIP: before, during, after")
    probes: list[ProbeResult] = Field(default_factory=list)
    watch: WatchResult | None = None
    acknowledged: int = Field(0, description="writes that were acknowledged")
    lost: dict[str, int] = Field(default_factory=dict, description="acknowledged writes that a server does not have")
    died: list[str] = Field(default_factory=list, description="hosts whose K3s ended although the fault did not end it")
    limit: Limit
    broken: list[str] = Field(default_factory=list, description="the limits that it broke, in words")
    zero: float = Field(0, description="seconds from the start of the timelines to the start of the fault")

    @computed_field(description="the worst probe's failed requests")
    @property
    def failed(self) -> int:
        """The worst probe's failed requests."""
        return max((one.failed for one in self.probes), default=0)

    @computed_field(description="the worst probe's longest gap, in seconds")
    @property
    def gap(self) -> float:
        """The worst probe's longest gap, in seconds."""
        return max((one.gap for one in self.probes), default=0)


class PlannedFault(BaseModel):
    """A fault that a drill would make."""

    id: str = Field(description="as `--only` takes it")
    what: str
    seconds: float = Field(description="how long it would last")
    limit: Limit


class DrillPlan(BaseModel):
    """What a drill would do."""

    format: int = Field(FORMAT, description="version of this format; it increases when a field changes its meaning")
    cluster: str
    url: str
    namespace: str = Field(description="what is written goes here, and is removed with it")
    faults: list[PlannedFault]
    notes: list[str] = Field(default_factory=list, description="what is left out, and why")


class DrillReport(BaseModel):
    """A drill."""

    format: int = Field(FORMAT, description="version of this format; it increases when a field changes its meaning")
    cluster: str
    version: str = Field(description="K3s version the inventory asks for")
    url: str
    started: datetime = Field(default_factory=lambda: datetime.now(UTC))
    seconds: float = 0
    rate: float = Field(0, description="requests a second of each probe")
    faults: list[FaultResult] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list, description="what was left out, and why")
    problems: list[str] = Field(default_factory=list, description="why the drill ended early")
    left: list[str] = Field(default_factory=list, description="what could not be put back, and how to")
    interrupted: bool = False

    @computed_field(description="`ok`, `failed` or `interrupted`")
    @property
    def outcome(self) -> str:
        """`ok`, `failed` or `interrupted`."""
        if self.interrupted:
            return "interrupted"
        return "failed" if self.left or self.problems or any(one.broken for one in self.faults) else "ok"

    @property
    def exit_code(self) -> int:
        """0 if every limit was kept."""
        return {"ok": 0, "failed": 1, "interrupted": 130}[self.outcome]
