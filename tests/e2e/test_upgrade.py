"""A newer K3s on a living cluster: one server after the other, and back where the first one does not come up."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from build import SHORT

from nornir_k3s.artifacts.source import version_of
from nornir_k3s.k3s import minor, parse_version, same_minor

from . import killed
from .asked import Asked
from .balancers import BALANCERS, away
from .conftest import Site, accept_cgroup_v1, bare, eventually, unchanged

HOSTS = ("s1", "s2", "s3", "a1", "a2")
# In front of the real file: a server that ends at its start, and everything else as ever.
BROKEN = """#!/bin/sh
[ "$1" != server ] || { echo 'level=fatal msg="Error: broken on purpose"' >&2; exit 1; }
real=/run/of-a-test/k3s
[ -x $real ] || { mkdir -p /run/of-a-test; tail -n +6 "$0" >$real.$$; chmod 755 $real.$$; mv $real.$$ $real; }
exec $real "$@"
"""
# On one agent: a containerd that ends at its start, as long as K3s is of this version.
CONTAINERD = """mkdir -p /etc/systemd/system/k3s-agent.service.d
cat >/etc/broken.sh <<'.'
case $(/usr/local/bin/k3s --version) in *VERSION*) ;; *) exit 0 ;; esac
echo 'containerd: toml: key "imports" is already defined' >>/var/lib/rancher/k3s/agent/containerd/containerd.log
echo 'level=info msg="Shutdown request received: containerd exited: exit status 1"'
exit 1
.
printf '[Service]\\nExecStartPre=/bin/sh /etc/broken.sh\\n' >/etc/systemd/system/k3s-agent.service.d/broken.conf
systemctl daemon-reload
"""
MEND = "rm -r /etc/systemd/system/k3s-agent.service.d /etc/broken.sh; systemctl daemon-reload"


@pytest.fixture(scope="module")
def upgraded(site: Site) -> Iterator[tuple[Site, str]]:
    """A finished cluster, and the version of the K3s in its folder `next`."""
    following = site.folder / "next"
    if given := os.environ.get("K3S_BUNDLE_NEXT"):
        shutil.copytree(given, following)
    else:
        if os.environ.get("K3S_BUNDLE"):
            pytest.skip("K3S_BUNDLE_NEXT names no K3s that is newer than that of K3S_BUNDLE")
        from build import build  # noqa: PLC0415 - needs PyInstaller, which a real release does not

        release = parse_version(site.version).release
        build(following, version=f"v{release[0]}.{release[1]}.{release[2] + 1}+k3s1", delays=SHORT)
    version = version_of(following / "k3s")
    assert version
    with bare(site):
        accept_cgroup_v1(site, following_minor(version))  # which older ones take, too
        site.edit_config(lambda data: data["user_defined"]["k3s"]["deadlines"].update(connect=5))
        site.lab.poweroff("a2")
        try:
            done = site.runbook("deploy.py")
        finally:
            site.lab.poweron("a2")
            site.edit_config(lambda data: data["user_defined"]["k3s"]["deadlines"].update(connect=60))
        assert done.returncode == 4, done.stdout + done.stderr
        assert set(site.nodes()) == {"s1", "s2", "s3", "a1"}, "an agent that is down stops nothing else"
        site.deploy()
        yield site, version


def following_minor(version: str) -> str:
    release = parse_version(version).release
    return f"v{release[0]}.{release[1] + 1}.1+k3s1"


def use(site: Site, folder: str, version: str) -> None:
    site.edit(lambda data: data["data"]["k3s_cluster"].update(version=version, artifacts={"folder": f"../{folder}"}))


def versions(site: Site) -> set[str]:
    shown = site.kubectl("get", "nodes", "-o", "jsonpath={.items[*].status.nodeInfo.kubeletVersion}")
    return set(shown.stdout.split())


def run_pods(site: Site) -> None:
    """Give both agents and a server pods; one of them must stay on its agent."""
    owner = {"apiVersion": "apps/v1", "name": "x", "uid": "1", "controller": True}
    items: list[dict[str, object]] = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": "default",
                "labels": {"app": name},
                "ownerReferences": [owner | {"kind": kind}],
            },
            "spec": {"nodeName": name[-2:], "containers": [{"name": "x", "image": "x"}]},
        }
        for name, kind in (
            ("daemon-a1", "DaemonSet"),
            ("moved-a1", "ReplicaSet"),
            ("moved-a2", "ReplicaSet"),
            ("kept-a2", "ReplicaSet"),
            ("moved-s2", "ReplicaSet"),
        )
    ]
    for name, ready in (("well", "True"), ("sick", "False")):
        owners = [owner | {"kind": "DaemonSet", "name": name}]
        metadata = {"name": f"{name}-x", "namespace": "kube-system", "ownerReferences": owners}
        spec = {"nodeName": "a1", "containers": [{"name": "x", "image": "x"}]}
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}
        items.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status})
    budget = {"minAvailable": 1, "selector": {"matchLabels": {"app": "kept-a2"}}}
    metadata = {"name": "kept", "namespace": "default"}
    items.append({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata, "spec": budget})
    file = site.folder / "pods.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    done = site.kubectl("apply", "-f", str(file))
    assert done.returncode == 0, done.stderr


def pods(site: Site) -> set[str]:
    return set(site.kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.name}").stdout.split())


def cordoned(site: Site) -> set[str]:
    chosen = "jsonpath={.items[?(@.spec.unschedulable==true)].metadata.name}"
    return set(site.kubectl("get", "nodes", "-o", chosen).stdout.split())


def started(site: Site, host: str) -> str:
    unit = "k3s" if host.startswith("s") else "k3s-agent"
    return site.lab.exec(host, ["systemctl", "show", "-p", "ExecMainStartTimestampMonotonic", unit]).stdout


def broken(site: Site) -> None:
    """Make a folder with a K3s that does not start."""
    folder: Path = site.folder / "broken"
    shutil.copytree(site.folder / "next", folder, dirs_exist_ok=True)
    (folder / "k3s").write_bytes(BROKEN.encode() + (site.folder / "next" / "k3s").read_bytes())


def test_a_server_that_does_not_come_up_gets_its_k3s_back(upgraded: tuple[Site, str]) -> None:
    """And no other host is touched, within a minor version."""
    site, version = upgraded
    if not same_minor(site.version, version):
        pytest.skip("K3S_BUNDLE_NEXT is of another minor version")
    broken(site)
    use(site, "broken", version)
    before = {host: started(site, host) for host in HOSTS}
    done = site.runbook("deploy.py", "--yes")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "its previous files were restored (/usr/local/bin/k3s)" in done.stderr
    assert "and it is ready again; the run stops here" in done.stderr
    assert "broken on purpose" in done.stderr
    assert versions(site) == {site.version}
    after = {host: started(site, host) for host in HOSTS}
    assert before.pop("s1") != after.pop("s1")
    assert before == after
    use(site, "bundle", site.version)
    site.deploy("--yes")
    eventually(lambda: unchanged(site))


def test_an_agent_whose_containerd_ends_gets_its_k3s_back(upgraded: tuple[Site, str]) -> None:
    """And no other agent is touched."""
    site, version = upgraded
    if not same_minor(site.version, version):
        pytest.skip("K3S_BUNDLE_NEXT is of another minor version")
    if os.environ.get("K3S_BUNDLE"):
        pytest.skip("K3s removes pods whose owner is not there")
    use(site, "next", version)
    site.lab.exec("a1", ["sh", "-c", CONTAINERD.replace("VERSION", version)])
    drained = {"drain": {"servers": {"enabled": True}}}
    site.edit(lambda data: data["data"]["k3s_cluster"].update(rolling_update=drained))
    run_pods(site)
    before = {host: started(site, host) for host in HOSTS}
    try:
        with Asked(site) as asked:
            done = site.runbook("deploy.py", "--yes", "--json", str(site.folder / "upgrade.json"))
    finally:
        site.lab.exec("a1", ["sh", "-c", MEND])
    assert done.returncode == 1, done.stdout + done.stderr
    asked.lost_none()
    for words in (
        "a1: not ready: ",
        "it ended 3 times; containerd has ended, and K3s with it",
        "containerd exited: exit status 1",
        'containerd.log: containerd: toml: key "imports" is already defined',
        "its previous files were restored (/usr/local/bin/k3s), and it is ready again; the run stops here",
    ):
        assert words in done.stderr, done.stderr
    back = json.loads((site.folder / "upgrade.json").read_text())["way_back"]
    assert back["version"] == site.version
    assert back["dump"].startswith("db1:/var/lib/nornir-k3s/dumps/lab-")
    runs = site.kubectl("get", "nodes", "-o", "jsonpath={.items[*].status.nodeInfo.kubeletVersion}").stdout.split()
    assert sorted(runs) == sorted([site.version] * 2 + [version] * 3)
    assert started(site, "a2") == before["a2"]
    assert pods(site) == {"daemon-a1", "moved-a2", "kept-a2"}, "evicted from servers, and from the first agent alone"
    assert cordoned(site) == set()


def test_a_pod_that_must_stay_keeps_its_agent_as_it_is(upgraded: tuple[Site, str]) -> None:
    site, _ = upgraded
    if not pods(site):
        pytest.skip("there are no pods")
    site.edit(lambda data: data["data"]["k3s_cluster"].update(rolling_update={"drain": {"timeout": 2}}))
    site.kubectl("cordon", "a1")  # by somebody else
    done = site.runbook("deploy.py", "--yes")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "a2: not touched, because its node could not be drained" in done.stderr
    assert "Cannot evict pod as it would violate the pod's disruption budget" in done.stderr
    assert "a2 failed (below): the run goes on with the other hosts" in done.stdout
    assert cordoned(site) == {"a1"}
    site.kubectl("uncordon", "a1")
    site.kubectl("delete", "poddisruptionbudgets", "kept")
    # As a run that was killed leaves it.
    mark = {"metadata": {"annotations": {"nornir-k3s/cordoned": "yes"}}, "spec": {"unschedulable": True}}
    site.kubectl("patch", "node", "a1", "--type=merge", "-p", json.dumps(mark))
    site.lab.exec("a1", ["touch", "/var/lib/nornir-k3s/cordoned"])


def test_every_node_gets_it_and_nothing_of_the_old_one_is_left(upgraded: tuple[Site, str]) -> None:
    site, version = upgraded
    (site.folder / "releases").mkdir()
    (site.folder / "releases" / version).symlink_to(site.folder / "next")
    use(site, "next", version)
    planned = site.runbook("deploy.py", "--plan")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "upgrade of K3s, " in planned.stdout
    assert f" a2: {site.version} → {version}, drained first\n" in planned.stdout
    use(site, "releases", site.version)
    planned = site.runbook("upgrade.py", "--to", minor(version), "--plan")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert f"a2: {site.version} → {version}\n" in planned.stdout
    refused = site.runbook("upgrade.py", "--to", "v1.99", "--yes")
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "which patch of 1.99 to take cannot be asked: name it with --via" in refused.stderr
    report = site.folder / "upgrade.json"
    done = site.runbook("upgrade.py", "--to", version, "--yes", "--write", "--json", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    (step,) = json.loads(report.read_text())["steps"]
    told = step["report"]
    assert f"version: {version}\n" in (site.folder / "inventory" / "defaults.yaml").read_text()
    if pods(site):
        found = [one["found"] for one in told["findings"] if one["subject"] == "kube-system"]
        assert found == ["DaemonSet sick has 0 of 1 pods ready, before anything is changed"]
    assert not [note for note in told["notes"] if "cordoned" in note or "kube-system" in note]
    assert versions(site) == {version}
    assert site.nodes() == dict.fromkeys(HOSTS, True)
    assert cordoned(site) == set()
    assert pods(site) <= {"daemon-a1"}
    for host in HOSTS:
        left = site.lab.exec(host, ["sh", "-c", "cd /var/lib/nornir-k3s; ls -d binary previous cordoned; :"])
        assert left.stdout == "", host
    assert "nothing to change" in site.deploy().stdout
    eventually(lambda: unchanged(site))


LEFT = "cd /var/lib/nornir-k3s; ls -d binary previous cordoned drained/* pending/* 2>/dev/null; :"
TEMPLATE = "/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.tmpl"


def later(site: Site) -> str:
    """Make a folder with a K3s of a minor version that cannot be reached in one step; it only tells its version."""
    folder, version = site.folder / "later", "v1.38.1+k3s1"
    shutil.copytree(site.folder / "next", folder, dirs_exist_ok=True)
    (folder / "k3s").write_text(f"#!/bin/sh\necho 'k3s version {version} (0123abcd)'\n")
    return version


def test_what_stands_in_the_way_of_a_minor_version_is_told_before_anything_happens(upgraded: tuple[Site, str]) -> None:
    site, _ = upgraded
    kept = (site.folder / "inventory" / "defaults.yaml").read_text()
    own = 'imports = ["/etc/containerd/own/*.toml"]\n{{ template "base" . }}\n'
    site.lab.exec("a1", ["sh", "-c", f"mkdir -p $(dirname {TEMPLATE}) && cat >{TEMPLATE}"], input=own)
    try:
        use(site, "later", later(site))
        done = site.runbook("deploy.py", "--preflight-only", "--limit", "agents")
        said = done.stdout + done.stderr
        assert done.returncode in (1, 2), said
        for name in ("containerd-template", "version", "skew"):
            assert f"[{name}]" in said, said
        assert "remove that line" in said
    finally:
        site.lab.exec("a1", ["rm", "-f", TEMPLATE])
        (site.folder / "inventory" / "defaults.yaml").write_text(kept)


def test_a_minor_version_comes_to_every_node_wherever_a_run_is_killed(
    upgraded: tuple[Site, str], request: pytest.FixtureRequest
) -> None:
    """And no request is lost."""
    site, version = upgraded
    if os.environ.get("K3S_BUNDLE"):
        pytest.skip("K3S_BUNDLE_NEXT was the last version that there is")
    from build import build  # noqa: PLC0415 - needs PyInstaller, which a real release does not

    version = following_minor(version)
    build(site.folder / "minor", version=version, delays=SHORT)
    use(site, "minor", version)
    with Asked(site) as asked:
        killed.upgrade(site, killed.ALL if request.config.getoption("--matrix") else killed.PARTS)
    asked.lost_none()
    assert versions(site) == {version}
    assert site.nodes() == dict.fromkeys(HOSTS, True)
    assert cordoned(site) == set()
    assert {balancer: away(site, balancer) for balancer in BALANCERS} == {balancer: set() for balancer in BALANCERS}
    for host in (*HOSTS, *BALANCERS):
        left = site.lab.exec(host, ["sh", "-c", LEFT])
        assert left.stdout == "", host
    assert "nothing to change" in site.deploy().stdout
    eventually(lambda: unchanged(site))
