"""The command `nornir-k3s`: its help, its version, its defaults, and what it loads."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from nornir_k3s.cli import arguments, options_of_setup
from tests.commands.conftest import PROJECT, Place

HEAVY = ("nornir", "netmiko", "paramiko", "pydantic", "rich", "jinja2", "ruamel", "yaml", "httpx", "cryptography")


def command(*words: str, cwd: Path = Path("/")) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nornir_k3s.cli", *words]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def loaded(stderr: str) -> set[str]:
    """Return the modules in what `python -X importtime` writes."""
    return set(re.findall(r"^import time: +\d+ \| +\d+ \| +([\w.]+)$", stderr, re.M))


def test_the_version_is_that_of_the_package() -> None:
    done = command("--version")
    assert (done.returncode, done.stdout) == (0, f"nornir-k3s {version('nornir-k3s')}\n")


def test_help_names_every_subcommand_and_every_exit_code() -> None:
    done = command("--help")
    assert done.returncode == 0
    for name in arguments.SUBCOMMANDS:
        assert re.search(rf"^    {name}\b", done.stdout, re.M), name
    for code in (0, 1, 2, 3, 4, 5, 6, 130):
        assert re.search(rf"^  {code} ", done.stdout, re.M), code
    assert (command().returncode, command().stderr) == (2, done.stdout)


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in arguments.SUBCOMMANDS), ["--version"]])
def test_help_loads_nothing_of_the_work(words: list[str]) -> None:
    argv = [sys.executable, "-X", "importtime", "-m", "nornir_k3s.cli", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
    found = loaded(done.stderr)
    assert "nornir_k3s.cli.arguments" in found
    assert not {name for name in found if name.split(".")[0] in HEAVY}
    ours = {name for name in found if name.startswith("nornir_k3s.") and "cli.options" not in name}
    assert ours <= {f"nornir_k3s.{name}" for name in ("cli", "cli.main", "cli.arguments", "cli.parser", "errors")}


@pytest.mark.parametrize(("name", "code"), [("drift", 4), ("status", 4), ("drift.py", 4)])
def test_a_whole_run_never_loads_what_writes(down: Place, name: str, code: int) -> None:
    done = down.run(name, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == code, done.stderr
    found = loaded(done.stderr)
    assert f"nornir_k3s.workflows.{name.removesuffix('.py')}" in found
    writes = r"nornir_k3s\.(apply\.(script|rollback)|phases|workflows\.(deploy|plan|chain))\b"
    assert not {module for module in found if re.match(writes, module)}
    assert not found & {f"nornir_k3s.cli.{other}" for other in ("deploy", "plan", "init", "lab", "schedule")}
    assert not found & {"shtab", "jinja2", "nornir_k3s_lab"}


def test_without_a_config_it_says_how_to_get_one(tmp_path: Path) -> None:
    done = command("drift", cwd=tmp_path)
    assert done.returncode == 2
    assert f"there is no config.yaml in {tmp_path}" in done.stderr
    assert "nornir-k3s init" in done.stderr
    done = command("drift", "--config", "other.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "other.yaml: it does not exist" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_config_of_the_current_folder_is_the_default(down: Place) -> None:
    for words in (["drift"], ["plan"], ["deploy", "--plan"]):
        done = command(*words, cwd=down.folder)
        assert done.returncode == 4, done.stderr
        assert "s1: " in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["deplo"], "COMMAND: invalid choice: 'deplo'"),
        (["plan", "--yes"], "unrecognized arguments: --yes"),
        (["plan", "--until", "stage", "--only", "stage"], "--until and --only exclude each other"),
        (["deploy", "--preflight-only", "--plan"], "--preflight-only excludes --plan"),
        (["deploy", "--exit-code"], "--exit-code needs --plan"),
        (["drift", "--only-new", "--no-history"], "--only-new and --no-history exclude each other"),
        (["drift", "--html", "-"], "--html: - cannot be written"),
        (["drift", "--lim", "a"], "unrecognized arguments: --lim"),
        (["schedule", "install", "--jitter", "-1"], "--jitter and --deadline are seconds"),
        (["lab"], "ACTION"),
        (["init", "--servers", "0"], "--servers: '0' is not a number from 1 to 100"),
    ],
)
def test_wrong_usage_is_told_with_the_next_step(words: list[str], said: str) -> None:
    done = command(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert re.search(r"^  next: nornir-k3s.* --help$", done.stderr, re.M), done.stderr


def test_the_runbooks_have_the_same_options() -> None:
    for name in ("deploy", "drift", "status", "hostkeys", "schedule", "lab"):
        done = subprocess.run(
            [sys.executable, str(PROJECT / "runbooks" / f"{name}.py"), "--help"],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        options = re.compile(r"(?<!\w)--?[a-z][-a-z]*")
        assert set(options.findall(done.stdout)) == set(options.findall(command(name, "--help").stdout))
        assert "/config.yaml" in re.sub(r"\s", "", done.stdout), "the checkout's own is the default"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_a_script_of_the_shell(shell: str, tmp_path: Path) -> None:
    done = command("completion", shell)
    assert done.returncode == 0, done.stderr
    for name in arguments.SUBCOMMANDS:
        assert name in done.stdout
    if not shutil.which(shell):
        return
    script = tmp_path / "script"
    script.write_text(done.stdout)
    assert subprocess.run([shell, "-n", str(script)], check=False).returncode == 0


def test_bash_completes_subcommands_options_and_phases_of_the_lab(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(command("completion", "bash").stdout)

    def completed(*words: str) -> set[str]:
        line = " ".join(f"'{word}'" for word in words)
        code = (
            f"complete() {{ function=$4; }}; . {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1};"
            " $function nornir-k3s; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=60, check=False)
        return set(done.stdout.split())

    assert completed("nornir-k3s", "") >= set(arguments.SUBCOMMANDS)
    assert completed("nornir-k3s", "drift", "--on") == {"--only-new"}
    assert completed("nornir-k3s", "lab", "po") == {"poweroff", "poweron"}
    assert completed("nornir-k3s", "init", "--datastore", "") == set(options_of_setup.DATASTORES)


def test_the_lab_has_exit_codes_of_its_own_errors(place: Place) -> None:
    place.edit(lambda data: data["user_defined"]["lab"].update(network="nonsense"), "config.yaml")
    done = place.run("lab", "status")
    assert (done.returncode, "is not an IPv4 network" in done.stderr) == (2, True)
    done = command("lab", "--config", "/nowhere/config.yaml", "status")
    assert (done.returncode, "cannot read /nowhere/config.yaml" in done.stderr) == (2, True)
