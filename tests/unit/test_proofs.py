"""Proofs that a unit works, in the shell that runs them on hosts, with the words of several versions."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from nornir_k3s import shell

# What the journal of HAProxy 2.6, 3.0 and 3.2 says after a reload.
OLD = "[NOTICE]   (218) : Reloading HAProxy\n[WARNING]  (220) : Paused proxy a.\n"
NEW = OLD + "Reloaded haproxy.service - HAProxy Load Balancer.\n[NOTICE]   (268) : Initializing new worker (284)\n"
FAILS = "[ALERT]    (218) : Binding for proxy a: cannot bind socket (Cannot assign requested address)\n"


@pytest.mark.parametrize(
    ("said", "works"),
    [
        ("", True),  # 2.4 says nothing
        (OLD + "[NOTICE]   (218) : New worker (250) forked\n[NOTICE]   (218) : Loading success.\n", True),
        (OLD + FAILS + "[WARNING]  (218) : Loading failure!\n", False),
        (NEW, False),
        (NEW + "[NOTICE]   (268) : Loading success.\n", True),
        (NEW + FAILS + "[WARNING]  (268) : Failed to load worker (284) exited with code 1 (Exit)\n", False),
        (OLD + "[WARNING]  (218) : Loading failure!\n" + OLD + "[NOTICE]   (218) : Loading success.\n", True),
    ],
)
def test_haproxy_works_when_it_has_loaded_its_new_configuration(tmp_path: Path, said: str, works: bool) -> None:
    (tmp_path / "said").write_text(said)
    for name, text in {"ss": "echo LISTEN", "journalctl": f"cat {tmp_path}/said"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    script = f"begin=1\n{shell.source('apply/steps.sh')}\nhaproxy_loaded /no/socket 6443\n"
    path = {"PATH": f"{tmp_path}:{os.defpath}"}
    done = subprocess.run(["sh", "-eu"], input=script, capture_output=True, text=True, check=False, env=path)
    assert (done.returncode == 0) is works, done.stderr
