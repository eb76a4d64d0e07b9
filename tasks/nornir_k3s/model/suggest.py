"""Suggestions for misspelt words: `did you mean …?`"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(word: object, known: Iterable[object], *, cutoff: float = 0.6) -> str:
    """Return the known word most similar to this one, or nothing.

    Arguments:
        word: What was written.
        known: What could have been meant.
        cutoff: The minimum similarity, from 0 to 1.
    """
    near = difflib.get_close_matches(str(word), sorted({str(one) for one in known}), n=1, cutoff=cutoff)
    return near[0] if near else ""


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """Return the end of a message about an unknown word: `; did you mean …?`, or nothing."""
    near = closest(word, known)
    return f"; did you mean `{near}`?" if near else ""
