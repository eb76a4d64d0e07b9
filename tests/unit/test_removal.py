"""What speaks against a removal, what it does, and what is cut out of the inventory."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nornir_k3s import shell
from nornir_k3s.checks import removal as checks
from nornir_k3s.errors import UsageError
from nornir_k3s.inventory import edit
from nornir_k3s.inventory.problems import Sources
from nornir_k3s.inventory.yaml_reader import read
from nornir_k3s.model.cluster import Cluster, Member
from nornir_k3s.model.datastore_facts import Database
from nornir_k3s.model.encryption import Encryption
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.k3s_facts import Api, Backend, NodeState, ServerFiles
from nornir_k3s.phases import removal
from nornir_k3s.roles.datastore_login import login
from nornir_k3s.workflows import remove

from .conftest import HOSTS
from .test_left import prepared

Load = Callable[..., Cluster]
THREE = {**HOSTS, "s3": ("10.0.0.19", "servers")}


def seen(*away: str, down: tuple[str, ...] = ()) -> dict[str, HostFacts]:
    """Return the facts of a cluster of three servers.

    Arguments:
        away: Hosts that are not ready.
        down: Servers that HAProxy does not see up.
    """
    nodes = tuple(
        NodeState(name, name not in away, "v", ("control-plane",) if name[0] == "s" else (), address=THREE[name][0])
        for name in ("s1", "s2", "s3", "a1")
    )
    backends = {name: Backend("DOWN" if name in down else "UP") for name in ("s1", "s2", "s3")}
    found = {name: HostFacts(name, api=Api(ready=name not in away, nodes=nodes)) for name in ("s1", "s2", "s3")}
    return found | {name: HostFacts(name, backends=backends) for name in ("lb1", "lb2")} | {"db1": HostFacts("db1")}


@pytest.mark.parametrize(
    ("names", "away", "down", "lost", "words"),
    [
        (("s3",), (), (), False, ""),
        (("a1", "s3"), (), (), False, ""),
        (("s2", "s3"), (), (), False, ""),
        (("s3",), ("s3",), (), True, ""),
        (("s3",), ("s3",), ("s3",), False, ""),
        (("a1",), ("s2",), (), False, ""),
        (("s1", "s2", "s3"), (), (), False, "no server would be left"),
        (("s3",), ("s2",), (), False, "server s2 is not ready"),
        (("s3",), ("s1", "s2"), (), False, "no server that stays is ready"),
        (("a1",), ("s1", "s2", "s3"), (), False, "no server that stays is ready"),
        (("s3",), (), ("s1", "s2"), False, "HAProxy on lb1 sees none of s1, s2 up"),
        (("s3",), (), (), True, "s3 is Ready, so K3s runs there"),
    ],
)
def test_what_is_refused(load: Load, names: tuple[str, ...], away: Any, down: Any, *, lost: bool, words: str) -> None:
    cluster, facts = load(hosts=THREE), seen(*away, down=down)
    leaving = [member for name in names if (member := checks.find(cluster, facts, name))]
    told = "; ".join(checks.refusals(cluster, facts, leaving, lost=lost))
    assert words in told
    assert bool(told) == bool(words)


def test_the_last_server_and_one_with_other_roles_are_refused(load: Load) -> None:
    cluster = load(hosts={**HOSTS, "s2": ("10.0.0.13", "agents")})
    (told,) = checks.refusals(cluster, seen(), [cluster.member("s1")], lost=False)
    assert told == "s1: no server would be left"
    cluster = load(hosts=THREE)
    both = replace(cluster.member("s3"), beside=("lb",))
    (told,) = checks.refusals(cluster, seen(), [both], lost=False)
    assert told.startswith("s3 is also of group lb")
    assert not list(checks.refusals(cluster, seen(), [both], lost=False, anew=True)), "it joins again with all of them"
    dead = seen("s3")
    (told,) = checks.refusals(cluster, dead, [both], lost=True)
    assert told == "s3 is also of group lb: take it out of the inventory, then remove it with --lost"
    gone = replace(load(hosts=HOSTS), left=(both,))
    (told,) = checks.refusals(gone, seen(), [both], lost=False)
    assert told.startswith("s3 was also of group lb, and that service still runs: put it back into the inventory")
    assert not list(checks.refusals(gone, dead, [both], lost=True))
    member = replace(both, beside=("datastore", "lb"))
    (told,) = checks.refusals(replace(gone, left=(member,)), dead, [member], lost=True)
    assert told.startswith("s3 is also of group datastore, lb: replace that member first")
    own = replace(cluster.member("s3"), address=str(cluster.registration.address))
    (told,) = checks.refusals(cluster, seen(), [own], lost=False)
    assert "has the registration address" in told


def test_the_only_server_with_the_keys_of_secrets_stays(load: Load) -> None:
    cluster, facts = load(hosts=THREE), seen()
    facts["s3"] = replace(facts["s3"], encryption=Encryption(goal="enable"))
    (told,) = checks.refusals(cluster, facts, [cluster.member("s3")], lost=False)
    assert told.startswith("s3: the keys of secrets are changed from there")
    assert not list(checks.refusals(cluster, facts, [cluster.member("s2")], lost=False))


def test_the_only_server_with_a_token_that_was_rotated_by_hand_stays(load: Load) -> None:
    """No other host has that token: no server would start again with the datastore's data."""
    cluster, facts = load(hosts=THREE), seen()
    facts["db1"] = replace(facts["db1"], database=Database(bootstrap={"/bootstrap/new": 9}))
    for name in ("s1", "s2", "s3"):
        facts[name] = replace(facts[name], server=ServerFiles(token=cluster.token.fingerprint()))
    facts["s3"] = replace(facts["s3"], server=ServerFiles(token="new"))
    (told,) = checks.refusals(cluster, facts, [cluster.member("s3")], lost=False)
    assert told.startswith("s3: the token was rotated there")
    assert not list(checks.refusals(cluster, facts, [cluster.member("s2")], lost=False))
    facts["s1"] = replace(facts["s1"], server=ServerFiles(token="new"))
    assert not list(checks.refusals(cluster, facts, [cluster.member("s3")], lost=False))


def test_names_that_are_not_of_this_cluster(load: Load) -> None:
    cluster = replace(load(), left=(Member("s9", "servers", "10.0.0.29", "s9"),))
    told = list(checks.unknown(cluster, seen(), ["s1", "s3", "s9", "lb1", "db1", "s22"]))
    assert told == [
        "db1 has the datastore: without it there is no cluster; `reset` takes the whole one down",
        "s22 is not in this cluster; did you mean s2?",
    ], "s3 is a node, and s9 is remembered, although neither is in the inventory"


def test_what_is_done_on_which_host(tmp_path: Path) -> None:
    run = prepared(THREE, tmp_path)
    user = f"{login(run.cluster)}@10.0.0.19"
    run.facts = seen() | {"db1": HostFacts("db1", database=Database(users={user: True}))}
    leaving = [run.cluster.member("s3")]
    done = remove.planned(run, leaving, lost=False).changes
    assert done["s3"][:2] == ["drain node s3", "uninstall K3s with k3s-uninstall.sh"]
    assert any("haproxy.cfg" in one for one in done["lb1"])
    assert f"remove {user}" in done["db1"]
    assert done["cluster"] == ["delete node s3 and its secret s3.node-password.k3s"]
    lost = remove.planned(run, leaving, lost=True).changes
    assert "s3" not in lost
    assert {name: said for name, said in done.items() if name != "s3"} == lost
    agent = remove.planned(run, [run.cluster.member("a1")], lost=False).changes
    assert set(agent) == {"a1", "cluster"}
    assert agent["a1"][1] == "uninstall K3s with k3s-agent-uninstall.sh"


def test_the_cluster_that_is_left_does_not_know_them(tmp_path: Path) -> None:
    run = prepared(THREE, tmp_path)
    run.facts = seen()
    later = removal.without(run, [run.cluster.member("s3")])
    assert [one.name for one in later.cluster.serving] == ["s1", "s2"]
    assert later.known("lb1").left == (), "its node is still listed"
    assert run.cluster.member("s3")


TEXT = """\
# The hosts.
s1:
  hostname: 10.0.0.1   # one
  groups: [servers]

# The second one.
s2:
  hostname: 10.0.0.2
  # of two groups
  groups: [servers]
# Agents.

a1: {hostname: 10.0.0.3, groups: [agents]}
"""


@pytest.mark.parametrize(
    ("names", "left"),
    [
        (["s2"], TEXT.replace("s2:\n  hostname: 10.0.0.2\n  # of two groups\n  groups: [servers]\n", "")),
        (["a1", "nobody"], TEXT.replace("a1: {hostname: 10.0.0.3, groups: [agents]}\n", "")),
        (["s1", "s2", "a1"], "# The hosts.\n\n# The second one.\n# Agents.\n\n"),
    ],
)
def test_the_lines_of_a_host_are_cut_out_of_the_inventory(tmp_path: Path, names: list[str], left: str) -> None:
    path = tmp_path / "hosts.yaml"
    path.write_text(TEXT)
    path.chmod(0o640)
    edit.write(Sources({"hosts": read(path)}), names)
    assert path.read_text() == left
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("text", ["{s1: {hostname: x}, s2: {hostname: y}}\n", "s1: &x {a: 1}\ns2: *x\n"])
def test_an_inventory_of_another_form_is_not_touched(tmp_path: Path, text: str) -> None:
    path = tmp_path / "hosts.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"cannot be cut out line by line"):
        edit.write(Sources({"hosts": read(path)}), ["s1"])
    assert path.read_text() == text
    with pytest.raises(UsageError, match="not in files"):
        edit.without(Sources({}), ["s1"])


def script(folder: Path, lines: str, **programs: str) -> subprocess.CompletedProcess[str]:
    """Run lines of the removal with programs that only note how they were called."""
    for name, text in {"systemctl": "", "sleep": "", "timeout": 'shift; "$@"', **programs}.items():
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{folder}/log\n{text}\n')
        (folder / name).chmod(0o755)
    text = shell.source("apply/removal.sh").replace("/usr/local/bin", str(folder)).replace("/etc/systemd", str(folder))
    head = f"set -eu\nSTATE={folder}/state STEP=x UNDO={folder}/nornir-k3s-undo\n"
    head += 'say() { echo "$@"; }\nusual_modes() { "$@"; }\n'
    environ = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(["sh"], input=head + text + lines, env=environ, capture_output=True, text=True, check=False)


def test_a_host_is_as_it_was_before(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for path in (ours, theirs):
        path.write_text("new")
    theirs.with_name("theirs.before-nornir-k3s").write_text("old")
    (tmp_path / "state" / "files").write_text(f"{ours}\n{theirs}\n{tmp_path}/gone\n")
    for name in ("made", "made/below", "used"):
        (tmp_path / name).mkdir()
    (tmp_path / "used" / "file").touch()
    (tmp_path / "nornir-k3s-undo.timer").touch()
    (tmp_path / "state" / "folders").write_text(f"{tmp_path}/made\n{tmp_path}/made/below\n{tmp_path}/used\n")
    for _ in range(2):  # a run that was killed is run again
        assert script(tmp_path, "forget_host\n").stdout == "did x changed\n"
        assert (ours.exists(), theirs.read_text(), (tmp_path / "state").exists()) == (False, "old", False)
    left = [(tmp_path / name).exists() for name in ("made", "used", "nornir-k3s-undo.timer")]
    assert left == [False, True, False], "folders that are empty now, and the timer of a change on trial"


def test_what_k3s_own_script_has_not_done_is_done(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "system").mkdir()
    unit = tmp_path / "system" / "k3s.service"
    own = f"rm {tmp_path}/k3s-uninstall.sh {unit}"
    unit.touch()
    done = script(tmp_path, "uninstall_k3s k3s\n", **{"k3s-uninstall.sh": own})
    assert (done.stdout, unit.exists()) == ("did x changed\n", False)
    assert "systemctl" not in (tmp_path / "log").read_text()
    unit.touch()  # the script is gone
    assert script(tmp_path, "uninstall_k3s k3s\n").returncode == 0
    assert not unit.exists()
    assert "systemctl disable -q --now k3s.service" in (tmp_path / "log").read_text()
    failed = script(tmp_path, "uninstall_k3s k3s\n", **{"k3s-uninstall.sh": "echo device busy; exit 1"})
    assert (failed.returncode, "device busy" in failed.stderr) == (1, True)


AGAIN = "[ -e {0}/gone ] && echo u2 || echo u1"


@pytest.mark.parametrize(
    ("secret", "node", "anew", "status", "deleted"),
    [
        ("[ -e {0}/gone ] || echo u1", "", "no", 0, False),
        ("[ -e {0}/deleted ] || echo u1", "", "no", 0, True),
        ("echo u1", "", "no", 1, True),
        (AGAIN, "echo u3", "no", 1, False),
        (AGAIN, "echo u3", "yes", 0, False),
        ("", "", "no", 0, False),
    ],
    ids=["gone with the node", "before 1.34.2", "it stays", "registered again", "as it may be", "a second run"],
)
def test_the_node_password_goes_with_the_node(  # noqa: PLR0917 - the columns of a table
    tmp_path: Path, secret: str, node: str, anew: str, status: int, deleted: bool
) -> None:
    kubectl = (
        f'case "$*" in *"get secret"*) {secret.format(tmp_path) or ":"};; *"delete secret"*) '
        f"touch {tmp_path}/deleted;; *'delete node'*) touch {tmp_path}/gone;; *'get node'*) {node or ':'};; esac"
    )
    done = script(tmp_path, f"forget_node {tmp_path}/k3s s3 {anew}\n", k3s=kubectl)
    assert done.returncode == status, done.stderr
    log = (tmp_path / "log").read_text()
    assert "k3s kubectl delete node s3 --ignore-not-found" in log
    assert (tmp_path / "deleted").exists() is deleted


def test_one_that_left_the_inventory_is_reached_as_its_group_is(tmp_path: Path) -> None:
    prepared(THREE, tmp_path)
    run = prepared(HOSTS, tmp_path)
    (member,) = run.cluster.left
    remove.add(run, [member])
    host = run.nr.inventory.hosts["s3"]
    assert (host.hostname, [group.name for group in host.groups]) == ("10.0.0.19", ["servers"])
    assert run.cluster.left == ()
    assert run.cluster.member("s3").role == "servers"
    assert set(run.report.hosts) == {*HOSTS, "s3"}


def test_a_run_that_ends_well_forgets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepared(THREE, tmp_path)
    run.facts = seen()
    monkeypatch.setattr(removal, "phases", lambda *_, **__: ())
    remove.carry_out_removal(run, [run.cluster.member("s3")], lost=False)
    assert run.report.exit_code == 0
    assert run.report.notes == ["delete s3 from the inventory, or the next deploy adds it again"]
    assert prepared(HOSTS, tmp_path).cluster.left == (), "it is no host that left without a word"


def test_a_filtered_inventory_is_refused(tmp_path: Path) -> None:
    prepared(THREE, tmp_path)
    run = prepared({name: host for name, host in THREE.items() if name not in ("lb2", "a1")}, tmp_path, whole=False)
    (told,) = remove._filtered(run, ["s3"])
    assert told == "lb2: not in this inventory: a removal needs the whole one"
    assert remove._filtered(run, ["a1"]) == [], "it is in no load balancer"


def test_an_agent_leaves_although_a_load_balancer_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, asked = prepared(THREE, tmp_path), list[str]()

    def observe(title: str, names: Any, *_: object, **__: object) -> None:
        asked.extend(names)
        run.facts |= seen()

    monkeypatch.setattr(run, "phase", observe)
    remove.read(run, ["a1"], lost=False)
    assert asked == ["s1", "s2", "s3", "a1"]
    asked.clear()
    remove.read(run, ["s3"], lost=False)
    assert asked == ["lb1", "lb2", "db1", "s1", "s2", "s3"]
