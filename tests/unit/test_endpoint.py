from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nornir_k3s.model.endpoint import Endpoint, addresses, build, parse
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.settings import DatastoreFields


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
        ("https://u:hush@db:2379", "does not accept user and password"),
        ("https://e1:2379,e2:2379", "must be complete"),
        ("https://e1:port", "cannot be read"),
    ],
)
def test_wrong_endpoints_are_told_without_the_secret(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        parse(Secret(text))
    assert "hush" not in str(caught.value)


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30).filter(lambda s: s.strip() == s)
NAMES = st.from_regex(r"[a-z][a-z0-9_$-]{0,20}", fullmatch=True)
HOSTS = st.one_of(
    st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True), st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
)  # fmt: skip
PLACES = st.tuples(HOSTS, st.integers(1, 65535))
PARAMETERS = st.dictionaries(st.from_regex(r"[a-z_]{1,10}", fullmatch=True).filter(lambda k: k != "tls"), TEXT)


@given(place=PLACES, user=TEXT, password=TEXT, database=NAMES, parameters=PARAMETERS)
def test_what_is_built_for_mysql_says_the_same(
    place: tuple[str, int], user: str, password: str, database: str, parameters: dict[str, str]
) -> None:
    endpoint = Endpoint("mysql", (place,), user.replace(":", ""), Secret(password), database, parameters)
    same_again(endpoint)


@given(places=st.lists(PLACES, min_size=1, max_size=3), user=TEXT, password=TEXT, database=NAMES, parameters=PARAMETERS)
def test_what_is_built_for_postgresql_says_the_same(
    places: list[tuple[str, int]], user: str, password: str, database: str, parameters: dict[str, str]
) -> None:
    same_again(Endpoint("postgresql", tuple(places), user, Secret(password), database, parameters))


def same_again(endpoint: Endpoint) -> None:
    again = parse(build(endpoint))
    assert again.hosts == endpoint.hosts
    assert again.user == (endpoint.user or "root")
    assert again.password.reveal() == endpoint.password.reveal()
    assert again.database == endpoint.database
    assert dict(endpoint.parameters).items() <= dict(again.parameters).items()


@given(places=st.lists(PLACES, min_size=1, max_size=5), tls=st.booleans())
def test_what_is_built_for_etcd_says_the_same(places: list[tuple[str, int]], tls: bool) -> None:
    again = parse(build(Endpoint("etcd", tuple(places), tls=tls)))
    assert (again.hosts, again.tls) == (tuple(places), tls)


@given(
    start=st.sampled_from(["", "mysql://", "postgres://", "postgresql://", "https://", "http://", "mysql://hush@tcp("]),
    rest=st.text(max_size=60),
)
def test_any_text_is_read_or_refused_in_words_that_do_not_show_it(start: str, rest: str) -> None:
    text = f"{start}{rest}hush-hush"
    said = ""
    try:
        parse(Secret(text))
    except ValueError as error:  # and nothing else
        said = str(error)
    assert "hush-hush" not in said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("db", ("db", 1)), ("db.example:33", ("db.example", 33)), ("10.0.0.5", ("10.0.0.5", 1)),
        ("fd00::1", ("fd00::1", 1)), ("[fd00::1]", ("fd00::1", 1)), ("[fd00::1]:7", ("fd00::1", 7)),
    ],
)  # fmt: skip
def test_hosts_are_given_with_and_without_a_port(text: str, expected: tuple[str, int]) -> None:
    assert addresses([text], 1) == (expected,)


@pytest.mark.parametrize("text", ["", "db:", "db:0", "db:65536", "a b", "db/x", "u@db", "https://db", "-db", "db:x"])
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a host"):
        addresses([text], 1)


FIELDS = {"kind": "mysql", "hosts": ["db"], "password": {"env": "X"}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hosts": ["a", "b"]}, "supports one host only"),
        ({"user": "a:b"}, "colon"),
        ({"user": "a\nb"}, "control characters"),
        ({"password": None}, "password is missing"),
        ({"parameters": {"tls": "true"}}, "give `cafile` instead"),
        ({"tls": False}, "is for etcd and PostgreSQL"),
        ({"certfile": "c.pem"}, "belong together"),
        ({"kind": "postgresql", "database": "K3s"}, "lower case"),
        ({"kind": "postgresql", "tls": False, "cafile": "c.pem"}, "exclude each other"),
        ({"kind": "etcd"}, "etcd has no database, user, password"),
        ({"kind": "etcd", "password": None, "user": "u"}, "etcd has no database, user, password"),
        ({"hosts": ["u@db"]}, "is not a host"),
        ({"hosts": []}, "at least 1 item"),
        ({"port": 70000}, "less than or equal to 65535"),
        ({"database": "a/b"}, "should match"),
    ],
)
def test_fields_that_make_no_endpoint_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        DatastoreFields.model_validate(FIELDS | change)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "mysql://k3s:p@ss@tcp(db:3306)/k3s?timeout=10s"),
        ({"kind": "mariadb", "port": 3307, "parameters": {"timeout": "3s"}}, "mysql://k3s:p@ss@tcp(db:3307)/k3s?timeout=3s"),
        ({"kind": "postgresql"}, "postgres://k3s:p%40ss@db:5432/k3s?connect_timeout=10"),
        (
            {"kind": "postgresql", "hosts": ["a", "b:6432"], "tls": False, "user": "ops", "database": "prod"},
            "postgres://ops:p%40ss@a:5432,b:6432/prod?connect_timeout=10&target_session_attrs=read-write&sslmode=disable",
        ),
        ({"kind": "etcd", "password": None, "hosts": ["a", "fd00::1"]}, "https://a:2379,https://[fd00::1]:2379"),
        ({"kind": "etcd", "password": None, "tls": False}, "http://db:2379"),
    ],
)  # fmt: skip
def test_fields_become_the_endpoint_their_driver_reads(change: dict[str, object], expected: str) -> None:
    assert DatastoreFields.model_validate(FIELDS | change).endpoint(Secret("p@ss")).reveal() == expected
