"""A server leaves the rotation of both load balancers before it restarts, and no second one goes while it is away."""

from __future__ import annotations

import json
import signal
import ssl
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from nornir_k3s.apply import rotation
from nornir_k3s.model import pem
from nornir_k3s.phases.rotation import SESSIONS
from nornir_k3s.roles import haproxy

from .asked import Asked
from .balancers import STAT, away, drained, states, watched
from .certificates import ended
from .conftest import VIP, Site, eventually, unchanged
from .killed import killed

BALANCERS, SERVERS = ("lb1", "lb2"), ("s1", "s2", "s3")
UNDO = "/var/lib/nornir-k3s/undo"
ON_TRIAL = f"ls {UNDO} /etc/systemd/system/nornir-k3s-undo.* 2>/dev/null || :"
NOTES = "ls /var/lib/nornir-k3s/drained 2>/dev/null || :"
DROPIN = "/etc/systemd/system/k3s-agent.service.d"
# K3s waits in its start until the test lets it go on: nobody sees it ready, and nobody confirms its change.
HELD = f"""mkdir -p {DROPIN}
printf '[Service]\nExecStartPre=/bin/sh -c "until [ -e /run/go ]; do sleep 0.2; done"\n' >{DROPIN}/held.conf
systemctl daemon-reload"""


def somebody_is_drained(site: Site) -> None:
    assert drained(site, "lb1")


def label(text: str) -> Any:
    def change(data: dict[str, Any]) -> None:
        data["data"]["k3s_cluster"]["server"]["node-label"] = [f"rotation={text}"]

    return change


def all_up(site: Site) -> None:
    assert {balancer: away(site, balancer) for balancer in BALANCERS} == {balancer: set() for balancer in BALANCERS}


@pytest.fixture(autouse=True)
def _all_up(cluster: Site) -> None:
    eventually(lambda: all_up(cluster))


def window(**more: Any) -> Any:
    return lambda data: data["data"]["k3s_cluster"].update(rolling_update=more)


def test_each_server_leaves_before_it_restarts_and_comes_back(cluster: Site) -> None:
    """And only in the maintenance window. Requests are answered that take longer than sessions are waited for."""
    cluster.edit(label("each"))
    opens = datetime.now(UTC) + timedelta(days=3)
    cluster.edit(window(window={"days": [f"{opens:%A}".lower()]}))
    done = cluster.runbook("deploy.py", "--yes")
    assert done.returncode == 7, done.stdout + done.stderr
    assert f"which opens {opens:%a %Y-%m-%d} 00:00 UTC" in done.stderr
    cluster.edit(window())
    with watched(cluster) as seen, Asked(cluster) as asked, Asked(cluster, every=0.5, pause=SESSIONS + 2) as slow:
        cluster.deploy("--yes", "--try", "20m")
    asked.lost_none()
    slow.lost_none()
    for server in SERVERS:
        left = cluster.lab.exec(server, ["sh", "-c", ON_TRIAL]).stdout
        assert left == "", "its change is confirmed"
    for balancer in BALANCERS:
        gone = [names for one, names in seen if one == balancer]
        assert set().union(*gone) == set(SERVERS), balancer
        assert all(len(names) <= 1 for names in gone), balancer
        assert away(cluster, balancer) == set()
        assert cluster.lab.exec(balancer, ["sh", "-c", NOTES]).stdout == ""
        timers = cluster.lab.exec(balancer, ["systemctl", "list-timers", "--all", "nornir-k3s-rotation*"]).stdout
        assert "nornir-k3s" not in timers
    eventually(lambda: unchanged(cluster))


def test_what_a_person_has_taken_out_stays_out(cluster: Site) -> None:
    order = STAT.replace("show stat", "set server servers/s2 state maint; set server all/s2 state maint")
    cluster.lab.exec("lb1", ["perl", "-e", order])
    assert ("s2", "MAINT") in states(cluster, "lb1")
    cluster.edit(label("person"))
    cluster.deploy("--yes")
    assert ("s2", "MAINT") in states(cluster, "lb1")
    cluster.lab.exec("lb1", ["perl", "-e", order.replace("maint", "ready")])


def test_a_run_that_was_killed_leaves_nobody_out(cluster: Site) -> None:
    cluster.edit(label("killed"))
    running = cluster.start("deploy.py", "--yes")
    try:
        eventually(lambda: somebody_is_drained(cluster))
    finally:
        running.send_signal(signal.SIGKILL)
        running.communicate()
    (name,) = cluster.lab.exec("lb1", ["sh", "-c", NOTES]).stdout.split()
    timer = f"nornir-k3s-rotation-{name}.timer"
    assert cluster.lab.exec("lb1", ["systemctl", "is-active", timer]).stdout.strip() == "active"
    found = cluster.folder / "drift.json"

    def told() -> None:
        done = cluster.runbook("drift.py", "--no-history", "--json", str(found))
        assert done.returncode == 3, done.stdout + done.stderr

    eventually(told)  # the script of the killed run may still hold the host's lock
    differences = {one["id"]: one for one in json.loads(found.read_text())["differences"]}
    assert differences[f"lb1/backend:{name}"]["fixed_by"] == "deploy"
    cluster.deploy("--yes")
    for balancer in BALANCERS:
        assert cluster.lab.exec(balancer, ["sh", "-c", NOTES]).stdout == ""
    eventually(lambda: unchanged(cluster))


LEAVES = """cd /var/lib/rancher/k3s 2>/dev/null || cd /
for one in server/tls/client-admin.crt agent/client-kubelet.crt server/tls/server-ca.crt /etc/haproxy/k3s-check.pem; do
  if [ -e "$one" ]; then sha256sum "$one"; fi
done"""
# What a run leaves that is killed between the two: K3s has deleted its certificates, and was not restarted.
BETWEEN = """cd /var/lib/nornir-k3s
: >pending/k3s.service
date +%s >certificates
k3s certificate rotate"""


def test_certificates_are_made_anew_also_by_runs_that_were_killed(
    cluster: Site, request: pytest.FixtureRequest
) -> None:
    def leaves() -> dict[str, dict[str, str]]:
        hosts = (*SERVERS, "a1", "a2", *BALANCERS)
        lines = {name: cluster.lab.exec(name, ["sh", "-c", LEAVES]).stdout.splitlines() for name in hosts}
        return {name: {line.split()[1]: line.split()[0] for line in of} for name, of in lines.items()}

    def kept(now: dict[str, dict[str, str]]) -> set[tuple[str, str]]:
        return {(name, path) for name, files in now.items() for path in files if files[path] == before[name][path]}

    before, started, first = leaves(), cluster.processes(), ""
    if request.config.getoption("--matrix"):  # it takes long, and what comes below is killed, too
        killed(cluster, "servers: 1 host, 1 changed", "rotate.py", "certificates", "--yes")
        first, *_ = (name for name in SERVERS if cluster.processes()[name] != started[name])
    with_new = cluster.processes()
    cluster.lab.exec("s2" if first != "s2" else "s3", ["sh", "-c", BETWEEN])
    done = cluster.runbook("rotate.py", "certificates", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert kept(leaves()) == {(name, "server/tls/server-ca.crt") for name in SERVERS}, "the CA stays, and nothing else"
    assert not first or cluster.processes()[first] == with_new[first], "what was done is not done again"
    for name in SERVERS:
        assert cluster.lab.exec(name, ["sh", "-c", "ls -d /var/lib/rancher/k3s/server/tls-*"], check=False).stdout == ""
    eventually(lambda: unchanged(cluster))


@pytest.mark.matrix
def test_the_cas_are_made_anew_also_by_a_run_that_was_killed(cluster: Site) -> None:
    def text(host: str, path: str) -> str:
        return cluster.lab.exec(host, ["cat", path]).stdout

    def signer() -> str:
        (one,) = pem.certificates(ssl.get_server_certificate((VIP, 6443)))
        return one.issuer.rfc4514_string()

    ca = "/var/lib/rancher/k3s/server/tls/server-ca.crt"
    before = text("s1", ca)
    killed(cluster, "servers: 1 host, 1 changed", "rotate.py", "ca", "--yes")
    cluster.answers()
    assert {text(name, ca) == before for name in SERVERS} == {True, False}
    done = cluster.runbook("rotate.py", "ca", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    after = text("s1", ca)
    first, *_ = pem.certificates(after)
    assert after.endswith(before)
    assert {text(name, ca) for name in SERVERS} == {after}
    assert {text(name, haproxy.SERVER_CA) for name in BALANCERS} == {after}
    assert signer() == first.subject.rfc4514_string()
    prefix = text("s1", "/var/lib/rancher/k3s/server/token")[:67]
    assert all(prefix in text(name, "/etc/rancher/k3s/config.yaml") for name in ("a1", "a2"))
    assert not list(cluster.folder.glob("**/ca-rotation.json"))
    cluster.answers()
    eventually(lambda: unchanged(cluster))


@pytest.mark.matrix
def test_a_check_certificate_that_ended_on_one_load_balancer_takes_no_server_out(cluster: Site) -> None:
    """While it is so requests through that one are answered; a deploy renews it there before a server restarts."""
    tls = "/var/lib/rancher/k3s/server/tls"
    authority, key = (cluster.lab.exec("s1", ["cat", f"{tls}/client-ca.{one}"]).stdout for one in ("crt", "key"))
    show = ["cat", haproxy.CHECK_CERT]
    before = cluster.lab.exec("lb2", show).stdout
    put = f"cat >{haproxy.CHECK_CERT} && systemctl reload haproxy"
    cluster.lab.exec("lb2", ["sh", "-c", put], input=ended(authority, key, "lb-check"))

    def sees_none() -> None:
        assert away(cluster, "lb2") == set(SERVERS)

    def holds() -> None:
        assert cluster.holder() == "lb2"

    eventually(sees_none)
    cluster.lab.exec("lb1", ["systemctl", "stop", "keepalived"])
    eventually(holds)
    eventually(cluster.answers)
    cluster.lab.exec("lb1", ["systemctl", "start", "keepalived"])
    found = cluster.folder / "ended.json"

    def told() -> None:
        done = cluster.runbook("drift.py", "--no-history", "--json", str(found))
        assert done.returncode == 3, done.stdout + done.stderr
        differences = {one["id"]: one for one in json.loads(found.read_text())["differences"]}
        assert differences[f"lb2/certificate:{haproxy.CHECK_CERT}"]["severity"] == "error"

    eventually(told)
    cluster.edit(label("ended"))
    with Asked(cluster) as asked:
        cluster.deploy("--yes")
    asked.lost_none()
    assert cluster.lab.exec("lb2", show).stdout == before
    eventually(lambda: all_up(cluster))
    eventually(lambda: unchanged(cluster))


@pytest.mark.matrix
def test_an_agent_token_comes_and_goes_and_agents_join_with_it(cluster: Site) -> None:
    """The run that brings it is killed when one server has it. A host that was installed anew joins with it."""
    inventory, path = cluster.folder / "inventory" / "defaults.yaml", cluster.folder / "agent-token"
    kept = inventory.read_text()
    path.write_text("letsAgentsJoin\n")
    path.chmod(0o600)

    def rotated(*, there: bool) -> None:
        done = cluster.runbook("rotate.py", "agent-token", "--yes")
        assert done.returncode == 0, done.stdout + done.stderr
        eventually(partial(have_it, there=there))
        for name in SERVERS:
            cluster.lab.exec(name, ["systemctl", "restart", "k3s"])  # the second start is the one that may fail
        eventually(lambda: unchanged(cluster))

    def have_it(*, there: bool) -> None:
        for name in (*SERVERS, "a1", "a2"):
            text = cluster.lab.exec(name, ["cat", "/etc/rancher/k3s/config.yaml"]).stdout
            assert ("letsAgentsJoin" in text) == there, name
        assert cluster.nodes() == dict.fromkeys((*SERVERS, "a1", "a2"), True)

    cluster.edit(lambda data: data["data"]["k3s_cluster"].update(agent_token={"file": str(path)}))
    refused = cluster.runbook("deploy.py", "--yes")
    assert refused.returncode == 1, refused.stdout + refused.stderr
    assert "nornir-k3s rotate agent-token" in refused.stderr
    killed(cluster, "servers: 1 host, 1 changed", "rotate.py", "agent-token", "--yes")
    rotated(there=True)
    cluster.lab.reset("a2")
    done = cluster.runbook("replace.py", "a2", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    eventually(lambda: have_it(there=True))
    inventory.write_text(kept)
    rotated(there=False)


def test_an_agent_takes_a_change_back_by_itself_that_nobody_confirms(cluster: Site) -> None:
    """A change on trial; the timer's unit is started by hand, so that the test need not wait for it."""

    def on_host(script: str) -> str:
        return cluster.lab.exec("a1", ["sh", "-c", script], check=False).stdout.strip()

    def begun() -> None:
        assert on_host("systemctl is-active nornir-k3s-undo.timer") == "active"

    def taken_back() -> None:
        assert on_host("sha256sum </etc/rancher/k3s/config.yaml; systemctl is-active k3s-agent") == before
        assert on_host(ON_TRIAL) == ""

    before = on_host("sha256sum </etc/rancher/k3s/config.yaml; systemctl is-active k3s-agent")
    inventory = cluster.folder / "inventory" / "defaults.yaml"
    kept = inventory.read_text()
    cluster.edit(lambda data: data["data"]["k3s_cluster"].setdefault("agent", {}).update({"node-label": ["on=trial"]}))
    on_host(HELD)
    running = cluster.start("deploy.py", "--yes", "--try", "10m")
    try:
        eventually(begun)
    finally:
        running.send_signal(signal.SIGKILL)
        running.communicate()
        inventory.write_text(kept)
    on_host("touch /run/go")
    cluster.lab.exec("a1", ["systemctl", "start", "nornir-k3s-undo.service"])  # it waits for the killed run's script
    eventually(taken_back)
    on_host(f"rm -r {DROPIN} /run/go; systemctl daemon-reload")
    cluster.deploy("--yes")
    taken_back()
    eventually(lambda: unchanged(cluster))


def test_ctrl_c_while_a_server_leaves_brings_it_back_at_once(cluster: Site) -> None:
    cluster.edit(label("stopped"))
    running = cluster.start("deploy.py", "--yes")
    try:
        eventually(lambda: somebody_is_drained(cluster))
    finally:
        running.send_signal(signal.SIGINT)
        output, _ = running.communicate(timeout=300)
    assert running.returncode == 130, output
    for balancer in BALANCERS:
        assert drained(cluster, balancer) == set()
        assert cluster.lab.exec(balancer, ["sh", "-c", NOTES]).stdout == ""
    cluster.deploy("--yes")
    eventually(lambda: unchanged(cluster))


def test_no_server_restarts_while_another_is_away(cluster: Site) -> None:
    cluster.edit(label("alone"))
    cluster.lab.exec("s1", ["systemctl", "stop", "k3s"])
    before = cluster.lab.exec("s2", ["systemctl", "show", "-p", "MainPID", "k3s"]).stdout
    done = cluster.runbook("deploy.py", "--yes", "--limit", "s2")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "s2: not restarted, because s1 is not ready: two servers are never away" in done.stderr
    assert cluster.lab.exec("s2", ["systemctl", "show", "-p", "MainPID", "k3s"]).stdout == before
    cluster.deploy("--yes")
    eventually(lambda: unchanged(cluster))


def test_the_timer_of_the_host_brings_a_server_back(cluster: Site) -> None:
    """Whatever happens to the controller."""
    script = rotation.leave("s3", sessions=1, after=2)
    assert "\tdrained\t" in cluster.lab.exec("lb2", ["sh", "-s"], input=script).stdout

    def back() -> None:
        assert away(cluster, "lb2") == set()
        assert cluster.lab.exec("lb2", ["sh", "-c", NOTES]).stdout == ""

    eventually(back)
