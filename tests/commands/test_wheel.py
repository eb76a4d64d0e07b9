"""The wheel, in an environment of its own as pipx makes one, used from a folder that is not the project's."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from nornir_k3s.cli.arguments import SUBCOMMANDS
from nornir_k3s.cli.init import FILES
from nornir_k3s_lab.files import package_files
from nornir_k3s_lab.host_files import image_files
from tests.commands.conftest import PROJECT

PACKAGES = ("nornir_k3s", "nornir_k3s_lab")
# Where the packages can come from the cache: those that are needed here are in it, since this environment has them.
UV = [str(Path(sys.executable).with_name("uv")), "--quiet"]
# Another user, who can read the folders of the tests: root's temporary folders are closed to all others.
AS_NOBODY = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=-all,+dac_read_search",
]


def uv(*words: str) -> str:
    done = subprocess.run([*UV, *words], cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    uv("build", "--wheel", "--out-dir", str(folder))
    (found,) = folder.glob("*.whl")
    return found


@dataclass
class Installed:
    """The environment, and its command with nothing of ours in its surroundings."""

    folder: Path

    def run(self, *words: str, cwd: Path, root: bool = True) -> subprocess.CompletedProcess[str]:
        prefix = AS_NOBODY if os.geteuid() == 0 and not root else []
        argv = [*prefix, str(self.folder / "bin" / "nornir-k3s"), *words]
        env = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), "LC_ALL": "C.UTF-8"}
        return subprocess.run(
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
        )


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("pipx")
    versions = folder / "versions.txt"
    locked = uv("export", "--frozen", "--no-default-groups", "--no-emit-project", "--no-hashes")
    versions.write_text(locked)
    uv("venv", "--python", sys.executable, str(folder / "venv"))
    python = str(folder / "venv" / "bin" / "python")
    uv("pip", "install", "--python", python, "--constraint", str(versions), str(wheel))
    return Installed(folder / "venv")


def test_the_wheel_has_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=PROJECT / "tasks", capture_output=True, text=True, check=False,
    )  # fmt: skip
    if tracked.returncode == 0:
        assert inside == {name for name in tracked.stdout.split() if (PROJECT / "tasks" / name).exists()}
    assert inside >= {"nornir_k3s/py.typed", "nornir_k3s/report/page.html.j2"}
    assert inside >= {f"nornir_k3s/cli/templates/{Path(name).name}.j2" for name in FILES}
    assert inside >= {f"nornir_k3s_lab/{name}" for name in ("create_user.sh", "start_container.sh")}
    assert inside >= {f"nornir_k3s_lab/rootfs/{name}" for name in package_files("rootfs")}
    kinds = ("*.sh", "*.bash", "*.lua", "*.j2", "*.conf", "*.service", "py.typed")
    data = {p for kind in kinds for p in (PROJECT / "tasks").rglob(kind)}
    assert inside >= {str(path.relative_to(PROJECT / "tasks")) for path in data}
    assert not [name for name in inside if "test" in Path(name).parts or "standin" in name or "runbooks" in name]


def test_it_is_not_the_checkout_that_runs(installed: Installed, tmp_path: Path) -> None:
    python = installed.folder / "bin" / "python"
    code = "import nornir_k3s, nornir_k3s_lab; print(nornir_k3s.__file__, nornir_k3s_lab.__file__)"
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(PROJECT) not in done.stdout
    assert done.stdout.count(str(installed.folder)) == 2


def test_version_and_help(installed: Installed, tmp_path: Path) -> None:
    done = installed.run("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout.split()[0]) == (0, "nornir-k3s")
    done = installed.run("--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(name in done.stdout for name in SUBCOMMANDS)


def test_completion_and_phases(installed: Installed, tmp_path: Path) -> None:
    done = installed.run("completion", "bash", cwd=tmp_path)
    assert (done.returncode, "complete -o" in done.stdout) == (0, True)
    done = installed.run("deploy", "--list-phases", cwd=tmp_path)
    assert (done.returncode, "load-balancers" in done.stdout) == (0, True)


def test_the_lab_without_root(installed: Installed, tmp_path: Path) -> None:
    done = installed.run("lab", "--help", cwd=tmp_path, root=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "It needs root" in done.stdout
    config = str(PROJECT / "config.yaml")
    for action in ("up", "status", "down"):
        done = installed.run("lab", "--config", config, action, cwd=tmp_path, root=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: the lab starts containers on this machine and needs root\n")


def test_the_installed_lab_has_its_data_files(installed: Installed, tmp_path: Path) -> None:
    python = installed.folder / "bin" / "python"
    code = """if True:
        from nornir_k3s_lab import files, host_files
        names = "create_user.sh", "start_container.sh", *(f"rootfs/{name}" for name in files.package_files("rootfs"))
        assert all(files.package_file(name) for name in names)
        print(*host_files.image_files(), sep="\\n")
    """
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == list(image_files())


def test_from_nothing_to_a_check(installed: Installed, tmp_path: Path) -> None:
    done = installed.run("drift", cwd=tmp_path)
    assert (done.returncode, "nornir-k3s init" in done.stderr) == (2, True), done.stderr
    assert installed.run("init", cwd=tmp_path).returncode == 0
    hosts, path = tmp_path / "inventory" / "hosts.yaml", tmp_path / "config.yaml"
    path.write_text(path.read_text() + "    deadlines: {connect: 1}\n")
    for file in hosts.parent.glob("*.yaml"):
        file.write_text(file.read_text().replace("192.0.2.", "127.77.0."))
    for words in (["drift", "--html", "page.html"], ["plan"]):
        done = installed.run(*words, cwd=tmp_path)
        assert (done.returncode, "s1: " in done.stderr) == (4, True), done.stderr
        assert "Traceback" not in done.stdout + done.stderr
    hosts.write_text(hosts.read_text().replace("hostname", "hostnme"))
    done = installed.run("drift", cwd=tmp_path)
    assert (done.returncode, "hosts.yaml:" in done.stderr) == (2, True), done.stderr


def test_the_schedule_starts_the_installed_command(installed: Installed, tmp_path: Path) -> None:
    assert installed.run("init", cwd=tmp_path).returncode == 0
    done = installed.run("schedule", "print", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    command = installed.folder / "bin" / "nornir-k3s"
    assert f"ExecStart={command} drift --config {tmp_path / 'config.yaml'}\n" in done.stdout
    assert os.access(command, os.X_OK)
