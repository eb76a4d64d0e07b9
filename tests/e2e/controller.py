"""A host of the lab as a controller: the tool, a Python and a site's folder on it, as an operator would have them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.conftest import PROJECT, Site

HOME = Path("/srv/checks")
USER = "checks"
# What pam_systemd tells a user's manager where it is installed.
DROP_IN = "/run/systemd/system/user@.service.d"
RUNTIME = f"mkdir -p {DROP_IN}; printf '[Service]\\nEnvironment=XDG_RUNTIME_DIR=/run/user/%%i\\n' >{DROP_IN}/dir.conf"
AS_USER = f"setpriv --reuid={USER} --regid={USER} --init-groups"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
UNNEEDED = shutil.ignore_patterns(
    *["site-packages", "dist-packages", "config-*", "test", "idlelib", "tkinter", "_tkinter*", "mypy*", "*_nornir_k3s*"]
)


@dataclass
class Controller:
    """The host, and the schedule's command on it: root's, or the user's own."""

    site: Site
    host: str
    own: bool

    def sh(self, script: str) -> str:
        return self.site.lab.exec(self.host, ["sh", "-c", script], check=False).stdout

    def schedule(self, *words: str) -> str:
        user = f"{AS_USER} env HOME=/home/{USER} XDG_RUNTIME_DIR=/run/user/$(id -u {USER}) "
        command = f"{HOME}/venv/bin/python {HOME}/project/runbooks/schedule.py --config {HOME}/site/config.yaml"
        return self.sh(f"{user if self.own else ''}{command} {' '.join(words)} 2>&1")

    def journal(self) -> str:
        return self.sh("journalctl -o cat -n 60 --no-pager 2>&1")


@contextmanager
def controller(site: Site, host: str, *, own: bool) -> Iterator[Controller]:
    """Make a host a controller that a user who is not root works on; nothing of it stays."""
    it = Controller(site, host, own)
    libraries: list[str] = []
    try:
        root = Path(f"/proc/{next(one.init for one in site.lab.status() if one.host.name == host)}/root")
        libraries = _install(root)
        shutil.copytree(site.folder, root / HOME.relative_to("/") / "site", symlinks=True)
        it.sh(f"ldconfig; useradd --create-home {USER} && cd {HOME} && mkdir told && chown -R {USER}: site told")
        if own:
            it.sh(f"{RUNTIME}; systemctl daemon-reload; systemctl start user@$(id -u {USER})")
        yield it
    finally:
        it.sh(f"systemctl stop user@$(id -u {USER}); userdel --remove {USER} 2>&1")
        it.sh(f"rm -rf {HOME} {DROP_IN} {' '.join(libraries)}; ldconfig; systemctl daemon-reload")


def _install(root: Path) -> list[str]:
    """Put the tool and the interpreter that runs this on a host; return the libraries that it lacked."""
    home = root / HOME.relative_to("/")
    program, packages = Path(sys.executable).resolve(), Path(sysconfig.get_path("purelib"))
    for source, target in {
        Path(sysconfig.get_path("stdlib")): f"python/lib/{PYTHON}",
        packages: f"venv/lib/{PYTHON}/site-packages",
        PROJECT / "tasks": "project/tasks",
        PROJECT / "runbooks": "project/runbooks",
    }.items():
        shutil.copytree(source, home / target, ignore=UNNEEDED, ignore_dangling_symlinks=True)
    (home / "python/bin").mkdir()
    shutil.copy(program, home / f"python/bin/{PYTHON}")
    (home / "venv/bin").mkdir()
    (home / "venv/bin/python").symlink_to(HOME / f"python/bin/{PYTHON}")
    (home / "venv/pyvenv.cfg").write_text(f"home = {HOME}/python/bin\n")
    (home / f"venv/lib/{PYTHON}/site-packages/project.pth").write_text(f"{HOME}/project/tasks\n")
    extensions = [*(home / "python/lib").rglob("*.so"), *packages.glob("*.so")]
    said = subprocess.run(["ldd", program, *extensions], capture_output=True, text=True, check=False).stdout
    lacked = {name: path for name, path in re.findall(r"(\S+) => (/\S+)", said) if not (root / path[1:]).exists()}
    for name, path in lacked.items():
        shutil.copy(path, root / "usr/local/lib" / name)
    return [f"/usr/local/lib/{name}" for name in lacked]
