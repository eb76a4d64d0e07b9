"""A lab of its own for the end-to-end tests, and the runbooks run on it as an operator would: as commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from build import SHORT
from ruamel.yaml import YAML
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from nornir_k3s.artifacts.source import version_of
from nornir_k3s.k3s import parse_version
from nornir_k3s_lab import Lab
from nornir_k3s_lab.container import used_images
from nornir_k3s_lab.image import ensure_images
from tests import bundle, preloaded

PROJECT = Path(__file__).resolve().parents[2]
# Each process of the suite has hosts of its own: pytest-xdist's first process is gw0.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
LAB = f"e2e{WORKER}"
PREFIX = f"10.79.{WORKER}"
VIP = f"{PREFIX}.100"
DB = f"{PREFIX}.11"
# Whose commands are measured for the coverage, too: they go everywhere once, and are half of all.
MEASURED = (
    *("deploy", "drift", "drill", "external_datastore_checks", "failures", "load_balancers", "nodes", "operator"),
    *("registration", "rotation", "schedule", "upgrade", "workflows"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder: one without its mark would run on the same lab beside the others."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.e2e)


@dataclass
class Site:
    """A folder with config and inventory, the lab its hosts run in, and the commands."""

    folder: Path
    lab: Lab
    version: str
    hosts: str = "bare"  # or `cluster`, which may need a deploy, or `used` for something else

    @property
    def kubeconfig(self) -> Path:
        return self.folder / ".state" / "lab" / "kubeconfig"

    def runbook(self, name: str, *arguments: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Run a runbook from a folder that is not the project's, in a fork; `start` makes a process of it."""
        words = [str(PROJECT / "runbooks" / name), "--config", str(self.folder / "config.yaml"), *arguments]
        return preloaded.run(words, cwd="/", environment=os.environ, timeout=timeout)

    def start(self, name: str, *arguments: str, terminal: int | None = None) -> subprocess.Popen[str]:
        """Start a runbook; `terminal` is the descriptor of one that it gets for all its streams."""
        # These tests may run in the background or under nohup, where signals are ignored; runs here hear them.
        command = ["env", "--default-signal=INT,HUP,TERM", sys.executable, str(PROJECT / "runbooks" / name)]
        command += ["--config", str(self.folder / "config.yaml")]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        if terminal is not None:
            streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
        return subprocess.Popen([*command, *arguments], cwd="/", text=True, **streams)  # type: ignore[call-overload,no-any-return]

    def deploy(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = self.runbook("deploy.py", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def kubectl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run kubectl on this machine with the kubeconfig that was handed over: through the VIP."""
        command = [str(self.folder / "bundle" / "k3s"), "kubectl", f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def nodes(self, since: float = 0) -> dict[str, bool]:
        """Return which nodes are Ready, as their kubelets have said since then: the word of an earlier start stays."""
        answer = self.kubectl("get", "nodes", "-o", "json")
        assert answer.returncode == 0, answer.stderr
        return {
            item["metadata"]["name"]: any(
                c["type"] == "Ready"
                and c["status"] == "True"
                and datetime.fromisoformat(c["lastHeartbeatTime"]).timestamp() >= since
                for c in item["status"]["conditions"]
            )
            for item in json.loads(answer.stdout)["items"]
        }

    def answers(self) -> None:
        answer = self.kubectl("get", "--raw", "/readyz")
        assert answer.stdout.strip() == "ok", answer.stderr

    def holder(self) -> str:
        found = [n for n in ("lb1", "lb2") if VIP in self.lab.exec(n, ["ip", "-o", "addr"]).stdout]
        assert len(found) == 1, found
        return found[0]

    def edit(self, change: Callable[[dict[str, Any]], object], file: str = "defaults.yaml") -> None:
        """Change an inventory file as an operator would."""
        self._edit(change, self.folder / "inventory" / file)

    def edit_config(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change config.yaml as an operator would."""
        self._edit(change, self.folder / "config.yaml")

    def _edit(self, change: Callable[[dict[str, Any]], object], path: Path) -> None:
        yaml = YAML()
        data = yaml.load(path)
        change(data)
        yaml.dump(data, path)

    def processes(self) -> dict[str, str]:
        """Return start times of everything that a run without changes must not restart."""
        units = {"db1": ["mariadb"], "lb1": ["haproxy", "keepalived"], "lb2": ["haproxy", "keepalived"]}
        units |= {name: ["k3s"] for name in ("s1", "s2", "s3")} | {name: ["k3s-agent"] for name in ("a1", "a2")}
        return {
            host: self.lab.exec(
                host,
                [
                    "systemctl",
                    "show",
                    "-p",
                    "MainPID,ExecMainStartTimestampMonotonic,StateChangeTimestampMonotonic",
                    *names,
                ],
            ).stdout
            for host, names in units.items()
        }


def controller(cluster: Site, folder: Path) -> Site:
    """Another controller: the same config and inventory, and nothing else."""
    shutil.copytree(cluster.folder / "inventory", folder / "inventory")
    shutil.copy(cluster.folder / "config.yaml", folder / "config.yaml")
    for shared in (".lab", "bundle"):  # the key that logs in, host keys, and the release
        (folder / shared).symlink_to(cluster.folder / shared)
    return replace(cluster, folder=folder)


def eventually(check: Callable[[], Any], deadline: float = 120) -> Any:
    """Call until it no longer fails an assertion; its last failure is the test's."""
    for attempt in Retrying(
        stop=stop_after_delay(deadline),
        wait=wait_fixed(0.5),
        retry=retry_if_exception_type(AssertionError),
        reraise=True,
    ):
        with attempt:
            return check()
    raise AssertionError("no attempt was made")


def rotate_token(site: Site) -> None:
    """What K3s' own command has changed is finished by a deploy, whatever rows of the old token are still there."""
    new, servers = "rotated-by-k3s", [name for name in ("s1", "s2", "s3") if name in site.nodes()]
    site.lab.exec("s1", ["k3s", "token", "rotate", "--new-token", new])
    saved = site.folder / ".state" / "lab" / "token"
    before = saved.read_text()
    assert "the token was rotated on s1" in site.deploy("--plan").stdout
    assert saved.read_text() == before
    site.deploy("--yes")
    assert saved.read_text() == new + "\n"
    for name in servers:
        path = "/var/lib/rancher/k3s/server/token"
        assert site.lab.exec(name, ["cat", path]).stdout.endswith(f"::server:{new}\n"), name
    assert "nothing to change" in site.deploy().stdout
    eventually(lambda: unchanged(site))


def health(site: Site) -> set[str]:
    """Return what a drift check without any patience has to say of the datastore: all that it could read."""
    path, found = site.folder / "config.yaml", site.folder / "health.json"
    kept = path.read_text()
    limits = {"latency_ms": 0.001, "connections_percent": 1, "rows": 1, "table_mib": 0, "revisions": 1}
    try:
        site.edit_config(lambda data: data["user_defined"]["k3s"].update(drift={"limits": limits}))
        done = site.runbook("drift.py", "--no-history", "--json", str(found))
        assert done.returncode == 3, done.stdout + done.stderr
    finally:
        path.write_text(kept)
    other = {"vip", "backend"}  # they may move meanwhile on a busy machine
    return {one["kind"] for one in json.loads(found.read_text())["differences"] if not one["accepted"]} - other


def namespace(site: Site, name: str) -> None:
    """Create a namespace, and see that it is there."""
    site.kubectl("create", "namespace", name)
    found = site.kubectl("get", "namespace", name, "-o", "name")
    assert found.stdout.strip() == f"namespace/{name}", found.stderr


def unchanged(site: Site) -> None:
    """A drift check finds nothing, with one command a host."""
    done = site.runbook("drift.py", "--no-history")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 round trip(s)" in done.stdout


@pytest.fixture(scope="module", autouse=True)
def _measured(request: pytest.FixtureRequest) -> Iterator[None]:
    """Measure what commands run in some files only."""
    with pytest.MonkeyPatch.context() as patch:
        if request.path.stem.removeprefix("test_") not in MEASURED:
            patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        yield


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The lab's eight hosts, bare."""
    if os.geteuid() != 0:
        pytest.fail("the end-to-end tests boot hosts on this machine: run them as root, or only `make unit`")
    folder = tmp_path_factory.mktemp("site")
    prepare_site(folder)
    bundle.prepare(folder / "bundle", download=False, delays=SHORT)
    version = version_of(folder / "bundle" / "k3s")
    assert version
    lab = Lab.from_inventory(folder / "config.yaml")
    site = Site(folder, lab, version)
    # Three labs share this machine: a VIP that moves because its holder was late is not what most tests are about.
    site.edit(lambda data: data["data"]["k3s_cluster"].update(version=version, lb={"advert_int": 1}))
    accept_cgroup_v1(site, version)
    lab.down()
    lab.up()
    try:
        yield site
    finally:
        lab.down()


def accept_cgroup_v1(site: Site, version: str) -> None:
    """Have a kubelet of this version run on a machine with cgroup v1: from 1.35 on it does only when it is told to."""
    if parse_version(version) < parse_version("v1.35.0+k3s1") or Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return
    for role in ("server", "agent"):
        site.edit(partial(_accept_cgroup_v1, role=role))


def _accept_cgroup_v1(defaults: dict[str, Any], role: str) -> None:
    defaults["data"]["k3s_cluster"].setdefault(role, {})["kubelet-arg"] = ["fail-cgroupv1=false"]


def prepare_site(folder: Path) -> None:
    """Copy the project's own config and inventory, moved to another lab: name, range and folders."""
    shutil.copytree(PROJECT / "inventory", folder / "inventory")
    shutil.copy(PROJECT / "config.yaml", folder / "config.yaml")
    for path in [folder / "config.yaml", *folder.glob("inventory/*.yaml")]:
        text = path.read_text().replace("10.77.0.", f"{PREFIX}.").replace("../.lab/lab/", f"../.lab/{LAB}/")
        text = text.replace("../.lab/bundle", "../bundle").replace(
            "    name: lab\n    network", f"    name: {LAB}\n    network"
        )
        path.write_text(text)


Proved = Callable[..., None]
PACKAGES = {"mariadb": "mariadb-server", "mysql": "mysql-server", "etcd": "etcd-server"}


@pytest.fixture
def proved(request: pytest.FixtureRequest) -> Proved:
    """A function that notes what a test has shown of a datastore; it counts if the test passes (`--tested`)."""

    def note(site: Site, kind: str, way: str, *steps: str) -> None:
        release = next(host.release for host in site.lab.hosts if host.name == "db1")
        package = PACKAGES.get(kind) or "postgresql-[0-9]*"
        version = site.lab.exec("db1", ["dpkg-query", "-W", "-f", "${Version}\\n", package]).stdout.split()[0]
        request.node.user_properties.append(("proved", [kind, version, release, way, *steps]))

    return note


@contextmanager
def bare(site: Site, releases: Mapping[str, str] | None = None) -> Iterator[Path]:
    """Bare hosts without a state, some of another release, and an inventory to change; afterwards it is as it was."""
    with unchanged_files(site):
        if releases:
            site.edit(partial(set_releases, releases=releases), "hosts.yaml")
            site.hosts = "used"
        make_bare(site)
        site.hosts = "used"
        yield site.folder / "inventory"


def set_releases(hosts: dict[str, Any], releases: Mapping[str, str]) -> None:
    for host, release in releases.items():
        hosts[host].setdefault("data", {})["k3s_lab"] = {"release": release}


@contextmanager
def unchanged_files(site: Site) -> Iterator[None]:
    """Put config and inventory back at the end."""
    kept = {path: path.read_text() for path in (site.folder / "config.yaml", *site.folder.glob("inventory/*"))}
    try:
        yield
    finally:
        for path, text in kept.items():
            path.write_text(text)


def add_packages_of(site: Site, host: str, release: str) -> None:
    """Let apt on a host know the packages of another release of Debian, too."""
    (image,) = ensure_images(site.lab.cache, [release], print, used_images(site.lab.runtime)).values()
    init = next(one.init for one in site.lab.status() if one.host.name == host)
    shutil.copytree(image / "packages", f"/proc/{init}/root/srv/{release}")
    line = f"deb [trusted=yes] file:/srv/{release} ./"
    site.lab.exec(host, ["sh", "-c", f"echo '{line}' >/etc/apt/sources.list.d/{release}.list; apt-get -q update"])


def upgrade(site: Site, host: str, *names: str) -> None:
    """Install the newest versions of these packages by apt, as an administrator does."""
    script = f"DEBIAN_FRONTEND=noninteractive apt-get -qy -o Dpkg::Options::=--force-confold install {' '.join(names)}"
    site.lab.exec(host, ["sh", "-c", script], timeout=600)


def make_bare(site: Site) -> None:
    """Throw away what tests before have made of the hosts, and forget what is known of it."""
    state = site.folder / ".state" / "lab"
    if state.exists():
        state.rename(Path(tempfile.mkdtemp(dir=site.folder)) / "state")
    if site.hosts != "bare":
        site.lab = Lab.from_inventory(site.folder / "config.yaml")  # hosts may have another release than before
        site.lab.reset_all()
    site.hosts = "bare"


@pytest.fixture(scope="module")
def cluster(site: Site) -> Iterator[Site]:
    """The same hosts with a finished cluster, as the inventory says, whatever the file before has left."""
    if site.hosts == "used":
        make_bare(site)
    site.hosts = "cluster"
    with unchanged_files(site):
        site.deploy("--yes")
        yield site
