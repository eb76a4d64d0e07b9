"""The Debian packages of the hosts: a flat apt repository in a folder, filled by the apt of this machine."""

from __future__ import annotations

import hashlib
import shutil
from datetime import UTC, datetime
from pathlib import Path

from nornir_k3s_lab.system import run

BASE = [
    *["systemd", "systemd-sysv", "dbus", "openssh-server", "iproute2", "iputils-ping", "sudo", "procps", "kmod"],
    *["iptables", "nftables", "ca-certificates", "curl"],
]
EXTRA = ["haproxy", "keepalived", "mariadb-server", "postgresql", "etcd-server", "etcd-client", "pgbouncer"]


def download(packages: Path, scratch: Path, lock: int) -> None:
    """Download the packages with everything they depend on, and write the index of the repository.

    Arguments:
        packages: The folder of the repository, which does not exist yet.
        scratch: A folder for apt's own files, which does not exist yet.
        lock: A file descriptor that apt inherits.
    """
    (packages / "partial").mkdir(parents=True)
    scratch.mkdir()
    status = scratch / "status"
    status.touch()  # no package is installed: apt downloads every dependency, too
    options = {
        "Dir::State::status": status,
        "Dir::Cache::archives": packages,
        "APT::Sandbox::User": "root",
        "APT::Architectures::": run(["dpkg", "--print-architecture"]).stdout.strip(),  # no foreign architectures
        "APT::Install-Recommends": "false",
        "APT::Get::Download-Only": "true",
    }
    argv = ["apt-get", "-y", "-q", *(f"-o{key}={value}" for key, value in options.items()), "install"]
    argv += ["?essential", "?priority(required)", "apt", *BASE, *EXTRA]
    if run(argv, check=False, timeout=1800, pass_fds=[lock]).returncode:
        run(["apt-get", "update", "-q"], check=False)  # one unreachable source need not matter
        run(argv, timeout=1800, pass_fds=[lock])
    shutil.rmtree(packages / "partial")
    (packages / "lock").unlink(missing_ok=True)
    write_index(packages)


def write_index(packages: Path) -> None:
    """Write the index of a flat repository, so that plain apt installs packages from the folder.

    Source: wiki.debian.org `DebianRepository/Format`, "Flat Repository Format".
    """
    entries = []
    for file in sorted(packages.glob("*.deb")):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        control = run(["dpkg-deb", "--field", file]).stdout.rstrip()
        entries.append(f"{control}\nFilename: ./{file.name}\nSize: {file.stat().st_size}\nSHA256: {digest}\n")
    index = "\n".join(entries).encode()
    (packages / "Packages").write_bytes(index)
    date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S UTC")
    digest = hashlib.sha256(index).hexdigest()
    (packages / "Release").write_text(
        f"Origin: nornir-k3s lab\nSuite: lab\nDate: {date}\nSHA256:\n {digest} {len(index)} Packages\n"
    )


def required_packages(packages: Path) -> list[str]:
    """The packages of a repository with the priority `required`, which every Debian has."""
    required = []
    for entry in (packages / "Packages").read_text().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Priority") == "required":
            required.append(fields["Package"])
    return required
