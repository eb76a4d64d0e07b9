"""HostSpec: the desired state of one host, as data. Nothing here reads or writes a host."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from nornir_k3s.model.masking import MARK
from nornir_k3s.model.secret import Secret

HEADER = "# Managed by nornir-k3s: changes made here are found as drift and undone by the next deploy.\n"
Masking = Literal["none", "yaml", "all"]


@dataclass(frozen=True)
class File:
    """A text file with its desired content, mode and owner.

    Arguments:
        path: On the host.
        text: The whole content; a Secret, because many of these files contain secrets.
        mode: Permission bits.
        masking: What a diff may show: all of it, all but the values of secret keys, or nothing.
        unit: The unit that reads it, if any.
        action: What that unit needs when the file has changed.
        group: The group that owns it.
        check: A command that validates a draft; `{}` is the draft's path.
        owner: The user who owns it.
        runs: The start of a process that has these settings already and need not read it, in seconds since the epoch.
    """

    path: str
    text: Secret
    mode: int = 0o644
    masking: Masking = "none"
    unit: str = ""
    action: Literal["restart", "reload"] = "restart"
    group: str = "root"
    check: str = ""
    owner: str = "root"
    runs: int = 0

    @property
    def sha256(self) -> str:
        """The content's SHA-256 in hex."""
        return hashlib.sha256(self.text.reveal().encode()).hexdigest()


@dataclass(frozen=True)
class Gone:
    """An obsolete file, which `unit` has read; it is removed only if this tool wrote it."""

    path: str
    unit: str


@dataclass(frozen=True)
class Retired:
    """A unit of a role that the host no longer has: it is stopped, and does not start at boot."""

    name: str


@dataclass(frozen=True)
class Forget:
    """Obsolete rollback copies of a server's files."""


@dataclass(frozen=True)
class Artifact:
    """A large file: copied from the controller, or downloaded by the host from `url`; only if its hash differs.

    Arguments:
        source: On the controller; only its name matters if the host downloads the file.
        path: On the host.
        sha256: In hex.
        mode: Permission bits.
        url: Where the host downloads it; empty if it is copied.
    """

    source: Path
    path: str
    sha256: str
    mode: int = 0o755
    url: str = ""


@dataclass(frozen=True)
class Unit:
    """A systemd unit that must be enabled and active.

    Arguments:
        name: With its suffix.
        reloadable: A reload is enough to read its files again.
        reload: The command that reloads it, if systemd has none.
        patient: It may be starting for as long as it takes: what it waits for comes from elsewhere.
        proof: A command that succeeds within 10 s of the action when the unit works; `$begin` is the action's time.
    """

    name: str
    reloadable: bool = False
    reload: str = ""
    proof: str = ""
    patient: bool = False


@dataclass(frozen=True)
class Packages:
    """Packages that a package manager must install."""

    manager: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Initial:
    """Data that a service needs before its first file is written.

    Arguments:
        path: It exists once they are there.
        command: Makes them.
    """

    path: str
    command: str


@dataclass(frozen=True)
class Install:
    """K3s' installer, which only writes the unit and the links: no download, no start.

    Arguments:
        role: server or agent.
        script: Where the installer was staged.
        unit: The unit it writes.
    """

    role: Literal["server", "agent"]
    script: str
    unit: str


@dataclass(frozen=True)
class HostSpec:
    """The desired state of one host."""

    packages: tuple[str, ...] = ()
    booleans: tuple[str, ...] = ()  # of SELinux: they must be on
    initial: tuple[Initial, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    install: Install | None = None
    files: tuple[File, ...] = ()
    gone: tuple[Gone, ...] = ()
    units: tuple[Unit, ...] = ()
    watch: tuple[str, ...] = ()  # paths whose existence the preflight checks


def together(specs: Iterable[HostSpec]) -> HostSpec:
    """Return the desired state of a host from those of its roles."""
    specs = list(specs)
    return HostSpec(
        packages=tuple(dict.fromkeys(name for one in specs for name in one.packages)),
        booleans=tuple(name for one in specs for name in one.booleans),
        initial=tuple(initial for one in specs for initial in one.initial),
        artifacts=tuple(artifact for one in specs for artifact in one.artifacts),
        install=next((one.install for one in specs if one.install), None),
        files=tuple(file for one in specs for file in one.files),
        gone=tuple(gone for one in specs for gone in one.gone),
        units=tuple(unit for one in specs for unit in one.units),
        watch=tuple(dict.fromkeys(path for one in specs for path in one.watch)),
    )


def settings_yaml(settings: Mapping[str, Any]) -> Secret:
    """Return K3s' config.yaml for these settings, secrets revealed, keys in the given order."""
    lists = {key: value for key, value in settings.items() if isinstance(value, list)}
    secret = [key for key, value in lists.items() if any(isinstance(item, Secret) for item in value)]
    mark = f"{MARK}{', '.join(secret)}\n" if secret else ""
    plain = {key: value.reveal() if isinstance(value, Secret) else value for key, value in settings.items()}
    plain |= {key: [item.reveal() if isinstance(item, Secret) else item for item in lists[key]] for key in secret}
    return Secret(
        HEADER + mark + yaml.safe_dump(plain, sort_keys=False, default_flow_style=False, allow_unicode=True, width=4096)
    )
