"""What is wrong with a text where an address belongs, and what to write instead."""

from __future__ import annotations

import ipaddress
import re

_PARTS = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?(?:(?P<user>[^:@/\s]+)(?P<password>:[^@/\s]*)?@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*|[^:/@\s\[\]]+)"
    r"(?::(?P<port>\d+))?(?:/(?P<prefix>\d{1,3})|(?P<path>/\S*))?"
)
# For documentation: `nornir-k3s init` writes them, and no host has one (RFC 5737, RFC 3849).
_PLACEHOLDERS = tuple(map(ipaddress.ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")))


def is_address(text: str) -> bool:
    """Return whether a text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_placeholder(text: str) -> bool:
    """Return whether an address is one for documentation, as `nornir-k3s init` writes it."""
    return is_address(text) and any(ipaddress.ip_address(text) in network for network in _PLACEHOLDERS)


def not_of_a_host(text: str) -> str:
    """Return why an IP address cannot be one under which other hosts reach a host; nothing if it can."""
    one = ipaddress.ip_address(text)
    kinds = {
        "unspecified": one.is_unspecified,
        "link-local": one.version == 6 and one.is_link_local,
        "multicast": one.is_multicast,
        "broadcast": text == "255.255.255.255",
    }
    kind = next((kind for kind, holds in kinds.items() if holds), "")
    return f"{text} cannot be the address of a host for others: it is {kind}" if kind else ""


def more_than_a_host(text: str, key: str, **others: str) -> str:
    """Return what a text has besides a host, and what to write instead; nothing if it has nothing else.

    Arguments:
        text: As `10.0.0.13:2222`, `ops@node1`, `10.0.0.100/24` or `https://10.0.0.100:6443`.
        key: The setting whose value it is.
        others: The settings for its `user`, `port` and `prefix`, as they are to be written, with `{}` for the value.
    """
    if is_address(text):
        return ""
    if re.search(r"\s", text) and (plain := text.strip()):
        return (
            f"{text!r} has a blank in it: write `{key}: {plain}`"
            if is_address(plain)
            else f"{text!r} has a blank in it"
        )
    found = _PARTS.fullmatch(text)
    if found is None:
        return ""
    if found["password"]:
        text = text.replace(found["password"] + "@", ":********@")
    host = found["host"].strip("[]")
    names = {"scheme": "a scheme", "user": "a user", "port": "a port", "prefix": "a prefix length", "path": "a path"}
    has = [name for name in names if found[name]]
    if not has and host == found["host"]:
        return ""
    what = " and ".join(names[name] for name in has) or "brackets"
    write = [f"`{key}: {host}`", *(f"`{others[name].format(found[name])}`" for name in has if name in others)]
    return f"{text!r} has {what} in it: write {' and '.join(write)}"
