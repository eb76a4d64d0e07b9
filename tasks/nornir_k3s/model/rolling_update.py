"""How a change that restarts K3s goes over the nodes: how many at once, when, and where their pods go meanwhile."""

from __future__ import annotations

from pydantic import Field, model_validator

from nornir_k3s.model.value_types import Seconds, Share, Strict
from nornir_k3s.model.window import Window

SHORTEST_TRIAL = 30  # seconds: K3s restarts meanwhile


class Drain(Strict):
    """How the pods of a node are evicted before K3s is replaced on it; the names are those of `kubectl drain`."""

    enabled: bool | None = Field(
        None,
        description="false: pods stay, and go on while K3s restarts. Default: agents true; servers only before another"
        " minor version, if they have no taint and another node can take their pods",
    )
    every_restart: bool = Field(False, description="also before a change of settings, unless enabled is false")
    timeout: Seconds = Field(300, description="until a node that still has pods is given up: seconds, or such as 5m")
    grace_period: int | None = Field(None, ge=0, le=86400, description="seconds for each pod; default: the pod's own")
    disable_eviction: bool = Field(False, description="delete pods past their PodDisruptionBudgets")
    pod_selector: str = Field("", pattern=r"^[^\x00-\x20']*$", description="only pods with these labels")
    skip_wait_for_delete_timeout: int = Field(
        0, ge=0, le=86400, description="pods that have been deleted for longer than these seconds are not waited for"
    )


class DrainOfGroups(Drain):
    """The same for all nodes, and what is different for those of one group."""

    servers: Drain | None = Field(None, description="what is different for servers")
    agents: Drain | None = Field(None, description="what is different for agents")

    def of(self, role: str) -> Drain:
        """Return how nodes of this role are drained."""
        own = self.servers if role == "servers" else self.agents
        given = self.model_dump(exclude_unset=True, exclude={"servers", "agents"})
        return Drain.model_validate(given | (own.model_dump(exclude_unset=True) if own else {}))


class RollingUpdate(Strict):
    """How a change that restarts K3s goes over the agents that run: one agent first, then batches of these sizes."""

    max_unavailable: Share = Field(
        "10%",
        description="agents that restart together: a number, or per cent of all, rounded down, at least 1",
    )
    max_failed: Share | None = Field(
        None, description="agents that may fail before the run stops, likewise, or 0; default: as max_unavailable"
    )

    window: Window | None = Field(None, description="when K3s may restart on nodes that run; default: at any time")
    deadline: Seconds | None = Field(
        None, description="for one node, from its drain until it is ready: seconds, or such as 20m; default: none"
    )
    trial: Seconds | None = Field(
        None,
        alias="try",
        ge=SHORTEST_TRIAL,
        description="as `deploy --try`: a node rolls a change back after this time, unless a new login confirms it",
    )
    drain: DrainOfGroups = Field(
        default_factory=lambda: DrainOfGroups.model_validate({}), description="before K3s is replaced on a node"
    )

    @model_validator(mode="after")
    def _some(self) -> RollingUpdate:
        if not isinstance(self.max_unavailable, str) and self.max_unavailable < 1:
            raise ValueError("max_unavailable must be 1 or more")
        if isinstance(self.max_failed, int) and self.max_failed < 0:
            raise ValueError("max_failed must be 0 or more")
        return self

    def unavailable(self, agents: int) -> int:
        """Return how many of so many agents may restart at the same time."""
        return _of(self.max_unavailable, agents)

    def failed(self, agents: int) -> int:
        """Return how many of so many agents may fail."""
        return self.unavailable(agents) if self.max_failed is None else _of(self.max_failed, agents)


def _of(share: int | str, agents: int) -> int:
    return share if isinstance(share, int) else max(1, agents * int(share.rstrip("%")) // 100)
