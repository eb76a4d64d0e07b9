from __future__ import annotations

import pytest

from nornir_k3s.datastores.endpoint import Endpoint, parse
from nornir_k3s.secret import Secret


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mysql://u:p@tcp(db:3306)/k3s", Endpoint("mysql", (("db", 3306),))),
        ("mysql://u:p@ss/w:rd%#?@tcp(db)/k3s?timeout=10s", Endpoint("mysql", (("db", 3306),))),
        ("mysql://u:p@tcp([fd00::1]:3307)/k3s", Endpoint("mysql", (("fd00::1", 3307),))),
        (
            "postgres://u:p%40ss%2F@h1:5432,h2/k3s?sslmode=verify-full",
            Endpoint("postgresql", (("h1", 5432), ("h2", 5432))),
        ),
        ("https://e1:2379,https://e2:2379", Endpoint("etcd", (("e1", 2379), ("e2", 2379)))),
    ],
)
def test_right_endpoints_are_understood(text: str, expected: Endpoint) -> None:
    assert parse(Secret(text)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" mysql://u:hush@tcp(db)/k3s", "blanks"),
        ("etcd", "must begin with"),
        ("oracle://u:hush@db/k3s", "must begin with"),
        ("mysql://u:hush@db:3306/k3s", r"tcp\( \) is missing"),
        ("mysql://u:hush@tcp(db:3306)", "database is missing"),
        ("mysql://u:hush@tcp(db)/k3s?tls=true", "`tls=` cannot"),
        ("postgres://u:hu@sh@db/k3s", "percent-encoded"),
        ("postgres://u:hu/sh@db/k3s", "percent-encoded"),
        ("postgres://u:hu%sh@db/k3s", "percent-encoded"),
        ("https://u:hush@db:2379", "no user and password"),
        ("https://e1:2379,e2:2379", "must be complete"),
        ("https://e1:port", "cannot be read"),
    ],
)
def test_wrong_endpoints_are_told_without_the_secret(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        parse(Secret(text))
    assert "hush" not in str(caught.value)
