"""What hosts print, and what it means: cases below tests/facts; and the script itself in a real shell."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nornir_k3s import facts, records, shell
from nornir_k3s.errors import UnreadableAnswer
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.host_facts import ArtifactState, HostFacts
from nornir_k3s.model.host_spec import Artifact, File, HostSpec, Unit
from nornir_k3s.model.secret import Secret
from nornir_k3s.ssh.shell import wrap

CASES = Path(__file__).resolve().parents[1] / "facts"
NOT_READ = {"host", "skew", "skew_error", "datastore", "datastore_certificates"}
NAMES = {fact.name for fact in facts.FACTS}


def plain(value: Any) -> Any:
    """Return a fact's value as YAML says it."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    return value.isoformat() if isinstance(value, datetime) else value


@pytest.mark.parametrize("path", sorted(CASES.rglob("*.yaml")), ids=lambda path: f"{path.parent.name}: {path.stem}")
def test_what_a_host_printed_means(path: Path) -> None:
    case = yaml.safe_load(path.read_text())
    found = facts.parse("h", case["printed"] + "@end\n")
    assert plain(getattr(found, path.parent.name)) == case["means"]


def test_a_private_key_beside_a_certificate_stays_on_the_host(tmp_path: Path) -> None:
    both = tmp_path / "k3s-check.pem"
    both.write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nhush\n")
    call = shell.call("fact_certificates", f"{tmp_path}/*.crt", f"{tmp_path}/*.pem")
    script = f"{records.SAY}{shell.source('facts/k3s_node.sh')}{call}\n"
    done = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True)
    (record,) = done.stdout.splitlines()
    assert record.split("\t")[:2] == ["@certificates", str(both)]
    assert records.decoded(record.split("\t")[2]) == "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"


def test_every_field_is_a_fact_with_cases_and_a_docstring() -> None:
    assert {field.name for field in fields(HostFacts)} - NOT_READ == NAMES == {path.name for path in CASES.iterdir()}
    assert len(NAMES) == len(facts.FACTS)
    assert all(type(fact).__doc__ for fact in facts.FACTS)


def words_of(text: str) -> str:
    """Return in what words an answer is refused, or nothing; any other exception fails the test."""
    try:
        facts.parse("h", text)
    except UnreadableAnswer as error:
        return str(error)
    return ""


WORDS = st.lists(st.text(st.characters(exclude_characters="\n\t"), max_size=40), max_size=12)


@given(st.sampled_from(sorted(NAMES)), st.lists(WORDS, max_size=4))
def test_garbage_ends_in_words(name: str, rows: list[list[str]]) -> None:
    text = "".join("\t".join([f"@{name}", *row]) + "\n" for row in rows) + "@end\n"
    said = words_of(text)
    assert said == "" or said.startswith(f"h: unreadable output: fact {name}: ")


def _answers() -> list[str]:
    return [yaml.safe_load(path.read_text())["printed"] for path in sorted(CASES.rglob("*.yaml"))]


@given(st.sampled_from(_answers()), st.data())
def test_an_answer_that_was_cut_or_changed_anywhere_ends_in_words(printed: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(printed)))
    middle = data.draw(st.one_of(st.just(""), st.binary(max_size=8).map(lambda raw: raw.decode(errors="replace"))))
    rest = data.draw(st.integers(at, len(printed)))
    assert len(words_of(printed[:at] + middle + printed[rest:] + "\n@end\n")) < 500


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_megabyte_ends_in_words(name: str) -> None:
    for text in ("x" * (1 << 20), "\t" * (1 << 20), "[" * (1 << 20)):
        assert len(words_of(f"@{name}\t{text}\n@end\n")) < 500


def test_an_answer_that_is_cut_short_or_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnreadableAnswer, match="cut short"):
        facts.parse("h", "@now\t1.0\n")
    monkeypatch.setattr(records, "MAX_BYTES", 1 << 20)
    with pytest.raises(UnreadableAnswer, match="2 MiB, 1 MiB at most"):
        facts.parse("h", "x" * (2 << 20))


def test_what_programs_print_in_between_does_no_harm() -> None:
    assert facts.parse("h", "Welcome!\nnow\t1\tx\nfile\n@motd\tx\n@now\t7\n@end\n").now == 7.0


@given(
    st.lists(st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cs"])), max_size=4)
)
def test_words_come_back_as_they_were_said(words: list[str]) -> None:
    call = shell.call("say", "name", *words) + "\n"
    done = subprocess.run(["sh"], input=(records.SAY + call).encode(), capture_output=True, check=True)
    assert records.read(done.stdout.decode(), whole=False)["name"] == [tuple(words)]


def test_tabs_and_line_breaks_break_no_record() -> None:
    call = shell.call("say", "name", "a\tb", "c\nd") + "\n"
    done = subprocess.run(["sh"], input=records.SAY + call, capture_output=True, text=True, check=True)
    assert done.stdout == "@name\ta b\tc d\n"


@pytest.fixture
def read(load: Callable[..., Cluster]) -> Callable[[HostSpec], HostFacts]:
    """Read this machine as an agent of this spec."""
    cluster = load()

    def read_here(spec: HostSpec) -> HostFacts:
        asked = [fact for fact in facts.FACTS if fact.name not in ("reach", "api", "kubeconfig")]
        query = facts.Query(cluster, cluster.of("agents")[0], spec, drift=True)
        script = wrap(facts.script(query, asked))
        done = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=True)
        said = [line for line in done.stderr.splitlines() if "systemd" not in line and "bus" not in line]
        assert said == ["nornir-k3s: begin"], "an environment without systemd may say so, nothing else"
        return facts.parse("here", done.stdout)

    return read_here


Read = Callable[[HostSpec], HostFacts]


def test_files_are_read_with_mode_owner_and_hash(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "a file"
    path.write_text("hello\n")
    path.chmod(0o640)
    state = read(HostSpec(files=(File(str(path), Secret("other")),))).files[str(path)]
    assert (state.kind, state.mode, state.sha256) == ("file", 0o640, hashlib.sha256(b"hello\n").hexdigest())
    assert state.text == "hello\n"
    assert state.changed > 0


def test_the_text_of_a_right_or_secret_file_is_not_fetched(read: Read, tmp_path: Path) -> None:
    right, secret = tmp_path / "right", tmp_path / "secret"
    right.write_text("x")
    secret.write_text("y")
    files = (File(str(right), Secret("x")), File(str(secret), Secret("z"), masking="all"))
    seen = read(HostSpec(files=files)).files
    assert seen[str(right)].text is None
    assert seen[str(secret)].text is None


def test_links_folders_and_nothing_are_told_apart(read: Read, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "folder").mkdir()
    files = tuple(File(str(tmp_path / name), Secret("")) for name in ("link", "folder", "none"))
    kinds = [state.kind for state in read(HostSpec(files=files)).files.values()]
    assert kinds == ["link", "other", "absent"]


def test_artifacts_are_known_by_content(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "k3s"
    path.write_bytes(b"binary")
    path.chmod(0o755)
    seen = read(HostSpec(artifacts=(Artifact(path, str(path), ""), Artifact(path, str(tmp_path / "no"), ""))))
    assert seen.artifacts[str(path)].same(hashlib.sha256(b"binary").hexdigest(), 0o755)
    assert seen.artifacts[str(tmp_path / "no")] == ArtifactState()


def test_this_machine_is_read(read: Read) -> None:
    seen = read(HostSpec(units=(Unit("nonsense.service"),), watch=("/etc/passwd", "/nonsense")))
    assert seen.system.arch
    assert seen.system.hostname
    assert seen.system.memory_kib > 0
    assert seen.system.disk_kib > 0
    assert seen.capacity.cpus > 0
    assert seen.now > 0
    assert seen.present == {"/etc/passwd"}
    assert seen.unit("nonsense.service").active == "inactive"
    assert any(one.cidr == "127.0.0.1/8" for one in seen.addresses)
    assert [one.path for one in seen.space] == ["/", "/var/lib", "/run"]
    assert all(one.all_inodes >= one.free_inodes >= 0 for one in seen.space)
    assert seen.mounts[0].free_kib > 0


def test_each_fact_is_asked_of_the_hosts_that_have_it(load: Callable[..., Cluster]) -> None:
    cluster = load()
    asked = {
        member.role: facts.script(facts.Query(cluster, member, HostSpec(), drift=True)) for member in cluster.members
    }
    for role, names in {
        "servers": ["api", "kubeconfig", "effective_config", "latency"],
        "agents": ["reach", "agent_ca"],
        "lb": ["backends", "neighbours"],
        "datastore": ["database_mysql", "datastore_health_mysql", "repositories"],
    }.items():
        for name in names:
            assert role in [one for one, text in asked.items() if re.search(rf"\nfact_{name}\b", text)], name
    assert [one for one, text in asked.items() if "\nfact_reach " in text.partition("\nif ! ")[0]] == ["agents"]
    plain_ = facts.script(facts.Query(cluster, cluster.of("servers")[0], HostSpec()))
    assert "fact_effective_config /" not in plain_, "only drift compares it"
