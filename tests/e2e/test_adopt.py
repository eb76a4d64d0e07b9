"""Clusters that others have made are taken over: adopt, plan, deploy, drift; the users of their API notice nothing."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from . import by_hand
from .asked import Asked
from .conftest import LAB, PROJECT, VIP, Site, bare, eventually, unchanged

SUDO = "LAB_SUDO_PASSWORD"


def adopt(site: Site, folder: Path, *hosts: str) -> dict[str, object]:
    """Run the command with addresses, and return what it tells as JSON."""
    lab = site.folder / ".lab" / LAB
    words = ["--out", str(folder), "--name", "lab", "--user", "ops", "--key-file", str(lab / "id_ed25519")]
    words += [
        "--known-hosts",
        str(lab / "known_hosts"),
        "--sudo-password-env",
        SUDO,
        "--artifacts",
        str(site.folder / "bundle"),
    ]
    command = [sys.executable, str(PROJECT / "runbooks" / "adopt.py"), *hosts, *words, "--json", "-"]
    environment = {**os.environ, SUDO: (lab / "sudo-password").read_text().strip()}
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert by_hand.TOKEN not in done.stdout + done.stderr
    assert by_hand.PASSWORD not in done.stdout + done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def of(*names: str) -> list[str]:
    return [f"root@{by_hand.ADDRESS[name]}" if name == "a2" else by_hand.ADDRESS[name] for name in names]


def take_over(site: Site, folder: Path) -> set[str]:
    """Deploy the inventory that was written: nothing restarts that the plan does not say, and no request is lost.

    Returns:
        The nodes whose K3s the plan restarts.
    """
    os.environ[SUDO] = (site.folder / ".lab" / LAB / "sudo-password").read_text().strip()
    (folder / "bundle").symlink_to(site.folder / "bundle")
    taken = replace(site, folder=folder)
    taken.kubeconfig.write_text(site.kubeconfig.read_text())
    done = taken.runbook("deploy.py", "--plan", "--json", str(folder / "plan.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    plan = json.loads((folder / "plan.json").read_text())
    said = {one.partition("/")[0] for one in plan["restarts"] if one.endswith(("/k3s.service", "/k3s-agent.service"))}
    before = by_hand.started(site)
    with Asked(taken) as asked:
        taken.deploy("--yes")
    after = by_hand.started(site)
    asked.lost_none()
    assert {name for name in before if before[name] != after[name]} <= said, done.stdout
    assert set(taken.nodes()) == {*by_hand.SERVERS, *by_hand.AGENTS}
    assert "nothing to change" in taken.deploy().stdout

    def clean() -> None:
        drift = taken.runbook("drift.py", "--no-history")
        assert drift.returncode == 0, drift.stdout + drift.stderr

    eventually(clean)
    return said


def accept(folder: Path, id_: str) -> None:
    """Let drift know a difference, as `adopt` says."""
    path, data = folder / "inventory" / "defaults.yaml", inventory(folder, "defaults")
    until = datetime.now(UTC).date() + timedelta(days=30)
    data["data"]["k3s_cluster"]["known_drift"] = [{"id": id_, "reason": "of before", "until": until}]
    path.write_text(yaml.safe_dump(data))


def inventory(folder: Path, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "inventory" / f"{kind}.yaml").read_text())
    return found


def test_a_cluster_made_after_the_guide(site: Site, tmp_path: Path) -> None:
    with bare(site):
        by_hand.guide(site)
        found = adopt(site, tmp_path, *of("db1", "s1", "s2", "s3", "a1", "lb1", "lb2"))
        assert [one["name"] for one in found["missing"]] == ["a2"]  # type: ignore[attr-defined]
        assert found["differences"] == []
        for path in (tmp_path / "inventory").rglob("*.yaml"):
            assert by_hand.TOKEN not in path.read_text(), path
            assert by_hand.PASSWORD not in path.read_text(), path
        for name in ("token", "endpoint"):
            assert stat.S_IMODE((tmp_path / ".state" / "lab" / name).stat().st_mode) == 0o600
        again = tmp_path / "whole"
        adopt(site, again, *of("db1", "s1", "s2", "s3", "a1", "a2", "lb1", "lb2"))
        cluster = inventory(again, "defaults")["data"]["k3s_cluster"]
        assert cluster["registration"] == {"address": VIP}
        assert cluster["lb"] == {"virtual_router_id": 61, "prefix": 24}
        assert cluster["server"] == by_hand._settings(site)
        assert list(inventory(again, "hosts")) == [*by_hand.SERVERS, *by_hand.AGENTS, *by_hand.BALANCERS]
        take_over(site, again)


@pytest.mark.matrix
@pytest.mark.parametrize("made", [by_hand.k3s_ansible, by_hand.k3sup], ids=lambda one: one.__name__)
def test_clusters_of_other_tools(site: Site, tmp_path: Path, made: Callable[[Site], None]) -> None:
    with bare(site):
        made(site)
        ansible = made is by_hand.k3s_ansible
        found = adopt(site, tmp_path, *of("s1", "s2", "s3", "a1", "a2", *(by_hand.BALANCERS if ansible else ())))
        if ansible:
            accept(tmp_path, "s2/settings:/etc/systemd/system/k3s.service.d/*")
        said = take_over(site, tmp_path)
        if ansible:
            assert "10-go.conf sets GOGC for K3s: it stays there" in str(found["notes"])
            assert said == set(), "its settings are the same"
            assert "GOGC=80" in site.lab.exec("s2", ["systemctl", "show", "-p", "Environment", "k3s"]).stdout
        else:
            assert "s1" not in said, "agents and users have its address: its settings are the same"
            assert "s3: another login or other parameters in the datastore endpoint than s1" in str(found["notes"])


# As if somebody had installed it after K3s' guide, with flags: without this tool's notes, and without config.yaml.
BY_HAND = """set -eu
cat >/root/flags
sed -i -e '/^    server/{' -e 'r /root/flags' -e 'd' -e '}' /etc/systemd/system/k3s.service
mv /etc/rancher/k3s/config.yaml /var/lib/nornir-k3s /root
systemctl daemon-reload
systemctl restart k3s
"""


def healthy(site: Site) -> None:
    done = site.runbook("status.py")
    assert done.returncode == 0, done.stdout + done.stderr


def as_flags(text: str) -> str:
    """Return the settings of a config.yaml as K3s' installer writes flags into the unit."""
    lists = {key: value if isinstance(value, list) else [value] for key, value in yaml.safe_load(text).items()}
    pairs = [(key, one) for key, values in lists.items() for one in values]
    words = [f"--{key}={str(one).lower() if isinstance(one, bool) else one}".replace("%", "%%") for key, one in pairs]
    return "    server \\\n" + "".join(f"\t'{word}' \\\n" for word in words)


@pytest.mark.matrix
def test_a_k3s_that_runs_with_flags_is_taken_over_without_a_restart(cluster: Site) -> None:
    flags = as_flags(cluster.lab.exec("s2", ["cat", "/etc/rancher/k3s/config.yaml"]).stdout)
    cluster.lab.exec("s2", ["sh", "-c", BY_HAND], input=flags, timeout=120)
    eventually(lambda: healthy(cluster))
    cluster.edit(lambda data: data["data"]["k3s_cluster"]["server"].update({"cluster-cidr": "10.44.0.0/16"}))
    done = cluster.runbook("deploy.py", "--preflight-only")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the running cluster has cluster-cidr 10.42.0.0/16" in done.stderr
    cluster.edit(lambda data: data["data"]["k3s_cluster"]["server"].pop("cluster-cidr"))
    before = cluster.processes()
    done = cluster.deploy("--yes")
    assert cluster.processes() == before, done.stdout
    unit = cluster.lab.exec("s2", ["systemctl", "cat", "k3s"]).stdout
    assert "--token" not in unit
    assert "--token" in cluster.lab.exec("s2", ["cat", "/etc/systemd/system/k3s.service.before-nornir-k3s"]).stdout
    assert "nothing to change" in cluster.deploy().stdout
    eventually(lambda: unchanged(cluster))
    cluster.lab.exec("s2", ["systemctl", "restart", "k3s"])
    eventually(lambda: healthy(cluster))
    eventually(lambda: unchanged(cluster))
