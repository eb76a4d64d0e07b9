"""config.yaml: Nornir's settings, how this tool runs, and the inventory's files, with all their problems at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nornir.core.configuration import InventoryConfig
from pydantic import ValidationError

from nornir_k3s.errors import InventoryError, UsageError
from nornir_k3s.inventory.explain import explain
from nornir_k3s.inventory.file_models import ConfigFile, Options
from nornir_k3s.inventory.files import read_inventory
from nornir_k3s.inventory.problems import Sources
from nornir_k3s.inventory.yaml_reader import read
from nornir_k3s.model.suggest import closest
from nornir_k3s.plugins import loaded_inventory

_FILES = {"host_file": "hosts.yaml", "group_file": "groups.yaml", "defaults_file": "defaults.yaml"}


@dataclass(frozen=True)
class Config:
    """What a command starts from.

    Arguments:
        path: The file.
        nornir: The arguments for `InitNornir`.
        options: How this tool runs.
        base: The folder that relative paths in the inventory are relative to.
        state: The folder on the controller for generated secrets, kubeconfigs and logs.
        cache: The folder for downloaded artefacts.
        sources: The inventory's files.
        logins: The transform function adds the problems of the hosts' credentials here.
    """

    path: Path
    nornir: Mapping[str, Any]
    options: Options
    base: Path
    state: Path
    cache: Path
    sources: Sources
    logins: list[tuple[str, str, str]] = field(default_factory=list)

    def problems(self) -> Sources:
        """Return the files, with the problems of the hosts' credentials added."""
        found = [
            f"{self.sources.host_location(host, 'data', *key.split('.'))}: {host}: {key}: {text}"
            for host, key, text in self.logins
        ]
        return Sources(self.sources.files, (*self.sources.problems, *found))


def load(path: Path, inventory: Path | None = None) -> Config:
    """Return the settings of a run; the inventory is read, but no host is contacted.

    Arguments:
        path: config.yaml; relative paths in it are relative to it.
        inventory: A folder with hosts.yaml, groups.yaml and defaults.yaml instead of what the file says.

    Raises:
        UsageError: The file cannot be read or has unknown keys.
    """
    data, model = _read(path)
    settings = {key: value for key, value in data.items() if key != "user_defined" and value is not None}
    section = dict(settings.get("inventory") or {})
    plugin = InventoryConfig(plugin=section.get("plugin")).plugin  # an environment variable of Nornir's may name it
    logins: list[tuple[str, str, str]] = []
    if plugin == "SimpleInventory":
        files = _files(dict(section.get("options") or {}), path.parent, inventory)
        base, sources = Path(files["host_file"]).parent, read_inventory(files)
        section |= {"plugin": loaded_inventory.register(), "options": {**files, **_loaded(sources)}}
    elif inventory is not None:
        raise UsageError(f"--inventory is for SimpleInventory, the config has {plugin}")
    else:
        base, sources = path.parent, Sources({})
    if section.get("transform_function") == "k3s_credentials":
        section["transform_function_options"] = {"base": str(base), "problems": logins}
    options = model.user_defined.k3s
    state = path.parent / options.state.expanduser()
    return Config(
        path=path,
        nornir={**settings, "inventory": section, "logging": {"enabled": False}},
        options=options,
        base=base,
        state=state,
        cache=path.parent / options.cache.expanduser() if options.cache else state / "cache",
        sources=sources,
        logins=logins,
    )


def _read(path: Path) -> tuple[dict[str, Any], ConfigFile]:
    source = read(path)
    if source.problems:
        raise UsageError("; ".join(source.problems), hint="correct the file, or give another one with --config")
    if not isinstance(source.data, dict):
        raise UsageError(f"{path}: it is " + ("empty" if source.data is None else "not a mapping of settings"))
    try:
        return source.data, ConfigFile.model_validate(source.data)
    except ValidationError as error:
        lines = [
            f"{path}:{source.line(*keys) or source.line(*keys[:-1]) or 1}: {'.'.join(map(str, keys))}: {text}"
            for keys, text in explain(error, ConfigFile)
        ]
        raise UsageError("\n".join(lines), hint="correct these lines of the file") from None


def _files(options: dict[str, Any], folder: Path, chosen: Path | None) -> dict[str, Any]:
    """Return the options of SimpleInventory with the absolute path of each file."""
    for key in options:
        if key not in _FILES and key != "encoding":
            near = closest(key, _FILES)
            hint = f"did you mean `{near}`?" if near else f"it has {', '.join(_FILES)}"
            raise UsageError(f"the inventory's options have an unknown key `{key}`", hint=hint)
    if chosen is not None:
        if not chosen.is_dir():
            raise UsageError(f"{chosen} is not a folder", hint="--inventory takes the folder that holds hosts.yaml")
        return options | {key: str(chosen.resolve() / name) for key, name in _FILES.items()}
    paths = {key: Path(str(options.get(key) or name)).expanduser() for key, name in _FILES.items()}
    return options | {key: str((folder / path).resolve()) for key, path in paths.items()}


def _loaded(sources: Sources) -> dict[str, Any]:
    """Return the options of the plugin that gives Nornir what has been read here."""
    return {"data": sources.data, "problems": sources.problems if sources.unreadable else ()}


def unreadable(sources: Sources, reason: str) -> UsageError:
    """Return the error for an inventory that Nornir itself could not read."""
    return InventoryError(sources.problems) if sources.problems else UsageError(f"the inventory: {reason}")
