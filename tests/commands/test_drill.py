"""`drill` as a command: what it says before it touches a host, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Place


def test_a_plan_says_what_would_be_broken_and_contacts_no_host(place: Place, tmp_path: Path) -> None:
    done = place.run("drill.py", "--plan", "--skip", "datastore-stop", "--json", str(tmp_path / "plan.json"))
    assert done.returncode == 0, done.stderr
    for words in (
        "holder-cut",
        "cut the network of the load balancer that holds the VIP for 10 s; limit: 0.5 s without an answer",
        "server-kill:s3",
        "stop K3s on s1 for 8 s; limit: 0 failed",
        "the namespace nornir-k3s-drill is removed at the end",
    ):
        assert words in done.stdout
    assert "datastore-stop" not in done.stdout
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert [one["id"] for one in plan["faults"]][3:5] == ["holder-cut", "server-stop:s1"]


def test_without_a_terminal_it_needs_yes(place: Place) -> None:
    done = place.run("drill.py")
    assert done.returncode == 2
    assert "no terminal to ask on" in done.stderr
    assert "add --yes" in done.stderr
    assert "server-cut:s1" in done.stderr, "and says what it would have done"


def test_a_host_that_is_down_keeps_a_drill_from_beginning(down: Place) -> None:
    done = down.run("drill", "--yes", "--only", "server-stop:s1")
    assert done.returncode == 4, done.stdout + done.stderr
    assert "a drill needs every host" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "server-stopp"], "did you mean server-stop?"),
        (["--skip", "server-stop:s9"], "there is no fault 'server-stop:s9'"),
        (["--only", "datastore-cut"], "this cluster has no fault 'datastore-cut'"),
        (["--only", "server-stop", "--skip", "server-stop"], "no fault is left"),
        (["--only", ","], "names no fault"),
        (["--plan", "--html", "/dev/null"], "--plan excludes --html and --svg"),
    ],
)
def test_wrong_arguments_are_refused(place: Place, words: list[str], said: str) -> None:
    done = place.run("drill.py", "--yes", *words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr


def test_limits_come_from_the_config(place: Place) -> None:
    place.edit(
        lambda data: data["user_defined"]["k3s"].update(drill={"limits": {"server-cut": {"gap": 7}}}), "config.yaml"
    )
    done = place.run("drill.py", "--plan", "--only", "server-cut:s1")
    assert "limit: 7 s without an answer" in done.stdout, done.stderr
    place.edit(
        lambda data: data["user_defined"]["k3s"].update(drill={"limits": {"server-cut": {"gab": 7}}}), "config.yaml"
    )
    done = place.run("drill.py", "--plan")
    assert done.returncode == 2
    assert "gab" in done.stderr
