"""The package inside Nornir workflows of a team's own, on a finished cluster; the documentation's examples, too."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nornir import InitNornir
from nornir.core import Nornir
from nornir.core.filter import F
from nornir.core.inventory import ConnectionOptions, Host
from nornir.core.task import AggregatedResult, MultiResult, Task
from nornir_netmiko import netmiko_send_command

from nornir_k3s import (
    K3sError,
    NotReady,
    deploy,
    drift,
    k3s_converge,
    k3s_facts,
    k3s_join,
    k3s_kubeconfig,
    k3s_load_balancer,
    k3s_plan,
    k3s_preflight,
    k3s_ready,
    plan,
    status,
)
from tests.e2e.balancers import BALANCERS, drained, watched
from tests.e2e.conftest import PROJECT, Site, eventually

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
EXAMPLES = [
    pytest.param(code, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S))
]
CONFIG = "/etc/rancher/k3s/config.yaml"


@pytest.fixture
def nr(cluster: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nornir]:
    monkeypatch.chdir(cluster.folder)
    with InitNornir(config_file="config.yaml", runner={"plugin": "threaded"}) as found:
        yield found


def result(answer: AggregatedResult, host: str) -> Any:
    assert not answer[host].failed, answer[host][0].exception
    return answer[host][0]


@pytest.mark.parametrize("code", EXAMPLES)
def test_every_example_of_the_documentation_runs(cluster: Site, code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cluster.folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_tutorial_s_commands_do_what_it_says(cluster: Site) -> None:
    text = (PROJECT / "docs" / "tutorial.md").read_text()
    commands = re.findall(r"^    python (runbooks/\w+\.py)(.*)$", text, re.M)
    said = []
    for script, arguments in commands:
        line = f"{sys.executable} {PROJECT / script} --config config.yaml {arguments}"
        done = subprocess.run(
            ["bash", "-c", line], cwd=cluster.folder, capture_output=True, text=True, timeout=300, check=False
        )
        said.append((f"{Path(script).stem}{arguments}".split(" -- ")[0], done.returncode, done.stdout))
    codes = [(command, code) for command, code, _ in said]
    assert codes == [
        ("deploy", 0), ("drift", 0), ("lab ssh a1", 0), ("lab ssh lb1", 0), ("drift --html drift.html", 3),
        ("deploy --plan", 0), ("deploy", 0),
    ]  # fmt: skip
    assert "nothing to change" in said[0][2]
    assert "no drift" in said[1][2]
    assert "#retries" in said[4][2]
    assert "haproxy.service" in said[5][2]
    assert "restart k3s" not in said[5][2]
    eventually(cluster.answers)


def test_no_at_the_question_changes_nothing_and_is_no_error(cluster: Site) -> None:
    cluster.lab.exec("a1", ["chmod", "644", CONFIG])
    argv = [sys.executable, str(PROJECT / "runbooks" / "deploy.py"), "--config", "config.yaml"]
    main, terminal = pty.openpty()
    try:
        with subprocess.Popen(argv, cwd=cluster.folder, stdin=terminal, stdout=terminal, stderr=terminal) as process:
            os.close(terminal)
            said = ""
            while "go on? [y/N]" not in said:
                said += os.read(main, 4096).decode()
            os.write(main, b"n\n")
            with contextlib.suppress(OSError):  # EIO: the process has ended
                while more := os.read(main, 4096):
                    said += more.decode()
    finally:
        os.close(main)
    assert process.returncode == 6, said
    assert "a1: " in said
    assert "Aborted: not confirmed; nothing was changed" in said
    assert "error" not in said
    assert "Traceback" not in said
    log = max((cluster.folder / ".state" / "log").glob("*.log"))
    assert " ERROR " not in log.read_text()
    assert cluster.lab.exec("a1", ["stat", "-c", "%a", CONFIG]).stdout.strip() == "644"
    assert cluster.runbook("deploy.py", "--plan", "--exit-code").returncode == 3
    cluster.deploy("--yes")
    assert cluster.runbook("deploy.py", "--plan", "--exit-code").returncode == 0
    shown = cluster.runbook("status.py", "-v").stdout
    assert "HostFacts(" not in shown
    assert " days: " in shown


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 6


def test_the_steps_one_by_one_change_what_differs_and_nothing_else(cluster: Site, nr: Nornir) -> None:
    facts = nr.run(task=k3s_facts)
    assert result(facts, "s1").result.nodes == dict.fromkeys(("s1", "s2", "s3", "a1", "a2"), True)
    assert not any(one.changed for one in facts.values())
    assert not nr.run(task=k3s_preflight).failed
    assert {name: one[0].result for name, one in nr.run(task=k3s_plan).items()} == {
        name: [] for name in nr.inventory.hosts
    }
    cluster.lab.exec("a1", ["sed", "-i", "s/^node-name.*/node-name: other/", CONFIG])
    nr.run(task=k3s_facts)
    before = cluster.processes()
    would = nr.run(task=k3s_converge, dry_run=True)
    assert {name for name, one in would.items() if one.changed} == {"a1"}
    assert "-node-name: other" in result(would, "a1").diff
    nr.data.dry_run = True
    assert result(nr.run(task=k3s_converge), "a1").changed
    assert deploy(nr).dry_run
    nr.data.dry_run = False
    assert cluster.processes() == before
    done = nr.run(task=k3s_converge)
    assert {name for name, one in done.items() if one.changed} == {"a1"}
    after = cluster.processes()
    assert after.pop("a1") != before.pop("a1")
    assert after == before
    assert not any(one.changed for one in nr.run(task=k3s_converge).values())
    assert not nr.run(task=k3s_ready).failed
    assert not nr.run(task=k3s_join).failed
    assert not nr.run(task=k3s_load_balancer).failed
    assert result(nr.run(task=k3s_kubeconfig), "s2").result == str(cluster.kubeconfig)
    eventually(cluster.answers)


def test_servers_are_changed_one_at_a_time_whatever_the_runner(cluster: Site, nr: Nornir) -> None:
    servers = nr.filter(F(groups__contains="servers"))
    for name in ("s1", "s2", "s3"):
        cluster.lab.exec(name, ["sh", "-c", f"echo debug: true >>{CONFIG}"])
    nr.filter(F(groups__contains="lb")).run(task=k3s_facts)  # a server leaves their rotation, although it is filtered
    with watched(cluster) as seen:
        done = servers.run(task=k3s_converge)
    assert not done.failed, {name: one[0].exception for name, one in done.items()}
    for balancer in BALANCERS:
        assert set.union(*(who for where, who in seen if where == balancer)) == {"s1", "s2", "s3"}
        assert drained(cluster, balancer) == set()
    times = []
    for name in ("s1", "s2", "s3"):
        shown = cluster.lab.exec(
            name,
            ["systemctl", "show", "--timestamp=us+utc", "-p", "InactiveExitTimestamp,ActiveEnterTimestamp", "k3s"],
        ).stdout
        values = dict(line.split("=", 1) for line in shown.splitlines() if line)
        times.append((values["InactiveExitTimestamp"], values["ActiveEnterTimestamp"]))
    for one, other in zip(sorted(times), sorted(times)[1:], strict=False):
        assert one[1] <= other[0]


def test_a_filtered_nornir_does_what_is_safe_and_says_whom_it_left_out(cluster: Site, nr: Nornir) -> None:
    cluster.lab.exec("lb2", ["sed", "-i", "s/retries 10/retries 1/", "/etc/haproxy/haproxy.cfg"])
    before = cluster.processes()
    report = deploy(nr.filter(F(groups__contains="lb")))
    assert report.hosts["lb2"].changes == ["file:/etc/haproxy/haproxy.cfg", "unit:haproxy.service"]
    assert set(report.hosts) == {"lb1", "lb2"}
    assert "left out: db1, s1, s2, s3, a1, a2" in report.notes[0]
    after = cluster.processes()
    assert {name for name in before if before[name] != after[name]} == {"lb2"}
    assert "server s3" in cluster.lab.exec("lb2", ["cat", "/etc/haproxy/haproxy.cfg"]).stdout
    assert plan(nr).changes is False
    found = drift(nr.filter(name="a1"), history=False)
    assert (found.exit_code, set(found.hosts)) == (0, {"a1"})


def test_a_server_that_is_stopped_is_not_made_a_second_first_one(cluster: Site, nr: Nornir) -> None:
    cluster.lab.exec("s2", ["systemctl", "stop", "k3s"])
    try:
        with pytest.raises(K3sError, match="s1, s3 cannot be read"):
            deploy(nr.filter(F(groups__contains="lb") | F(groups__contains="agents") | F(name="s2")))
        assert cluster.lab.exec("s2", ["systemctl", "is-active", "k3s"], check=False).stdout.strip() == "inactive"
        answer = nr.filter(name="s2").run(task=k3s_join)
        assert answer["s2"].failed
        nr.data.reset_failed_hosts()
        # The datastore says that the cluster is there: the server joins it.
        report = deploy(nr.filter(F(name="db1") | F(name="s2")))
        assert "unit:k3s.service" in report.hosts["s2"].changes
    finally:
        cluster.lab.exec("s2", ["systemctl", "start", "k3s"])
    eventually(lambda: _well(nr))


def _well(nr: Nornir) -> None:
    assert status(nr).problems == []


def test_print_result_is_readable_and_holds_no_secret(
    cluster: Site, nr: Nornir, capsys: pytest.CaptureFixture[str]
) -> None:
    from nornir_utils.plugins.functions import print_result  # noqa: PLC0415 - it takes hold of stdout

    cluster.lab.exec("s1", ["sed", "-i", "s/^token:.*/token: stolen-token/", CONFIG])
    try:
        for task in (k3s_facts, k3s_preflight, k3s_plan):
            print_result(nr.run(task=task))
    finally:
        cluster.deploy("--yes")
    said = capsys.readouterr().out
    assert "restart k3s.service" in said
    assert "a secret value differs" in said
    state = cluster.folder / ".state" / "lab"
    for secret in ("stolen-token", *((state / name).read_text().strip() for name in ("token", "datastore-password"))):
        assert secret not in said


def test_failed_hosts_processors_and_raise_on_error_are_nornir_s_own(cluster: Site, nr: Nornir) -> None:
    seen: list[tuple[str, str]] = []

    class Note:
        def task_started(self, task: Task) -> None: ...
        def task_completed(self, task: Task, result: AggregatedResult) -> None: ...
        def task_instance_started(self, task: Task, host: Host) -> None: ...
        def task_instance_completed(self, task: Task, host: Host, result: MultiResult) -> None:
            seen.append((task.name, host.name))

        def subtask_instance_started(self, task: Task, host: Host) -> None: ...
        def subtask_instance_completed(self, task: Task, host: Host, result: MultiResult) -> None: ...

    cluster.lab.exec("a2", ["systemctl", "stop", "k3s-agent"])
    noted = nr.with_processors([Note()])
    try:
        answer = noted.run(task=k3s_ready, options={"deadlines": {"agent": 5}})
        assert answer.failed
        assert isinstance(answer["a2"][0].exception, NotReady)
        assert "Traceback" not in str(answer["a2"][0].result)
        assert nr.data.failed_hosts == {"a2"}
        assert ("k3s_ready", "s1") in seen
        assert "a2" not in noted.run(task=k3s_facts), "a failed host is left out, as Nornir does"
        with pytest.raises(Exception, match="k3s_ready"):
            answer.raise_on_error()
    finally:
        nr.data.reset_failed_hosts()
        cluster.deploy("--yes")


def test_a_deploy_that_is_at_work_goes_first(cluster: Site) -> None:
    for name in ("s1", "s2", "s3"):
        cluster.lab.exec(name, ["sh", "-c", f"echo debug: true >>{CONFIG}"])
    with cluster.start("deploy.py", "--yes") as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("observe: 8 hosts"):
                break
        done = cluster.runbook("drift.py")
        assert (done.returncode, "a deploy of lab is in progress" in done.stderr) == (5, True), done.stderr
        assert "another deploy of lab" in cluster.runbook("deploy.py", "--yes").stderr
        process.stdout.read()
    assert process.returncode == 0


def test_a_script_of_a_deploy_from_another_controller_is_seen_on_the_host(cluster: Site) -> None:
    hold = "exec 9>/var/lib/nornir-k3s/lock; flock 9; sleep 600"
    cluster.lab.exec("a1", ["systemd-run", "-q", "--unit=other-deploy", "sh", "-c", hold])

    def told() -> None:
        done = cluster.runbook("drift.py", "--no-history")
        assert (done.returncode, "a deploy is in progress on a1" in done.stderr) == (5, True), done.stdout + done.stderr

    try:
        eventually(told)
    finally:
        cluster.lab.exec("a1", ["systemctl", "stop", "other-deploy"])


def test_a_team_s_own_use_of_the_same_connection(cluster: Site, nr: Nornir) -> None:
    """Their netmiko connection, which opens a shell, is used and left as it is; so is another plugin's."""
    host = nr.inventory.hosts["a1"]
    options = host.get_connection_parameters("netmiko")
    host.connection_options["netmiko"] = ConnectionOptions(
        hostname=options.hostname,
        username=options.username,
        platform="linux",
        extras={**(options.extras or {}), "auto_connect": True},
    )
    one = nr.filter(name="a1")
    for _ in range(2):
        assert "a1" in result(one.run(task=netmiko_send_command, command_string="hostname"), "a1").result
        assert result(one.run(task=k3s_facts), "a1").result.role == "agents"


def test_the_summary_of_a_run_is_in_the_history(cluster: Site) -> None:
    assert cluster.runbook("drift.py").returncode == 0
    latest = max((cluster.folder / ".state" / "lab" / "drift").glob("*.json"))
    assert json.loads(latest.read_text())["outcome"] == "ok"
