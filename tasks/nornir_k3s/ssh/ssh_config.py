"""ssh_config, read by OpenSSH itself: `ssh -G` prints what its client would use for a host.

So `Include`, `Match`, patterns, canonical names and tokens mean here what they mean to `ssh`.

Source: ssh_config(5); `dump_client_config` in OpenSSH's readconf.c; `expand_proxy_command` in its sshconnect.c.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# `Match exec` runs commands, and CanonicalizeHostname asks the name service: either may hang.
DEADLINE = 20.0
# Many hosts share a jump host. A process that runs for days still has to notice that the file has changed.
CACHE_SECONDS = 60.0

_locks: dict[tuple[str, ...], threading.Lock] = {}


class SSHConfigError(Exception):
    """ssh_config cannot be used."""


@dataclass(frozen=True)
class HostConfig:
    """What ssh_config says about a host; tokens are expanded.

    Arguments:
        address: A name or an IP address.
        port: Of its sshd.
        user: Whom to log in as.
        identities: The key files that ssh_config names; OpenSSH's own defaults are not among them.
        identities_only: Whether only these are offered, of the agent's keys too.
        agent: The socket of the SSH agent, `none`, or nothing where it is that of the environment.
        proxy_jump: The jump hosts, comma separated.
        proxy_command: A shell command; never beside `proxy_jump`, of which OpenSSH takes what comes first.
    """

    address: str
    port: int
    user: str
    identities: tuple[str, ...] = ()
    identities_only: bool = False
    agent: str = ""
    proxy_jump: str = ""
    proxy_command: str = ""


def lookup(file: Path, name: str, *, port: int | None = None, user: str | None = None) -> HostConfig:
    """Return what an ssh_config says about a host. Answers are cached for a minute.

    Arguments:
        file: The only file that is read, with those it includes: /etc/ssh/ssh_config is not.
        name: As it is typed after `ssh`.
        port: Takes precedence over the file's.
        user: Takes precedence over the file's.

    Raises:
        SSHConfigError: The file has a mistake, or `ssh` cannot be run.
    """
    given = [*(["-p", str(port)] if port else []), *(["-l", user] if user else [])]
    query = ("-F", str(file), *given, "--", name)
    found = _ask(query)
    tokens = {
        "%": "%",
        "h": found["hostname"][0],
        "k": found.get("hostkeyalias", [name])[0],
        "n": name,
        "p": found["port"][0],
        "r": found["user"][0],
    }
    keys = [key for key in found.get("identityfile", ()) if key != "none"]
    return HostConfig(
        # OpenSSH writes a name in lower case; known_hosts files were written, and are searched, with the inventory's.
        address=name if tokens["h"] == name.lower() else tokens["h"],
        port=int(tokens["p"]),
        user=tokens["r"],
        identities=tuple(_key_path(key, query) for key in keys),
        identities_only=found.get("identitiesonly", ["no"])[0] == "yes",
        agent=_agent(found.get("identityagent", [""])[0]),
        proxy_jump=_expand("ProxyJump", found, tokens),
        proxy_command=_expand("ProxyCommand", found, tokens),
    )


def _expand(option: str, found: Mapping[str, Sequence[str]], tokens: Mapping[str, str]) -> str:
    """Return an option's value with its tokens expanded, which `ssh -G` leaves as they are."""
    text = found.get(option.lower(), [""])[0]
    with contextlib.suppress(KeyError):
        return re.sub(r"%(.?)", lambda match: tokens[match[1]], text)
    raise SSHConfigError(f"{option} has an unknown token: {text}")


def _agent(text: str) -> str:
    """Return the socket that IdentityAgent names; OpenSSH expands all of it but the name of a variable."""
    if text == "SSH_AUTH_SOCK":
        return ""
    return os.environ.get(text[1:].strip("{}"), "none") if text.startswith("$") else text


def _key_path(key: str, query: tuple[str, ...]) -> str:
    if "%" in key or "${" in key:
        # OpenSSH does not print IdentityFile expanded, but it does so with ControlPath, which takes the same tokens.
        return _ask(("-o", f'ControlPath="{key}"', *query))["controlpath"][0]
    if key.startswith("~/"):  # OpenSSH looks into passwd, not at HOME
        return f"{pwd.getpwuid(os.getuid()).pw_dir}{key[1:]}"
    return str(Path(key).expanduser()) if key.startswith("~") else key


def _ask(query: tuple[str, ...]) -> Mapping[str, Sequence[str]]:
    """Return the answer of `ssh -G` by option, in lower case."""
    with _locks.setdefault(query, threading.Lock()):  # of many hosts that share a jump host, one asks
        return _ask_once(query, int(time.monotonic() // CACHE_SECONDS))


@functools.lru_cache(maxsize=4096)
def _ask_once(query: tuple[str, ...], _period: int) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = {}
    # With one identity given, OpenSSH does not add its defaults to those of the file.
    for line in _run(["ssh", "-G", "-T", "-o", "IdentityFile=none", *query], shlex.join(["ssh", "-G", *query])):
        option, _, value = line.partition(" ")
        found.setdefault(option, []).append(value)
    return found


def _run(argv: Sequence[str], shown: str) -> list[str]:
    """Return the lines that a command prints; `shown` is how a person would type it."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
            start_new_session=True,  # no terminal to ask on; a deadline ends what `Match exec` started, too
        )
    except OSError as error:
        raise SSHConfigError(f"`ssh`, which reads it, cannot be started: {error.strerror}") from None
    with process:
        try:
            out, err = process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise SSHConfigError(f"`{shown}` took longer than {DEADLINE:.0f} s") from None
    if process.returncode != 0:
        said = "; ".join(line.strip() for line in err.splitlines()[-3:])
        raise SSHConfigError(f"`{shown}` failed with status {process.returncode}: {said or 'it gave no reason'}")
    return out.splitlines()
