"""What a saved plan stands on, and what of that is another one now."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.saved_plan import Basis
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.step import Step

# They follow from others, or from what a controller has saved, and change nothing on a host by themselves.
_NO_SETTINGS = frozenset(("notes", "hidden", "left", "left_others", "former_vips", "keys", "members", "known_drift"))
_SHOWN = 60
_PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)


def of(
    cluster: Cluster,
    facts: Mapping[str, HostFacts],
    steps: Mapping[str, tuple[Step, ...]],
    options: Mapping[str, object],
    fresh: Collection[str] = (),
) -> Basis:
    """Return what a plan stands on.

    Before the first server has started, secrets do not count: those that are not saved yet are others in each run.

    Arguments:
        facts, steps: Of each host that may be changed.
        options: Those of config.yaml that matter for a deploy.
        fresh: First lines of certificates and keys that this run has made: those of each run are others.
    """
    begun = any(one.server.token for one in facts.values())
    key = cluster.token.reveal().encode() if begun else b""
    settings = {one.name: getattr(cluster, one.name) for one in fields(cluster) if one.name not in _NO_SETTINGS}
    settings |= {f"host {member.name}": member for member in cluster.members}
    return Basis(
        settings={name: _fingerprint(key, value) for name, value in {**settings, **options}.items()},
        facts={name: dict(_facts(key, one)) for name, one in facts.items()},
        steps={name: {step.id: _step(key, step, fresh) for step in own} for name, own in steps.items()},
    )


def moved(before: Basis, now: Basis) -> Iterator[str]:
    """Yield what is another one now, host by host."""
    names = [
        name for name in {**before.settings, **now.settings} if before.settings.get(name) != now.settings.get(name)
    ]
    for name in names:
        yield f"inventory: {name} has changed since the plan was made"
    for host in {**before.facts, **now.facts}:
        if host not in now.facts:
            yield f"{host}: it was read for the plan, and is now left out or not in the inventory"
        elif host not in before.facts:
            yield f"{host}: the plan was made without it"
        else:
            yield from (f"{host}: {text}" for text in _of_host(before.facts[host], now.facts[host]))
            yield from (f"{host}: {text}" for text in _steps(before.steps.get(host, {}), now.steps.get(host, {})))


def _of_host(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in {**before, **now}:
        old, new = before.get(name, "nothing"), now.get(name, "nothing")
        if old != new:
            long = name.startswith("file ") or len(old + new) > 2 * _SHOWN
            yield f"{name} has changed" if long else f"{name} was {old}, and is {new} now"


def _steps(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    yield from (f"the step {one} would be needed, and is not in the plan" for one in now if one not in before)
    yield from (f"the step {one} of the plan is not needed any more" for one in before if one not in now)
    yield from (f"the step {one} would do something else" for one in now if before.get(one, now[one]) != now[one])
    if list(before) != list(now) and set(before) == set(now):
        yield "the steps would come in another order"


def _facts(key: bytes, facts: HostFacts) -> Iterator[tuple[str, str]]:
    """Yield what a plan stands on of what was read from a host, by name."""
    yield "machine", " ".join(filter(None, (facts.system.machine_id, facts.system.arch, facts.system.os_name)))
    yield "K3s", facts.ledger.installed or facts.installed_version or "not installed"
    yield "readiness", "ready" if facts.ready else "not ready"
    yield "pending work", ", ".join(sorted((*facts.ledger.pending, *facts.ledger.drained))) or "none"
    yield "cordoned here", "yes" if facts.ledger.cordoned else "no"
    yield "datastore", "answers" if facts.database.alive else "does not answer"
    for name, unit in facts.units.items():
        yield f"unit {name}", f"{unit.active}, {unit.enabled or 'not enabled'}"
    for name, version in facts.packages.items():
        yield f"package {name}", version or "not installed"
    for path, state in facts.files.items():
        known = (state.kind, state.mode, state.owner, state.group, state.sha256)
        yield f"file {path}", _fingerprint(key, known)
    for path, large in facts.artifacts.items():
        yield f"file {path}", f"{large.sha256} {large.mode:o}"
    for node in facts.api.nodes or ():
        words = (node.version, "Ready" if node.ready else "not Ready", "" if node.schedulable else "cordoned")
        yield f"node {node.name}", ", ".join(filter(None, words))


def made(pems: str) -> set[str]:
    """Return the first lines of certificates and keys, which no other one has."""
    return set(re.findall(r"-----BEGIN [A-Z ]+-----(?:\n|\\n)([A-Za-z0-9+/=]+)", pems))


def _step(key: bytes, step: Step, fresh: Collection[str]) -> str:
    known: tuple[object, ...] = (step.summary, step.action)
    return _fingerprint(key, (*known, step.diff, step.payload) if key else known, fresh)


def _fingerprint(key: bytes, value: object, fresh: Collection[str] = ()) -> str:
    text = json.dumps(_plain(value, secrets=bool(key)), sort_keys=True)
    if fresh:
        text = _PEM.sub(lambda found: "new" if any(one in found[0] for one in fresh) else found[0], text)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:16]


def _plain(value: Any, *, secrets: bool) -> Any:  # noqa: ANN401, PLR0911 - any value of the inventory, one line a kind
    """Return a value as JSON has it; of paths, which differ between controllers, the name."""
    if isinstance(value, Secret):
        return value.reveal() if secrets else "secret"
    if isinstance(value, BaseModel):
        names = type(value).model_fields
        return {name: _plain(getattr(value, name), secrets=secrets) for name in names}
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name), secrets=secrets) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(one, secrets=secrets) for key, one in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(str(one) for one in value)
    if isinstance(value, (list, tuple)):
        return [_plain(one, secrets=secrets) for one in value]
    if isinstance(value, Path):
        return value.name
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
