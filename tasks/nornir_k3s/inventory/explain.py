"""The problems that a model finds in a file, in words that say what to write instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from nornir_k3s.model.suggest import did_you_mean

# Names of the members of unions, which are part of pydantic's path and of no file's.
_TAGS = ("managed", "external", "fields")


def explain(error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the path and the words of each problem; an unknown key comes with the nearest known one."""
    for item in error.errors(include_url=False, include_context=False):
        path = tuple(part for part in item["loc"] if part not in _TAGS)
        given = item["input"]
        if item["type"] == "invalid_key" or path[-1:] == ("[key]",):
            above = path[: -2 if path[-1] == "[key]" else -1]
            yield (*above, given), _wrong_key(given, item["msg"])
            continue
        match item["type"]:
            case "extra_forbidden":
                yield path, f"unknown key `{path[-1]}`" + did_you_mean(path[-1], _known(model, path[:-1]))
            case "missing":
                yield path, "it is missing"
            case "model_type" | "dict_type":
                yield path, "it is empty: write `{}`" if given is None else "it must be a mapping"
            case "list_type":
                yield path, "it must be a list, as [ONE, TWO]"
            case "string_type":
                yield path, "it is empty" if given is None else not_text(given)
            case "bool_type":
                yield path, not_boolean(given)
            case "int_type" | "float_type":
                yield path, not_number(given)
            case "path_type":
                yield path, "it must be a path"
            case _:
                for line in item["msg"].removeprefix("Value error, ").splitlines():
                    yield path, line


def _wrong_key(given: object, message: str) -> str:
    if not isinstance(given, str):
        return "a name must be text: put it in quotes"
    known = re.findall("'([^']*)'", message)  # Input should be 'ONE', 'TWO' or 'THREE'
    return f"unknown key `{given}`" + did_you_mean(given, known)


def not_boolean(value: object) -> str:
    """Return what is wrong with a value that is neither true nor false."""
    if isinstance(value, str):
        return f"{value!r} is text: write true or false"
    return "it must be true or false"


def not_number(value: object) -> str:
    """Return what is wrong with a value that is no number of the kind that is wanted."""
    return "it must be a number, without quotes" if isinstance(value, str) else "it must be a number"


def not_text(value: object) -> str:
    """Return what is wrong with a value that is no text."""
    return "it must be text" if isinstance(value, (dict, list)) else "it must be text: put it in quotes"


def _known(model: type[BaseModel], path: tuple[str | int, ...]) -> set[str]:
    types: list[Any] = [model]
    for key in path:
        types = [found for kind in types for found in _below(kind, str(key))]
    return {name for kind in types for part in _models(kind) for name in _fields(part)}


def _below(kind: Any, key: str) -> Iterator[Any]:  # noqa: ANN401 - any type expression
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = _fields(kind)
        if "root" in fields:
            yield from _below(fields["root"].annotation, key)
        elif key in fields:
            yield fields[key].annotation
    elif get_origin(kind) in (dict, list):
        yield get_args(kind)[-1]
    else:
        for part in get_args(kind):
            yield from _below(part, key)


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a mapping by the names that files have."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _models(kind: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401 - any type expression
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for part in get_args(kind):
        yield from _models(part)
