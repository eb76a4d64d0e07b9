"""The stand-in reads settings, tokens and endpoints as K3s does."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from k3s_standin import config, tokens
from k3s_standin.effective import check_versions, effective
from k3s_standin.endpoint import Endpoint, parse
from k3s_standin.host import logging_problem
from k3s_standin.log import Fatal, format_line

from nornir_k3s import k3s_journal

STANDIN = Path(__file__).resolve().parents[1] / "standin"

OBSERVED = STANDIN / "observed"
JOURNAL = yaml.safe_load((OBSERVED / "journal.yaml").read_text())


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml.d").mkdir()
    return tmp_path / "config.yaml"


def load(path: Path, command: str = "server", *argv: str, **environ: str) -> dict[str, Any]:
    return config.parse(command, list(argv), {"K3S_CONFIG_FILE": str(path), **environ})[0]


def test_a_later_file_replaces_a_key_and_a_plus_appends(files: Path) -> None:
    files.write_text("disable: [traefik]\ntls-san: [one]\ntoken: a\n")
    (files.parent / "config.yaml.d" / "10.yaml").write_text("disable+: [servicelb]\ntls-san: [two]\n")
    (files.parent / "config.yaml.d" / "20.yml").write_text("disable+: coredns\ntoken: b\n")
    (files.parent / "config.yaml.d" / "30.json").write_text("{token: c}")
    found = load(files)
    assert found["disable"] == ["traefik", "servicelb", "coredns"]
    assert found["tls-san"] == ["two"]
    assert found["token"] == "b"


def test_drop_ins_count_without_a_main_file_and_nothing_at_all_is_no_error(files: Path) -> None:
    assert load(files) == {}
    (files.parent / "config.yaml.d" / "10.yaml").write_text("node-name: n\n")
    assert load(files) == {"node-name": "n"}


def test_command_line_over_config_over_environment(files: Path) -> None:
    files.write_text("token: file\nnode-name: file\n")
    found = load(files, "server", "--node-name", "line", K3S_TOKEN="env", K3S_DATA_DIR="/env")
    assert found == {"token": "file", "node-name": "line", "data-dir": "/env"}


def test_the_text_of_a_token_file_goes_before_the_token(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files.parent / "token").write_text("in a file\n")
    files.write_text(f"token: hidden\ntoken-file: {files.parent / 'token'}\nagent-token: own\n")
    monkeypatch.setenv("K3S_CONFIG_FILE", str(files))
    settings, _ = config.load("server", [])
    assert (settings["token"], settings["agent-token"]) == ("in a file", "own")


def test_lists_of_command_line_and_config_accumulate_and_some_split_at_commas(files: Path) -> None:
    files.write_text("tls-san: ['a,b']\nkubelet-arg: ['x=1,y=2']\n")
    found = load(files, "server", "--tls-san=c")
    assert found["tls-san"] == ["a", "b", "c"]
    assert found["kubelet-arg"] == ["x=1,y=2"]


def test_an_unknown_key_is_skipped_on_a_server_and_fatal_on_an_agent(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files.write_text("no-such-flag: true\ntoken: t\n")
    assert load(files) == {"token": "t"}
    assert (
        'level=warning msg="Unknown flag --no-such-flag found in config.yaml, skipping\\n"' in capsys.readouterr().err
    )
    with pytest.raises(Fatal, match=r"^Error: flag provided but not defined: -no-such-flag$"):
        load(files, "agent")
    files.write_text("cluster-cidr: 10.42.0.0/16\n")
    with pytest.raises(Fatal, match=r"^Error: flag provided but not defined: -cluster-cidr$"):
        load(files, "agent")


@pytest.mark.parametrize("text", ["secrets-encryption: maybe", "https-listen-port: many", "- list", "a: [", "'"])
def test_values_that_are_none_are_fatal(files: Path, text: str) -> None:
    files.write_text(text + "\n")
    with pytest.raises(Fatal):
        load(files)


def test_an_unquoted_octal_mode_is_another_number(files: Path) -> None:
    files.write_text("write-kubeconfig-mode: 0644\n")
    assert load(files)["write-kubeconfig-mode"] == "420"


def test_the_node_annotation_hides_secrets_and_shows_the_rest_as_observed(files: Path) -> None:
    observed = json.loads((OBSERVED / "nodes.json").read_text())["items"][0]["metadata"]["annotations"]
    files.write_text(
        "token: secret\ndatastore-endpoint: mysql://a\ntls-san: [10.77.0.100]\nnode-ip: 10.77.0.12\n"
        "flannel-backend: host-gw\ndisable: [traefik, metrics-server, servicelb, local-storage, coredns]\n"
    )
    _, args = config.parse("server", [], {"K3S_CONFIG_FILE": str(files)})
    assert config.shown_args("server", args) == observed["k3s.io/node-args"]
    assert config.shown_args("agent", ["-t", "secret"]) == '["agent","-t","********"]'
    assert config.shown_environment({"K3S_TOKEN": "x", "HOME": "/"}) == '{"K3S_TOKEN":"********"}'


def test_the_settings_in_force_are_told_as_observed(files: Path) -> None:
    files.write_text(
        "flannel-backend: host-gw\ndisable: [traefik, metrics-server, servicelb, local-storage, coredns]\n"
    )
    observed = json.loads((OBSERVED / "config.json").read_text())
    told = effective(load(files), Path("/var/lib/rancher/k3s/server"), "10.77.0.12", 6443)
    assert {key: told.get(key) for key in observed} == observed


def test_lines_are_written_as_observed() -> None:
    for case in JOURNAL["lines"]:
        at = datetime.fromisoformat(case["line"][6:26]).astimezone(UTC)
        assert format_line(case["level"], case["text"], at, **case["fields"]) == case["line"] + "\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("mysql://", Endpoint("mysql", "root", socket="/var/run/mysqld/mysqld.sock")),
        ("mysql://u:p@tcp(h:3307)/d", Endpoint("mysql", "u", "p", [("h", 3307)], database="d")),
        (
            "mysql://u:p@:s/w@rd%41@tcp([::1]:3306)/d",
            Endpoint("mysql", "u", "p@:s/w@rd%41", [("::1", 3306)], database="d"),
        ),
        ("mysql://u@tcp(h)/", Endpoint("mysql", "u", "", [("h", 3306)])),
        ("mysql://u:p@unix(/run/m.sock)/d", Endpoint("mysql", "u", "p", socket="/run/m.sock", database="d")),
        (
            "mysql://u:p@tcp(h:1)/d?timeout=10s&tls=true",
            Endpoint("mysql", "u", "p", [("h", 1)], database="d", params={"timeout": "10s", "tls": "true"}),
        ),
        ("postgres://", Endpoint("postgres", "postgres", "postgres", [("localhost", 5432)])),
        (
            "postgres://k3s:p%40ss%2Fw%3Ard%25%23@h:5432/K3s?sslmode=verify-full",
            Endpoint(
                "postgres", "k3s", "p@ss/w:rd%#", [("h", 5432)], database="k3s", params={"sslmode": "verify-full"}
            ),
        ),
        ("postgresql://u:p@h1:1,h2:2/d", Endpoint("postgres", "u", "p", [("h1", 1), ("h2", 2)], database="d")),
        ("https://a:2379, https://b:2379", Endpoint("etcd", urls=["https://a:2379", "https://b:2379"])),
    ],
)  # fmt: skip
def test_endpoints_are_read_as_the_drivers_do(text: str, wanted: Endpoint) -> None:
    assert parse(text) == wanted


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("oracle://u:p@h/d", "unknown driver"),
        (" mysql://u:p@tcp(h:1)/d", "unknown driver"),
        ("etcd", "invalid datastore endpoint; endpoint should be a DSN URI in the format <scheme>://<authority>"),
        ("mysql://u:p@h:3306/d", "default addr for network 'h:3306' unknown"),
        ("mysql://u:p@tcp(h:3306)", "invalid DSN: missing the slash separating the database name"),
        ("mysql://u:p@tcp(h:3306/d", "invalid DSN: network address not terminated (missing closing brace)"),
        ("postgres://u:p/w@h:5432/d", "error parsing URL. Ensure that any embedded values such as username"),
        ("postgres://u:p#w@h:5432/d", "error parsing URL."),
        ("postgres://u:50%@h:5432/d", "error parsing URL."),
        ("postgres://u:p w@h:5432/d", "error parsing URL."),
    ],
)
def test_endpoints_that_k3s_refuses(text: str, why: str) -> None:
    with pytest.raises(Fatal) as error:
        parse(text)
    assert str(error.value).startswith(
        f"creating storage endpoint: failed to create driver for configured endpoint: {why}"
    )


def test_tokens_in_all_forms() -> None:
    digest = "a" * 64
    assert tokens.parse("short") == tokens.Token("", "short")
    assert tokens.parse(f"K10{digest}::server:pass:word") == tokens.Token("server", "pass:word", digest)
    assert tokens.parse("abcdef.0123456789abcdef").bootstrap == "abcdef.0123456789abcdef"
    assert tokens.server_password(f"K10{digest}::server:pw") == "pw"
    for text, why in (("K10ab::u:p", "hash length"), (f"K10{digest}::u", "token format"), ("", "must not be empty")):
        with pytest.raises(ValueError, match=why):
            tokens.parse(text)
    for text in ("abcdef.0123456789abcdef", "K10ab", f"K10{digest}::abcdef.0123456789abcdef"):
        with pytest.raises(Fatal, match="failed to normalize server token; must be in format"):
            tokens.server_password(text)


@pytest.mark.parametrize(
    ("pods", "services", "addresses", "refused"),
    [
        (["10.42.0.0/16"], ["10.43.0.0/16"], ["10.0.0.1"], ""),
        (["10.42.0.0/16"], ["10.43.0.0/16"], ["10.0.0.1", "fd00::1"], ""),
        (["10.42.0.0/16", "fd00:42::/56"], ["10.43.0.0/16", "fd00:43::/112"], ["10.0.0.1", "fd00::1"], ""),
        (["10.42.0.0/16", "fd00:42::/56"], ["10.43.0.0/16", "fd00:43::/112"], ["10.0.0.1"], "node-ip: [10.0.0.1]"),
        (["10.42.0.0/16", "fd00:42::/56"], ["10.43.0.0/16"], ["10.0.0.1", "fd00::1"], "service-cidr: [10.43.0.0/16]"),
        (["fd00:42::/56"], ["fd00:43::/112"], ["10.0.0.1"], "cluster-cidr: [fd00:42::/56] and node-ip"),
    ],
)
def test_networks_and_addresses_must_share_their_ip_versions(
    pods: list[str], services: list[str], addresses: list[str], refused: str
) -> None:
    if not refused:
        check_versions(pods, services, addresses)
        return
    with pytest.raises(Fatal, match="must share the same IP version") as caught:
        check_versions(pods, services, addresses)
    assert refused in str(caught.value)
    cause = k3s_journal.diagnose(f'level=fatal msg="{caught.value}"')
    assert cause is not None
    assert "different IP versions" in cause.text


@pytest.mark.parametrize("key", ["kube-apiserver-arg", "kubelet-arg"])
def test_a_component_cannot_change_the_logging_of_the_process(key: str) -> None:
    problem = logging_problem({key: ["v=4"]})
    assert problem is not None
    assert problem.startswith(key.removeprefix("kube-").removesuffix("-arg") + " exited: the logging configuration")
    cause = k3s_journal.diagnose(f'level=fatal msg="{problem}"')
    assert cause is not None
    assert "one process" in cause.text
    assert logging_problem({key: ["v=4"], "v": 4}) is None
