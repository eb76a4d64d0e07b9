"""What a diff or finding may show of text that may hold secrets."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from nornir_k3s.model.secret import Secret

HIDDEN = "********"
MARK = "# Masked in diffs: "  # a line of config.yaml: keys whose values have secrets in them
# A password may hold @, / or #: everything up to the last @ of the word. A port and a path are no password.
_CREDENTIALS = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)(?:[^\s/?#@]*|[^\s/?#@:]*:(?!\d+(?:/|\s|$))\S*)@")
# In the configuration of HAProxy and keepalived, and of many others.
_WORDS = re.compile(r"(?i)\b(stats auth|auth_pass|(?:insecure-)?password)([ \t]+)\S+")


def has_credentials(text: str) -> bool:
    """Return whether a URL in this text has a user or password in it."""
    return _CREDENTIALS.search(text) is not None


def without_credentials(text: str) -> str:
    """Return a text with the user and password of each URL in it masked."""
    return _CREDENTIALS.sub(rf"\1{HIDDEN}@", text)


def plain(text: str) -> str:
    """Return the lines of a configuration file with the passwords that programs have in theirs masked."""
    return without_credentials(_WORDS.sub(rf"\1\2{HIDDEN}", text))


def yaml(text: str, keys: Collection[str]) -> str:
    """Return a config.yaml of K3s with the values of these keys masked, in any form that YAML has for them."""
    if text.lstrip().startswith(("{", "[")):
        return "(content not shown: it is not in YAML's block style)\n"
    found, indent = [], -1
    for line in text.splitlines(keepends=True):
        if indent >= 0 and _continues(line, indent):
            continue
        match = re.match(r"(\s*)[\"']?([-\w]+)\+?[\"']?\s*:(?:\s|$)", line)
        indent = len(match[1]) if match and match[2] in keys else -1
        if match and indent >= 0:
            line = f"{match[0].rstrip()} {HIDDEN}\n"  # noqa: PLW2901 - the masked one
        found.append(without_credentials(line))
    return "".join(found)


def _continues(line: str, indent: int) -> bool:
    """Return whether a line belongs to the value of a key with this indentation; list items may have the same."""
    text = line.strip()
    own = len(line) - len(line.lstrip())
    return not text or own > indent or (own == indent and (text == "-" or text.startswith("- ")))


def marked(text: str) -> set[str]:
    """Return the keys that a config.yaml of this tool names in its mark."""
    return {key for line in text.splitlines() if line.startswith(MARK) for key in line.removeprefix(MARK).split(", ")}


def without(text: str, secrets: Iterable[Secret]) -> str:
    """Return a text with these secrets, and the credentials of URLs, masked."""
    for secret in secrets:
        if secret:
            text = text.replace(secret.reveal(), HIDDEN)
    return without_credentials(text)
