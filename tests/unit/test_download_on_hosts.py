"""A host that downloads by itself: verified, continued, and no password in a process list or a message."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from nornir_k3s.apply import script as apply
from nornir_k3s.host_steps import stage
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.host_spec import Artifact, HostSpec
from nornir_k3s.model.paths import STATE

URL = "https://ops:hush-hush@mirror.example/v1.34.9%2Bk3s1/k3s"
CONTENT = b"a binary\n"


def run(folder: Path, artifact: Artifact, client: str) -> subprocess.CompletedProcess[str]:
    """Carry out the step with a client that notes its arguments and gives what is in `served`."""
    output = {"curl": "-o", "wget": "-O"}[client]
    program = f'echo "$*" >>"$NOTES"; read -r line; echo "$line" >>"$NOTES"; while [ "$1" != {output} ]; do shift; done'
    tools = (
        "sh",
        "dirname",
        "basename",
        "mkdir",
        "flock",
        "sha256sum",
        "mv",
        "rm",
        "chmod",
        "stat",
        "grep",
        "cat",
        "sleep",
    )
    (folder / "bin").mkdir()
    for name in tools:
        (folder / "bin" / name).symlink_to(f"/usr/bin/{name}")
    (folder / "bin" / client).write_text(f'#!/bin/sh\n{program}; cat "$SERVED" >"$2"\n')
    (folder / "bin" / client).chmod(0o755)
    environ = {"PATH": str(folder / "bin"), "NOTES": str(folder / "notes"), "SERVED": str(folder / "served")}
    (step,) = stage(HostSpec(artifacts=(artifact,)), HostFacts("a1"))
    assert "hush-hush" not in step.summary
    script = apply.script([step], HostSpec()).reveal().replace(STATE, str(folder / "state"))
    return subprocess.run(["/bin/sh"], input=script, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("client", ["curl", "wget"])
def test_the_password_of_a_url_is_in_no_argument(tmp_path: Path, client: str) -> None:
    (tmp_path / "served").write_bytes(CONTENT)
    target = tmp_path / "k3s"
    done = run(tmp_path, Artifact(Path("k3s"), str(target), hashlib.sha256(CONTENT).hexdigest(), url=URL), client)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == CONTENT
    assert os.access(target, os.X_OK)
    arguments, given = (tmp_path / "notes").read_text().splitlines()
    assert "hush-hush" not in arguments
    assert given.removeprefix("url=") == URL


def test_another_file_than_the_published_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "served").write_bytes(b"another file\n")
    target = tmp_path / "k3s"
    done = run(tmp_path, Artifact(Path("k3s"), str(target), hashlib.sha256(CONTENT).hexdigest(), url=URL), "curl")
    assert done.returncode
    assert not target.exists()
    assert "https://mirror.example/v1.34.9%2Bk3s1/k3s has the SHA-256" in done.stderr
    assert "hush-hush" not in done.stdout + done.stderr
