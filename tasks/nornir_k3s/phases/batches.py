"""Agents whose K3s restarts: one first, the others in batches, until too many of them have failed."""

from __future__ import annotations

from collections.abc import Sequence

from nornir_k3s import k3s
from nornir_k3s.errors import HostsFailed, Interrupted, K3sError
from nornir_k3s.model.paths import PREVIOUS
from nornir_k3s.model.together import few
from nornir_k3s.run.context import Run


def restarting(run: Run, names: Sequence[str]) -> list[str]:
    """Return those of these agents that run and whose K3s would restart, those whose nodes are Ready first.

    Before them come those that an earlier run could not bring back: what they failed of would break the next one, too.
    """
    found = [name for name in names if run.planned(name).starts_k3s]
    broken = [name for name in found if _was_broken(run, name)]
    running = [name for name in found if run.facts[name].in_service]
    return [*broken, *sorted(running, key=lambda name: not run.is_node_ready(name))]


def _was_broken(run: Run, name: str) -> bool:
    """Return whether a change of an earlier run is the reason that an agent does not work."""
    facts, node = run.facts[name], run.node(name)
    if facts.in_service or node is None:
        return False
    has_binary = all(step.target != k3s.BINARY for step in run.planned(name).stage)
    return PREVIOUS in facts.present or (has_binary and node.version != run.cluster.version)


def take(run: Run, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the next batch of these agents, and those after it; agents that are away already count."""
    agents = run.cluster.of("agents")
    away = sum(agent.name in run.left_out for agent in agents)
    size = max(1, run.cluster.rolling_update.unavailable(len(agents)) - away)
    return list(names[:size]), list(names[size:])


def planned(run: Run, names: Sequence[str]) -> list[list[str]]:
    """Return the batches in which K3s would restart on these agents: the first is one agent alone."""
    first, left = restarting(run, names)[:1], restarting(run, names)[1:]
    found = [first] if first else []
    while left:
        batch, left = take(run, left)
        found.append(batch)
    return found


def failure(run: Run, error: K3sError) -> K3sError:
    """Return the error that ends a run, with those of the agents that have failed before."""
    failed = [*run.failed, *run.still_cordoned.values()]
    return HostsFailed([*failed, error]) if failed and not isinstance(error, Interrupted) else error


def raise_failed(run: Run) -> None:
    """Raise the errors of the agents that the run went on without, and of the nodes that are still cordoned.

    Raises:
        K3sError: One has failed; HostsFailed for several.
    """
    failed, run.failed, run.still_cordoned = [*run.failed, *run.still_cordoned.values()], [], {}
    if failed:
        raise failed[0] if len(failed) == 1 else HostsFailed(failed)


def require_few_failures(run: Run, left: Sequence[str] = ()) -> None:
    """Check that no more agents have failed than may.

    Arguments:
        left: Agents that are still to be changed.

    Raises:
        K3sError: More have.
    """
    allowed = run.cluster.rolling_update.failed(len(run.cluster.of("agents")))
    if len(run.failed) > allowed:
        count = len(run.failed)
        text = f"stopped: {count} agent{'s' * (count > 1)} failed, at most {allowed} may (rolling_update.max_failed)"
        kept = f"; not touched: {few(left)}" if left else ""
        raise K3sError(f"{text}{kept}", hint="correct the cause on these agents, then run deploy again: it resumes")
