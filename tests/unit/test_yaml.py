"""One YAML dialect: what is checked is exactly what Nornir uses, and every problem has its file and line."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nornir import InitNornir
from nornir.core.inventory import Inventory
from nornir.plugins.inventory import SimpleInventory
from ruamel.yaml import YAML

from nornir_k3s.errors import InventoryError, UsageError
from nornir_k3s.inventory import cluster, config, files
from nornir_k3s.inventory.yaml_reader import read
from nornir_k3s.plugins.loaded_inventory import LoadedInventory
from nornir_k3s.state.store import Store

# Forms in which YAML 1.1 and 1.2, or two loaders, could differ.
SCALARS = """
    yes no on off y n Yes NO On true True TRUE false ~ null Null NULL none = _ -
    010 0o10 0o26 0O10 08 09 0o9 0x1F 0xfg 0b101 0b_ 1_000 _1 1__0 +1 -1 +010 -0o7
    1:30 12:30:45 190:20:30 1:30.5 1.10 1.34 1. .5 1e3 1E3 1.5e3 1e400 +.inf -.inf .inf .Inf .nan .NaN -.nan
    2027-01-31 2027-1-31 2027-13-45 2027-01-31T10:00:00Z 2027-01-31T10:00:00+02:00 2001-12-14t21:59:43.10-05:00
    '010' "no" '' !!str|010 !!int|"8" !!int|x !!float|1 !!bool|"true" !!bool|x !!null|x !!binary|aGk= !!timestamp|x
    !foo|x !!python/name:os.system|x !!python/object:x.Y|{} !!set|{a,b} !!omap|[a:1] !!map|[1] !!seq|{a:1}
""".split()  # noqa: SIM905 - one row a kind
TRICKY = {
    "merge": "base: &b {x: 1, y: no}\nuse: {<<: *b, y: 010}\nlist: {<<: [*b, {x: 2, z: 3}]}\n",
    "merge twice": "a: &a {k: 1}\nb: {<<: *a, <<: *a}\n",
    "merge of text": "a: {<<: text}\n",
    "merge of itself": "a: &a {<<: *a, b: 1}\n",
    "key beside a merge": "a: &a {k: 1}\nb:\n  <<: *a\n  k: 2\n  x: 1\n",
    "anchors": "a: &x [1, no]\nb: *x\nc: &x {d: 0x10}\ne: *x\n",
    "recursion": "a: &x [*x]\n",
    "unknown alias": "a: *nobody\n",
    "documents": "a: 1\n---\nb: 2\n",
    "one document": "---\na: no\n...\n",
    "version 1.2": "%YAML 1.2\n---\na: no\nb: 010\n",
    "unknown directive": "%FOO bar\n---\na: 010\n",
    "a tag's name": "%TAG ! tag:yaml.org,2002:\n---\na: !int '3'\n",
    "bom": "\ufeffa: no\n",
    "tab": "a:\n\tb: 1\n",
    "tab after a value": "a: no\t# text\n",
    "keys": "1: a\n0x2: b\ntrue: c\n~: d\n1.5: e\n2027-01-31: f\nno: g\n? [1, 2]\n: h\n",
    "key that is a mapping": "? {a: 1}\n: 2\n",
    "lines": "a: |\n  no\n  010\nb: >-\n  1:30\n\n  x\nc: 'a\n  b'\n",
    "windows": "a: no\r\nb:\r\n  - 010\r\n",
    "control characters": "a: \x01\n",
    "emoji and nel": "a: \U0001f600\nb: x\x85c: y\n",
    "comment only": "# nothing\n",
    "empty": "",
    "text": "just text\n",
    "list": "- a\n- 010\n",
    "deep": "[" * 400,
    "huge number": "a: 1" + "0" * 5000 + "\n",
    "set": "a: !!set {x, y}\nb: !!omap [{x: 1}, {y: 2}]\n",
}


def same(one: Any, other: Any) -> bool:
    """Compare type by type, since 1 equals True and 1.0, and NaN nothing at all."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(map(repr, one)) == list(map(repr, other)) and all(map(same, one.values(), other.values()))
    if isinstance(one, list | tuple):
        return repr(one) == repr(other) if "..." in repr(one) else len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) or (isinstance(one, float) and math.isnan(one) and math.isnan(other))


def check(path: Path, text: str) -> None:
    """Nornir's loader refuses what ours refuses, and gives the same data otherwise."""
    path.write_text(text, encoding="utf-8", newline="")
    found = read(path)
    theirs: Any = None
    refused = ""
    try:
        with path.open(encoding="utf-8") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = YAML(typ="safe").load(file)  # as nornir/plugins/inventory/simple.py does
    except Exception as error:
        refused = repr(error)
    assert bool(found.problems) == bool(refused), f"{text!r}: {found.problems}, Nornir says {refused!r}"
    assert refused or same(found.data, theirs), f"{text!r}: {found.data} is not {theirs}"


@pytest.mark.parametrize("text", [text.replace("|", " ") for text in SCALARS])
def test_a_scalar_is_what_nornir_uses(tmp_path: Path, text: str) -> None:
    for form in (f"key: {text}\n", f"- {text}\n", f"{text}: value\n", f"key: [{text}, {text}]\n"):
        check(tmp_path / "f.yaml", form)


@pytest.mark.parametrize("name", TRICKY)
def test_a_document_is_what_nornir_uses(tmp_path: Path, name: str) -> None:
    check(tmp_path / "f.yaml", TRICKY[name])


_PLAIN = st.text(st.sampled_from("0123456789_-+.:xXoObeE~<=yYnNtTfFrRuUaAlLsSiI #!&*'\"[]{},\t"), max_size=12)
_LIVELY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(_PLAIN)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_any_scalar_is_what_nornir_uses(tmp_path: Path, text: str) -> None:
    check(tmp_path / "f.yaml", f"a: {text}\n")


@given(_LIVELY)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_data_are_what_nornir_uses(tmp_path: Path, data: Any) -> None:
    out = io.StringIO()
    YAML(typ="safe", pure=True).dump({"a": data}, out)
    check(tmp_path / "f.yaml", out.getvalue())


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("a: 1\nb: 2\na: 3\nb: 4\na: 5\n", [(3, "`a`: it is already in line 1"), (4, "`b`"), (5, "`a`: it is alr")]),
        ("a: &a {k: 1}\nb:\n  <<: *a\n  x: 1\n  x: 2\n", [(5, "duplicate key `x`: it is already in line 4")]),
        ("1: a\n0x1: b\n", [(2, "duplicate key `1`")]),
        ("{a: 1, a: 2}\n", [(1, "duplicate key `a`")]),
        ("a: {b: {c: 1,\n  c: 2}}\nd: !!set {x, x}\n", [(2, "duplicate key `c`"), (3, "duplicate key `x`")]),
        ("a: !foo 1\nb: 2027-13-01\nc: =\n", [(1, "unknown YAML tag `!foo`"), (2, "valid YAML timestamp"), (3, "`=`")]),
        ("a: 1\n---\nb: 2\n", [(2, "a second YAML document")]),
        ("# x\n%YAML 1.1\n---\na: no\n", [(2, "only YAML 1.2 is read")]),
        ("a: *b\n", [(1, "undefined alias")]),
        ("a:\n\t- b\n", [(2, "tab")]),
    ],
)
def test_every_problem_of_a_file_has_its_line(tmp_path: Path, text: str, problems: list[tuple[int, str]]) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(text)
    found = read(path)
    assert found.data is None
    assert len(found.problems) == len(problems), found.problems
    for told, (line, words) in zip(found.problems, problems, strict=True):
        assert told.startswith(f"{path}:{line}: ")
        assert words in told


def test_a_problem_shows_no_value(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("password: hunter2\npassword: hunter2\nother: !!int hunter2\nlast: !x hunter2\n")
    found = read(tmp_path / "f.yaml")
    assert len(found.problems) == 3
    assert "hunter2" not in "".join(found.problems)


def test_another_version_of_yaml_is_refused_since_nornir_applies_it_to_the_next_file(tmp_path: Path) -> None:
    loader = YAML(typ="safe", pure=True)
    assert loader.load("%YAML 1.1\n---\na: no\n") == {"a": False}
    assert loader.load("a: no\n") == {"a": False}, "the reason is gone: read what Nornir reads"
    (tmp_path / "f.yaml").write_text("%YAML 1.1\n---\na: no\n")
    assert read(tmp_path / "f.yaml").problems


def test_a_key_s_line_is_found_whatever_the_key_s_type(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("a: 1\n0x10:\n  no: x\n  true: y\n")
    source = read(tmp_path / "f.yaml")
    assert source.line(16, "no") == 3
    assert source.line("16", "True") == 4


# --- the inventory


def write(folder: Path, hosts: str, groups: str = "servers: {}\n", defaults: str = "") -> Path:
    (folder / "inventory").mkdir(exist_ok=True)
    for name, text in (("hosts", hosts), ("groups", groups), ("defaults", defaults)):
        (folder / "inventory" / f"{name}.yaml").write_text(textwrap.dedent(text))
    path = folder / "config.yaml"
    path.write_text(
        "inventory:\n  options:\n"
        + "".join(
            f"    {name}_file: inventory/{kind}.yaml\n"
            for name, kind in (("host", "hosts"), ("group", "groups"), ("defaults", "defaults"))
        )
    )
    return path


def plain(inventory: Inventory) -> dict[str, Any]:
    return {
        "hosts": {name: host.dict() for name, host in inventory.hosts.items()},
        "groups": {name: group.dict() for name, group in inventory.groups.items()},
        "defaults": inventory.defaults.dict(),
        "inherited": {
            name: (host.items() and dict(host.items()), host.get_connection_parameters("netmiko").dict())
            for name, host in inventory.hosts.items()
        },
    }


HOSTS = """
    s1:
      hostname: 10.0.0.1
      port: 0o26
      groups: [servers, extra]
      data: {k3s: {node-name: 010, docker: no}, until: 2027-01-31}
      connection_options: {netmiko: {port: 2222, extras: {conn_timeout: 1e1}}, other: {}}
    s2: {}
    s3: {hostname: no, password: "010", groups: []}
"""
GROUPS = (
    "top: {username: ops, data: {a: 1_0, b: no}}\nservers: {groups: [top], data: {a: yes}}\nextra: {platform: linux}\n"
)
DEFAULTS = "username: root\nport: 22\ndata: {b: {c: 1_000}}\nconnection_options: {netmiko: {extras: {keepalive: 3}}}\n"


@pytest.mark.parametrize(
    ("hosts", "groups", "defaults"),
    [
        (HOSTS, GROUPS, DEFAULTS),
        ("a: {}\n", "", ""),
        ("a: {groups: [g]}\n", "g: {}\n", "# none\n"),
        ("{}\n", "{}\n", "{}\n"),
    ],
)
def test_nornir_gets_what_its_own_plugin_would_read(tmp_path: Path, hosts: str, groups: str, defaults: str) -> None:
    options = config.load(write(tmp_path, hosts, groups, defaults)).nornir["inventory"]["options"]
    names = {key: options[key] for key in ("host_file", "group_file", "defaults_file")}
    assert plain(LoadedInventory(**options).load()) == plain(SimpleInventory(**names).load())


def test_each_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, HOSTS, GROUPS, DEFAULTS)
    seen: list[str] = []
    opened = Path.open

    def counting(self: Path, *args: Any, **kwargs: Any) -> Any:
        seen.append(self.name)
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", counting)
    monkeypatch.setattr("builtins.open", lambda *args, **_: pytest.fail(f"{args[0]} is opened once more"))
    found = config.load(path)
    nr = InitNornir(**{**found.nornir, "runner": {"plugin": "serial"}})
    assert nr.inventory.hosts["s1"].port == 22
    assert {seen.count(name) for name in ("hosts.yaml", "groups.yaml", "defaults.yaml")} <= {0, 1}


def told(folder: Path, hosts: str, groups: str = "servers: {}\n", defaults: str = "") -> list[str]:
    return list(config.load(write(folder, hosts, groups, defaults)).sources.problems)


@pytest.mark.parametrize("word", ["no", "yes", "on", "off", "n", "'false'", "0", "1"])
def test_a_host_key_option_that_is_no_boolean_is_refused(tmp_path: Path, word: str) -> None:
    text = f"a:\n  connection_options:\n    netmiko:\n      extras:\n        ssh_strict: {word}\n"
    problems = [problem for problem in told(tmp_path, text) if "ssh_strict" in problem]
    assert len(problems) == 1
    assert "hosts.yaml:5: a.connection_options.netmiko.extras.ssh_strict: " in problems[0]
    assert "true or false" in problems[0]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("port: '22'", "a.port: it must be a number, without quotes"),
        ("port: true", "a.port: it must be a number"),
        ("port: 22.0", "a.port: it must be a number"),
        ("port: 0o777777", "a.port:"),
        ("hostname: 1.10", "a.hostname: it must be text: put it in quotes"),
        ("username: 010", "a.username: it must be text: put it in quotes"),
        ("groups: servers", "a.groups: it must be a list"),
        ("groups: !!set {servers}", "a.groups: it must be a list"),
        ("connection_options: {netmiko: {extras: {conn_timeout: '5'}}}", "conn_timeout: it must be a number, without"),
        ("connection_options: {netmiko: {extras: {conn_timeout: yes}}}", "conn_timeout: it must be a number"),
        ("connection_options: {netmiko: {extras: {secret: 12345}}}", "secret: it must be text: put it in quotes"),
        ("connection_options: {netmiko: {extras: {global_cmd_verify: no}}}", "write true or false"),
    ],
)
def test_a_value_of_another_type_than_nornir_needs(tmp_path: Path, entry: str, words: str) -> None:
    problems = told(tmp_path, f"a:\n  {entry}\n")
    assert len(problems) == 1, problems
    assert "hosts.yaml:2: " in problems[0]
    assert words in problems[0]
    assert "12345" not in problems[0]


@pytest.mark.parametrize("name", ["1", "0x10", "true", "~", "2027-01-31", "1.5"])
def test_a_host_s_name_that_is_no_text(tmp_path: Path, name: str) -> None:
    problems = told(tmp_path, f"a: {{}}\n{name}: {{}}\n")
    assert len(problems) == 1
    assert "hosts.yaml:2: " in problems[0]
    assert "a name must be text: put it in quotes" in problems[0]


@pytest.mark.parametrize("name", ["1", "true", "~", "2027-01-31"])
def test_a_key_that_is_no_text(tmp_path: Path, name: str) -> None:
    problems = told(tmp_path, f"a:\n  hostname: b\n  {name}: x\n")
    assert len(problems) == 1
    assert "hosts.yaml:3: " in problems[0], problems
    assert "a name must be text: put it in quotes" in problems[0]


@pytest.mark.parametrize(
    "entry", ["port: 0o26", "port: 0x16", "port: 22", "port: 2_2", "hostname: no", "password: '010'"]
)
def test_what_nornir_takes_is_taken(tmp_path: Path, entry: str) -> None:
    assert told(tmp_path, f"a:\n  {entry}\n") == []


def test_the_settings_of_k3s_are_checked_as_they_are_used(tmp_path: Path) -> None:
    given = """
        data:
          k3s_cluster:
            name: x
            version: 1.34
            server_taint: no
            server: {docker: no, pause-image: 1.10}
    """.lstrip("\n")
    hosts = """
        s1:
          hostname: 10.0.0.1
          groups: [servers]
          data:
            k3s:
              node-name: 010
              snapshotter: 2027-01-31
              resolv-conf: .nan
        s2: {hostname: 10.0.0.2, groups: [servers], data: {k3s: {node-name: "10"}}}
    """
    found = config.load(write(tmp_path, hosts, defaults=given))
    nr = InitNornir(**{**found.nornir, "runner": {"plugin": "serial"}})
    with pytest.raises(InventoryError) as caught:
        cluster.load(nr.inventory, store=Store(tmp_path / "s", base=tmp_path), base=tmp_path, sources=found.sources)
    text = str(caught.value)
    for words in (
        "defaults.yaml:4: k3s_cluster.version: it must be text: put it in quotes",
        "defaults.yaml:5: k3s_cluster.server_taint: 'no' is text: write true or false",
        "k3s_cluster.server.docker: `docker` is true or false, not 'no'",
        "k3s_cluster.server.pause-image: `pause-image` takes text, and YAML reads 1.1 as a float: put it in quotes",
        "s1: k3s: `snapshotter` takes text, and YAML reads 2027-01-31 as a date: put it in quotes",
        "s1: k3s: `resolv-conf` takes text, and YAML reads nan as a float",
        "s2: it has the same node name as s1: 10",
    ):
        assert words in text, text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("core: {raise_on_error: no}", "core.raise_on_error: 'no' is text: write true or false"),
        ("core: {raise_error: true}", "unknown key `raise_error`; did you mean `raise_on_error`?"),
        ("runner: {options: {num_workers: 1e1}}", "runner.options.num_workers: it must be a number"),
        ("user_defined: {k3s: {deadlines: {connect: .inf}}}", "deadlines.connect"),
        ("user_defined: {k3s: {deadlines: {connect: .nan}}}", "deadlines.connect"),
        ("user_defined: {k3s: {widths: {stage: '5'}}}", "widths.stage: it must be a number, without quotes"),
        ("user_defined: {k3s: {state: 010}}", "user_defined.k3s.state"),
        ("inventory: {plugins: x}", "duplicate key `inventory`"),
    ],
)
def test_a_wrong_value_in_the_config(tmp_path: Path, line: str, words: str) -> None:
    path = write(tmp_path, "a: {}\n")
    lines = len(path.read_text().splitlines())
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(UsageError) as caught:
        config.load(path)
    assert f"{path}:{lines + 1}: " in str(caught.value)
    assert words in str(caught.value)


def test_the_files_have_nornir_s_names_where_the_config_gives_none(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("inventory: {}\n")
    (tmp_path / "hosts.yaml").write_text("a: {hostnme: x}\n")
    found = config.load(path)
    assert found.base == tmp_path
    assert "did you mean `hostname`" in found.sources.problems[0]


def test_another_encoding_is_read_as_nornir_reads_it(tmp_path: Path) -> None:
    (tmp_path / "hosts.yaml").write_bytes("größe: {}\n".encode("latin-1"))
    options = {"host_file": str(tmp_path / "hosts.yaml")}
    assert "is not UTF-8 text" in files.read_inventory(options).problems[0]
    assert list(files.read_inventory({**options, "encoding": "latin-1"}).data["hosts"]) == ["größe"]
    assert "there is no encoding 'nonsense'" in files.read_inventory({**options, "encoding": "nonsense"}).problems[0]


def test_a_file_that_cannot_be_read_ends_with_its_problems_alone(tmp_path: Path) -> None:
    found = config.load(write(tmp_path, "a: {}\na: {}\n", defaults="- list\n"))
    with pytest.raises(InventoryError) as caught:
        InitNornir(**{**found.nornir, "runner": {"plugin": "serial"}})
    assert len(caught.value.problems) == 2
