"""The benchmark's own eight hosts, and the two sides that work on them: our runbook, and the peer's shell script."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nornir import InitNornir
from nornir.core import Nornir
from ruamel.yaml import YAML

from nornir_k3s.artifacts.source import version_of
from nornir_k3s.k3s import parse_version
from nornir_k3s_lab import Lab
from nornir_k3s_lab.keys import ensure_password

PROJECT = Path(__file__).resolve().parent.parent
NAME, NETWORK = "bench", "10.78.0."
LIMIT = 1800.0

# What both sides must have brought about: printed on the host, compared without comments, passwords and CA hashes.
_RESULT = {
    "db": """cat /etc/mysql/mariadb.conf.d/90-*; systemctl is-active mariadb
        stat -c '%a %U %G' /etc/mysql/*k3s-*.pem; mariadb -e "SHOW DATABASES;
        SELECT User, Host, ssl_type FROM mysql.user; SELECT * FROM mysql.db WHERE Db = 'k3s'" """,
    "s": """cat /etc/rancher/k3s/config.yaml /etc/systemd/system/k3s.service; sha256sum </usr/local/bin/k3s
        stat -c '%a %U %n' /etc/rancher/k3s/*.pem""",
    "a": "cat /etc/rancher/k3s/config.yaml /etc/systemd/system/k3s-agent.service; sha256sum </usr/local/bin/k3s",
    "lb": """cat /etc/haproxy/haproxy.cfg /etc/keepalived/keepalived.conf; systemctl is-active haproxy keepalived
        stat -c '%a %U' /etc/haproxy/k3s-check.pem; systemctl is-enabled haproxy keepalived""",
}
# The ends of our phases, and what the peer says of its own.
_MARK = re.compile(r"\w.*: .*\(\d+\.\d s\)$|by hand: ")

# A process begins with the peak of the one that started it, and this one is large: a small one starts what is measured.
_PEAK = "peak memory, KiB: "
_LAUNCH = f"""import os, sys
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
print("{_PEAK}", usage.ru_maxrss, sep="", flush=True)
sys.exit(os.waitstatus_to_exitcode(status))"""


class BenchError(Exception):
    """A side has failed, or the sides' results are not the same: there is nothing to compare."""


@dataclass(frozen=True)
class Timing:
    """How long a command took, the most memory it had, in MiB, and what it said when."""

    seconds: float
    memory: float
    lines: list[tuple[float, str]] = field(repr=False)

    @property
    def marks(self) -> list[tuple[float, str]]:
        """When it said that it had got how far."""
        return [(at, line) for at, line in self.lines if _MARK.match(line)]


@dataclass
class Site:
    """Eight hosts, and a folder with what both sides need.

    Arguments:
        folder: Config, inventory, secrets and artefacts.
        lab: The hosts.
        bundle: Which K3s, in words.
        deployed: Whether a cluster that our side made is on the hosts.
    """

    folder: Path
    lab: Lab
    bundle: str
    deployed: bool = False

    def boot(self) -> None:
        """Boot the hosts, and write down for OpenSSH how to log in to them."""
        self._runbook("lab.py", "up")
        spec = self.lab.spec
        lines = [
            *[f"Host {host.name}\n    HostName {host.address}\n    User {host.user}" for host in spec.hosts],
            f"Host *\n    IdentityFile {spec.key_file}\n    UserKnownHostsFile {spec.known_hosts}",
            "    IdentitiesOnly yes\n    StrictHostKeyChecking yes\n    BatchMode yes\n    LogLevel ERROR",
            "    ServerAliveInterval 5",
        ]
        (self.folder / "ssh_config").write_text("\n".join(lines) + "\n")

    def reset(self) -> None:
        """Throw all hosts away and boot bare ones, and forget what our side knows of the last cluster."""
        self.deployed = False
        self._runbook("lab.py", "down")
        self.boot()
        shutil.rmtree(self.folder / ".state", ignore_errors=True)

    def deploy(self) -> Timing:
        """Run our side, as an operator runs it."""
        done = self._runbook("deploy.py")
        self.deployed = True
        return done

    def warm_up(self) -> None:
        """Run our side without changing anything."""
        self._runbook("deploy.py", "--plan")

    def drift(self, *arguments: str) -> Timing:
        """Run a drift check; that it finds nothing is part of it."""
        return self._runbook("drift.py", "--no-history", *arguments)

    def pyinfra(self) -> Timing:
        """Let pyinfra say what it would change: nothing. It is installed first, and compiled, as ours is."""
        peers, home = PROJECT / "bench" / "peers", self.folder / "pyinfra"
        environment = {**os.environ, "BENCH": str(self.folder)}
        if not home.exists():
            uv = [str(Path(sys.executable).parent / "uv"), "--quiet"]
            timed([*uv, "venv", "--python", sys.executable, str(home)], environment)
            install = ["pip", "install", "--compile-bytecode", "--python", str(home / "bin" / "python"), "pyinfra==3.*"]
            timed([*uv, *install], environment)
        files = [str(peers / "pyinfra_inventory.py"), str(peers / "pyinfra_state.py")]
        done = timed([str(home / "bin" / "pyinfra"), "--dry", *files], environment)
        found = [line for _, line in done.lines if re.search(r"Change +Conditional|(?: +-){2} *$", line)]
        changes = [line for _, line in done.lines if re.search(r" \d+ \(", line)]
        if len(found) < 8 or changes:
            raise BenchError("pyinfra looked at nothing, or would change something:\n" + "\n".join(changes))
        return done

    def agents_like(self, count: int) -> Timing:
        """Check so many hosts, all agents but six, each an address of its own that leads to one of the lab's agents."""
        folder = self.folder / f"many-{count}"
        if not folder.exists():
            self._many(folder, count)
        return self._runbook(
            "drift.py", "--no-history", "--json", str(folder / "out.json"), folder=folder, codes=(0, 3)
        )

    def _many(self, folder: Path, count: int) -> None:
        shutil.copytree(self.folder / "inventory", folder / "inventory")
        shutil.copy(self.folder / "config.yaml", folder / "config.yaml")
        for name in ("token", "datastore-password", "lab", "bundle"):
            (folder / name).symlink_to(self.folder / name)
        shutil.copytree(self.folder / ".state", folder / ".state")
        keys = Path(self.lab.spec.known_hosts).read_text().splitlines()
        agents = {"a1": f"{NETWORK}15", "a2": f"{NETWORK}16"}
        known = list(keys)

        def more(hosts: dict[str, Any]) -> None:
            for number in range(count - len(hosts)):
                last = 30 + number + (number >= 70)  # .100 is the VIP
                like, address = "a1" if number % 2 else "a2", f"{NETWORK}{last}"
                hosts[f"n{number}"] = {**hosts[like], "hostname": address}
                self.lab.exec(like, ["ip", "address", "replace", f"{address}/24", "dev", "eth0"])
                known.extend(line.replace(agents[like], address) for line in keys if line.startswith(agents[like]))

        _edit(folder / "inventory" / "hosts.yaml", more)
        (folder / "known_hosts").write_text("\n".join(known) + "\n")
        path = folder / "inventory" / "defaults.yaml"
        path.write_text(path.read_text().replace("../lab/known_hosts", "../known_hosts"))

    def _runbook(self, name: str, *arguments: str, folder: Path | None = None, codes: tuple[int, ...] = (0,)) -> Timing:
        config = (folder or self.folder) / "config.yaml"
        argv = [sys.executable, str(PROJECT / "runbooks" / name), "--config", str(config)]
        # An operator's Python keeps its compiled modules; these go with the folder.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = str(self.folder / "pycache")
        return timed([*argv, *arguments], environment, codes)

    def by_hand(self, work: str) -> Timing:
        """Run the peer: `deploy`, `look` or `push`."""
        return timed(["sh", str(PROJECT / "bench" / "by_hand.sh"), work, str(self.folder)], dict(os.environ))

    def nornir(self) -> Nornir:
        """Return Nornir with the inventory of the eight hosts."""
        return nornir(self.folder / "inventory")

    def result(self) -> dict[str, list[str]]:
        """Return what a side has brought about on each host."""
        secrets = [(self.folder / name).read_text().strip() for name in ("token", "datastore-password")]
        found = {}
        for host in self.lab.hosts:
            text = self.lab.exec(host.name, ["sh", "-c", _RESULT[host.name.rstrip("0123456789")]]).stdout
            for secret in secrets:
                text = text.replace(secret, "SECRET")
            text = (
                re.sub(r"K10[0-9a-f]{64}", "K10", text)
                .replace("nornir-k3s-check", "check")
                .replace("nornir-k3s-", "k3s-")
            )
            text = re.sub(r"\bk3s_[0-9a-f]{8}\b", "k3s", text)  # our user of the database changes with its password
            lines = (" ".join(line.split()) for line in text.splitlines())
            found[host.name] = [line for line in lines if line and not line.startswith("#")]
        return found


def nornir(inventory: Path) -> Nornir:
    """Return Nornir with an inventory, as config.yaml sets it up."""
    files = {"host_file": "hosts.yaml", "group_file": "groups.yaml", "defaults_file": "defaults.yaml"}
    return InitNornir(
        inventory={
            "plugin": "SimpleInventory",
            "options": {option: str(inventory / name) for option, name in files.items()},
            "transform_function": "k3s_credentials",
            "transform_function_options": {"base": str(inventory)},
        },
        runner={"plugin": "k3s_runner", "options": {"num_workers": 20}},
        logging={"enabled": False},
    )


def timed(argv: list[str], environment: dict[str, str], codes: tuple[int, ...] = (0,)) -> Timing:
    """Run a command to its end and say how long it took.

    Raises:
        BenchError: It failed, or did not end in time.
    """
    argv = [sys.executable, "-ISc", _LAUNCH, *argv]
    begin = time.monotonic()
    # In a session of its own: with it, all it has started ends when this process is interrupted.
    process = subprocess.Popen(
        argv,
        env=environment,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    watchdog = threading.Timer(LIMIT, _end, [process])
    watchdog.start()
    lines = []
    try:
        for line in process.stdout or ():
            lines.append((time.monotonic() - begin, line.rstrip()))
        status = process.wait()
        seconds = time.monotonic() - begin
    finally:
        watchdog.cancel()
        _end(process)
    if status not in codes:
        tail = "\n".join(f"  {at:6.1f} s  {line}" for at, line in lines[-20:])
        raise BenchError(f"{' '.join(argv)} ended with status {status} after {seconds:.0f} s\n{tail}")
    peaks = [int(line.rpartition(_PEAK)[2]) for _, line in lines if _PEAK in line]
    if len(peaks) != 1:
        raise BenchError(f"{' '.join(argv)} did not say once how much memory it took")
    return Timing(seconds, peaks[0] / 1024, lines)


def _end(process: subprocess.Popen[str]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(10)


@contextlib.contextmanager
def open_site(*, hosts: bool) -> Iterator[Site]:
    """Make the folder and boot the hosts; at the end, however it comes, nothing of either is left.

    Arguments:
        hosts: False makes the folder only.
    """
    # Held by this process on the whole machine, and gone with it.
    with socket.socket(socket.AF_UNIX) as alone, tempfile.TemporaryDirectory(prefix="k3s-bench-") as name:
        try:
            alone.bind(f"\0nornir-k3s-{NAME}")
        except OSError:
            raise BenchError("another benchmark is running on this machine") from None
        folder = Path(name)
        _furnish(folder)
        bundle = _bundle(folder) if hosts else "none"
        site = Site(folder, Lab.from_inventory(folder / "config.yaml"), bundle)
        if not hosts:
            yield site
            return
        try:
            site.lab.down()  # of one that was killed
            print("booting eight hosts", flush=True)
            site.boot()
            site.warm_up()
            yield site
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # not half taken down
            site.lab.down()


def _furnish(folder: Path) -> None:
    """Copy the project's own config and inventory, moved to another lab: name, range, folders and given secrets."""
    shutil.copytree(PROJECT / "inventory", folder / "inventory")
    shutil.copy(PROJECT / "config.yaml", folder / "config.yaml")
    for path in (folder / "config.yaml", *folder.glob("inventory/*.yaml")):
        path.write_text(path.read_text().replace("10.77.0.", NETWORK).replace("../.lab/", "../"))
    _edit(folder / "config.yaml", lambda config: config["user_defined"]["lab"].update(name=NAME))
    for secret in ("token", "datastore-password"):
        ensure_password(folder / secret)

    def given(defaults: dict[str, Any]) -> None:
        cluster = defaults["data"]["k3s_cluster"]
        cluster["token"] = {"file": "../token"}
        cluster["datastore"]["password"] = {"file": "../datastore-password"}

    _edit(folder / "inventory" / "defaults.yaml", given)


def _bundle(folder: Path) -> str:
    """Bring the artefacts, and let the inventory ask for just this release; return what they are, in words."""
    command = [sys.executable, str(PROJECT / "tests" / "bundle.py"), str(folder / "bundle"), "--no-download"]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
    version = version_of(folder / "bundle" / "k3s")
    if version is None:
        raise BenchError("the K3s binary does not run on this machine")
    old_cgroups = not Path("/sys/fs/cgroup/cgroup.controllers").exists()
    argument = "fail-cgroupv1=false" if old_cgroups and parse_version(version) >= parse_version("v1.35.0+k3s1") else ""

    def ask(defaults: dict[str, Any]) -> None:
        cluster = defaults["data"]["k3s_cluster"]
        cluster["version"] = version
        if argument:
            for role in ("server", "agent"):
                cluster.setdefault(role, {})["kubelet-arg"] = [argument]

    _edit(folder / "inventory" / "defaults.yaml", ask)
    (folder / "settings").write_text(f"kubelet-arg:\n- {argument}\n" if argument else "")
    return f"{version}: " + said.partition(" holds ")[2]


def _edit(path: Path, change: Any) -> None:  # noqa: ANN401 - a function that edits the file's mapping
    yaml = YAML()
    data = yaml.load(path)
    change(data)
    yaml.dump(data, path)
