"""The systemd unit that starts K3s: its command, which a shell may start, and its environment.

Sources: systemd.service(5), "Command lines"; systemd.exec(5), `Environment=`, `EnvironmentFile=`; systemd.unit(5),
"Specifiers"; k3s `install.sh` (the unit).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

_SHELLS = {"sh", "bash", "dash", "ash", "ksh", "zsh"}
_ROLES = ("server", "agent")
_OPERATORS = set(";&|<>()")


@dataclass(frozen=True)
class Unit:
    """What the files of a systemd unit say.

    Arguments:
        command: The words of its last `ExecStart=`, with nothing replaced in them.
        dropin: The drop-in that has it; empty for the unit's main file.
        environment: Its own `Environment=`, each value with the drop-in that has it.
        files: The paths of its `EnvironmentFile=`, with nothing replaced in them.
    """

    command: tuple[str, ...] = ()
    dropin: str = ""
    environment: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Command:
    """How K3s is started.

    Arguments:
        words: K3s' path, `server` or `agent`, and its flags; empty where that is not known.
        variables: Those that the command itself sets, such as `env GOGC=50 k3s server`.
        unknown: Why settings may be missing in these words, for people; empty if none are.
    """

    words: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    unknown: str = ""


def unit(text: str) -> Unit:
    """Return what a unit's files say, as `systemctl cat` prints them: later ones count, an empty value resets."""
    command: tuple[str, ...] = ()
    environment: dict[str, tuple[str, str]] = {}
    files: tuple[str, ...] = ()
    section = path = dropin = ""
    for line in _lines(text):
        if line.startswith("# /"):
            section, path = "", line[2:] if ".service.d/" in line else ""
        if line.startswith("["):
            section = line
        name, equal, value = (part.strip() for part in line.partition("="))
        if section != "[Service]" or not equal or line.startswith(("#", ";")):
            continue
        if name == "ExecStart":
            command, dropin = tuple(split(value.lstrip("@-:+!"))), path
        elif name == "EnvironmentFile":
            files = (*files, value.removeprefix("-")) if value else ()
        elif name == "Environment" and value:
            pairs = (word.split("=", 1) for word in split(value) if "=" in word)
            environment |= {variable: (found, path) for variable, found in pairs}
        elif name == "Environment":
            environment = {}
    return Unit(command, dropin, environment, files)


def _lines(text: str) -> Iterator[str]:
    """Yield lines as systemd reads them: continued ones as one, in which lines that are comments are left out."""
    held = ""
    for raw in text.splitlines():
        line = raw.strip()
        if held and line.startswith(("#", ";")):
            continue
        if line.endswith("\\"):
            held += line[:-1] + " "
        else:
            yield (held + line).strip()
            held = ""
    if held:
        yield held.strip()


def environment(text: str) -> dict[str, str]:
    """Return the variables of an environment file."""
    found = {}
    for line in re.sub(r"\\\r?\n", "", text).splitlines():
        name, equal, value = line.strip().partition("=")
        if equal and re.fullmatch(r"\s*[A-Za-z_][A-Za-z0-9_]*", name):
            words = split(value)
            found[name.strip()] = words[0] if len(words) == 1 else value.strip()
    return found


def split(text: str) -> list[str]:
    """Return the words of a command."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def expanded(words: Sequence[str], variables: Mapping[str, str], name: str) -> list[str]:
    """Return a command as systemd starts it: `$NAME` is words of its own, `${NAME}` part of one; `%%` and `%n`.

    Arguments:
        name: The unit's.
    """
    found: list[str] = []
    for raw in words:
        word = specified(raw, name)
        if whole := re.fullmatch(r"\$([A-Za-z_][A-Za-z0-9_]*)", word):
            found += split(variables.get(whole[1], ""))
        else:
            pattern = r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)\}"
            found.append(re.sub(pattern, lambda match: variables.get(match[1], "") if match[1] else "$", word))
    return found


def specified(word: str, name: str) -> str:
    """Return a word with the name of its unit in place of `%n`, `%N` and `%p`."""
    stem = name.removesuffix(".service")
    return re.sub(r"%([%nNp])", lambda match: {"%": "%", "n": name}.get(match[1], stem), word)


def command(words: Sequence[str]) -> Command:
    """Return the K3s in a command: it may be started by a shell, or by `env` and the like.

    Arguments:
        words: Those that systemd starts.
    """
    unknown, operators = "", set[str]()
    if words and PurePosixPath(words[0]).name in _SHELLS:
        option = next((number for number, word in enumerate(words) if _is_c(word)), len(words))
        script = " ".join(words[option + 1 :])  # systemd tells the command of a process without its quotes
        if not script:
            return Command(unknown=f"{words[0]} starts a script")
        if re.search(r"[$`]", re.sub(r"'[^']*'", "", script)):
            unknown = f"{words[0]} puts values into its command"
        words, operators = _of_shell(script), _OPERATORS
    at = next((at for at, word in enumerate(words[:-1]) if _is_k3s(word, words[at + 1])), None)
    at = 0 if at is None and words[1:2] and words[1] in _ROLES else at  # under another name
    if at is None:
        return Command(unknown=unknown or (f"{words[0]} starts it" if words else ""))
    before = [word.split("=", 1) for word in words[:at] if re.match(r"[A-Za-z_][A-Za-z0-9_]*=", word)]
    end = next((end for end, word in enumerate(words) if end > at and word and set(word) <= operators), len(words))
    return Command(tuple(words[at:end]), dict(before), unknown)


def _is_c(word: str) -> bool:
    return word.startswith("-") and not word.startswith("--") and word.endswith("c")


def _is_k3s(word: str, after: str) -> bool:
    return PurePosixPath(word).name == "k3s" and after in _ROLES


def _of_shell(script: str) -> list[str]:
    """Return the words of a shell's command, with operators as words of their own."""
    quoted_or_operators = r"""('[^']*'|"(?:\\.|[^"])*"|\\.)|([;&|<>()]+)"""
    return split(re.sub(quoted_or_operators, lambda match: match[1] or f" {match[2]} ", script))
