"""Secrets in K3s settings: where they are references, and what is refused as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nornir_k3s import k3s
from nornir_k3s.model.masking import has_credentials
from nornir_k3s.model.value_types import REFERENCE, reference_problem


def may_be_reference(key: str) -> bool:
    """Return whether the value of a setting, or items of it, may be references to secrets."""
    return key in k3s.SECRETS or key.endswith("-arg")


def problems(key: str, value: Any) -> Iterator[str]:  # noqa: ANN401 - a setting as it stands in the file
    """Yield what is wrong with a secret in a setting; its value is never shown."""
    items = value if isinstance(value, list) else [value]
    may = may_be_reference(key)
    whole = "the whole argument" if key.endswith("-arg") else "the value"
    for item in items:
        if isinstance(item, Mapping):
            why = reference_problem(item)
            if may and why:
                yield f"`{key}`: {why}"
            elif not may and not why:
                yield f"`{key}` takes no reference to a secret: give its value"
        elif key in k3s.SECRETS and item not in (None, ""):
            yield f"`{key}` is a secret: give a reference, {REFERENCE}"
        elif isinstance(item, str) and has_credentials(item):
            instead = f"give {whole} as a reference, {REFERENCE}" if may else "it cannot be given here"
            yield f"`{key}` has a URL with a user or password, which is a secret: {instead}"
