"""The TTL of a name's records, asked of a name server that only plays its part."""

from __future__ import annotations

import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest

from nornir_k3s.run import dns_ttl

A, CNAME = 1, 5


class NameServer(threading.Thread):
    """Answers every question with these records: kind, TTL and data."""

    def __init__(self, records: list[tuple[int, int, bytes]]) -> None:
        super().__init__(daemon=True)
        self.records, self.asked = records, b""
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(5)

    def run(self) -> None:
        with self.socket:
            self._answer()

    def _answer(self) -> None:
        asked, client = self.socket.recvfrom(512)
        self.asked = asked
        body = b"".join(
            b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data for kind, ttl, data in self.records
        )
        head = asked[:2] + struct.pack("!HHHHH", 0x8180, 1, len(self.records), 0, 0)
        self.socket.sendto(head + asked[12:] + body, client)


@pytest.fixture
def asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def start(*records: tuple[int, int, bytes]) -> NameServer:
        server = NameServer(list(records))
        server.start()
        port, real = server.socket.getsockname()[1], socket.socket.connect
        monkeypatch.setattr(dns_ttl, "RESOLV_CONF", tmp_path / "resolv.conf")
        (tmp_path / "resolv.conf").write_text("# ours\nsearch example.org\nnameserver 127.0.0.1\n")
        monkeypatch.setattr(socket.socket, "connect", lambda self, to: real(self, (to[0], port) if to[1] == 53 else to))
        return server

    return start


def test_the_shortest_ttl_of_the_addresses_and_of_the_names_on_the_way(asks: Any) -> None:
    server = asks((CNAME, 20, b"\3abc\xc0\x0c"), (A, 300, b"\x0a\0\0\x0c"), (A, 60, b"\x0a\0\0\x0d"))
    assert dns_ttl.ttl("api.example.org") == 20
    server.join(5)
    assert server.asked[12:] == b"\3api\7example\3org\0" + struct.pack("!HH", A, 1)


@pytest.mark.parametrize("text", ["", "nameserver nobody\n", "nameserver\n"])
def test_without_a_name_server_it_is_not_known(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_ttl, "RESOLV_CONF", tmp_path / "resolv.conf")
    assert dns_ttl.ttl("api.example.org") is None
    (tmp_path / "resolv.conf").write_text(text)
    assert dns_ttl.ttl("api.example.org") is None


@pytest.mark.parametrize("answer", [b"", b"\0" * 11, b"\0\0\x81\x80\0\1\0\1\0\0\0\0\3api", b"\0" * 8 + b"\xff" * 9])
def test_garbage_is_no_ttl(answer: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_ttl, "RESOLV_CONF", tmp_path / "resolv.conf")
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.1\n")
    monkeypatch.setattr(dns_ttl, "_asked", lambda *_: answer)
    assert dns_ttl.ttl("api.example.org") is None
