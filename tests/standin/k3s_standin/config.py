"""Flags, config files and environment, merged as K3s merges them (pkg/configfilearg, pkg/cli/cmds)."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import yaml

from k3s_standin import flags
from k3s_standin.log import Fatal, log
from k3s_standin.places import CONFIG

Settings = dict[str, Any]
_TRUE, _FALSE = {"1", "t", "T", "TRUE", "true", "True"}, {"0", "f", "F", "FALSE", "false", "False"}


def read_files(path: Path) -> dict[str, Any]:
    """Return the merged main file and drop-ins: a later file replaces a key, `key+` appends."""
    merged: dict[str, Any] = {}
    files = [path] if path.exists() else []
    folder = Path(f"{path}.d")
    if folder.is_dir():
        files += sorted(p for p in folder.iterdir() if p.suffix in (".yaml", ".yml"))
    for file in files:
        for key, value in _read(file).items():
            name = str(key)
            if name.endswith("+"):
                name = name[:-1]
                merged[name] = _many(merged[name]) + _many(value) if name in merged else value
            else:
                merged[name] = value
    return merged


def _read(file: Path) -> dict[Any, Any]:
    try:
        data = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise Fatal(f"yaml: {file}: {error}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise Fatal(f"yaml: unmarshal errors: {file}: cannot unmarshal {type(data).__name__} into yaml.MapSlice")
    return data


def _many(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def to_args(settings: dict[str, Any], *, server: bool) -> list[str]:
    """Return settings as flags; an unknown key is skipped with a warning on a server, and passed on by an agent."""
    args = []
    for key, value in settings.items():
        if server and key not in flags.SERVER and key not in flags.ALIASES:
            log("warning", f"Unknown flag --{key} found in config.yaml, skipping\n")
            continue
        dash = "-" if len(key) == 1 else "--"
        args += [f"{dash}{key}={_text(item)}" for item in _many(value)]
    return args


def config_path(argv: list[str], environ: dict[str, str]) -> Path:
    """Return the config file: the environment's, else the flag's, else the default."""
    if environ.get("K3S_CONFIG_FILE"):
        return Path(environ["K3S_CONFIG_FILE"])
    for index, word in enumerate(argv):
        if word.startswith(("--config=", "-c=")):
            return Path(word.split("=", 1)[1])
        if word in ("--config", "-c") and index + 1 < len(argv):
            return Path(argv[index + 1])
    return CONFIG


def parse(command: str, argv: list[str], environ: dict[str, str]) -> tuple[Settings, list[str]]:
    """Return the effective settings, and all arguments, those of the config files first."""
    server = command == "server"
    known = flags.SERVER if server else flags.AGENT
    args = to_args(read_files(config_path(argv, environ)), server=server) + argv
    settings: Settings = {}
    rest = iter(args)
    for word in rest:
        if not word.startswith("-"):
            continue
        name, equals, value = word.lstrip("-").partition("=")
        name = flags.ALIASES.get(name, name)
        if name not in known:
            raise Fatal(f"Error: flag provided but not defined: -{name}")
        if not equals:
            value = "true" if name in flags.BOOLS else next(rest, "")
        _set(settings, name, value)
    for variable, name in flags.ENVIRONMENT.items():
        if environ.get(variable) and name in known and name not in settings:
            _set(settings, name, environ[variable])
    return settings, args


def _set(settings: Settings, name: str, value: str) -> None:
    if name in flags.LISTS:
        parts = [part.strip() for part in value.split(",")] if name in flags.SPLIT else [value]
        settings.setdefault(name, []).extend(part for part in parts if part)
    elif name in flags.BOOLS:
        if value not in _TRUE | _FALSE:
            raise Fatal(f'Error: invalid boolean value "{value}" for -{name}: parse error')
        settings[name] = value in _TRUE
    elif name in flags.NUMBERS:
        if not value.lstrip("-").isdigit():
            raise Fatal(f'Error: invalid value "{value}" for flag -{name}: parse error')
        settings[name] = int(value)
    else:
        settings[name] = value


def shown_args(command: str, args: list[str]) -> str:
    """Return the arguments as the node's annotation shows them: secrets are hidden (pkg/nodeconfig)."""
    words = [command]
    for arg in args:
        name, equals, value = arg.partition("=")
        words += [name, value] if arg.startswith("--") and equals else [arg]
    for index, word in enumerate(words[:-1]):
        name = word.lstrip("-")
        if word.startswith("-") and flags.ALIASES.get(name, name) in flags.SECRET:
            words[index + 1] = "********"
    return json.dumps(words, separators=(",", ":"))


def shown_environment(environ: dict[str, str]) -> str:
    """Return the K3S_ variables as the node's annotation shows them."""
    shown = {k: v for k, v in sorted(environ.items()) if k.startswith("K3S_") and not k.startswith("K3S_STANDIN_")}
    shown |= {k: "********" for k in shown if flags.ENVIRONMENT.get(k) in flags.SECRET}
    return json.dumps(shown, separators=(",", ":"))


def load(command: str, argv: list[str]) -> tuple[Settings, list[str]]:
    """Parse with the process' environment, and read the token files."""
    settings, args = parse(command, argv, dict(os.environ))
    for key in ("token", "agent-token"):
        if path := settings.get(f"{key}-file"):  # it goes before the token itself (k3s: pkg/cli/server/server.go)
            settings[key] = _token_file(Path(path), wait=command == "agent")
    return settings, args


def _token_file(path: Path, *, wait: bool) -> str:
    while True:
        try:
            return path.read_text().strip()
        except OSError as error:
            if not wait:
                raise Fatal(f"Error: open {path}: {str(error.strerror).lower()}") from None
        log("info", f"Waiting for {path} to be available\n")
        time.sleep(2)
