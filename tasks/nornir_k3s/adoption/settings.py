"""The settings of servers and agents that exist, as an inventory has them: without defaults, each in its place.

Sources: docs.k3s.io `cli/server.md`, `cli/agent.md` (defaults); k3s `pkg/daemons/config/types.go`, `pkg/nodeconfig`.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nornir_k3s import k3s, k3s_installed
from nornir_k3s.adoption.read import Found
from nornir_k3s.compare import effective_config
from nornir_k3s.inventory import rules
from nornir_k3s.model import masking
from nornir_k3s.model.adoption import Difference
from nornir_k3s.model.installed import Setting
from nornir_k3s.model.k3s_facts import NodeState
from nornir_k3s.model.secret import Secret
from nornir_k3s.roles.running import CERTIFIED

# Those of this tool, which have places of their own in the inventory, or in the state folder.
_PLACED = (
    *("token", "token-file", "agent-token", "agent-token-file", "server", "config", "node-name", "node-ip"),
    *("datastore-endpoint", "datastore-cafile", "datastore-certfile", "datastore-keyfile", "cluster-init"),
)
_DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "flannel-backend": ("vxlan",),
    "cluster-domain": ("cluster.local",),
    "https-listen-port": ("6443",),
    "advertise-port": ("6443",),
    "lb-server-port": ("6444",),
    "egress-selector-mode": ("agent",),
    "secrets-encryption-provider": ("aescbc",),
    "service-node-port-range": ("30000-32767",),
    "servicelb-namespace": ("kube-system",),
    "write-kubeconfig-mode": ("0600", "600"),
    "tls-san-security": ("true",),
    "bind-address": ("0.0.0.0", "::"),  # noqa: S104 - K3s' own default, which is not written
    "data-dir": (k3s.DATA, f"{k3s.DATA}/"),
    "private-registry": ("/etc/rancher/k3s/registries.yaml",),
    "write-kubeconfig": ("/etc/rancher/k3s/k3s.yaml",),
    "snapshotter": ("overlayfs",),
    "v": ("0",),
}
RUNNING = "/v1-k3s/config"  # where a server tells the settings that it runs with
_STARTED = "k3s.io/node-args"


@dataclass
class Placed:
    """Settings in their places.

    Arguments:
        shared: Those of all servers, or of all agents.
        own: Those of single hosts.
        origins: What sets a setting, by host.
        differences: Settings that must be the same, and are not.
        notes: What is not taken over, and why; what runs, and is not what the files say.
        secrets: Values for the state folder, by name.
    """

    shared: dict[str, Any] = field(default_factory=dict)
    own: dict[str, dict[str, Any]] = field(default_factory=dict)
    origins: dict[str, dict[str, str]] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    secrets: dict[str, Secret] = field(default_factory=dict)


def of_role(role: str, found: Mapping[str, Found], listed: Mapping[str, NodeState], state: str) -> Placed:
    """Return the settings of all servers, or of all agents.

    Arguments:
        role: `servers` or `agents`.
        found: What is on their hosts, by name.
        listed: The nodes of the cluster, by their name.
        state: The state folder of the cluster, as the inventory names it.
    """
    placed = Placed(own={name: {} for name in found})
    known = k3s.SERVER_SETTINGS if role == "servers" else k3s.AGENT_SETTINGS
    all_values: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, one in found.items():
        settings = _running(name, one, listed.get(one.node_name), placed.notes)
        for key, setting in settings.items():
            if key in _PLACED:
                continue
            values = _plain(setting)
            if key == "tls-san":
                values = _names_to_add(values, one, listed.get(one.node_name))
            if _is_default(key, values, one) or key == "data-dir":  # `told` has a note of its own
                continue
            if reason := _refused(key, setting, known):
                shown = masking.without_credentials(setting.shown)
                _note(placed.notes, f"{key} ({shown}) is not taken over: {reason}", name)
                continue
            all_values.setdefault(key, {})[name] = values
            placed.origins.setdefault(key, {})[name] = setting.origin
    for key, of_hosts in all_values.items():
        _place(key, of_hosts, placed, role, list(found))
    for settings in (placed.shared, *placed.own.values()):
        for key, value in settings.items():
            settings[key] = _referenced(key, value, placed, state)
    return placed


def _names_to_add(names: Sequence[str], found: Found, node: NodeState | None) -> tuple[str, ...]:
    """Return the names of a certificate without those that K3s has in it anyway (k3s: pkg/cli/server/server.go)."""
    addresses = found.k3s.values("node-ip") if found.k3s else ()
    own = {*CERTIFIED, found.node_name, *(addresses or ((node.address,) if node else ()))}
    return tuple(name for name in names if name not in own)


def _referenced(key: str, value: Any, placed: Placed, state: str) -> Any:  # noqa: ANN401 - a setting
    """Return a setting with a reference in place of each secret in it."""
    if isinstance(value, list):
        return [_referenced(key, one, placed, state) for one in value]
    if not _is_secret(key, str(value)):
        return value
    known = {secret: name for name, secret in placed.secrets.items()}
    name = known.get(Secret(str(value)), f"{key}-{len(placed.secrets) + 1}")
    placed.secrets[name] = Secret(str(value))
    return {"file": f"{state}/{name}"}


def _is_secret(key: str, value: str) -> bool:
    return key in k3s.SECRETS or (key.endswith("-arg") and masking.has_credentials(value))


def _place(key: str, values: Mapping[str, tuple[str, ...]], placed: Placed, role: str, names: Sequence[str]) -> None:
    alike = len(values) == len(names) and len({_sorted(one) for one in values.values()}) == 1
    must = role == "servers" and key in k3s.MUST_MATCH
    if alike and (must or not rules.of_one_host(key, _value(key, next(iter(values.values()))))):
        placed.shared[key] = _value(key, next(iter(values.values())))
    elif must:
        chosen = _chosen(key, values, names)
        if chosen is not None:
            placed.shared[key] = _value(key, chosen)
        placed.differences.append(
            Difference(
                setting=key,
                values={name: _shown(values.get(name, ())) for name in names},
                chosen=_shown(chosen or ()),
            )
        )
    else:
        for name, one in values.items():
            placed.own[name][key] = _value(key, one)


def _chosen(key: str, values: Mapping[str, tuple[str, ...]], names: Sequence[str]) -> tuple[str, ...] | None:
    """Return what most servers have; None for unset. Names of a certificate add up: more of them harm nobody."""
    if key == "tls-san":
        return tuple(dict.fromkeys(item for one in values.values() for item in one))
    count = Counter(_sorted(values[name]) if name in values else None for name in names)
    most = count.most_common(1)[0][0]
    return next((one for one in values.values() if _sorted(one) == most), None)


def _running(name: str, found: Found, node: NodeState | None, notes: list[str]) -> Mapping[str, Setting]:
    """Return the settings that K3s runs with, instead of those that its files have got since it was started."""
    own = found.k3s
    if own is None:
        return {}
    settings = dict(own.settings)
    notes += [f"{name}: {problem}" for problem in own.problems]
    if own.ignored:
        notes.append(f"{name}: K3s ignores {', '.join(own.ignored)} of its files: it has no such settings")
    for key, (values, origin) in _told(found, node, settings).items():
        before = settings.get(key)
        if _same(key, _plain(before) if before else (), values, found):
            continue
        runs, was = _shown(values), _shown(_plain(before) if before else ())
        notes.append(f"{name}: K3s runs with {key} {runs}, and its files say {was}: they were changed since its start")
        settings.pop(key, None)
        if values and values != ("",):
            settings[key] = Setting(values, (origin,))
    return settings


def _told(
    found: Found, node: NodeState | None, settings: Mapping[str, Setting]
) -> dict[str, tuple[tuple[str, ...], str]]:
    """Return the values that K3s itself tells of settings, and how: not of secrets."""
    told: dict[str, tuple[tuple[str, ...], str]] = {}
    started = k3s_installed.given(node.args) if node and node.args else {}
    for key in {*started, *settings} if started else ():
        # The annotation does not have what the environment sets.
        if key not in settings or all(_as_flag(one) for one in settings[key].origins):
            values = started.get(key, [])
            told[key] = (
                tuple(part for one in values for part in one.split(",")) if key in k3s.SPLIT else (*values,),
                _STARTED,
            )
    for key, value in effective_config.running(found.config).items() if found.config else ():
        if not key.endswith("-arg"):  # their values have commas
            told[key] = tuple(filter(None, value.split(","))) if key in k3s.LISTS else (value,), RUNNING
    return {key: one for key, one in told.items() if key not in k3s.MASKED and key not in _PLACED}


def _as_flag(origin: str) -> bool:
    return origin.startswith("flags of ") or origin.endswith((".yaml", ".yml"))


def _same(key: str, files: tuple[str, ...], runs: tuple[str, ...], found: Found) -> bool:
    if _sorted(_normal(key, files)) == _sorted(_normal(key, runs)):
        return True
    unset = [one for one in (files, runs) if one in ((), ("",), ("false",)) or _is_default(key, one, found)]
    return len(unset) == 2


def _normal(key: str, values: Iterable[str]) -> tuple[str, ...]:
    if key not in rules.CIDRS:
        return tuple(one.lower() if key in k3s.BOOLEANS else one for one in values)
    found = []
    for one in values:
        try:
            found.append(str(ipaddress.ip_network(one, strict=False)))
        except ValueError:
            found.append(one)
    return tuple(found)


def _is_default(key: str, values: tuple[str, ...], found: Found) -> bool:
    if key in k3s.BOOLEANS and key not in _DEFAULTS:
        return values == ("false",)
    if key == "tls-san" and not values:
        return True
    version = 6 if _first_version(found) == 6 else 4
    if key in rules.CIDRS:
        return _normal(key, values) == (rules.CIDRS[key][version],)
    if key == "cluster-dns":
        own = found.k3s.values("service-cidr") if found.k3s else ()
        try:
            networks = [
                ipaddress.ip_network(one, strict=False) for one in own or [rules.CIDRS["service-cidr"][version]]
            ]
        except ValueError:
            return False
        return [str(network[10]) for network in networks] == list(values)
    return len(values) == 1 and values[0] in _DEFAULTS.get(key, ())


def _first_version(found: Found) -> int:
    own = found.k3s.values("node-ip") if found.k3s else ()
    return 6 if own and ":" in own[0] else 4


def _refused(key: str, setting: Setting, known: frozenset[str]) -> str:
    """Return why a setting cannot be in the inventory, or nothing."""
    if key in k3s.OURS:
        return k3s.OURS[key]
    if key not in known:
        return "this tool does not have it"
    plain = tuple(one for one in _plain(setting) if not _is_secret(key, one))
    return next((text for _, text in rules.settings({key: _value(key, plain)}, known)), "") if plain else ""


def _plain(setting: Setting) -> tuple[str, ...]:
    return tuple(one.reveal() if isinstance(one, Secret) else one for one in setting.values)


def _shown(values: Sequence[str]) -> str:
    return masking.without_credentials(", ".join(values)) or "unset"


def _value(key: str, values: tuple[str, ...]) -> Any:  # noqa: ANN401 - a setting
    if key in k3s.LISTS:
        return list(values)
    if key in k3s.BOOLEANS:
        return values[-1] == "true"
    number = values[-1].isascii() and values[-1].isdigit() and not values[-1].startswith("0")
    return int(values[-1]) if number and not key.endswith("-mode") else values[-1]


def _sorted(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(values))


def _note(notes: list[str], text: str, name: str) -> None:
    """Add a note about hosts: the same one of another host is one line."""
    for index, one in enumerate(notes):
        hosts, _, said = one.partition(": ")
        if said == text:
            notes[index] = f"{hosts}, {name}: {text}"
            return
    notes.append(f"{name}: {text}")
