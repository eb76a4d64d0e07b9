"""Secret: text that is masked wherever it could be shown."""

from __future__ import annotations

import hashlib


class Secret:
    """Secret text: repr, str, format and logs show `********`.

    Arguments:
        value: The secret text.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the text itself, only where it is used."""
        return self._value

    def fingerprint(self) -> str:
        """Return the first 12 hex digits of the SHA-256, safe to show and to compare."""
        return hashlib.sha256(self._value.encode()).hexdigest()[:12]

    def __repr__(self) -> str:
        return "********"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format("********", spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __bool__(self) -> bool:
        return bool(self._value)
