"""Records: what the scripts on hosts print with `say`, read by one parser."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from nornir_k3s import shell

SAY = shell.source("records.sh")
END = "end"  # the last record of a whole answer
MAX_BYTES = 64 << 20  # 10,000 nodes as JSON, base64-encoded
_SHOWN = 60


class RecordError(ValueError):
    """An answer is not what the script prints; in words."""


class Record(tuple[str, ...]):
    """The words of one record, after its name."""

    __slots__ = ()

    def take(self, count: int) -> tuple[str, ...]:
        """Return its words.

        Raises:
            RecordError: It has not so many.
        """
        if len(self) != count:
            raise RecordError(f"{len(self)} words instead of {count}: {self}")
        return self

    def __str__(self) -> str:
        text = " ".join(self)
        return repr(text[:_SHOWN] + "…" if len(text) > _SHOWN else text)


def read(text: str, *, whole: bool = True) -> Mapping[str, list[Record]]:
    """Return the records of an answer by name; lines that are none come from programs on the host and do not count.

    Arguments:
        whole: The answer must end with the record `end`.

    Raises:
        RecordError: It is cut short, or too large.
    """
    if len(text) > MAX_BYTES:
        raise RecordError(f"the answer has {len(text) >> 20} MiB, {MAX_BYTES >> 20} MiB at most are expected")
    found: dict[str, list[Record]] = {}
    for line in text.split("\n"):
        if line.startswith("@"):
            name, *words = line[1:].split("\t")
            found.setdefault(name, []).append(Record(words))
    if whole and END not in found:
        raise RecordError("the answer is cut short")
    return found


def integer(word: str) -> int:
    """Return a number; empty text is 0.

    Raises:
        RecordError: It is none.
    """
    if not word.strip():
        return 0
    try:
        return int(word)
    except ValueError:
        raise RecordError(f"{word[:_SHOWN]!r} is not a number") from None


def decoded(word: str) -> str:
    """Return the text that came base64-encoded; bytes that are not UTF-8 are replaced.

    Raises:
        RecordError: It is not base64.
    """
    return data(word).decode(errors="replace")


def data(word: str) -> bytes:
    """Return the bytes that came base64-encoded.

    Raises:
        RecordError: It is not base64.
    """
    try:
        return base64.b64decode(word, validate=True)
    except ValueError:
        raise RecordError(f"{word[:_SHOWN]!r} is not base64") from None
