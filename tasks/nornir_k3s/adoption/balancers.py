"""HAProxy and keepalived as others have set them up: what they listen on, and where they lead.

Sources: HAProxy's configuration manual (sections and `bind`, `server`, `default_backend`, `use_backend`);
keepalived.conf(5) (blocks in braces).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

_SECTIONS = (
    *("global", "defaults", "frontend", "backend", "listen", "resolvers", "peers", "userlist", "program", "cache"),
    *("mailers", "ring", "http-errors", "fcgi-app", "log-forward", "crt-store"),
)


@dataclass(frozen=True)
class Frontend:
    """What HAProxy listens on, and the addresses and ports that it leads to."""

    name: str
    binds: tuple[str, ...]
    servers: tuple[tuple[str, str], ...]

    @property
    def port(self) -> int:
        """The first port that it listens on; 0 if it has none."""
        ports = [int(found[1]) for one in self.binds if (found := re.search(r":(\d+)$", one))]
        return ports[0] if ports else 0


@dataclass(frozen=True)
class Instance:
    """A VRRP instance of keepalived.

    Arguments:
        addresses: Its virtual addresses, with prefix length where it has one.
        more: What has no equal in this tool's configuration, such as a password.
    """

    name: str
    interface: str
    router: str
    priority: int
    addresses: tuple[str, ...]
    preempt_delay: str = ""
    more: tuple[str, ...] = ()

    @property
    def plain(self) -> tuple[str, ...]:
        """Its virtual addresses alone."""
        return tuple(one.split("/")[0] for one in self.addresses)

    @property
    def prefix(self) -> int | None:
        """The prefix length of the first one; None for a single address."""
        found = self.addresses[0].partition("/")[2] if self.addresses else ""
        return int(found) if found.isdigit() and found not in ("32", "128") else None


def frontends(texts: Iterable[str]) -> list[Frontend]:
    """Return the frontends of HAProxy that lead to servers; those that only tell of HAProxy itself are left out."""
    sections: dict[tuple[str, str], list[list[str]]] = {}
    own: list[list[str]] = []
    for line in "\n".join(texts).splitlines():
        words = _words(line)
        if words and words[0] in _SECTIONS:
            own = sections.setdefault((words[0], words[1] if len(words) > 1 else ""), [])
        elif words:
            own.append(words)
    found = []
    for (kind, name), lines in sections.items():
        if kind not in ("frontend", "listen"):
            continue
        targets = [words[1] for words in lines if words[0] in ("default_backend", "use_backend") and len(words) > 1]
        led = [*lines, *(words for target in targets for words in sections.get(("backend", target), []))]
        servers = tuple(_address(words[2]) for words in led if words[0] == "server" and len(words) > 2)
        binds = tuple(one for words in lines if words[0] == "bind" and len(words) > 1 for one in words[1].split(","))
        if servers:
            found.append(Frontend(name, binds, tuple(dict.fromkeys(servers))))
    return found


def instances(texts: Iterable[str]) -> list[Instance]:
    """Return the VRRP instances of keepalived."""
    found = []
    for head, lines in _blocks("\n".join(texts)):
        if head[:1] != ["vrrp_instance"]:
            continue
        values: dict[str, str] = {}
        addresses: list[str] = []
        more: list[str] = []
        inside = ""
        for words in lines:
            if words[-1] == "{":
                inside = words[0]
            elif words == ["}"]:
                inside = ""
            elif inside in ("virtual_ipaddress", "virtual_ipaddress_excluded"):
                addresses.append(words[0])
            elif inside == "authentication" and words[0] == "auth_pass":
                more.append("a password (auth_pass), which VRRP version 3 does not have")
            elif not inside:
                values[words[0]] = words[1] if len(words) > 1 else ""
        more += [f"`{key}`" for key in ("notify", "notify_master", "notify_backup", "notify_fault") if key in values]
        found.append(
            Instance(
                name=head[1] if len(head) > 1 else "",
                interface=values.get("interface", ""),
                router=values.get("virtual_router_id", ""),
                priority=int(values.get("priority", "")) if values.get("priority", "").isdigit() else 100,
                addresses=tuple(addresses),
                preempt_delay=values.get("preempt_delay", ""),
                more=tuple(more),
            )
        )
    return found


def own(texts: Mapping[str, str], service: str) -> list[str]:
    """Return the texts of one service."""
    return [text for path, text in texts.items() if path.startswith(f"/etc/{service}/")]


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        return line.partition("#")[0].split()


def _address(text: str) -> tuple[str, str]:
    host, _, port = text.rpartition(":") if re.search(r":\d+$", text) else (text, "", "")
    return host.strip("[]"), port


def _blocks(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Yield the outermost blocks: the words before the brace, and the lines inside."""
    plain = re.sub(r"[#!].*", "", text)
    lines = [line.split() for line in re.sub(r"([{}])", r" \1\n", plain.replace("}", "\n}")).splitlines()]
    head: list[str] = []
    inside: list[list[str]] = []
    depth = 0
    for words in filter(None, lines):
        if words[-1] == "{":
            depth += 1
            if depth == 1:
                head, inside = words[:-1], []
                continue
        if words == ["}"]:
            depth -= 1
            if depth == 0:
                yield head, inside
                continue
        if depth:
            inside.append(words)
