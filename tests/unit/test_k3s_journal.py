"""What the lines of K3s' journal mean: the last words of a process that ended, among hundreds of harmless errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nornir_k3s import k3s_journal

DATASTORE = (("10.77.0.11", 3306),)
HARMLESS = (Path(__file__).parents[1] / "standin" / "observed" / "harmless.txt").read_text()
CREATING = "preparing server: failed to bootstrap cluster data: creating storage endpoint: failed to create driver"


def fatal(text: str) -> str:
    return f'time="2026-11-22T16:47:20Z" level=fatal msg="Error: {text}"'


@pytest.mark.parametrize("line", HARMLESS.splitlines())
def test_a_line_of_a_healthy_process_names_no_cause(line: str) -> None:
    assert k3s_journal.diagnose(line, DATASTORE) is None
    assert not re.search(k3s_journal.VERDICTS, line)


SAID = [
    (fatal("preparing server: bootstrap data already found and encrypted with different token"), "another token"),
    (fatal(f"{CREATING}: Error 1045 (28000): Access denied for user 'k3s'@'10.77.0.14'"), "user or password"),
    (fatal(f"{CREATING}: default addr for network '10.77.0.11:3306' unknown"), "tcp()"),
    (
        fatal("preparing server: failed to start supervisor listener: listen tcp :6443: bind: address already in use"),
        "port",
    ),
    (fatal("flag provided but not defined: -no-such-flag"), "does not know a key"),
    (
        fatal(f"{CREATING} for configured endpoint: dial tcp 10.77.0.11:3399: connect: connection refused"),
        "port is closed",
    ),
    (fatal(f"{CREATING} for configured endpoint: dial tcp 10.77.0.11:3306: i/o timeout"), "does not answer"),
    (fatal(f"{CREATING} for configured endpoint: Error 1040: Too many connections"), "no free connection"),
    ('level=fatal msg="leaderelection lost for k3s"', "too slow"),
    (
        'level=error msg="Failed to ping database connection: failed to connect to `user=k3s`: 10.77.0.11:5432 '
        '(db): dial error: dial tcp 10.77.0.11:5432: connect: connection refused"',
        "port is closed",
    ),
    (
        'level=info msg="Waiting to retrieve agent configuration; server is not ready: failed to retrieve configuration'
        ' from server: not authorized"',
        "refuses the token",
    ),
    (
        'level=info msg="Waiting to retrieve agent configuration; server is not ready: /var/lib/rancher/k3s/agent/'
        "serving-kubelet.crt: Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password'\"",
        "another node password",
    ),
    (
        'level=error msg="Failed to validate connection to cluster at https://10.77.0.199:6443: failed to get CA certs:'
        ' Get \\"https://127.0.0.1:6444/cacerts\\": read tcp 127.0.0.1:48970->127.0.0.1:6444: connection reset"',
        "registration address",
    ),
    (
        'level=info msg="Shutdown request received: kubelet exited: failed to parse kubelet flag: unknown flag: --x"',
        "does not know its argument",
    ),
    ("Error: failed to parse kubelet flag: unknown flag: --no-such", "does not know its argument"),
    (
        fatal(
            f"{CREATING}: tls: failed to verify certificate: x509: certificate has expired or is not yet valid: "
            "current time 2026-11-25T16:50:47Z is after 2026-11-20T08:47:03Z"
        ),
        "has expired",
    ),
    ("k3s.service: Failed with result 'oom-kill'.", "out of memory"),
]


@pytest.mark.parametrize(("line", "words"), SAID)
def test_the_last_word_names_the_cause_among_harmless_errors(line: str, words: str) -> None:
    cause = k3s_journal.diagnose(f"{HARMLESS}{line}\n{HARMLESS}", DATASTORE)
    assert cause is not None
    assert words in cause.text


@pytest.mark.parametrize(
    ("target", "datastore", "found"),
    [
        ("10.77.0.11:2379", "10.77.0.11", True),
        ("10.77.0.12:2379", "db.example", True),  # what the name was resolved to
        ("[fd00::5]:2379", "fd00::5", True),
        ("10.77.0.13:6443", "10.77.0.11", False),
        ("10.77.0.111:2379", "10.77.0.11", False),
        ("127.0.0.1:6444", "db.example", False),
    ],
)
def test_a_refused_connection_is_the_datastore_s_only_with_its_own_address(
    target: str, datastore: str, found: bool
) -> None:
    line = fatal(f"starting kubernetes: dial tcp {target}: connect: connection refused")
    places = ((datastore, 2379),)
    assert bool(k3s_journal.diagnose(line, places)) is found
    assert bool(re.search(k3s_journal.patient_pattern(places), line)) is found


def test_the_newest_line_counts_and_one_that_waiting_cannot_cure_first() -> None:
    refused = fatal(f"{CREATING}: dial tcp 10.77.0.11:3306: connect: connection refused")
    login, port = fatal(f"{CREATING}: Error 1045 (28000): Access denied"), fatal("bind: address already in use")
    for journal, words in ((f"{login}\n{port}\n", "a port"), (f"{login}\n{refused}\n", "user or password")):
        cause = k3s_journal.diagnose(journal, DATASTORE)
        assert cause is not None
        assert words in cause.text


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (fatal('starting: unknown \\"x\\"'), 'starting: unknown "x"'),
        (
            'level=info msg="Shutdown request received: kubelet exited: invalid eviction"',
            "Shutdown request received: kubelet exited: invalid eviction",
        ),
        ("panic: assignment to entry in nil map", "panic: assignment to entry in nil map"),
        ("", ""),
    ],
)
def test_without_a_known_cause_the_last_word_itself_is_told(line: str, word: str) -> None:
    assert k3s_journal.diagnose(line) is None
    assert k3s_journal.last_word(f"{HARMLESS}{line}\n{HARMLESS}") == word


@pytest.mark.parametrize(
    ("journal", "advice"),
    [
        (
            "Node password rejected, duplicate hostname",
            "`nornir-k3s replace s-3`; or on a server `k3s kubectl delete node s-3`",
        ),
        ("/v/cred/passwd newer than datastore and could", "move /v/cred/passwd to another folder"),
        ("/v/a, /v/b newer than datastore and could", "move /v/a /v/b to another folder"),
        (f"{', '.join(['/v/a'] * 14)} newer than datastore", "move the files that the line names to another folder"),
    ],
)
def test_advice_names_the_node_and_the_files_that_k3s_refuses(journal: str, advice: str) -> None:
    cause = k3s_journal.diagnose(f'level=fatal msg="{journal}"')
    assert cause is not None
    assert advice in cause.advice(journal, "s-3")


def test_every_hint_can_be_followed_as_it_stands() -> None:
    for _, cause in k3s_journal.CAUSES:
        assert not re.search(r"[{}]|\bNAME\b|\bremove /", cause.advice("", "s-3")), cause
