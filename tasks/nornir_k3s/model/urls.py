"""URLs that may hold a password."""

from __future__ import annotations

import re


def shown(url: str) -> str:
    """Return a URL as it may be shown: without user, password, query and fragment."""
    # Greedy up to the last @, and first: a password may hold @, / or #, and not every URL here can be parsed.
    return re.split(r"[?#]", re.sub(r"(?s)^([a-zA-Z][a-zA-Z0-9+.-]*://)?.*@", r"\1", url), maxsplit=1)[0]
