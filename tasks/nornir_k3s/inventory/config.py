"""config.yaml: Nornir's settings, how this tool runs, and the inventory's files, with every problem of them at once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nornir_k3s.errors import InventoryError, UsageError
from nornir_k3s.inventory.files import ConfigFile, Options, read_inventory
from nornir_k3s.inventory.schema import explain
from nornir_k3s.inventory.yaml_files import Sources, read

_FILES = {"host_file": "hosts.yaml", "group_file": "groups.yaml", "defaults_file": "defaults.yaml"}


@dataclass(frozen=True)
class Config:
    """What a runbook needs to begin.

    Arguments:
        path: The file.
        nornir: The arguments for `InitNornir`.
        options: How this tool runs.
        base: The folder that relative paths in the inventory are relative to.
        state: The folder on the controller for generated secrets, kubeconfigs and logs.
        cache: The folder for artefacts that were fetched.
        sources: The inventory's files.
        logins: Gets the problems of the hosts' credentials when Nornir reads the inventory.
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
        """Return the files with the problems that Nornir's reading of them has shown."""
        found = [
            f"{self.sources.host_place(host, 'data', *key.split('.'))}: {host}: {key}: {text}"
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
    source = read(path)
    if source.problems:
        raise UsageError("; ".join(source.problems), hint="correct the file, or give another one with --config")
    if not isinstance(source.data, dict):
        raise UsageError(f"{path}: it is not a mapping of settings")
    try:
        model = ConfigFile.model_validate(source.data)
    except ValidationError as error:
        lines = [
            f"{path}:{source.line(*keys) or 1}: {'.'.join(map(str, keys))}: {text}"
            for keys, text in explain(error, ConfigFile)
        ]
        raise UsageError("\n".join(lines), hint="correct these lines of the file") from None
    settings = {key: value for key, value in source.data.items() if key != "user_defined" and value is not None}
    section = dict(settings.get("inventory") or {})
    simple = section.get("plugin", "SimpleInventory") == "SimpleInventory"
    given = dict(section.get("options") or {})
    if not simple and inventory is not None:
        raise UsageError(f"--inventory is for SimpleInventory, the config has {section['plugin']}")
    section["options"] = files = _paths(given, path.parent, inventory) if simple else given
    base = Path(files["host_file"]).parent if simple and "host_file" in files else path.parent
    logins: list[tuple[str, str, str]] = []
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
        sources=read_inventory(files) if simple else Sources({}),
        logins=logins,
    )


def _paths(options: dict[str, Any], folder: Path, chosen: Path | None) -> dict[str, Any]:
    for key in options:
        if key not in _FILES and key != "encoding":
            near = difflib.get_close_matches(str(key), _FILES, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"it has {', '.join(_FILES)}"
            raise UsageError(f"the inventory's options have an unknown key `{key}`", hint=hint)
    if chosen is not None:
        if not chosen.is_dir():
            raise UsageError(f"{chosen} is not a folder", hint="--inventory takes the folder that holds hosts.yaml")
        options |= {key: str(chosen.resolve() / name) for key, name in _FILES.items()}
    return options | {key: str((folder / options[key]).resolve()) for key in _FILES if key in options}


def unreadable(sources: Sources, reason: str) -> UsageError:
    """Return the error for an inventory that Nornir itself could not read."""
    return InventoryError(sources.problems) if sources.problems else UsageError(f"the inventory: {reason}")
