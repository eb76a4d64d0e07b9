"""A real sshd on a loopback port, as the current user: the transport is tested against nothing less."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nornir.core import Nornir
from nornir.core.inventory import ConnectionOptions, Defaults, Groups, Host, Hosts, Inventory
from nornir.core.plugins.connections import ConnectionPluginRegister
from nornir.core.state import GlobalState
from nornir.core.task import Result, Task

from nornir_k3s.plugins.runner import K3sRunner
from nornir_k3s.remote.session import Session, session


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


def keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    binary = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(binary).exists():
        pytest.fail("these tests need OpenSSH's server: apt-get install openssh-server")
    folder = tmp_path_factory.mktemp("sshd")
    folder.chmod(0o755)
    for name in ("hostkey", "id", "other"):
        keygen(folder / name)
    port = free_port()
    (folder / "authorized_keys").write_text((folder / "id.pub").read_text())
    key = (folder / "hostkey.pub").read_text().rsplit(" ", 1)[0]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}\n")
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/hostkey\nPidFile none\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "PermitRootLogin yes\nMaxStartups 100\nUsePAM no\nSubsystem sftp internal-sftp\n"
        # A home of its own: what stands in the tester's start-up files (version managers that take locks, say) is not
        # what is tested here, and killing the connection would leave such a lock behind.
        f"SetEnv HOME={folder}\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen([binary, "-D", "-e", "-f", str(folder / "config")], stderr=subprocess.DEVNULL)
    deadline = threading.Event()
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            deadline.wait(0.05)
    yield Sshd(folder, port, process)
    process.terminate()
    process.wait(10)


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

    def maker(*, port: int | None = None, username: str | None = None, **extras: Any) -> Peer:
        options = ConnectionOptions(platform="linux", extras=sshd.extras | extras)
        host = Host(
            "peer",
            hostname="127.0.0.1",
            port=port or sshd.port,
            username=username or getpass.getuser(),
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
