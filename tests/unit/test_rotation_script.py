"""How a server leaves HAProxy's rotation and comes back: the script in a real shell, with a perl that plays HAProxy."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from nornir_k3s import shell
from nornir_k3s.records import SAY

# It is called as `perl -e PROGRAM NOTE SOCKET ORDER...`, and the state of s1 is a file.
PERL = """#!/bin/sh
cd FOLDER; note=$3; shift 4
for order; do
  echo "$order" >>orders
  case $order in
    "show stat") for backend in servers checks; do echo "$backend,s1,,,$(cat sessions),,,,,,,,,,,,,$(cat s1)"; done ;;
    "show sess") echo "0x1: proto=tcpv4 src=1 fe=k3s be=servers srv=s1 ts=00 epoch=0 age=$(cat age) calls=1" ;;
    *drain) echo DRAIN >s1 ;;
    *ready) echo UP >s1 ;;
  esac
done
[ -z "$note" ] || rm -f "$note"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("perl", PERL), ("systemctl", "#!/bin/sh\n"), ("systemd-run", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text.replace("FOLDER", str(tmp_path)))
        (tmp_path / name).chmod(0o755)
    for name, text in (("s1", "UP"), ("sessions", "0"), ("age", "0s")):
        (tmp_path / name).write_text(f"{text}\n")
    (tmp_path / "drained").mkdir()
    return tmp_path


def run(folder: Path, call: str) -> tuple[str, list[str]]:
    """Return what the script says, and what HAProxy was asked and told."""
    (folder / "orders").write_text("")
    script = f"set -eu\nSTATE={folder} SOCKET=/socket\n{SAY}{shell.source('apply/rotation.sh')}{call}\n"
    environ = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(["sh"], input=script, env=environ, capture_output=True, text=True, check=True)
    return done.stdout, (folder / "orders").read_text().splitlines()


def orders(state: str) -> list[str]:
    return [f"set server {backend}/s1 state {state}" for backend in ("servers", "checks")]


def test_a_server_leaves_every_backend_and_comes_back_with_few_questions(folder: Path) -> None:
    said, asked = run(folder, shell.call("leave", "s1", 5, 100, "", 30))
    assert (said, asked) == ("@rotation\ts1\tdrained\t0\n", ["show stat", *orders("drain"), "show stat"])
    assert (folder / "drained" / "s1").exists()
    said, asked = run(folder, shell.call("come_back", "s1", 5))
    assert (said, asked) == ("@rotation\ts1\tup\t0\n", ["show stat", *orders("ready"), "show stat"])
    assert not (folder / "drained" / "s1").exists()


CLOCK = """#!/bin/sh
n=$(($(cat FOLDER/now) + 1)); echo $n >FOLDER/now; echo $n
"""


@pytest.mark.parametrize(
    ("age", "seconds"),
    [
        ("9s", 30),  # it may be a request
        ("14s", 30),
        ("16s", 5),  # it began more than 10 seconds before
        ("1m3s", 5),  # a watch
        ("2h0m", 5),
    ],
)
def test_sessions_that_have_just_begun_get_longer(folder: Path, age: str, seconds: int) -> None:
    """Each look at the clock is a second later, and the session does not end; nor get older."""
    for name, text in (("date", CLOCK.replace("FOLDER", str(folder))), ("sleep", "#!/bin/sh\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    for name, text in (("sessions", "1"), ("age", age), ("now", "0")):
        (folder / name).write_text(text)
    said, _ = run(folder, shell.call("leave", "s1", 5, 100, "", 30))
    assert said == "@rotation\ts1\tdrained\t2\n"
    assert int((folder / "now").read_text()) - 1 == seconds


@pytest.mark.parametrize("call", [("leave", "s1", 5, 100, "", 30), ("come_back", "s1", 5)])
def test_one_that_a_person_has_taken_out_stays_out(folder: Path, call: tuple[str, ...]) -> None:
    (folder / "s1").write_text("MAINT\n")
    assert run(folder, shell.call(*call)) == ("@rotation\ts1\taway\t0\n", ["show stat"])


def test_one_that_another_run_has_left_out_is_brought_back_first(folder: Path) -> None:
    (folder / "s1").write_text("DRAIN\n")
    (folder / "drained" / "s1").touch()
    said, asked = run(folder, shell.call("leave", "s2", 5, 100, "", 30))
    assert (said, asked) == ("@rotation\ts2\tabsent\t0\n", ["show stat", *orders("ready"), "show stat"])
    assert not (folder / "drained" / "s1").exists()
