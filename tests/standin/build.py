"""Build the stand-in: one self-extracting file `k3s`, and `install.sh`, in a folder.

As real K3s does, the file unpacks itself once below the data directory and runs what it unpacked. What PyInstaller makes
of the sources is kept in a cache by their hash, so that a second build takes no time; another version of the stand-in is
the same archive behind another head.

    python tests/standin/build.py --out FOLDER [--version v1.34.9+k3s1]
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSION = "v1.34.9+k3s1"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))) / "nornir-k3s-standin"
# What goes into the file beside the sources, and what PyInstaller does not see by itself.
PACKAGES = ("pyinstaller", "cryptography", "pymysql", "pg8000", "scramp", "pyyaml")
IMPORTS = ("pymysql", "pg8000.dbapi", "cryptography.hazmat.bindings._rust")
EXCLUDED = ("tkinter", "unittest", "pydoc", "lib2to3", "setuptools", "pip", "readline", "test", "nacl", "bcrypt")
OPTIONS = ("--strip",)  # half the size: each host fetches it, hashes it and unpacks it
KEPT = 3
# Seconds. For tests that are not about what a server takes on its way to Ready.
SHORT = {"BOOTSTRAP": 0.05, "START": 0.1, "NODE": 0.1, "READY": 0.1, "KUBELET": 0.1, "STOP": 0.2}


def build(out: Path, *, version: str = VERSION, delays: Mapping[str, float] | None = None) -> Path:
    """Fill a folder with `k3s` and `install.sh` and return it.

    Arguments:
        out: The folder.
        version: What it says that it is.
        delays: Seconds by name, as README.md lists them, where no environment says otherwise.
    """
    archive = _archive().read_bytes()
    head = (HERE / "head.sh").read_text()
    digest = hashlib.sha256(archive + version.encode()).hexdigest()
    head = head.replace("@VERSION@", version).replace("@SUM@", digest)
    lines = [f': "${{K3S_STANDIN_{name}_DELAY:={seconds}}}"' for name, seconds in (delays or {}).items()]
    names = [f"K3S_STANDIN_{name}_DELAY" for name in delays or {}]
    head = head.replace("# @DELAYS@", "\n".join([*lines, *(f"export {name}" for name in names)]))
    head = head.replace("@LINES@", str(head.count("\n") + 1))
    out.mkdir(parents=True, exist_ok=True)
    _replace(out / "k3s", head.encode() + archive)
    _replace(out / "install.sh", (HERE / "install.sh").read_bytes())
    return out


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(data)
    draft.chmod(0o755)
    draft.replace(path)


def _archive() -> Path:
    """Return the archive of the program, made when the sources have changed."""
    sources = sorted([*HERE.glob("k3s_standin/*.py"), HERE / "entry.py"])
    recipe = [sys.version, *PACKAGES, *(metadata.version(name) for name in PACKAGES), *IMPORTS, *EXCLUDED, *OPTIONS]
    text = b"".join(path.name.encode() + path.read_bytes() for path in sources) + repr(recipe).encode()
    kept = CACHE / f"{hashlib.sha256(text).hexdigest()[:24]}.tar.gz"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            with tempfile.TemporaryDirectory() as folder:
                _freeze(Path(folder), kept)
            _forget_old()
        kept.touch()
    return kept


def _freeze(folder: Path, target: Path) -> None:
    modules = [f"k3s_standin.{path.stem}" for path in HERE.glob("k3s_standin/*.py")]
    command = [
        *(sys.executable, "-m", "PyInstaller", "--onedir", "--name", "k3s", "--paths", str(HERE)),
        *("--log-level", "ERROR", "--distpath", str(folder / "dist"), "--workpath", str(folder / "work")),
        *("--specpath", str(folder), "--collect-submodules=scramp", *OPTIONS),
        *(f"--hidden-import={name}" for name in (*modules, *IMPORTS)),
        *(f"--exclude-module={name}" for name in EXCLUDED),
        str(HERE / "entry.py"),
    ]
    subprocess.run(command, check=True)
    shutil.move(folder / "dist" / "k3s", folder / "bin")
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    subprocess.run(["tar", "--owner=0", "--group=0", "-czf", str(draft), "-C", str(folder), "bin"], check=True)
    draft.replace(target)


def _forget_old() -> None:
    archives = sorted(CACHE.glob("*.tar.gz"), key=lambda path: path.stat().st_mtime)
    for path in archives[:-KEPT]:
        path.unlink()


def main() -> None:
    """Build from the command line and say where."""
    parser = argparse.ArgumentParser(description="Build the stand-in for K3s that the tests bring.")
    parser.add_argument("folder", nargs="?", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="folder to fill with k3s and install.sh")
    parser.add_argument("--version", default=VERSION, help="version it says it is (%(default)s)")
    parser.add_argument("--short", action="store_true", help="with short delays")
    options = parser.parse_args()
    folder = options.out or options.folder or CACHE / options.version
    print(build(folder, version=options.version, delays=SHORT if options.short else None))


if __name__ == "__main__":
    main()
