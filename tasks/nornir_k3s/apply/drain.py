"""Scripts for a server that drain nodes before K3s is replaced on them, and let pods come back.

Source: `kubectl drain`; kubernetes.io, "Safely drain a node": an eviction respects PodDisruptionBudgets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nornir_k3s import k3s, shell
from nornir_k3s.apply import script
from nornir_k3s.model.paths import STATE
from nornir_k3s.model.rolling_update import Drain
from nornir_k3s.records import SAY, decoded, read


def drain(nodes: Sequence[str], settings: Drain) -> str:
    """Return the script that cordons these nodes, then drains them together; one that fails is uncordoned."""
    return _script(shell.call("drain_nodes", k3s.BINARY, " ".join(nodes), *_options(settings)))


def release(nodes: Sequence[str]) -> str:
    """Return the script that uncordons those of these nodes that this tool has cordoned."""
    return _script(shell.call("release_nodes", k3s.BINARY, " ".join(nodes)))


def note() -> str:
    """Return the script for a node's own host that notes there what is done to the node."""
    return script.wrapped("cordon", f": >{STATE}/cordoned")


def forget() -> str:
    """Return the script that removes this note."""
    return script.wrapped("cordon", f"rm -f {STATE}/cordoned")


def _script(call: str) -> str:
    return f"{SAY}{shell.source('apply/drain.sh')}{call}\nsay end\n"


def _options(settings: Drain) -> Iterator[str]:
    yield from ("--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={settings.timeout}s")
    if settings.grace_period is not None:
        yield f"--grace-period={settings.grace_period}"
    if settings.disable_eviction:
        yield "--disable-eviction"
    if settings.pod_selector:
        yield f"--pod-selector={settings.pod_selector}"
    if settings.skip_wait_for_delete_timeout:
        yield f"--skip-wait-for-delete-timeout={settings.skip_wait_for_delete_timeout}"


def parse(text: str) -> Mapping[str, str] | None:
    """Return by node why it failed, nothing where it did not; None if the API does not answer on this server.

    Raises:
        RecordError: The host printed something else.
    """
    records = read(text)
    if "unanswered" in records:
        return None
    found = (record.take(3) for record in records.get("drained", []))
    return {node: decoded(why) or "no reason is given" if state == "failed" else "" for node, state, why in found}
