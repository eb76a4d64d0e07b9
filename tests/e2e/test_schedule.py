"""Drift checks by a timer of a real systemd, on a host of the lab that stands for a controller."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.conftest import Site, eventually
from tests.e2e.controller import AS_USER, HOME, USER, Controller, controller

NAME = "nornir-k3s-drift-lab"


@pytest.fixture(params=["the system's", "the user's own"])
def there(cluster: Site, request: pytest.FixtureRequest) -> Iterator[Controller]:
    with controller(cluster, "lb2", own=request.param != "the system's") as found:
        yield found


def test_drift_is_found_by_itself(there: Controller) -> None:
    """The real check, in its sandbox and as a user who is not root."""
    units = f"/home/{USER}/.config/systemd/user" if there.own else "/etc/systemd/system"
    often = f"mkdir -p {units}/{NAME}.timer.d && printf '[Timer]\nAccuracySec=1s\n' >{units}/{NAME}.timer.d/often.conf"
    there.sh(f'{AS_USER} sh -c "{often}"' if there.own else often)
    said = there.schedule("install", "--calendar", "'*:*:0/10'", "--jitter", "0", "--metrics", f"{HOME}/told/k3s.prom",
                          "--html", f"{HOME}/told/page.html")  # fmt: skip
    assert "installed" in said, said
    assert (f"it runs as {USER}" in said) == (not there.own)
    try:
        eventually(lambda: _last(there, "no drift (exit 0)"))
        assert "nornir_k3s_drift_findings" in there.sh(f"cat {HOME}/told/k3s.prom")
        kept = there.sh(f"find {HOME}/site/.state/lab {HOME}/told -printf '%u\\n' | sort -u")
        assert kept.split() == [USER], "what they cannot read later"
        assert there.sh(f"stat -c '%U %a' {HOME}/told/k3s.prom").split() == [USER, "644"]
        there.site.lab.exec("a1", ["chmod", "0644", "/etc/rancher/k3s/config.yaml"])
        eventually(lambda: _last(there, "drift (exit 3)"))
        assert "config.yaml" in there.sh(f"cat {HOME}/told/page.html")
    finally:
        said = there.schedule("remove")
        there.site.deploy("--yes")
    assert "removed" in said, said
    assert there.sh(f"ls {units}").count(f"{NAME}.service") == 0
    there.sh(f"rm -rf {units}/{NAME}.timer.d")


def _last(there: Controller, words: str) -> None:
    said = there.schedule("status")
    assert f"last run: {words}" in said, said + there.journal()


def test_the_units_of_the_schedule_behave_under_a_real_systemd(cluster: Site) -> None:
    """On a host of the lab, with a script in the place of drift.py: it has no Python."""
    done = cluster.runbook("schedule.py", "print", "--deadline", "3", "--jitter", "0", "--calendar", "*:*:0/1",
                           "--on-failure", "told.service")  # fmt: skip
    assert done.returncode == 0, done.stderr
    units = dict(re.findall(r"^# (/etc/systemd/system/\S+)\n(.*?)(?=^# /etc|\Z)", done.stdout, re.M | re.S))
    assert len(units) == 2
    service = next(name for name in units if name.endswith(".service"))
    name = Path(service).name

    def sh(script: str, text: str = "") -> str:
        return cluster.lab.exec("lb1", ["sh", "-ec", script], input=text).stdout

    sh("mkdir -p /srv/state; cat >/usr/local/bin/drift; chmod +x /usr/local/bin/drift",
       "#!/bin/sh\ntouch /etc/written && exit 99\necho run >>/srv/state/runs\n. /srv/state/do\n")  # fmt: skip
    sh("cat >/etc/systemd/system/told.service", "[Service]\nType=oneshot\nExecStart=/bin/touch /srv/told\n")
    for path, text in units.items():
        ours = re.sub(r"^ExecStart=.*", "ExecStart=/usr/local/bin/drift", text, flags=re.M)
        ours = ours.replace("[Timer]", "[Timer]\nAccuracySec=1s")  # systemd may be a minute late
        sh(f"cat >{path}", re.sub(r"^ReadWritePaths=.*", "ReadWritePaths=/srv/state", ours, flags=re.M))
    try:
        sh("systemctl daemon-reload")
        for code, state in ((0, "inactive"), (3, "inactive"), (5, "inactive"), (1, "failed"), (4, "failed")):
            sh(f"echo exit {code} >/srv/state/do; rm -f /srv/told; systemctl reset-failed {name} 2>/dev/null || :;"
               f" systemctl start {name} || :")  # fmt: skip
            assert sh(f"systemctl is-active {name} || :").strip() == state, code
            eventually(partial(_told_as, sh, state))
        sh(f"echo sleep 600 >/srv/state/do; systemctl start {name} || :")
        assert "timeout" in sh(f"systemctl show -p Result {name}"), "its deadline"
        sh("echo exit 0 >/srv/state/do; rm /srv/state/runs")
        sh(f"systemctl start {name.replace('.service', '.timer')}")
        eventually(lambda: _ran(sh("cat /srv/state/runs 2>/dev/null || :")))
    finally:
        sh(f"systemctl stop {name.replace('.service', '.timer')} || :; systemctl reset-failed {name} 2>/dev/null || :;"
           f" rm -rf /srv/state /srv/told /usr/local/bin/drift {' '.join(units)} /etc/systemd/system/told.service;"
           " systemctl daemon-reload")  # fmt: skip


def _told_as(sh: Callable[[str], str], state: str) -> None:
    assert bool(sh("ls /srv/told 2>/dev/null || :")) == (state == "failed")


def _ran(text: str) -> None:
    assert text.count("run") >= 2
