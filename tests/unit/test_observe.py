"""The observing script runs here, in a real shell: it only reads."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from nornir_k3s.facts import observe
from nornir_k3s.model import host_facts
from nornir_k3s.model.host_spec import Artifact, File, HostSpec, Unit
from nornir_k3s.model.secret import Secret
from nornir_k3s.ssh.shell import wrap


def look(spec: HostSpec) -> host_facts.Observed:
    script = wrap(observe.script(spec, role="agents"))
    done = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=True)
    return observe.parse("here", done.stdout)


def test_files_are_told_with_mode_owner_and_hash(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    path.write_text("hello\n")
    path.chmod(0o640)
    state = look(HostSpec(files=(File(str(path), Secret("other")),))).files[str(path)]
    assert (state.kind, state.mode, state.sha256) == ("file", 0o640, hashlib.sha256(b"hello\n").hexdigest())
    assert state.text == "hello\n"
    assert state.changed > 0


def test_the_text_of_a_right_or_secret_file_is_not_fetched(tmp_path: Path) -> None:
    right, secret = tmp_path / "right", tmp_path / "secret"
    right.write_text("x")
    secret.write_text("y")
    files = (File(str(right), Secret("x")), File(str(secret), Secret("z"), masking="all"))
    seen = look(HostSpec(files=files)).files
    assert seen[str(right)].text is None
    assert seen[str(secret)].text is None


def test_links_folders_and_nothing_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "folder").mkdir()
    files = tuple(File(str(tmp_path / name), Secret("")) for name in ("link", "folder", "none"))
    kinds = [state.kind for state in look(HostSpec(files=files)).files.values()]
    assert kinds == ["link", "other", "absent"]


def test_artifacts_are_known_by_content(tmp_path: Path) -> None:
    path = tmp_path / "k3s"
    path.write_bytes(b"binary")
    path.chmod(0o755)
    seen = look(HostSpec(artifacts=(Artifact(path, str(path), ""), Artifact(path, str(tmp_path / "no"), ""))))
    assert seen.artifacts[str(path)].same(hashlib.sha256(b"binary").hexdigest(), 0o755)
    assert seen.artifacts[str(tmp_path / "no")] == host_facts.ArtifactState()


def test_the_host_itself_is_told() -> None:
    seen = look(HostSpec(units=(Unit("nonsense.service"),), watch=("/etc/passwd", "/nonsense")))
    assert seen.arch
    assert seen.hostname
    assert seen.now > 0
    assert seen.present == {"/etc/passwd"}
    assert seen.unit("nonsense.service").active == "inactive"


def test_units_are_parsed_as_systemd_shows_them() -> None:
    lines = [
        "Id=k3s.service", "LoadState=loaded", "ActiveState=active", "SubState=running", "UnitFileState=enabled",
        "NRestarts=2", "ExecMainStartTimestamp=@1795398931", "StateChangeTimestamp=@1795398940",
    ]  # fmt: skip
    text = "".join(f"unit\t{line}\n" for line in lines) + "unit\t\nunit\tId=x.service\nunit\tActiveState=failed\nend\n"
    seen = observe.parse("h", text)
    assert seen.unit("k3s.service") == host_facts.UnitState(
        "loaded", "active", "running", "enabled", 2, 1795398931, 1795398940
    )
    assert seen.unit("x.service").active == "failed"


def test_a_cut_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="cut short"):
        observe.parse("h", "now\t1.0\n")


def test_what_programs_write_in_between_does_no_harm() -> None:
    assert observe.parse("h", "Welcome!\nnow\t1\tx\nfile\nend\n").now == 0.0
