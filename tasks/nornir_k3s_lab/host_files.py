"""Files of a host: those that the image adds to plain Debian, and those that differ from host to host."""

from __future__ import annotations

from pathlib import Path

from nornir_k3s_lab.files import package_file, package_files

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PACKAGES = "/srv/lab-packages"
NETWORK_FILE = "etc/lab/network"

# These would change the kernel or the clock of this machine, or wait for what a container does not have.
MASKED_UNITS = (
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-networkd-wait-online.service",
    "systemd-sysctl.service",
    "systemd-timesyncd.service",
    "console-getty.service",
    "getty.target",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
)
# systemd runs all generators at its start and at each daemon-reload, and they take a third of its time. What the others
# look for, such as encrypted disks, consoles and firmware, no container has.
GENERATORS = ("systemd-fstab-generator", "systemd-sysv-generator")


def image_files() -> dict[str, tuple[int, str]]:
    """The files that the image adds to plain Debian: mode and text by path, relative to the root folder."""
    files = {
        name: (0o755 if name.endswith(".sh") else 0o644, package_file(f"rootfs/{name}"))
        for name in package_files("rootfs")
    }
    return {**files, "etc/apt/sources.list": (0o644, f"deb [trusted=yes] file:{PACKAGES} ./\n")}


def identity_files(name: str, address: str, gateway: str, machine_id: str) -> dict[str, str]:
    """The files that differ from host to host: text by path, relative to the root folder.

    Arguments:
        name: The host name.
        address: Its IPv4 address.
        gateway: The address of this machine in the lab, with the prefix length of the network.
        machine_id: See machine-id(5).
    """
    router, _, length = gateway.partition("/")
    return {
        "etc/hostname": f"{name}\n",
        "etc/hosts": f"127.0.0.1 localhost\n::1 localhost ip6-localhost\n{address} {name}\n",
        "etc/machine-id": f"{machine_id}\n",
        NETWORK_FILE: f"ADDRESS={address}/{length}\nGATEWAY={router}\n",
    }


def mask_generators(root: Path) -> None:
    """Mask the generators of systemd that have nothing to do in a container, below the root folder of a host."""
    masks = root / "etc/systemd/system-generators"
    masks.mkdir(parents=True, exist_ok=True)
    for path in (root / "usr/lib/systemd/system-generators").glob("systemd-*"):
        if path.name not in GENERATORS:
            (masks / path.name).symlink_to("/dev/null")
