"""A real sshd on a loopback port, as the current user: the transport is tested against nothing less."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nornir.core import Nornir
from nornir.core.inventory import ConnectionOptions, Defaults, Groups, Host, Hosts, Inventory
from nornir.core.plugins.connections import ConnectionPluginRegister
from nornir.core.state import GlobalState
from nornir.core.task import Result, Task
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from nornir_k3s.plugins.runner import K3sRunner
from nornir_k3s.ssh.session import Session, session


@dataclass
class Sshd:
    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def extras(self) -> dict[str, Any]:
        return {
            "use_keys": True,
            "key_file": str(self.folder / "id"),
            "ssh_strict": True,
            "alt_host_keys": True,
            "alt_key_file": str(self.folder / "known_hosts"),
            "auto_connect": False,
        }


def keygen(path: Path, *, kind: str = "ed25519", passphrase: str = "") -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(path)], check=True)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


def eventually(condition: Callable[[], object]) -> None:
    waiting = Retrying(stop=stop_after_delay(20), wait=wait_fixed(0.05), retry=retry_if_result(lambda held: not held))
    waiting(condition)


@contextlib.contextmanager
def serving(
    folder: Path,
    *,
    kinds: tuple[str, ...] = ("ed25519",),
    more: str = "",
    before: Sequence[str] = (),
    log: bool = False,
) -> Iterator[Sshd]:
    """Run an sshd that shows these kinds of host keys, and lets the key `id` of its folder in.

    Arguments:
        folder: For its files.
        kinds: The first one's key is `hostkey`, and on record in `known_hosts`.
        more: Settings that count before the usual ones.
        before: What starts the sshd.
        log: Write what it logs to `log` in the folder.
    """
    binary = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(binary).exists():
        pytest.fail("these tests need OpenSSH's server: apt-get install openssh-server")
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    names = ["hostkey", *(f"hostkey_{kind}" for kind in kinds[1:])]
    for name, kind in zip(names, kinds, strict=True):
        keygen(folder / name, kind=kind)
    for name in ("id", "other"):
        keygen(folder / name)
    port = free_port()
    (folder / "authorized_keys").write_text((folder / "id.pub").read_text())
    key = (folder / "hostkey.pub").read_text().rsplit(" ", 1)[0]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}\n")
    (folder / "config").write_text(
        f"{more}\nPort {port}\nListenAddress 127.0.0.1\nPidFile none\nStrictModes no\n"
        + "".join(f"HostKey {folder}/{name}\n" for name in names)
        + f"AuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "PermitRootLogin yes\nMaxStartups 100\nUsePAM no\nSubsystem sftp internal-sftp\n"
        # A home of its own: what stands in the tester's start-up files (version managers that take locks, say) is not
        # what is tested here, and killing the connection would leave such a lock behind.
        f"SetEnv HOME={folder}\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    argv = [*before, binary, "-D", "-e", "-f", str(folder / "config")]
    with (folder / "log" if log else Path(os.devnull)).open("wb") as stderr:
        process = subprocess.Popen(argv, stderr=stderr)
    try:
        eventually(lambda: listens(port) or process.poll() is not None)
        assert process.poll() is None, f"sshd in {folder} ended with status {process.returncode}"
        yield Sshd(folder, port, process)
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(tmp_path_factory.mktemp("sshd")) as running:
        yield running


Work = Callable[[Session], Any]


@dataclass
class Peer:
    """One host behind the sshd; `do` runs work with its session inside a Nornir task, as the product does."""

    nr: Nornir
    stop: threading.Event
    deadline: float = 5.0

    @property
    def host(self) -> Host:
        return self.nr.inventory.hosts["peer"]

    def do(self, work: Work) -> Any:
        def task(task: Task) -> Result:
            return Result(host=task.host, result=work(session(task, deadline=self.deadline)))

        result = self.nr.run(task=task)["peer"][0]
        self.nr.data.reset_failed_hosts()
        if result.exception:
            raise result.exception
        return result.result


@pytest.fixture
def connect(sshd: Sshd) -> Iterator[Callable[..., Peer]]:
    """Make a peer, with some connection options changed."""
    made: list[Nornir] = []
    ConnectionPluginRegister.auto_register()

    def maker(
        *,
        hostname: str = "127.0.0.1",
        port: int | None = sshd.port,
        username: str | None = getpass.getuser(),
        password: str | None = None,
        **extras: Any,
    ) -> Peer:
        options = ConnectionOptions(platform="linux", extras=sshd.extras | extras)
        host = Host(
            "peer",
            hostname=hostname,
            port=port,
            username=username,
            password=password,
            connection_options={"netmiko": options},
            defaults=Defaults(),
        )
        inventory = Inventory(hosts=Hosts({"peer": host}), groups=Groups(), defaults=Defaults())
        stop = threading.Event()
        nr = Nornir(inventory=inventory, runner=K3sRunner(2, stop=stop), data=GlobalState(dry_run=False))
        made.append(nr)
        return Peer(nr, stop)

    yield maker
    for nr in made:
        nr.close_connections(on_failed=True)


@pytest.fixture
def peer(connect: Callable[..., Peer]) -> Peer:
    return connect()
