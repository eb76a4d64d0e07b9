"""The image all hosts start from: a small Debian, and a repository of the packages they may install.

The machine's own apt fetches everything, with the machine's own sources and settings, into a flat local repository;
the base system is then built from this repository alone. So nothing of the machine's apt gets into the hosts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path

from nornir_k3s_lab.errors import LabError
from nornir_k3s_lab.guest import FILES, MASKED, REPOSITORY
from nornir_k3s_lab.system import locked, remove_folder, run

BASE = [
    *["systemd", "systemd-sysv", "dbus", "openssh-server", "iproute2", "iputils-ping", "sudo", "procps", "kmod"],
    *["iptables", "nftables", "ca-certificates", "curl"],
]
EXTRA = ["haproxy", "keepalived", "mariadb-server", "postgresql", "etcd-server", "etcd-client", "pgbouncer"]
# Documentation is never read in the lab, and its hosts are thrown away: unpack less, and do not wait for the disk.
DPKG_OPTIONS = ("force-unsafe-io", "path-exclude=/usr/share/man/*", "path-exclude=/usr/share/doc/*")


def recipe() -> str:
    """Everything the image depends on, as text: another recipe is another image."""
    return json.dumps([1, _suite(), os.uname().machine, BASE, EXTRA, DPKG_OPTIONS, MASKED, FILES], sort_keys=True)


def image_folder(cache: Path) -> Path:
    """Where the image of the present recipe is, or will be."""
    return cache / f"image-{hashlib.sha256(recipe().encode()).hexdigest()[:12]}"


def ensure_image(cache: Path, say: Callable[[str], None], used: Collection[Path] = ()) -> Path:
    """Return the image's folder, with `root` and `packages` in it; build it when it is missing.

    Arguments:
        cache: The folder of images.
        say: Takes progress lines.
        used: Images that must stay; others of older recipes are removed when a new one is built.
    """
    image = image_folder(cache)
    if image.exists():
        return image
    with locked(cache, say) as lock:
        if image.exists():
            return image
        for folder in cache.iterdir():
            if folder not in used:
                remove_folder(folder)
        building = cache / f"building-{image.name}"
        building.mkdir(mode=0o755)
        say("building the hosts' image, once: fetching packages")
        _fetch_packages(building / "packages", building / "apt", lock)
        say("building the hosts' image, once: installing the base system (about half a minute)")
        _install_base(building, lock)
        _furnish(building / "root")
        shutil.rmtree(building / "apt")
        building.rename(image)
    return image


def _fetch_packages(packages: Path, scratch: Path, lock: int) -> None:
    (packages / "partial").mkdir(parents=True)
    scratch.mkdir()
    status = scratch / "status"
    status.touch()  # nothing is installed: every dependency is fetched, too
    options = {
        "Dir::State::status": status,
        "Dir::Cache::archives": packages,
        "APT::Sandbox::User": "root",
        "APT::Architectures::": run(["dpkg", "--print-architecture"]).stdout.strip(),  # only the machine's own
        "APT::Install-Recommends": "false",
        "APT::Get::Download-Only": "true",
    }
    argv = ["apt-get", "-y", "-q", *(f"-o{key}={value}" for key, value in options.items()), "install"]
    wanted = ["?essential", "?priority(required)", "apt", *BASE, *EXTRA]
    if run([*argv, *wanted], check=False, timeout=1800, pass_fds=[lock]).returncode:
        run(["apt-get", "update", "-q"], check=False)  # a source that is away may not matter: the next line tells
        run([*argv, *wanted], timeout=1800, pass_fds=[lock])
    shutil.rmtree(packages / "partial")
    (packages / "lock").unlink(missing_ok=True)
    write_index(packages)


def write_index(packages: Path) -> None:
    """Write the index of a flat repository, so that plain apt takes packages from the folder."""
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


def _install_base(building: Path, lock: int) -> None:
    packages = building / "packages"
    source = f"deb [trusted=yes] copy:{packages} ./"
    options = [f"--dpkgopt={option}" for option in DPKG_OPTIONS]
    options += [
        "--aptopt=APT::Install-Recommends false",
        "--include=" + ",".join(dict.fromkeys([*required_packages(packages), *BASE])),
    ]
    run(
        [
            "mmdebstrap",
            "--mode=root",
            "--format=directory",
            "--variant=apt",
            *options,
            _suite(),
            building / "root",
            source,
        ],
        timeout=1800,
        env={"PATH": os.environ["PATH"], "HOME": "/root", "LC_ALL": "C.UTF-8", "TMPDIR": str(building)},
        pass_fds=[lock],
    )


def _suite() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME":
            return value.strip('"')
    return "stable"


def required_packages(packages: Path) -> list[str]:
    """The packages of a repository that no Debian is without."""
    required = []
    for entry in (packages / "Packages").read_text().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Priority") == "required":
            required.append(fields["Package"])
    return required


def _furnish(root: Path) -> None:
    for file in (root / "etc/ssh").glob("ssh_host_*"):
        file.unlink()  # each host gets its own
    for file in (root / "etc/apt/apt.conf.d").glob("*mmdebstrap*"):
        file.unlink()
    for name in ("etc/machine-id", "etc/resolv.conf", "etc/hostname"):
        (root / name).unlink(missing_ok=True)
        (root / name).write_text("")
    for name, (mode, text) in FILES.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
    for unit in MASKED:
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    wants = root / "etc/systemd/system/sysinit.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / "lab-boot.service").symlink_to("/etc/systemd/system/lab-boot.service")
    for folder in (REPOSITORY.lstrip("/"), "var/lib/rancher", "var/lib/kubelet"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    if found := [str(path) for path in root.glob("usr/*bin/python*")]:
        raise LabError(f"the image must have no Python, and has {', '.join(found)}")
