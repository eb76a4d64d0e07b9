"""The Debian packages of the hosts: a flat apt repository a release, filled by the apt of this machine."""

from __future__ import annotations

import hashlib
import shutil
from datetime import UTC, datetime
from pathlib import Path

from nornir_k3s_lab.errors import LabError
from nornir_k3s_lab.system import run

BASE = [
    *["systemd", "systemd-sysv", "dbus", "openssh-server", "iproute2", "iputils-ping", "sudo", "procps", "kmod"],
    *["iptables", "nftables", "ca-certificates", "curl"],
]
# Of hosts by their release. MySQL conflicts with MariaDB, and of these releases only sid has it.
EXTRA = {
    "bookworm": ["haproxy", "keepalived", "mariadb-server", "postgresql", "etcd-server", "etcd-client", "pgbouncer"],
    "trixie": ["haproxy", "keepalived", "mariadb-server", "postgresql", "etcd-server", "etcd-client"],
    "sid": ["haproxy", "keepalived", "mysql-server", "postgresql", "etcd-server", "etcd-client"],
}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def sources(release: str, own: str, targets: str) -> str:
    """The sources.list of a release, from the archives that the apt of this machine uses.

    Arguments:
        release: The release.
        own: The release of this machine.
        targets: What apt knows: a line with codename, URI and component for each index.

    Raises:
        LabError: apt knows no archive of this machine's release.
    """
    options = f"signed-by={KEYRING}" if KEYRING.exists() else ""
    suffixes = ["", "-updates", "-security"]
    if release == "sid":
        options += " check-valid-until=no"  # an archive's copy of it may be older than its Release file is valid
        suffixes = [""]
    found = (line.split() for line in targets.splitlines())
    lines = [
        f"deb [arch={_architecture()} {options}] {words[1]} {release}{suffix} main\n"
        for words in found
        for suffix in suffixes
        if words[0] == own + suffix and words[2:] == ["main"]
    ]
    if not lines:
        raise LabError(
            f"apt on this machine knows no packages of {own}",
            hint="fix /etc/apt/sources.list.d, and run apt-get update",
        )
    return "".join(lines)


def _architecture() -> str:
    return run(["dpkg", "--print-architecture"]).stdout.strip()


def targets() -> str:
    """Return what the apt of this machine knows: a line with codename, URI and component for each index."""
    argv = ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI) $(COMPONENT)", "Created-By: Packages"]
    if not (found := run(argv, check=False).stdout):
        run(["apt-get", "update", "-q"], check=False)  # one unreachable source need not matter
        found = run(argv).stdout
    return found


def download(release: str, archives: str, packages: Path, scratch: Path, lock: int) -> None:
    """Download the packages of a release with everything they depend on, and write the index of the repository.

    Arguments:
        release: The release.
        archives: Its sources.list, as `sources` returns it.
        packages: The folder of the repository, which does not exist yet.
        scratch: A folder for apt's own files, which does not exist yet.
        lock: A file descriptor that apt inherits.
    """
    (packages / "partial").mkdir(parents=True)
    (scratch / "lists/partial").mkdir(parents=True)
    status, source = scratch / "status", scratch / "sources.list"
    status.touch()  # no package is installed: apt downloads every dependency, too
    source.write_text(archives)
    options = {
        "Dir::State::status": status,
        "Dir::State::lists": scratch / "lists",
        "Dir::Cache": scratch,
        "Dir::Cache::archives": packages,
        "Dir::Etc::SourceList": source,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "APT::Sandbox::User": "root",
        "APT::Architectures::": _architecture(),  # no foreign architectures
        "APT::Install-Recommends": "false",
        "APT::Get::Download-Only": "true",
    }
    apt = ["apt-get", "-y", "-q", *(f"-o{key}={value}" for key, value in options.items())]
    wanted = ["?essential", "?priority(required)", "apt", *BASE, *EXTRA[release]]
    run([*apt, "update"], timeout=1800, pass_fds=[lock])
    run([*apt, "install", *wanted], timeout=1800, pass_fds=[lock])
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
