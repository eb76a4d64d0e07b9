"""The schedule's commands, with a systemctl that only writes down what it is asked: no timer is made here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SYSTEMCTL = """#!/bin/sh
echo "$@" >>CALLS
case "$*" in
  *show*.timer*) echo ActiveState=active; echo 'NextElapseUSecRealtime=Mon 2027-02-01 12:00:00 UTC' ;;
  *show*.service*) cat STATE 2>/dev/null; echo ExecMainStatus=3
                    echo 'ExecMainExitTimestamp=Mon 2027-02-01 11:00:00 UTC' ;;
esac
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    for name, text in {
        "systemctl": SYSTEMCTL.replace("CALLS", str(tmp_path / "calls")).replace("STATE", str(tmp_path / "state")),
        "systemd-analyze": '#!/bin/sh\n[ "$2" != never ]\n',
    }.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "config.yaml").write_text(
        "inventory: {plugin: SimpleInventory, options: {host_file: hosts.yaml, group_file: groups.yaml,"
        " defaults_file: defaults.yaml}}\nuser_defined: {k3s: {state: my state}}\n"
    )
    (tmp_path / "hosts.yaml").write_text("s1: {hostname: 10.0.0.1, groups: [servers]}\n")
    (tmp_path / "groups.yaml").write_text("servers: {}\n")
    (tmp_path / "defaults.yaml").write_text("data: {k3s_cluster: {name: prod}}\n")
    return tmp_path


def schedule(home: Path, *arguments: str, own: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROJECT / "runbooks" / "schedule.py"), "--config", str(home / "config.yaml")]
    environment = {**os.environ, "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "XDG_CONFIG_HOME": str(home / "cfg")}
    arguments = ("--user", *arguments) if own else arguments
    return subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def units(home: Path) -> Path:
    return home / "cfg" / "systemd" / "user"


def test_it_is_installed_looked_at_and_removed(home: Path) -> None:
    assert schedule(home, "status").returncode == 1
    done = schedule(home, "install", "--calendar", "*:0/15", "--metrics", str(home / "k3s.prom"))
    assert done.returncode == 0, done.stderr
    service = (units(home) / "nornir-k3s-drift-prod.service").read_text()
    assert f"--config {home / 'config.yaml'}" in service
    assert f"--metrics {home / 'k3s.prom'}" in service
    assert "OnCalendar=*:0/15" in (units(home) / "nornir-k3s-drift-prod.timer").read_text()
    calls = (home / "calls").read_text()
    assert "--user daemon-reload" in calls
    assert "--user enable nornir-k3s-drift-prod.timer" in calls
    said = schedule(home, "status")
    assert (said.returncode, "last run: drift (exit 3)" in said.stdout) == (0, True)
    (home / "state").write_text("ActiveState=activating\n")
    assert "it is running now" in schedule(home, "status").stdout
    assert schedule(home, "remove").returncode == 0
    assert list(units(home).iterdir()) == []
    assert "disable --now nornir-k3s-drift-prod.timer" in (home / "calls").read_text()
    assert "nothing is installed" in schedule(home, "remove").stdout


def test_what_is_not_ours_is_neither_replaced_nor_removed(home: Path) -> None:
    units(home).mkdir(parents=True)
    path = units(home) / "nornir-k3s-drift-prod.timer"
    path.write_text("[Timer]\nOnCalendar=daily\n")
    for action in ("install", "remove"):
        done = schedule(home, action)
        assert (done.returncode, "was not written by this tool" in done.stderr) == (2, True)
    assert path.read_text() == "[Timer]\nOnCalendar=daily\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["install", "--calendar", "never"], "systemd does not understand 'never'"),
        (["install", "--run-as", "ops"], "--run-as needs root and the system's systemd"),
        (["install", "--on-failure", "a\nb"], "a systemd unit cannot hold it"),
        (["install", "--deadline", "0"], "are seconds"),
        (["install", "--metrics", "/nowhere/at/all/k3s.prom"], "/nowhere/at/all is not a folder"),
        (["reinstall"], "invalid choice"),
    ],
)
def test_what_cannot_be(home: Path, arguments: list[str], words: str) -> None:
    done = schedule(home, *arguments)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert not units(home).exists()


def test_nothing_is_written_where_systemd_does_not_answer(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "bin" / "systemctl").write_text("#!/bin/sh\necho Failed to connect to bus >&2; exit 1\n")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    done = schedule(home, "install")
    assert (done.returncode, "Failed to connect to bus" in done.stderr) == (1, True)
    assert "log in as this user" in done.stderr
    assert not units(home).exists()


def test_print_writes_nothing(home: Path) -> None:
    done = schedule(home, "print")
    assert (done.returncode, "[Timer]" in done.stdout) == (0, True)
    assert not units(home).exists()
    assert not (home / "calls").exists()


def test_backups_have_a_timer_of_their_own(home: Path) -> None:
    config = home / "config.yaml"
    config.write_text(config.read_text().replace("my state", "my state, backup: {folder: saved}"))
    done = schedule(home, "print", "--job", "backup", own=os.geteuid() != 0)
    assert done.returncode == 0, done.stderr
    for words in (
        "nornir-k3s-backup-prod.timer",
        "Backup of a K3s cluster",
        "OnCalendar=daily",
        "TimeoutStartSec=7200",
    ):
        assert words in done.stdout
    assert f"{PROJECT}/runbooks/backup.py --config" in done.stdout
    assert "SuccessExitStatus" not in done.stdout
    if os.geteuid() == 0:
        assert f"ReadWritePaths=-{home}/saved" in done.stdout
    assert schedule(home, "install", "--job", "backup").returncode == 0
    assert (units(home) / "nornir-k3s-backup-prod.timer").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="the system's timer is root's")
def test_the_system_s_checks_run_as_the_user_whose_state_it_is(home: Path) -> None:
    assert "User=" not in schedule(home, "print", own=False).stdout
    os.chown(home / "my state", 54321, 54321)
    assert "User=54321\n" in schedule(home, "print", own=False).stdout
    assert "User=ops\n" in schedule(home, "print", "--run-as", "ops", own=False).stdout
    assert "User=" not in schedule(home, "print").stdout


def test_the_timer_starts_the_runbook_or_the_command_whichever_was_used(home: Path) -> None:
    def start(*command: str) -> str:
        words = [*command, "--config", str(home / "config.yaml"), "print"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return next(line for line in done.stdout.splitlines() if line.startswith("ExecStart="))

    config = f"drift --config {home / 'config.yaml'}"
    runbooks = PROJECT / "runbooks"
    assert start(sys.executable, str(runbooks / "schedule.py")) == (
        f"ExecStart={sys.executable} {runbooks / 'drift.py'} --config {home / 'config.yaml'}"
    )
    module = [sys.executable, "-m", "nornir_k3s.cli"]
    assert start(*module, "schedule") == f"ExecStart={' '.join(module)} {config}"
    script = home / "bin" / "nornir-k3s"
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom nornir_k3s.cli.main import main\nsys.exit(main())\n")
    script.chmod(0o755)
    assert start(str(script), "schedule") == f"ExecStart={script} {config}"


def test_units_of_an_earlier_version_are_ours(home: Path) -> None:
    units(home).mkdir(parents=True)
    path = units(home) / "nornir-k3s-drift-prod.timer"
    path.write_text("# Managed by nornir-k3s: runbooks/schedule.py writes and removes it.\n[Timer]\n")
    assert schedule(home, "remove").returncode == 0
    assert not path.exists()
