"""kubectl's JSONPath templates, as far as scripts use them (client-go/util/jsonpath)."""

from __future__ import annotations

import json
import re
from typing import Any

_TOKEN = re.compile(r"\{((?:[^{}\"']|\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')*)\}|([^{}]+)")
_STEP = re.compile(r"\.\.([\w-]+)|\.((?:[\w/-]|\\.)+)|\.?\[('[^']*'|\"[^\"]*\"|[^\]]*)\]|\.(\*)")
_FILTER = re.compile(r"\?\(\s*@(\S+?)\s*(?:(==|!=|<=|>=|<|>)\s*(.+?))?\s*\)")


class TemplateError(Exception):
    """The template cannot be read, or leads nowhere."""


def render(template: str, data: Any) -> str:
    """Return what the template makes of the data."""
    parts = [(m[1], m[2]) for m in _TOKEN.finditer(template)]
    if not any(code is not None for code, _ in parts):
        parts = [(template, None)]
    text, rest = _render(parts, data, data)
    if rest:
        raise TemplateError("error parsing jsonpath: unexpected {end}")
    return text


def _render(parts: list[tuple[Any, Any]], data: Any, root: Any) -> tuple[str, list[tuple[Any, Any]]]:
    """Return the text up to the end of this range, and the parts behind it."""
    out = ""
    while parts:
        code, plain = parts[0]
        parts = parts[1:]
        if code is None:
            out += plain
            continue
        code = code.strip()
        if code == "end":
            return out, parts
        if code.startswith("range "):
            body = parts
            for item in _values(code[6:].strip(), data, root) or [None]:
                text, parts = _render(body, item, root)
                out += text if item is not None else ""
        elif code[:1] in ("'", '"'):
            out += json.loads('"' + code[1:-1].replace('"', '\\"') + '"')
        else:
            out += " ".join(_shown(value) for value in _values(code, data, root))
    return out, []


def _values(path: str, data: Any, root: Any) -> list[Any]:
    found, path = ([root], path[1:]) if path.startswith("$") else ([data], path.removeprefix("@"))
    if path and path[0] not in ".[":
        path = "." + path
    position = 0
    while position < len(path):
        match = _STEP.match(path, position)
        if not match:
            if path[position:] == ".":
                break
            raise TemplateError(f"error parsing jsonpath {path}, unrecognized character in action")
        found = [value for one in found for value in _step(match, one)]
        position = match.end()
    return found


def _step(match: re.Match[str], value: Any) -> list[Any]:
    deep, name, index, star = match.groups()
    if deep:
        return _deep(deep, value)
    if name:
        name = re.sub(r"\\(.)", r"\1", name)
        return [value[name]] if isinstance(value, dict) and name in value else []
    if star or index == "*":
        return list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list) else []
    if index[:1] in ("'", '"'):
        return [value[index[1:-1]]] if isinstance(value, dict) and index[1:-1] in value else []
    if index.startswith("?"):
        return [one for one in value if _fits(index, one)] if isinstance(value, list) else []
    return _index(index, value) if isinstance(value, list) else []


def _index(index: str, value: list[Any]) -> list[Any]:
    if ":" in index:
        bounds = [int(part) if part else None for part in index.split(":")]
        return value[slice(*bounds)]
    try:
        return [value[int(index)]]
    except IndexError:
        raise TemplateError(f"array index out of bounds: index {index}, length {len(value)}") from None


def _deep(name: str, value: Any) -> list[Any]:
    found = []
    if isinstance(value, dict):
        found += [value[name]] if name in value else []
        found += [one for child in value.values() for one in _deep(name, child)]
    elif isinstance(value, list):
        found += [one for child in value for one in _deep(name, child)]
    return found


def _fits(text: str, item: Any) -> bool:
    match = _FILTER.fullmatch(text)
    if not match:
        raise TemplateError(f"error parsing jsonpath: unsupported filter {text}")
    path, operator, wanted = match.groups()
    found = _values(path, item, item)
    if operator is None:
        return bool(found)
    if not found:
        return False
    value = wanted[1:-1] if wanted[:1] in ("'", '"') else json.loads(wanted)
    have = found[0]
    return {"==": have == value, "!=": have != value}.get(operator, False) or (
        operator in ("<", "<=", ">", ">=")
        and {"<": have < value, "<=": have <= value, ">": have > value, ">=": have >= value}[operator]
    )


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
