"""Read the files of Nornir's SimpleInventory and check their form: keys, types, groups, options of the connection."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from nornir_k3s import k3s
from nornir_k3s.inventory.explain import explain, not_boolean, not_number, not_text
from nornir_k3s.inventory.file_models import SCHEMAS
from nornir_k3s.inventory.problems import Problems, Sources
from nornir_k3s.inventory.yaml_reader import Key, Source, read
from nornir_k3s.model.suggest import closest, did_you_mean

OPTIONS = {"hosts": "host_file", "groups": "group_file", "defaults": "defaults_file"}
_DATA_KEYS = ("k3s", "k3s_ssh", "k3s_cluster", "k3s_role")

Found = tuple[tuple[Key, ...], str]


def read_inventory(options: Mapping[str, Any]) -> Sources:
    """Return the inventory's files, with everything that is wrong with their form.

    Arguments:
        options: Those of Nornir's SimpleInventory: host_file, group_file, defaults_file, encoding.
    """
    encoding = str(options.get("encoding") or "utf-8")
    files: dict[str, Source] = {}
    for kind, option in OPTIONS.items():
        if option in options and (kind == "hosts" or Path(options[option]).exists()):  # Nornir needs the hosts only
            files[kind] = read(Path(options[option]), encoding)
    sources = Sources(files)
    problems = Problems(sources)
    for kind, source in files.items():
        problems += source.problems or _form(kind, source, sources)
    if not any(source.problems for source in files.values()):
        for kind, path, text in _group_problems(sources):
            problems.other(text, kind, *path)
    return Sources(files, tuple(problems))


def _form(kind: str, source: Source, sources: Sources) -> Problems:
    """Return what is wrong with one file that could be read."""
    problems = Problems(Sources(sources.files))
    if source.data is None:
        if kind == "hosts":  # the others may be empty
            problems.append(f"{source.path}: it is empty")
        return problems
    if not isinstance(source.data, dict):
        problems.append(f"{source.path}: it is not a mapping")
        return problems
    model = SCHEMAS[kind]
    try:
        model.model_validate(_without_cluster(kind, source.data))
    except ValidationError as error:
        for path, text in explain(error, model):
            if "k3s_cluster" not in path:  # the cluster's settings are checked when it is loaded
                problems.other(f"{_label(kind, path)}: {text}", kind, *path)
    entries = [((), source.data)] if kind == "defaults" else [((name,), entry) for name, entry in source.data.items()]
    for above, entry in entries:
        for below, text in _entry_problems(entry):
            problems.other(f"{_label(kind, (*above, *below))}: {text}", kind, *above, *below)
    return problems


def _without_cluster(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    if kind != "defaults" or not isinstance(data.get("data"), dict):
        return data
    return {**data, "data": {**data["data"], "k3s_cluster": None}}


def _entry_problems(entry: object) -> Iterator[Found]:
    """Yield what the models let pass in a host, a group or the defaults: other tools may have keys of their own."""
    data = _below(entry, "data")
    for key in data:
        near = closest(key.lower() if isinstance(key, str) else key, _DATA_KEYS, cutoff=0.8)
        if near and key != near:
            yield ("data", key), f"unknown key `{key}`; did you mean `{near}`?"
        elif isinstance(key, str) and "-" in key and key.removesuffix("+") in k3s.AGENT_SETTINGS | k3s.SERVER_SETTINGS:
            yield ("data", key), f"`{key}` counts for nothing here: settings of K3s are below `k3s`"
    extras = _below(entry, "connection_options", "netmiko", "extras")
    for key, value in extras.items():
        if text := _option_problem(key, value):
            yield ("connection_options", "netmiko", "extras", key), text


def _below(value: object, *keys: str) -> dict[Any, Any]:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _option_problem(key: str, value: object) -> str:
    """Return what is wrong with one option of netmiko, which itself would take the text `no` for true."""
    options = _netmiko_options()
    if key not in options:
        return f"netmiko has no option `{key}`" + did_you_mean(key, options)
    kinds = options[key]
    if value is None or not kinds:
        return ""
    if kinds == {bool}:
        return "" if isinstance(value, bool) else not_boolean(value)
    if kinds <= {int, float}:
        return "" if isinstance(value, int | float) and not isinstance(value, bool) else not_number(value)
    return "" if isinstance(value, str) else not_text(value)


@cache
def _netmiko_options() -> Mapping[str, set[type]]:
    """Return the options of netmiko, each with the plain types that it takes; none where it takes anything else."""
    from netmiko.base_connection import BaseConnection  # noqa: PLC0415 - a third of a second that most runs do not need

    plain: set[type] = {bool, int, float, str}
    options: dict[str, set[type]] = {}
    for name, parameter in inspect.signature(BaseConnection.__init__, eval_str=True).parameters.items():
        kinds = set(get_args(parameter.annotation) or [parameter.annotation]) - {type(None)}
        options[name] = kinds if kinds <= plain else set()
    options.pop("self")
    return options


def _group_problems(sources: Sources) -> Iterator[tuple[str, tuple[Key, ...], str]]:
    groups = sources.data.get("groups", {})
    for kind in ("hosts", "groups"):
        for name, entry in sources.data.get(kind, {}).items():
            for group in _parents(entry):
                if group not in groups:
                    text = f"{name}: there is no group `{group}`" + did_you_mean(group, groups)
                    yield kind, (name, "groups"), text
    for name in groups:
        if _circular(name, groups):
            yield "groups", (name, "groups"), f"{name}: the group contains itself through its parent groups"


def _circular(name: str, groups: Mapping[str, Any]) -> bool:
    todo, seen = [name], set()
    while todo:
        for parent in _parents(groups.get(todo.pop())):
            if parent == name:
                return True
            if parent not in seen:
                seen.add(parent)
                todo.append(parent)
    return False


def _parents(entry: object) -> list[str]:
    wanted = entry.get("groups") if isinstance(entry, dict) else None
    return [group for group in wanted if isinstance(group, str)] if isinstance(wanted, list) else []


def _label(kind: str, path: tuple[Key, ...]) -> str:
    return ".".join(["defaults", *map(str, path)] if kind == "defaults" else map(str, path))
