"""How long the records of a name may be cached, asked of the controller's name server; getaddrinfo(3) does not say it.

Source: RFC 1035, section 4 (messages). One question over UDP: where no answer comes at once, the TTL stays unknown.
"""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import socket
import struct
from pathlib import Path

RESOLV_CONF = Path("/etc/resolv.conf")
TIMEOUT = 1.0  # seconds
_A, _AAAA, _CNAME = 1, 28, 5


def ttl(name: str) -> int | None:
    """Return the shortest TTL of the name's A or AAAA records in seconds, or None if that cannot be had."""
    for server in _servers()[:1]:
        for kind in (_A, _AAAA):
            with contextlib.suppress(OSError, struct.error, IndexError):
                if found := _ttls(_asked(server, name, kind)):
                    return min(found)
    return None


def _servers() -> list[str]:
    found = []
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in RESOLV_CONF.read_text().splitlines():
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                with contextlib.suppress(ValueError):
                    found.append(str(ipaddress.ip_address(words[1])))
    return found


def _asked(server: str, name: str, kind: int) -> bytes:
    labels = b"".join(
        bytes([len(one)]) + one for one in (label.encode("ascii") for label in name.rstrip(".").split("."))
    )
    number = secrets.token_bytes(2)
    question = number + struct.pack("!HHHHH", 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)
    with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(TIMEOUT)
        link.connect((server, 53))
        link.send(question)
        answer = link.recv(4096)
    return answer if answer[:2] == number else b""


def _ttls(answer: bytes) -> list[int]:
    """Return the TTLs in an answer: of the addresses, and of the names on the way to them."""
    questions, records = struct.unpack("!HH", answer[4:8])
    place, found = 12, []
    for _ in range(questions):
        place = _after_name(answer, place) + 4
    for _ in range(records):
        place = _after_name(answer, place)
        kind, _, seconds, length = struct.unpack("!HHIH", answer[place : place + 10])
        place += 10 + length
        if kind in (_A, _AAAA, _CNAME):
            found.append(seconds)
    return found


def _after_name(answer: bytes, place: int) -> int:
    while length := answer[place]:
        if length >= 0xC0:  # a pointer to a name before
            return place + 2
        place += 1 + length
    return place + 1
