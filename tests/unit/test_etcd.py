"""Keys are read from an etcd in pages, and each is written in a revision of its own."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator

import pytest

from nornir_k3s.datastore_copy import etcd as module
from nornir_k3s.datastore_copy.etcd import Etcd, Key, Put
from nornir_k3s.errors import K3sError

from .etcd_gateway import LARGEST, Gateway


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def etcd(gateway: Gateway) -> Iterator[Etcd]:
    found = gateway.connect()
    yield found
    found.close()


def test_each_key_gets_a_revision_in_this_order_and_all_pages_are_of_one_revision(etcd: Etcd, gateway: Gateway) -> None:
    puts = [Put(f"/registry/x/{number:03}", b"\0\xff" * number) for number in reversed(range(450))]
    revisions = list(etcd.write(puts))
    assert revisions == list(range(2, 452))
    assert etcd.revision() == 451
    pages = etcd.read("/registry/")
    found = [next(pages)]
    other = gateway.connect()
    list(other.write([Put("/registry/x/200", b"later"), Put("/registry/x/2000", b"later")]))
    other.close()
    found += pages
    assert found == sorted((Key(one.name, one.value, at, at) for one, at in zip(puts, revisions, strict=True)),
                           key=lambda one: one.name)  # fmt: skip
    assert [one.name for one in etcd.read(since=452)] == ["/registry/x/200", "/registry/x/2000"]
    assert all(one.value == b"" for one in etcd.read(values=False))
    assert [one.created for one in etcd.read("/registry/x/200")] == [found[200].created, 453]
    assert [one.value for one in etcd.read("/registry/x/200", at=451)] == [b"\0\xff" * 200]


def test_leases_deletion_swap_and_compaction(etcd: Etcd, gateway: Gateway) -> None:
    lease = etcd.grant(3600)
    list(etcd.write([Put("/registry/events/a", b"1", lease), Put("/registry/b", b""), Put("mark", b"")]))
    assert [(one.name, one.lease) for one in etcd.read()] == [
        ("/registry/b", 0),
        ("/registry/events/a", lease),
        ("mark", 0),
    ]
    assert (etcd.remaining(lease), etcd.remaining(5)) == (3600, 0)
    assert etcd.swap("mark", [Put("/bootstrap/x", b"CA")])
    assert not etcd.swap("mark", [Put("/bootstrap/y", b"")])
    assert [(one.name, one.value) for one in etcd.read("/bootstrap/")] == [("/bootstrap/x", b"CA")]
    gateway.expire(lease)
    assert ([one.name for one in etcd.read("/registry/")], etcd.remaining(lease)) == (["/registry/b"], 0)
    etcd.delete("/registry/", prefix=True)
    etcd.delete("/bootstrap")
    assert [one.name for one in etcd.read()] == ["/bootstrap/x"]
    for _ in range(2):
        etcd.compact(etcd.revision())
    assert gateway.compacted == gateway.revision
    with pytest.raises(K3sError, match="required revision has been compacted"):
        list(etcd.read(at=2))


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("mvcc: database space exceeded", "--quota-backend-bytes"),
        ("user name is empty", "authentication is on"),
        ("no leader", ""),
    ],
)
def test_what_etcd_refuses_is_told_with_what_to_do(etcd: Etcd, gateway: Gateway, reason: str, hint: str) -> None:
    gateway.refuses["/v3/kv/put"] = reason
    gateway.refuses["/v3/kv/compaction"] = reason
    with pytest.raises(K3sError, match=f"the datastore: {reason}") as caught:
        list(etcd.write([Put("a", b"")]))
    assert hint in caught.value.hint
    with pytest.raises(K3sError, match=reason):
        etcd.compact(5)


def test_a_value_that_is_too_large_and_a_key_of_others(etcd: Etcd, gateway: Gateway) -> None:
    with pytest.raises(K3sError, match="request is too large") as caught:
        list(etcd.write([Put("a", b"x" * (LARGEST + 1))]))
    assert "--max-request-bytes" in caught.value.hint
    strange = {"key": base64.b64encode(b"\xff").decode()}
    with pytest.raises(K3sError, match="is not text"):
        etcd._key(strange)


def test_many_bytes_are_several_batches(etcd: Etcd, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BYTES", 1000)
    puts = etcd.write(Put(str(number), b"x" * 600) for number in range(6))
    next(puts)
    assert gateway.asked == ["/v3/kv/put"] * 2
    assert len(list(puts)) == 5


def test_who_does_not_answer_as_an_etcd_is_told() -> None:
    for answer in (b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", b""):
        here, there = socket.socketpair()
        there.sendall(answer)
        there.shutdown(socket.SHUT_WR)
        one = Etcd(here, "h")
        with pytest.raises(K3sError, match="etcd's JSON gateway does not answer"):
            one.revision()
        one.close()
        there.close()


def test_a_gateway_that_is_off_is_told() -> None:
    here, there = socket.socketpair()
    there.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n[]")
    one = Etcd(here, "h")
    with pytest.raises(K3sError, match="HTTP 404"):
        one.revision()
    one.close()
    there.close()
