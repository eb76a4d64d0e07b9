"""The image of the hosts of a release: a small Debian, and a repository of the packages that they may install.

The base system is built from that repository alone, so no apt setting of this machine reaches the hosts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nornir_k3s_lab import packages
from nornir_k3s_lab.errors import LabError
from nornir_k3s_lab.files import locked
from nornir_k3s_lab.host_files import MASKED_UNITS, PACKAGES, image_files
from nornir_k3s_lab.model import RELEASES
from nornir_k3s_lab.mounts import remove_folder
from nornir_k3s_lab.system import run

# Hosts are temporary and nobody reads documentation there: unpack less, and do not wait for the disk.
DPKG_OPTIONS = ("force-unsafe-io", "path-exclude=/usr/share/man/*", "path-exclude=/usr/share/doc/*")


def recipe(release: str) -> str:
    """Everything that the image of a release depends on, as text: another recipe is another image."""
    extra = packages.EXTRA[release]
    content = [packages.BASE, extra, DPKG_OPTIONS, MASKED_UNITS, image_files()]
    return json.dumps([1, release, os.uname().machine, *content], sort_keys=True)


def image_folder(cache: Path, release: str = RELEASES[0]) -> Path:
    """The folder of the image with the current recipe of a release, whether it exists or not."""
    return cache / f"image-{hashlib.sha256(recipe(release).encode()).hexdigest()[:12]}"


def ensure_images(
    cache: Path, releases: Iterable[str], say: Callable[[str], None], used: Collection[Path] = ()
) -> dict[str, Path]:
    """Return the folder of the image of each release, with `root` and `packages` in it; build those that are missing.

    Arguments:
        cache: The folder of all images.
        releases: The releases, of `RELEASES`.
        say: Takes progress lines.
        used: Images of running hosts; other old ones are removed when a new one is built.
    """
    images = {release: image_folder(cache, release) for release in releases}
    if missing := [release for release, image in images.items() if not image.exists()]:
        with locked(cache, say) as lock:
            current = [image_folder(cache, release) for release in RELEASES]
            for folder in cache.iterdir():
                if folder not in (*used, *current):
                    remove_folder(folder)
            missing = [release for release in missing if not images[release].exists()]
            _build_all({release: images[release] for release in missing}, say, lock)
    return images


def _build_all(images: Mapping[str, Path], say: Callable[[str], None], lock: int) -> None:
    """Build images at the same time: each keeps one core busy, or waits for a download."""
    known = packages.targets() if images else ""
    archives = {release: packages.sources(release, _own_release(), known) for release in images}
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda release: _build(images[release], release, archives[release], say, lock), images))


def _build(image: Path, release: str, archives: str, say: Callable[[str], None], lock: int) -> None:
    draft = image.with_name(f"building-{image.name}")
    draft.mkdir(mode=0o755)
    say(f"building the image of {release} hosts (once): downloading packages")
    packages.download(release, archives, draft / "packages", draft / "apt", lock)
    say(f"building the image of {release} hosts (once): installing the base system, about half a minute")
    _install_base(draft, release, lock)
    _configure(draft / "root")
    shutil.rmtree(draft / "apt")
    draft.rename(image)


def _install_base(image: Path, release: str, lock: int) -> None:
    repository = image / "packages"
    required = dict.fromkeys([*packages.required_packages(repository), *packages.BASE])
    options = [
        *["--mode=root", "--format=directory", "--variant=apt"],
        *[f"--dpkgopt={option}" for option in DPKG_OPTIONS],
        "--aptopt=APT::Install-Recommends false",
        "--include=" + ",".join(required),
    ]
    run(
        ["mmdebstrap", *options, release, image / "root", f"deb [trusted=yes] copy:{repository} ./"],
        timeout=1800,
        env={"PATH": os.environ["PATH"], "HOME": "/root", "LC_ALL": "C.UTF-8", "TMPDIR": str(image)},
        pass_fds=[lock],
    )


def _own_release() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME":
            return value.strip('"')
    return "stable"


def _configure(root: Path) -> None:
    for file in (root / "etc/ssh").glob("ssh_host_*"):
        file.unlink()  # each host gets its own
    for file in (root / "etc/apt/apt.conf.d").glob("*mmdebstrap*"):
        file.unlink()
    for name in ("etc/machine-id", "etc/resolv.conf", "etc/hostname"):
        (root / name).unlink(missing_ok=True)
        (root / name).write_text("")
    for name, (mode, text) in image_files().items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
    units = root / "etc/systemd/system"
    for unit in MASKED_UNITS:
        (units / unit).symlink_to("/dev/null")
    wants = units / "sysinit.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / "lab-boot.service").symlink_to("/etc/systemd/system/lab-boot.service")
    for folder in (PACKAGES.lstrip("/"), "var/lib/rancher", "var/lib/kubelet"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    if found := [str(path) for path in root.glob("usr/*bin/python*")]:
        raise LabError(f"the image must not contain Python; found: {', '.join(found)}")
