"""What a K3s that others have installed runs with, against what it would run with: it restarts only where they differ.

Sources: k3s `pkg/cli/cmds`, `pkg/cli/server/server.go` (defaults), `pkg/clientaccess/token.go` (both forms of a token),
`pkg/util/net.go`; docs.k3s.io `cli/server.md`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from nornir_k3s import k3s, k3s_installed
from nornir_k3s.inventory import rules
from nornir_k3s.model.cluster import Cluster, Member
from nornir_k3s.model.endpoint import parse
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.model.installed import Installed
from nornir_k3s.model.secret import Secret

_DEFAULTS = {
    "bind-address": "0.0.0.0",  # noqa: S104 - K3s' own default
    "cluster-domain": "cluster.local",
    "data-dir": k3s.DATA,
    "egress-selector-mode": "agent",
    "flannel-backend": "vxlan",
    "https-listen-port": str(k3s.API_PORT),
    "lb-server-port": "6444",
    "private-registry": "/etc/rancher/k3s/registries.yaml",
    "secrets-encryption-provider": "aescbc",
    "service-node-port-range": "30000-32767",
    "servicelb-namespace": "kube-system",
    "snapshotter": "overlayfs",
    "tls-san-security": "true",
    "v": "0",
    "write-kubeconfig": "/etc/rancher/k3s/k3s.yaml",
    "write-kubeconfig-mode": "0600",
}
# Lists whose order means nothing.
_SETS = {"tls-san", "disable", "node-label", "node-taint", "airgap-extra-registry"}
# Every server has them in its certificate, beside its node's name and addresses.
CERTIFIED = frozenset({"127.0.0.1", "::1", "localhost"})
_ENVIRONMENTS = ("/etc/default/", "/etc/sysconfig/")
# A server that has a datastore endpoint does not use them (k3s: pkg/cluster/managed.go, bootstrap.go).
_UNUSED = {"server", "cluster-init"}
# What a driver waits for a connection: no reason to restart.
_TIMEOUTS = {"timeout", "connect_timeout"}


@dataclass(frozen=True)
class Takeover:
    """What becomes of a K3s that others have installed, and that is taken over.

    Arguments:
        same: Paths of files whose settings the process that runs has already.
        started: When that process was started, in seconds since the epoch.
        differ: The settings that would change.
    """

    same: frozenset[str] = frozenset()
    started: int = 0
    differ: tuple[str, ...] = ()


def installation(facts: HostFacts, role: str) -> Installed | None:
    """Return the K3s of a role, as its unit, environment and files have it; None where they were not read.

    Arguments:
        role: server or agent.
    """
    return next((one for one in facts.installations if (one.unit, one.role) == (k3s.UNITS[role], role)), None)


def takeover(cluster: Cluster, member: Member, spec: HostSpec, facts: HostFacts) -> Takeover:
    """Return what becomes of the K3s of others on this host; nothing special where none runs."""
    if not spec.install or spec.install.unit not in facts.foreign_units:
        return Takeover()
    one, state = installation(facts, spec.install.role), facts.unit(spec.install.unit)
    if one is None or state.active != "active":
        return Takeover()
    ours = wanted(spec, one)
    differ = tuple(differences(cluster, member, facts, one, ours))
    paths = [file.path for file in spec.files if file.path == k3s.CONFIG or file.path.startswith(_ENVIRONMENTS)]
    if differ or one.problems or not _has_read(facts, one, spec, state.started):
        return Takeover(differ=differ)
    return Takeover(frozenset(paths), state.started)


def _has_read(facts: HostFacts, one: Installed, spec: HostSpec, started: int) -> bool:
    """Return whether the process has read what its files say now."""
    config = facts.files.get(k3s.CONFIG)
    if not 0 < one.changed <= started:
        return False
    if config is None or config.kind == "absent" or config.changed <= started:
        return True
    # A run that was interrupted has written it.
    text = next(file for file in spec.files if file.path == k3s.CONFIG)
    return facts.ledger.same.get(k3s.CONFIG) == (text.sha256, started) and config.sha256 == text.sha256


def wanted(spec: HostSpec, others: Installed | None = None) -> Installed:
    """Return the K3s that our files make of this host.

    Arguments:
        others: The K3s that is there: its drop-ins stay, and are read after our config.yaml.
    """
    if spec.install is None:
        raise ValueError("the host has no K3s")
    environments = [(f.path, f.text.reveal()) for f in spec.files if f.path.startswith(_ENVIRONMENTS)]
    files = {path: text.reveal() for path, text in others.dropins.items()} if others else {}
    files |= {f.path: f.text.reveal() for f in spec.files if f.path == k3s.CONFIG or f.path in files}
    tokens = {path: text.reveal() for path, text in others.tokens.items()} if others else {}
    found = k3s_installed.installed(
        spec.install.unit,
        f"[Service]\nExecStart={k3s.BINARY} {spec.install.role}\n",
        environments=environments,
        files=list(files.items()),
        tokens=list(tokens.items()),
    )
    if found is None:
        raise ValueError("the unit of K3s starts it")
    return replace(found, files=(*found.files, *(path for path, _ in environments)))


def stays(origin: str, ours: Installed) -> bool:
    """Return whether what sets a setting is there after a deploy, too: a unit's drop-in, or a file of the environment.

    Drop-ins of config.yaml are among what our files make of a host: flags that go may have hidden them.
    """
    if origin.startswith(_ENVIRONMENTS):
        return origin not in ours.files
    return ".service.d/" in origin


def differences(cluster: Cluster, member: Member, facts: HostFacts, one: Installed, ours: Installed) -> Iterator[str]:
    """Yield the settings that would be others than now, as K3s understands them."""
    if one.binary not in (k3s.BINARY, "k3s"):  # a shell finds it there
        yield "the path of K3s"
    for key in sorted(set(one.settings) | set(ours.settings)):
        setting = one.settings.get(key)
        kept = setting is not None and all(stays(origin, ours) for origin in setting.origins)
        hidden = kept and setting is not None and _is_variable(setting.origins[0]) and key in ours.settings
        if (kept and not hidden) or (key in _UNUSED and member.role == "servers" and one.text("datastore-endpoint")):
            continue
        if not same(cluster, member, facts, key, (one, ours)):
            yield key
    kept_variables = {key for key in set(one.variables) - set(ours.variables) if _stays_variable(facts, key, one, ours)}
    for key in sorted((set(one.variables) | set(ours.variables)) - kept_variables):
        if one.variables.get(key) != ours.variables.get(key):
            yield key


def _is_variable(origin: str) -> bool:
    return origin.startswith((*_ENVIRONMENTS, k3s_installed.VARIABLE))


def _stays_variable(facts: HostFacts, key: str, one: Installed, ours: Installed) -> bool:
    files = [path for path, names, _ in facts.extra_settings if path.startswith(_ENVIRONMENTS) and key in names]
    return any(stays(origin, ours) for origin in (one.variable_origins.get(key, ""), *files))


def same(cluster: Cluster, member: Member, facts: HostFacts, key: str, both: tuple[Installed, Installed]) -> bool:
    """Return whether a setting is the same to K3s in both, however it is written.

    Arguments:
        both: What runs, and what would run.
    """
    if key in k3s_installed.TOKEN_FILES and has_token_text(both[0], key):
        return same(cluster, member, facts, k3s_installed.TOKEN_FILES[key], both)
    in_own_file = key == "token-file" or (key == "token" and key not in both[0].settings)
    if in_own_file and member.role == "servers" and facts.server.token:
        after = Secret(token_password((_values(both[1], "token") or ("",))[-1]))
        return facts.server.token == cluster.token.fingerprint() == after.fingerprint()
    found, other = (form(cluster, key, one) for one in both)
    if found == other:
        return True
    if key == "tls-san":
        own = CERTIFIED | {facts.system.hostname.lower(), *_default_address(facts, member)}
        own |= {value for one in both for name in ("node-name", "node-ip") for value in _values(one, name)}
        return set(found) - own == set(other) - own
    if key == "node-ip" and not found:
        return other == _default_address(facts, member)
    return key == "node-name" and found == ("",) and other == (facts.system.hostname.lower(),)


def has_token_text(one: Installed, key: str) -> bool:
    """Return whether the file that `token-file` or `agent-token-file` names was read."""
    return one.text(key) in one.tokens


def form(cluster: Cluster, key: str, one: Installed) -> tuple[str, ...]:  # noqa: PLR0911 - one a kind of setting
    """Return a setting in one form, with K3s' default where it is not set."""
    values = _values(one, key)
    if key in rules.CIDRS:
        return tuple(map(str, _networks(cluster, key, one)))
    if key == "cluster-dns":
        # K3s takes the tenth address of each network (pkg/cli/server/server.go).
        found = values or [str(network[10]) for network in _networks(cluster, "service-cidr", one)]
        return tuple(str(ipaddress.ip_address(value)) for value in found)
    if key in ("token", "agent-token"):
        return (token_password((values or _values(one, "token") or ("",))[-1]),)
    if key == "datastore-endpoint":
        return _endpoint(values[-1]) if values else ()
    if key == "advertise-port" and not values:
        return form(cluster, "https-listen-port", one)
    if key in k3s_installed.BOOLEANS:
        return (str(k3s.boolean((values or (_DEFAULTS.get(key, "false"),))[-1])).lower(),)
    if key in _SETS:
        return tuple(sorted(set(values)))
    if key.endswith("-arg"):
        return _arguments(values)
    if key in k3s.LISTS:
        return values
    text = (values[-1] if values else "") or _DEFAULTS.get(key, "")
    return (text.lstrip("0") if key.endswith("-mode") else text.rstrip("/"),)


def _networks(cluster: Cluster, key: str, one: Installed) -> Sequence[rules.Network]:
    values = _values(one, key)
    return tuple(rules.networks({key: list(values)} if values else {}, key, cluster.ip_version))


def _values(one: Installed, key: str) -> tuple[str, ...]:
    values = one.settings[key].values if key in one.settings else ()
    return tuple(value.reveal() if isinstance(value, Secret) else value for value in values)


def token_password(text: str) -> str:
    """Return the password of a token, which may come with the hash of the CA and a user."""
    return text.rpartition(":")[2] if "::" in text else text


def _endpoint(text: str) -> tuple[str, ...]:
    try:
        found = parse(Secret(text.strip()))
    except ValueError:
        return (text,)
    hosts = [f"{host}:{port}" for host, port in found.hosts]
    more = sorted(f"{name}={value}" for name, value in found.parameters.items() if name not in _TIMEOUTS)
    password = found.password.reveal() if found.password else ""
    return (found.kind, *hosts, str(found.user), password, str(found.database), str(found.tls), *more)


def _arguments(values: Sequence[str]) -> tuple[str, ...]:
    """Return arguments for a component: those of one name in their order, of which the last may count."""
    once = [value for number, value in enumerate(values) if value not in values[number + 1 :]]
    return tuple(sorted(once, key=lambda value: value.partition("=")[0]))


def _default_address(facts: HostFacts, member: Member) -> tuple[str, ...]:
    """Return the address that K3s takes for a node by itself: the first one of the interface of the default route."""
    version = ipaddress.ip_address(member.address).version
    for route in facts.default_routes:
        words = route.split()
        interface = words[words.index("dev") + 1] if "dev" in words[:-1] else ""
        found = [ipaddress.ip_interface(cidr) for name, cidr in facts.addresses if name == interface]
        found = [one for one in found if one.version == version and not one.is_link_local]
        if found:
            return (str(found[0].ip),)
    return ()
