"""How nodes are drained: the script for a server in a real shell, with a kubectl that only plays its part."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from k3s_standin.kubeclient import KubectlError
from k3s_standin.kubedrain import Drainer

from nornir_k3s import k3s
from nornir_k3s.apply import drain
from nornir_k3s.model.rolling_update import Drain

# Nodes are files; a drain fails for a node whose file `NAME.blocked` is there.
KUBECTL = """#!/bin/sh
cd FOLDER; echo "$*" >>calls
shift
case $1 in
  get) if [ "$3" = /readyz ]; then [ ! -e deaf ] && printf ok; exit; fi
    node=${3##*/}
    [ -e "$node" ] || { echo "Error from server (NotFound): nodes \\"$node\\" not found" >&2; exit 1; }
    printf '{"managedFields":[{"f:nornir-k3s/cordoned":{},"f:unschedulable":{}}],%s}' "$(cat "$node")" ;;
  patch) case $6 in *null*) : >"$3" ;;
    *) printf '"annotations":{"nornir-k3s/cordoned":"yes"},"spec":{"unschedulable":true}' >"$3" ;; esac ;;
  drain) [ ! -e "$2.blocked" ] || { echo "evicting pod default/x" >&2; echo "Cannot evict pod" >&2; exit 1; } ;;
esac
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    binary = tmp_path / "k3s"
    binary.write_text(KUBECTL.replace("FOLDER", str(tmp_path)))
    binary.chmod(0o755)
    monkeypatch.setattr(k3s, "BINARY", str(binary))
    for node in ("a1", "a2"):
        (tmp_path / node).touch()
    return tmp_path


def run(script: str) -> dict[str, str]:
    done = subprocess.run(["sh", "-eu"], input=script, capture_output=True, text=True, check=True)
    found = drain.parse(done.stdout)
    assert found is not None
    return dict(found)


def verbs(folder: Path) -> list[str]:
    calls = [line.split()[1:] for line in (folder / "calls").read_text().splitlines()]
    return [f"{call[0]} {call[2] if call[1] == 'node' else call[1]}" for call in calls if call[0] != "get"]


def test_all_are_cordoned_before_the_first_is_drained(folder: Path) -> None:
    assert run(drain.drain(["a1", "a2"], Drain())) == {"a1": "", "a2": ""}
    assert verbs(folder)[:2] == ["patch a1", "patch a2"]
    assert set(verbs(folder)[2:]) == {"drain a1", "drain a2"}
    assert run(drain.release(["a1", "a2"])) == {"a1": "", "a2": ""}
    assert [(folder / node).read_text() for node in ("a1", "a2")] == ["", ""]


def test_one_that_fails_is_uncordoned_and_says_why(folder: Path) -> None:
    (folder / "a1.blocked").touch()
    assert run(drain.drain(["a1", "a2", "gone"], Drain())) == {
        "a1": "Cannot evict pod\n",
        "a2": "",
        "gone": 'Error from server (NotFound): nodes "gone" not found\n' * 2,
    }
    assert (folder / "a1").read_text() == ""
    assert "true" in (folder / "a2").read_text()


def test_what_somebody_else_has_cordoned_stays_so(folder: Path) -> None:
    cordoned = '"annotations":{},"spec":{"unschedulable":true}'
    for node in ("a1", "a2"):
        (folder / node).write_text(cordoned)
    (folder / "a2.blocked").touch()
    assert run(drain.drain(["a1", "a2"], Drain()))["a1"] == ""
    run(drain.release(["a1", "a2"]))
    assert [(folder / node).read_text() for node in ("a1", "a2")] == [cordoned, cordoned]
    assert "patch a1" not in verbs(folder)


def test_nothing_is_cordoned_where_the_api_does_not_answer(folder: Path) -> None:
    (folder / "deaf").touch()
    for script in (drain.drain(["a1"], Drain()), drain.release(["a1"])):
        quick = "sleep() { :; }\n" + script
        done = subprocess.run(["sh", "-eu"], input=quick, capture_output=True, text=True, check=True)
        assert drain.parse(done.stdout) is None
    assert set(verbs(folder)) == set()


def test_the_settings_are_options_of_kubectl(folder: Path) -> None:
    settings = Drain(
        timeout=60, grace_period=5, disable_eviction=True, pod_selector="app!=db", skip_wait_for_delete_timeout=9
    )
    run(drain.drain(["a1"], settings))
    assert (
        "kubectl drain a1 --ignore-daemonsets --delete-emptydir-data --timeout=60s --grace-period=5 --disable-eviction "
        "--pod-selector=app!=db --skip-wait-for-delete-timeout=9"
    ) in (folder / "calls").read_text()


class Api:
    """The pods and budgets of the stand-in's API."""

    def __init__(self, *pods: dict[str, Any], least: int = 0) -> None:
        self.pods = {pod["metadata"]["name"]: pod for pod in pods}
        self.budgets = [{"spec": {"minAvailable": least, "selector": {"matchLabels": {"app": "x"}}}}] if least else []

    def ask(self, method: str, path: str) -> dict[str, Any]:
        if method == "DELETE":
            del self.pods[path.rpartition("/")[2]]
        return {"items": self.budgets if "budgets" in path else list(self.pods.values())}


def pod(name: str, owner: str) -> dict[str, Any]:
    owners = [{"kind": owner, "controller": True}] if owner else []
    return {"metadata": {"name": name, "namespace": "default", "labels": {"app": "x"}, "ownerReferences": owners}}


@pytest.mark.parametrize(
    ("owner", "least", "options", "said"),
    [
        ("ReplicaSet", 0, {}, ""),
        ("ReplicaSet", 1, {"--timeout": "1s"}, 'evicting pods/"p" -n "default": global timeout reached: 1s'),
        ("ReplicaSet", 1, {"--disable-eviction": "true"}, ""),
        ("", 0, {}, "cannot delete cannot delete Pods that declare no controller (use --force to override): default/p"),
        ("DaemonSet", 0, {}, "use --ignore-daemonsets to ignore"),
    ],
)
def test_the_stand_in_drains_as_kubectl_does(owner: str, least: int, options: dict[str, str], said: str) -> None:
    api = Api(pod("p", owner), least=least)
    drainer = Drainer(api, options, lambda name: options.get(name) == "true")  # type: ignore[arg-type]  # all it uses
    if said:
        with pytest.raises(KubectlError) as caught:
            drainer.drain("a1")
        assert said in str(caught.value)
        assert 'error: unable to drain node "a1" due to error' in str(caught.value)
    else:
        drainer.drain("a1")
    assert bool(api.pods) is bool(said)
