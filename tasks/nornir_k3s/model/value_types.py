"""Types of values in the inventory: paths, URLs, and references to secrets."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from nornir_k3s.model.masking import has_credentials


def _usable(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("a path cannot have a NUL in it")
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path}: there is no such user") from None


LocalPath = Annotated[Path, Field(strict=False), AfterValidator(_usable)]  # not strict: YAML has it as text


class Strict(BaseModel):
    """A mapping with exactly these keys and types: the text `no` is not a boolean."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


REFERENCE = "{env: NAME}, {file: PATH} or {command: [PROGRAM, ARGUMENT]}"


def reference_problem(value: object) -> str:
    """Return what is wrong with the form of a reference to a secret, or nothing."""
    if not isinstance(value, dict) or len(value) != 1 or next(iter(value)) not in ("env", "file", "command"):
        return f"a secret is a reference: {REFERENCE}"
    return ""


def _reference(value: Any) -> Any:  # noqa: ANN401 - what stands in the file
    if problem := reference_problem(value):
        raise ValueError(problem)
    return value


# Only characters that are safe in K3s' environment file and in a shell's command line.
_URL = re.compile(r"https?://[^\s\"\\$`]+")


def url_problem(text: str) -> str:
    """Return what is wrong with a URL of the inventory, or nothing; the URL itself is not shown."""
    return "" if _URL.fullmatch(text) else "it is not a URL such as http://10.0.0.1:3128"


def _url(value: Any) -> Any:  # noqa: ANN401 - what stands in the file
    if isinstance(value, dict):
        return _reference(value)
    if not isinstance(value, str):
        raise ValueError("it must be text")
    if has_credentials(value) or "@" in value.partition("://")[2].partition("/")[0]:
        raise ValueError(
            f"it has a user or password in it, which is a secret: give the URL as a reference, {REFERENCE}"
        )
    if problem := url_problem(value):
        raise ValueError(problem)
    return value


def _path_or_reference(value: Any) -> Any:  # noqa: ANN401 - what stands in the file
    if isinstance(value, dict):
        return _reference(value)
    if not isinstance(value, str | Path):
        raise ValueError("it must be a path")
    return _usable(Path(value))


def _text_or_number(value: Any) -> Any:  # noqa: ANN401 - what stands in the file
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError("it must be text or a whole number")
    return value


Parameter = Annotated[str | int, BeforeValidator(_text_or_number)]


def _share(value: Any) -> Any:  # noqa: ANN401 - what stands in the file
    number = isinstance(value, int) and not isinstance(value, bool)
    if not number and not (isinstance(value, str) and re.fullmatch(r"([1-9][0-9]?|100)%", value)):
        raise ValueError("it must be a whole number, or per cent such as 10%")
    return value


Share = Annotated[
    int | str,
    BeforeValidator(_share),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]{1,3}%$"}]}),
]


_UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds(value: Any) -> int:  # noqa: ANN401 - what stands in the file
    """Return a time in seconds.

    Arguments:
        value: A number of seconds, or text such as 90s, 5m or 1h30m.

    Raises:
        ValueError: It is neither, or not from 1 s to 24 h.
    """
    if isinstance(value, str) and re.fullmatch(r"([0-9]{1,6}[hms])+", value):
        value = sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9]+)([hms])", value))
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 86400:
        raise ValueError("it must be a number of seconds, or a time such as 90s, 5m or 1h30m, from 1s to 24h")
    return value


Seconds = Annotated[
    int,
    BeforeValidator(seconds),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 86400},
                {"type": "string", "pattern": "^([0-9]{1,6}[hms])+$"},
            ]
        }
    ),
]


def _one_of(**values: dict[str, Any]) -> dict[str, Any]:
    forms = [
        {"type": "object", "properties": {key: value}, "required": [key], "additionalProperties": False}
        for key, value in values.items()
    ]
    return {"anyOf": forms}


_TEXT = {"type": "string", "minLength": 1}
_WORDS = {"anyOf": [_TEXT, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
Reference = Annotated[
    dict[str, Any],
    BeforeValidator(_reference),
    WithJsonSchema(_one_of(env=_TEXT, file=_TEXT, command=_WORDS) | {"description": "where a secret comes from"}),
]


_REFERENCE_SCHEMA = _one_of(env=_TEXT, file=_TEXT, command=_WORDS)["anyOf"]
Url = Annotated[
    str | dict[str, Any],
    BeforeValidator(_url),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": "^https?://"}, *_REFERENCE_SCHEMA]}),
]
PathOrReference = Annotated[
    Path | dict[str, Any],
    BeforeValidator(_path_or_reference),
    WithJsonSchema({"anyOf": [{"type": "string"}, *_REFERENCE_SCHEMA]}),
]


def _command(value: Any) -> Any:  # noqa: ANN401 - what stands in the file
    try:
        words = shlex.split(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"it cannot be split into words: {error}") from None
    if not isinstance(words, list) or not words or not all(isinstance(word, str) and word for word in words):
        raise ValueError("it must be a program and its arguments: a list of words, or one text")
    if any(has_credentials(word) for word in words):
        raise ValueError("it has a URL with a password in it: everybody can see arguments; it is in the environment")
    return words


Command = Annotated[list[str], BeforeValidator(_command), WithJsonSchema(_WORDS)]
