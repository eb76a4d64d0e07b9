"""Build the stand-in: one self-extracting file `k3s`, and `install.sh`, in a folder.

As real K3s does, the file unpacks itself once below the data directory and runs what it unpacked. It is kept in a cache
by the hash of its sources; another version of it is the same file with another number in its head.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSION = "v1.34.9+k3s1"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))) / "nornir-k3s-standin"

HEAD = """#!/bin/sh
# A stand-in for K3s that the tests bring. It unpacks itself once and runs what it unpacked.
version=@VERSION@ sum=@SUM@ lines=@LINES@
case ${0##*/}:$1 in
  k3s:--version|k3s:-v) printf 'k3s version %s (ae112bdf)\\ngo version go1.26.8\\n' "$version"; exit 0 ;;
esac
base=/var/lib/rancher/k3s/data
if [ "$(id -u)" != 0 ] || [ ! -e /etc/systemd/system/k3s.service ] && [ ! -e /etc/systemd/system/k3s-agent.service ]; then
  base="${HOME:-/tmp}/.rancher/k3s/data"
fi
if [ ! -x "$base/$sum/k3s/k3s" ]; then
  mkdir -p "$base" || exit 1
  draft=$(mktemp -d "$base/.draft.XXXXXX") || exit 1
  tail -n "+$lines" "$0" | tar -xzf - -C "$draft" || exit 1
  mv -T "$draft" "$base/$sum" 2>/dev/null || rm -rf "$draft"
fi
K3S_STANDIN_VERSION=$version K3S_STANDIN_CALLED=${0##*/} exec "$base/$sum/k3s/k3s" "$@"
exit 1
"""


def build(out: Path, *, version: str = VERSION) -> Path:
    """Fill a folder with `k3s` and `install.sh` and return it."""
    archive = _archive()
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    head = HEAD.replace("@VERSION@", version).replace("@SUM@", digest)
    head = head.replace("@LINES@", str(head.count("\n") + 1))
    out.mkdir(parents=True, exist_ok=True)
    draft = out / f".k3s.{os.getpid()}"
    draft.write_bytes(head.encode() + archive.read_bytes())
    draft.chmod(0o755)
    draft.replace(out / "k3s")
    shutil.copy(HERE / "install.sh", out / "install.sh")
    (out / "install.sh").chmod(0o755)
    return out


def _archive() -> Path:
    sources = sorted([*HERE.glob("k3s_standin/*.py"), HERE / "entry.py"])
    text = b"".join(path.name.encode() + path.read_bytes() for path in sources) + sys.version.encode()
    kept = CACHE / f"{hashlib.sha256(text).hexdigest()[:24]}.tar.gz"
    if not kept.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            _freeze(Path(folder))
            draft = CACHE / f".draft.{os.getpid()}"
            command = ["tar", "-czf", str(draft), "-C", f"{folder}/dist", "k3s"]
            subprocess.run(command, check=True)
            draft.replace(kept)
    return kept


def _freeze(folder: Path) -> None:
    command = [
        sys.executable, "-m", "PyInstaller", "--onedir", "--name", "k3s", "--paths", str(HERE), "--log-level", "ERROR",
        "--distpath", str(folder / "dist"), "--workpath", str(folder / "work"), "--specpath", str(folder),
        *(f"--hidden-import=k3s_standin.{name.stem}" for name in HERE.glob("k3s_standin/*.py")),
        "--collect-submodules=scramp", "--hidden-import=pymysql", "--hidden-import=pg8000.dbapi", str(HERE / "entry.py"),
    ]  # fmt: skip
    subprocess.run(command, check=True)


if __name__ == "__main__":
    print(build(Path(sys.argv[1]), version=sys.argv[2] if len(sys.argv) > 2 else VERSION))
