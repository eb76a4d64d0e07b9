"""The eight hosts of the benchmark, and the two sides that work on them: our runbooks, and the script of the peer."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nornir import InitNornir
from nornir.core import Nornir
from ruamel.yaml import YAML

from nornir_k3s.artifacts.source import version_of
from nornir_k3s.k3s import parse_version
from nornir_k3s_lab import Lab
from nornir_k3s_lab.keys import ensure_password
from timing import BenchError, Timing, timed

PROJECT = Path(__file__).resolve().parent.parent
NAME, NETWORK = "bench", "10.78.0."


@dataclass
class Site:
    """Eight hosts, and a folder with what both sides need.

    Arguments:
        folder: Config, inventory, secrets and artefacts.
        lab: The hosts.
        version: Of K3s.
        bundle: Which K3s, as text.
        short: Whether a stand-in has short delays.
        patches: How many patches the newest one that was asked for is newer.
        bare: Whether the hosts are as they were booted.
        deployed: Whether a cluster that our side deployed runs on the hosts.
    """

    folder: Path
    lab: Lab
    version: str
    bundle: str
    short: bool = False
    patches: int = 0
    bare: bool = False
    deployed: bool = False

    def boot(self) -> None:
        """Boot the hosts, and write an ssh_config to log in to them."""
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
        """Replace all hosts by bare ones, and remove the state that our side keeps of the last cluster."""
        self.deployed = False
        if not self.bare:
            self._runbook("lab.py", "down")
            self.boot()
        self.bare = False
        self._ask_for(self.version, "bundle")
        shutil.rmtree(self.folder / ".state", ignore_errors=True)

    def deploy(self, *arguments: str) -> Timing:
        """Run our side as an operator does."""
        done = self._runbook("deploy.py", *arguments)
        self.deployed = True
        return done

    def newer(self) -> None:
        """Put the stand-in of the next patch into the folder `next`, and ask for it in the inventory."""
        self.patches += 1
        major, minor, patch = parse_version(self.version).release
        version = f"v{major}.{minor}.{patch + self.patches}+k3s1"
        builder = PROJECT / "tests" / "standin" / "build.py"
        command = [sys.executable, str(builder), "--out", str(self.folder / "next"), "--version", version]
        command += ["--short"] if self.short else []
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        (self.folder / "version").write_text(version)
        self._ask_for(version, "next")

    def _ask_for(self, version: str, folder: str) -> None:
        wanted = {"version": version, "artifacts": {"folder": f"../{folder}"}}
        _edit(self.folder / "inventory" / "defaults.yaml", lambda data: data["data"]["k3s_cluster"].update(wanted))

    def warm_up(self) -> None:
        """Run our side without changing anything."""
        self._runbook("deploy.py", "--plan")

    def drift(self, *arguments: str) -> Timing:
        """Run a drift check; it must find nothing."""
        return self._runbook("drift.py", "--no-history", *arguments)

    def pyinfra(self) -> Timing:
        """Run pyinfra, which must find nothing to change. The first run installs and compiles it, as ours is."""
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
            raise BenchError("pyinfra checked too little, or would change something:\n" + "\n".join(changes))
        return done

    def agents_like(self, count: int) -> Timing:
        """Run a drift check of `count` hosts: six of the lab, and agents that are more addresses of its two agents."""
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

        def add(hosts: dict[str, Any]) -> None:
            for number in range(count - len(hosts)):
                last = 30 + number + (number >= 70)  # .100 is the VIP
                like, address = "a1" if number % 2 else "a2", f"{NETWORK}{last}"
                hosts[f"n{number}"] = {**hosts[like], "hostname": address}
                self.lab.exec(like, ["ip", "address", "replace", f"{address}/24", "dev", "eth0"])
                known.extend(line.replace(agents[like], address) for line in keys if line.startswith(agents[like]))

        _edit(folder / "inventory" / "hosts.yaml", add)
        (folder / "known_hosts").write_text("\n".join(known) + "\n")
        path = folder / "inventory" / "defaults.yaml"
        path.write_text(path.read_text().replace("../lab/known_hosts", "../known_hosts"))

    def _runbook(self, name: str, *arguments: str, folder: Path | None = None, codes: tuple[int, ...] = (0,)) -> Timing:
        config = (folder or self.folder) / "config.yaml"
        argv = [sys.executable, str(PROJECT / "runbooks" / name), "--config", str(config)]
        # With compiled modules, as an operator's Python keeps them, in a folder that is removed afterwards.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = str(self.folder / "pycache")
        return timed([*argv, *arguments], environment, codes)

    def by_hand(self, work: str) -> Timing:
        """Run an action of the peer: `deploy`, `gather` or `push`."""
        return timed(["sh", str(PROJECT / "bench" / "by_hand.sh"), work, str(self.folder)], dict(os.environ))

    def nornir(self) -> Nornir:
        """Return Nornir with the inventory of the eight hosts."""
        return nornir(self.folder / "inventory")

    def result(self) -> dict[str, list[str]]:
        """Return what a deployment has made of each host, without comments, passwords and hashes of CAs."""
        script = (PROJECT / "bench" / "result.sh").read_text()
        secrets = [(self.folder / name).read_text().strip() for name in ("token", "datastore-password")]
        found = {}
        for host in self.lab.hosts:
            text = self.lab.exec(host.name, ["sh", "-c", script, "result.sh", host.name]).stdout
            for secret in secrets:
                text = text.replace(secret, "SECRET")
            for folder in ("bundle", "next"):
                if (binary := self.folder / folder / "k3s").exists():
                    text = text.replace(hashlib.sha256(binary.read_bytes()).hexdigest(), folder)
            text = (
                re.sub(r"K10[0-9a-f]{64}", "K10", text)
                .replace("nornir-k3s-check", "check")
                .replace("nornir-k3s-", "k3s-")
            )
            text = re.sub(
                r"\bk3s_[0-9a-f]{8}\b", "k3s", text
            )  # the name of our database user changes with its password
            lines = (" ".join(line.split()) for line in text.splitlines())
            found[host.name] = [line for line in lines if line and not line.startswith("#")]
        return found


def nornir(inventory: Path) -> Nornir:
    """Return Nornir with an inventory, set up as config.yaml does."""
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


@contextlib.contextmanager
def open_site(*, hosts: bool, short: bool = False) -> Iterator[Site]:
    """Create the folder and boot the hosts; both are removed at the end, also after an error.

    Arguments:
        hosts: False creates the folder only.
        short: Use a stand-in with short delays.
    """
    # A lock for the whole machine, which ends with this process.
    with socket.socket(socket.AF_UNIX) as lock, tempfile.TemporaryDirectory(prefix="k3s-bench-") as name:
        try:
            lock.bind(f"\0nornir-k3s-{NAME}")
        except OSError:
            raise BenchError("another benchmark is running on this machine") from None
        folder = Path(name)
        _write_inventory(folder)
        version, bundle = _bundle(folder, short=short) if hosts else ("none", "none")
        site = Site(folder, Lab.from_inventory(folder / "config.yaml"), version, bundle, short)
        if not hosts:
            yield site
            return
        try:
            site.lab.down()  # left by a run that was killed
            print("booting eight hosts", flush=True)
            site.boot()
            site.bare = True
            site.warm_up()
            yield site
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # an interrupted removal would leave hosts
            site.lab.down()


def _write_inventory(folder: Path) -> None:
    """Copy config and inventory of this project, with another lab: its name, network, folders and given secrets."""
    shutil.copytree(PROJECT / "inventory", folder / "inventory")
    shutil.copy(PROJECT / "config.yaml", folder / "config.yaml")
    for path in (folder / "config.yaml", *folder.glob("inventory/*.yaml")):
        path.write_text(path.read_text().replace("10.77.0.", NETWORK).replace("../.lab/", "../"))
    _edit(folder / "config.yaml", lambda config: config["user_defined"]["lab"].update(name=NAME))
    for secret in ("token", "datastore-password"):
        ensure_password(folder / secret)

    def set_secrets(defaults: dict[str, Any]) -> None:
        cluster = defaults["data"]["k3s_cluster"]
        cluster["token"] = {"file": "../token"}
        cluster["datastore"]["password"] = {"file": "../datastore-password"}

    _edit(folder / "inventory" / "defaults.yaml", set_secrets)


def _bundle(folder: Path, *, short: bool) -> tuple[str, str]:
    """Prepare the artefacts, and set their K3s version in the inventory; return it, and what they are, as text."""
    command = [sys.executable, str(PROJECT / "tests" / "bundle.py"), str(folder / "bundle"), "--no-download"]
    command += ["--short"] if short else []
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
    version = version_of(folder / "bundle" / "k3s")
    if version is None:
        raise BenchError("the K3s binary does not run on this machine")
    old_cgroups = not Path("/sys/fs/cgroup/cgroup.controllers").exists()
    argument = "fail-cgroupv1=false" if old_cgroups and parse_version(version) >= parse_version("v1.35.0+k3s1") else ""

    def set_version(defaults: dict[str, Any]) -> None:
        cluster = defaults["data"]["k3s_cluster"]
        cluster["version"] = version
        if argument:
            for role in ("server", "agent"):
                cluster.setdefault(role, {})["kubelet-arg"] = [argument]

    _edit(folder / "inventory" / "defaults.yaml", set_version)
    (folder / "settings").write_text(f"kubelet-arg:\n- {argument}\n" if argument else "")
    return version, f"{version}: " + printed.partition(" holds ")[2]


def _edit(path: Path, change: Any) -> None:  # noqa: ANN401 - edits the mapping of the file
    yaml = YAML()
    data = yaml.load(path)
    change(data)
    yaml.dump(data, path)
