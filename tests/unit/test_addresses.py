"""A text where an address belongs: the message says what is wrong, and what to write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nornir_k3s.errors import InventoryError
from nornir_k3s.model.address import more_than_a_host
from nornir_k3s.model.cluster import Cluster

from .conftest import HOSTS

Load = Callable[..., Cluster]


@pytest.mark.parametrize(
    ("hostname", "words"),
    [
        ("10.77.0.13:2222", "has a port in it: write `hostname: 10.77.0.13` and `port: 2222`"),
        ("node1.example.org:22", "has a port in it: write `hostname: node1.example.org` and `port: 22`"),
        ("[fd00::1]:2222", "has a port in it: write `hostname: fd00::1` and `port: 2222`"),
        ("[fd00::1]", "has brackets in it: write `hostname: fd00::1`"),
        ("ops@10.0.0.12", "has a user in it: write `hostname: 10.0.0.12` and `username: ops`"),
        ("ops@node1:22", "has a user and a port in it: write `hostname: node1` and `username: ops` and `port: 22`"),
        ("10.0.0.12/24", "has a prefix length in it: write `hostname: 10.0.0.12`"),
        ("fd00::12/64", "has a prefix length in it: write `hostname: fd00::12`"),
        ("ssh://10.0.0.12", "has a scheme in it: write `hostname: 10.0.0.12`"),
        ("10.0.0.12 ", "has a blank in it: write `hostname: 10.0.0.12`"),
        ("node1.example.org", "is not an IP address; give the address the other hosts use as `k3s.node-ip`"),
    ],
)
def test_a_hostname_that_is_more_than_one(load: Load, hostname: str, words: str) -> None:
    with pytest.raises(InventoryError) as caught:
        load(hosts={**HOSTS, "s1": (hostname, "servers")})
    assert caught.value.problems == [f"s1: {hostname!r} {words}"]


def test_a_hostname_with_a_port_is_told_where_another_address_is_given_too(load: Load) -> None:
    with pytest.raises(InventoryError) as caught:
        load(hosts={**HOSTS, "s1": ("node1:2222", "servers")}, s1={"node-ip": "10.0.0.12"})
    assert caught.value.problems == ["s1: 'node1:2222' has a port in it: write `hostname: node1` and `port: 2222`"]


@pytest.mark.parametrize("value", ["10.0.0.15/24", "10.0.0.15:22", "lb1.example.org"])
def test_an_address_of_the_other_hosts_that_is_none(load: Load, value: str) -> None:
    with pytest.raises(InventoryError) as caught:
        load(lb1={"address": value})
    (text,) = caught.value.problems
    assert repr(value) in text
    assert ("write `k3s.address: 10.0.0.15`" in text) == value.startswith("10.")


@pytest.mark.parametrize(
    ("registration", "words"),
    [
        ({"address": "10.0.0.100/24"}, "has a prefix length in it: write `address: 10.0.0.100` and `lb: {prefix: 24}`"),
        ({"address": "10.0.0.100:6443"}, "has a port in it: write `address: 10.0.0.100` and `port: 6443`"),
        ({"address": "k3s.example.org"}, "is not an IP address: write the VIP here, and a DNS name of it as `name`"),
        ({"address": "https://10.0.0.100:6443"}, "has a scheme and a port in it: write `address: 10.0.0.100` and"),
        ({"address": "10.0.0.100", "name": "k3s.example.org:6443"}, "write `name: k3s.example.org` and `port: 6443`"),
        ({"address": "10.0.0.100", "name": "https://k3s.example.org"}, "scheme in it: write `name: k3s.example.org`"),
        ({"address": "10.0.0.100", "name": "k3s_api.example.org"}, "is not a DNS name"),
        ({"address": "10.0.0.100", "name": "k3s..example.org"}, "is not a DNS name"),
        ({"address": "10.0.0.100", "name": f"{'k' * 64}.example.org"}, "is not a DNS name"),
        ({"address": "10.0.0.100", "name": "10.0.0.12"}, "is an IP address: the VIP is `address`"),
        ({"address": "10.0.0.100", "name": "localhost"}, "is each host itself: write a DNS name of the VIP"),
    ],
)  # fmt: skip
def test_a_registration_address_that_is_more_than_one(load: Load, registration: dict[str, Any], words: str) -> None:
    with pytest.raises(InventoryError) as caught:
        load({"registration": registration})
    key = "name" if "name" in registration else "address"
    (text,) = caught.value.problems
    assert text.startswith(f"k3s_cluster.registration.{key}: {registration[key]!r} ")
    assert words in text


def test_a_password_is_not_shown() -> None:
    text = more_than_a_host("ops:hush@10.0.0.1:22", "hostname", user="username: {}", port="port: {}")
    assert text.startswith("'ops:********@10.0.0.1:22' has a user and a port in it")
    assert "`username: ops`" in text
    assert "hush" not in text


@pytest.mark.parametrize("text", ["10.0.0.1", "fd00::1", "::1", "node1", "node1.example.org", "_x", ""])
def test_what_is_a_host_alone_is_left_alone(text: str) -> None:
    assert more_than_a_host(text, "hostname") == ""


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("0.0.0.0", "unspecified"),  # noqa: S104 - text, nothing is bound
        ("224.0.0.5", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("fe80::1", "link-local"),
    ],
)
def test_a_vip_under_which_no_host_reaches_another(load: Load, address: str, kind: str) -> None:
    words = f"{address} cannot be the address of a host for others: it is {kind}"
    with pytest.raises(InventoryError) as caught:
        load({"registration": {"address": address}})
    assert caught.value.problems == [f"k3s_cluster.registration: {words}"]
