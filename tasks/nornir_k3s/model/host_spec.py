"""HostSpec: what one host must look like, as data. Nothing here reads or writes a host."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from nornir_k3s.model.secret import Secret

HEADER = "# Managed by nornir-k3s: changes made here are found as drift and undone by the next deploy.\n"
Masking = Literal["none", "yaml", "all"]


@dataclass(frozen=True)
class File:
    """A text file that must be on the host with this content, mode and owner.

    Arguments:
        path: Where.
        text: The whole content; a Secret, since many of these files hold one.
        mode: Permission bits.
        masking: What a diff may show: all of it, all but the values of secret keys, or nothing.
        unit: The unit that reads it, if any.
        action: What that unit needs when the file has changed.
        group: The group that owns it; the owner is always root.
        check: A command that proves a draft of it, `{}` standing for the draft's path.
    """

    path: str
    text: Secret
    mode: int = 0o644
    masking: Masking = "none"
    unit: str = ""
    action: Literal["restart", "reload"] = "restart"
    group: str = "root"
    check: str = ""

    @property
    def sha256(self) -> str:
        """The content's SHA-256 in hex."""
        return hashlib.sha256(self.text.reveal().encode()).hexdigest()


@dataclass(frozen=True)
class Gone:
    """A file that must not be there any more; only one that this tool wrote is removed. `unit` has read it."""

    path: str
    unit: str


@dataclass(frozen=True)
class Forget:
    """The copies of a server's previous files, which are needed no more."""


@dataclass(frozen=True)
class Artifact:
    """A big file: pushed from the controller, or fetched by the host from `url`; by content, never twice.

    Arguments:
        source: On the controller; its name alone counts where the host fetches.
        path: On the host.
        sha256: In hex.
        mode: Permission bits.
        url: Where the host fetches it; empty when it is pushed.
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
        reloadable: A reload makes it read its files again.
        reload: The command that does it, where systemd knows of none.
        proof: A command that is true, some seconds after the unit was touched, when it really works; `$begin` is then.
    """

    name: str
    reloadable: bool = False
    reload: str = ""
    proof: str = ""


@dataclass(frozen=True)
class Install:
    """K3s' own installer, which writes the unit and the links; it neither downloads nor starts.

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
    """All of what one host must look like."""

    packages: tuple[str, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    install: Install | None = None
    files: tuple[File, ...] = ()
    gone: tuple[Gone, ...] = ()
    units: tuple[Unit, ...] = ()
    watch: tuple[str, ...] = ()  # paths whose presence the preflight wants to know


def settings_yaml(settings: Mapping[str, Any]) -> Secret:
    """Return K3s' config.yaml for these settings, secrets revealed, keys in the given order."""
    plain = {key: value.reveal() if isinstance(value, Secret) else value for key, value in settings.items()}
    return Secret(
        HEADER + yaml.safe_dump(plain, sort_keys=False, default_flow_style=False, allow_unicode=True, width=4096)
    )
