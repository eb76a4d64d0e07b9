"""The settings of an installed K3s: flags of its unit, config.yaml with its drop-ins, and the environment, merged.

Flags hide files and files hide the environment: K3s makes flags of its files and puts them before those of the command
line. Values of lists add up. Sources: k3s `pkg/configfilearg` (parser.go, defaultparser.go), `pkg/cli/cmds`
(names of the variables), `pkg/cli/server/server.go` (the text of `token-file` goes before `token`); docs.k3s.io
`installation/configuration.md`, "Multiple Config Files".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import yaml

from nornir_k3s import k3s, k3s_unit
from nornir_k3s.model.installed import Installed, Setting
from nornir_k3s.model.secret import Secret

# K3s takes these in the unit and in files.
_SHORT = {"c": "config", "d": "data-dir", "l": "log", "o": "write-kubeconfig", "s": "server", "t": "token"}
_VARIABLES = {
    "K3S_URL": "server",
    "K3S_CONFIG_FILE": "config",
    "K3S_KUBECONFIG_OUTPUT": "write-kubeconfig",
    "K3S_KUBECONFIG_MODE": "write-kubeconfig-mode",
    "K3S_KUBECONFIG_GROUP": "write-kubeconfig-group",
    "K3S_KUBECONFIG_NAME": "write-kubeconfig-name",
} | {
    f"K3S_{key.upper().replace('-', '_')}": key
    for key in (
        *("token", "token-file", "agent-token", "agent-token-file", "datastore-endpoint", "datastore-cafile"),
        *("datastore-certfile", "datastore-keyfile", "data-dir", "node-name", "cluster-init", "cluster-reset"),
        *("selinux", "lb-server-port", "resolv-conf", "system-default-registry", "debug", "vpn-auth", "vpn-auth-file"),
        *("supervisor-port", "apiserver-port", "apiserver-bind-address"),
    )
}
_EMBEDDED = frozenset(
    [
        "cluster-init",
        "cluster-reset",
        "disable-agent",
        "disable-apiserver",
        "disable-controller-manager",
        "disable-etcd",
        "rootless",
        "with-node-id",
        "alsologtostderr",
        "etcd-disable-snapshots",
        "etcd-expose-metrics",
        "etcd-snapshot-compress",
        "etcd-s3",
        "etcd-s3-skip-ssl-verify",
        "etcd-s3-insecure",
    ]
)
BOOLEANS = k3s.BOOLEANS | _EMBEDDED
_TAKE_VALUES = k3s.SERVER_SETTINGS | k3s.AGENT_SETTINGS | k3s.OURS.keys()
_HIDDEN = {"supervisor-port", "apiserver-port", "apiserver-bind-address", "helm-job-image"}
# The settings whose files have the text of another one.
TOKEN_FILES = {"token-file": "token", "agent-token-file": "agent-token"}
VARIABLE = "Environment= of "  # the origin of a variable in a unit or its drop-in begins so


def key_of(name: str) -> str:
    """Return the setting behind a name in a file of settings, among a unit's flags or in the environment."""
    if name.startswith("K3S_"):
        return _VARIABLES.get(name, name.removeprefix("K3S_").lower().replace("_", "-"))
    return _SHORT.get(name, k3s.OLD_NAMES.get(name, name))


def installed(
    name: str,
    text: str,
    *,
    environments: Sequence[tuple[str, str]] = (),
    files: Sequence[tuple[str, str]] = (),
    tokens: Sequence[tuple[str, str]] = (),
    active: bool = False,
    enabled: bool = False,
    ours: bool = False,
    changed: int = 0,
) -> Installed | None:
    """Return the K3s that a unit starts; None where it starts no K3s.

    Arguments:
        name: The unit's, such as `k3s.service`.
        text: Its files, as `systemctl cat` prints them.
        environments: Path and text of its environment files, in their order.
        files: Path and text of files of settings, of which those count that K3s would read.
        tokens: Path and text of files that `token-file` and `agent-token-file` name.
        active, enabled, ours, changed: As in the result.
    """
    read = k3s_unit.unit(text)
    variables = {key: (value, f"{VARIABLE}{path or name}") for key, (value, path) in read.environment.items()}
    for path, content in environments:
        variables |= {key: (value, path) for key, value in k3s_unit.environment(content).items()}
    words = k3s_unit.expanded(read.command, {key: value for key, (value, _) in variables.items()}, name)
    started = k3s_unit.command(words)
    role = _role(name, words, started)
    if role is None:
        return None
    flags_origin = read.dropin or f"flags of {name}"
    variables |= {key: (value, flags_origin) for key, value in started.variables.items()}
    problems = [f"{name}: {started.unknown}: it may have more settings than are known"] if started.unknown else []
    flags = list(_flags(started.words[2:]))
    config = variables.get("K3S_CONFIG_FILE", ("", ""))[0]
    config = config or next((value for key, value in flags if key == "config"), k3s.CONFIG)
    ignored: list[str] = []
    merged = _Merged()
    for key, found in _merged_files(config, files, problems).items():
        if role == "server" and not _known(key):
            ignored.append(key)
            continue
        for one, path in found:
            merged.add(key, one, path)
    for key, one in flags:
        merged.add(key, one, flags_origin)
    set_ = set(merged.found)
    for variable, (one, path) in variables.items():
        if variable in _VARIABLES and one and _VARIABLES[variable] not in set_:
            merged.add(_VARIABLES[variable], one, path)
    _read_tokens(merged, dict(tokens))
    settings = {key: merged.setting(key) for key in merged.found if key != "config"}
    more = {key: value for key, value in sorted(variables.items()) if key not in _VARIABLES}
    return Installed(
        unit=name,
        role=role,
        active=active,
        enabled=enabled,
        binary=started.words[0] if started.words else words[0],
        ours=ours,
        changed=changed,
        settings=settings,
        files=tuple(dict.fromkeys(one for setting in settings.values() for one in setting.origins if one[0] == "/")),
        ignored=tuple(sorted(set(ignored))),
        variables={key: Secret(value) for key, (value, _) in more.items()},
        variable_origins={key: origin for key, (_, origin) in more.items()},
        problems=tuple(problems),
        dropins={path: Secret(text) for path, text in files if path.rpartition("/")[0] == f"{k3s.CONFIG}.d"},
        tokens={path: Secret(text) for path, text in tokens},
    )


def of_texts(name: str, text: str, texts: Mapping[str, str]) -> Installed | None:
    """Return the K3s that a unit starts, as `installed`; None where it starts no K3s.

    Arguments:
        name, text: As for `installed`.
        texts: Files of the host by path, of which those count that the unit and its settings name.
    """
    paths = (k3s_unit.specified(path, name) for path in k3s_unit.unit(text).files)
    environments = [(path, texts[path]) for path in paths if path in texts]
    return installed(name, text, environments=environments, files=list(texts.items()), tokens=list(texts.items()))


def _role(name: str, words: Sequence[str], started: k3s_unit.Command) -> Literal["server", "agent"] | None:
    """Return what a unit starts; by its name where K3s is behind something whose settings cannot be read."""
    if started.words:
        return "server" if started.words[1] == "server" else "agent"
    usual = {unit: role for role, unit in k3s.UNITS.items()}
    return ("server" if usual[name] == "server" else "agent") if words and name in usual else None


def _read_tokens(merged: _Merged, texts: Mapping[str, str]) -> None:
    """Put the texts of token files in place of the tokens."""
    for key, of in TOKEN_FILES.items():
        path = merged.found[key][0][-1] if key in merged.found and merged.found[key][0] else ""
        if path in texts:
            merged.found.pop(of, None)
            merged.add(of, texts[path].strip(), path)


def flags(command: str) -> dict[str, Any]:
    """Return the settings in the arguments of `k3s server` or `k3s agent`; lists of those with several values.

    Arguments:
        command: As systemd tells it, without quotes.
    """
    merged = _Merged()
    for key, value in _flags(k3s_unit.command(k3s_unit.split(command)).words[2:]):
        merged.add(key, value, "")
    return {key: values[0] if len(values) == 1 else values for key, (values, _) in merged.found.items()}


def given(args: Sequence[str]) -> dict[str, list[str]]:
    """Return the settings of a node's command line, by the names that K3s has for them now: the values of each flag.

    K3s writes `--name=value` as two words there, of booleans, too (k3s: pkg/nodeconfig, getNodeArgs).
    """
    found: dict[str, list[str]] = {}
    rest = list(args[1:])
    while rest:
        name, equal, value = rest.pop(0).partition("=")
        if not name.startswith("-"):
            continue
        key = key_of(name.lstrip("-"))
        is_boolean = key in BOOLEANS or (key not in _TAKE_VALUES and rest[:1] and rest[0].startswith("-"))
        if not equal:
            takes_one = rest and (not is_boolean or k3s.boolean(rest[0]) is not None)
            value = rest.pop(0) if takes_one else "true"
        values = found.setdefault(key, [])
        if key not in k3s.LISTS:
            values.clear()  # the last one counts
        values.append(str(k3s.boolean(value)).lower() if is_boolean and k3s.boolean(value) is not None else value)
    return found


class _Merged:
    """Settings as flag after flag sets them, as K3s' command line does."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[list[str], list[str]]] = {}

    def add(self, key: str, value: str, origin: str) -> None:
        """Add one flag."""
        values, origins = self.found.setdefault(key, ([], []))
        if key not in k3s.LISTS:
            values.clear()
            origins.clear()
        if key in BOOLEANS:
            true = k3s.boolean(value)
            value = value if true is None else str(true).lower()
        parts = [part.strip() for part in value.split(",")] if key in k3s.SPLIT else [value]
        values += [part for part in parts if part or key not in k3s.LISTS]
        if origin not in origins:
            origins.append(origin)

    def setting(self, key: str) -> Setting:
        """Return a setting with all that sets it."""
        values, origins = self.found[key]
        secret = key in k3s.MASKED
        return Setting(tuple(Secret(one) if secret else one for one in values), tuple(origins))


def _known(key: str) -> bool:
    return key in k3s.SERVER_SETTINGS | k3s.OURS.keys() | k3s.MASKED | _HIDDEN | _EMBEDDED or key.startswith("etcd-")


def _flags(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    rest = list(words)
    while rest:
        name, equal, value = rest.pop(0).partition("=")
        if not name.startswith("-"):
            continue
        key = key_of(name.lstrip("-"))
        if not equal:
            takes_one = key not in BOOLEANS and rest
            value = rest.pop(0) if takes_one else "true" if key in BOOLEANS else ""
        yield key, value


def _merged_files(
    config: str, files: Sequence[tuple[str, str]], problems: list[str]
) -> dict[str, list[tuple[str, str]]]:
    """Return the settings of the main file and its drop-ins: each value with its file, without the `+` of the key."""
    mine = [one for one in files if one[0] == config]
    mine += sorted(one for one in files if one[0].rpartition("/")[0] == f"{config}.d")
    merged: dict[str, list[tuple[str, str]]] = {}
    for path, text in mine:
        for key, value in _mapping(path, text, problems).items():
            plain = key_of(str(key).removesuffix("+"))
            values = [(_text(one), path) for one in (value if isinstance(value, list) else [value])]
            before = merged.get(plain, []) if str(key).endswith("+") else []
            merged[plain] = [*before, *values]
    return merged


def _mapping(path: str, text: str, problems: list[str]) -> Mapping[Any, Any]:
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        problems.append(f"{path} is not YAML: K3s does not start with it")
        return {}
    if found is not None and not isinstance(found, dict):
        problems.append(f"{path} is not a mapping: K3s does not start with it")
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
