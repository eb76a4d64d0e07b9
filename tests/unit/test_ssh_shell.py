"""Becoming root, with a stand-in for sudo: every kind of sudoers rule and password, without needing root."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from nornir_k3s.model.secret import Secret
from nornir_k3s.ssh import shell

SUDO = r"""#!/bin/sh
echo "$*" >>"$CALLS"
ask=; non=
while :; do
  case $1 in
  -k) ;; -S) ask=1 ;; -n) non=1 ;; -p) shift ;; --) shift; break ;; *) break ;;
  esac
  shift
done
if [ "$RULE" = nopasswd ]; then exec "$@"; fi
if [ "$RULE" = nobody ]; then echo "ops is not in the sudoers file." >&2; exit 1; fi
if [ -n "$non" ]; then echo "sudo: a password is required" >&2; exit 1; fi
for try in 1 2 3; do
  IFS= read -r given || { echo "sudo: no password was provided" >&2; break; }
  [ "$given" = "right 'one\$" ] && exec "$@"
  echo "$given" >>"$CALLS.wrong"
  echo "Sorry, try again." >&2
done
echo "sudo: 1 incorrect password attempt" >&2
exit 1
"""
RIGHT = "right 'one$"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which one is not root, and sudo is ours."""
    for name, text in (("sudo", SUDO), ("id", "#!/bin/sh\necho 1000\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path


def run(script: str, password: str = "", deadline: float = 20) -> subprocess.CompletedProcess[str]:
    text = shell.password_line(Secret(password)).decode() + shell.wrap(script)
    command = ["/bin/sh", "-c", shell.run_command(deadline)]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("rule", "password"), [("nopasswd", ""), ("nopasswd", "needless"), ("nopasswd", RIGHT), ("asks", RIGHT)]
)
def test_the_script_runs_whole_and_the_password_is_no_line_of_it(
    host: Path, monkeypatch: pytest.MonkeyPatch, rule: str, password: str
) -> None:
    monkeypatch.setenv("RULE", rule)
    done = run("echo one\ncat\necho two; echo err >&2; exit 5", password)
    assert done.returncode == 5
    assert done.stdout == f"{shell.BEGIN}\none\ntwo\n"
    assert done.stderr == f"{shell.BEGIN}\nerr\n"
    assert RIGHT not in (host / "calls").read_text()


@pytest.mark.parametrize(
    ("rule", "password", "reason"),
    [
        ("asks", "", "it asks for a password, and none is set"),
        ("asks", "wrong", "the password is wrong"),
        ("nobody", "", "the user is not in sudoers"),
        ("nobody", "any", "the user is not in sudoers"),
    ],
)
def test_a_refusal_has_its_reason_and_nothing_is_run(
    host: Path, monkeypatch: pytest.MonkeyPatch, rule: str, password: str, reason: str
) -> None:
    monkeypatch.setenv("RULE", rule)
    done = run(f"touch {host}/it-ran", password)
    assert done.returncode == shell.SUDO_REFUSED
    assert shell.why_sudo_refused(done.stderr) == reason
    assert shell.BEGIN not in done.stderr
    assert not (host / "it-ran").exists()
    tries = host / "calls.wrong"
    assert not tries.exists() or tries.read_text() == f"{password}\n", "lines of the script were tried as passwords"


def test_a_script_that_does_not_parse_runs_nothing(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RULE", "nopasswd")
    done = run(f"touch {host}/it-ran\nif true; then\n")
    assert done.returncode not in (0, shell.SUDO_REFUSED)
    assert not (host / "it-ran").exists()


def test_a_script_that_arrives_half_runs_nothing(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RULE", "nopasswd")
    text = "\n" + shell.wrap(f"touch {host}/it-ran\n" * 1000)
    for size in (0, 1, 100, 5000, len(text) - len("main </dev/null\n") - 1):
        command = ["/bin/sh", "-c", shell.run_command(20)]
        done = subprocess.run(command, input=text[:size], capture_output=True, text=True, check=False)
        assert shell.BEGIN not in done.stderr
    assert not (host / "it-ran").exists()


@pytest.mark.parametrize("script", ["", "# only a comment", "cat <<'E'\n}\nE", "f() { return 3; }\nf"])
def test_odd_scripts_are_scripts_too(host: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setenv("RULE", "nopasswd")
    assert run(script).returncode == (3 if "return" in script else 0)


def test_command_lines_are_one_line() -> None:
    """csh as login shell takes no newline between quotes."""
    assert "\n" not in shell.run_command(20)
    assert "\n" not in shell.put_command("/etc/x", sha256="0" * 64, mode=0o600, deadline=20)


def put(host: Path, content: bytes, target: Path, digest: str) -> subprocess.CompletedProcess[bytes]:
    command = shell.put_command(str(target), sha256=digest, mode=0o640, deadline=20)
    done = ["/bin/sh", "-c", command]
    return subprocess.run(done, input=b"\n" + content, capture_output=True, timeout=60, check=False)


def test_a_file_is_put_under_any_name(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RULE", "nopasswd")
    target = host / "a 'new' folder" / "-n $HOME *"
    content = os.urandom(100_000)
    assert put(host, content, target, hashlib.sha256(content).hexdigest()).returncode == 0
    assert target.read_bytes() == content
    assert target.stat().st_mode & 0o777 == 0o640
    done = put(host, content[:-1], target, hashlib.sha256(content).hexdigest())
    assert done.returncode == shell.DAMAGED
    assert b"99999 bytes arrived" in done.stderr
    assert target.read_bytes() == content
    assert len(list(target.parent.iterdir())) == 1


def test_a_transfer_that_is_stopped_leaves_no_draft(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RULE", "nopasswd")
    folder = host / "folder"
    command = shell.put_command(str(folder / "file"), sha256="0" * 64, mode=0o600, deadline=60)
    with subprocess.Popen(["/bin/sh", "-c", command], stdin=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdin
        process.stdin.write(b"\nfirst part")
        process.stdin.flush()
        _eventually(lambda: folder.exists() and len(list(folder.iterdir())) == 1)
        process.send_signal(signal.SIGTERM)  # to `timeout`, as at its deadline
        process.wait(20)
    _eventually(lambda: not list(folder.iterdir()))


def _eventually(condition: object) -> None:
    Retrying(stop=stop_after_delay(20), wait=wait_fixed(0.05), retry=retry_if_result(lambda held: not held))(condition)  # type: ignore[arg-type]  # stubs


def test_folders_above_a_file_have_the_usual_mode(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RULE", "nopasswd")
    target = host / "rancher" / "k3s" / "file"
    command = shell.put_command(str(target), sha256=hashlib.sha256(b"x").hexdigest(), mode=0o600, deadline=20)
    done = subprocess.run(["/bin/sh", "-c", command], input=b"\nx", capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (target.parents[1], target.parent, target)]
    assert modes == [0o755, 0o755, 0o600]
