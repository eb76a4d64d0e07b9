"""A K3s that is installed on a host, whoever installed it, and the settings that its next start has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from nornir_k3s.model.secret import Secret

Value = str | Secret


@dataclass(frozen=True)
class Setting:
    """A setting that K3s is started with.

    Arguments:
        values: All values of a list, in order; of any other setting one. Secret where the setting is.
        origins: What sets it: paths of files, or `flags of k3s.service`; of a list they may be several.
    """

    values: tuple[Value, ...]
    origins: tuple[str, ...]

    @property
    def origin(self) -> str:
        """What sets it, for people."""
        return " and ".join(self.origins)

    @property
    def text(self) -> str:
        """The last value, which counts for a setting that is no list; it may be a secret."""
        value = self.values[-1] if self.values else ""
        return value.reveal() if isinstance(value, Secret) else value

    @property
    def shown(self) -> str:
        """The values for people; secrets are masked."""
        return ", ".join(map(str, self.values))


@dataclass(frozen=True)
class Installed:
    """A K3s on a host.

    Arguments:
        unit: The systemd unit that starts it.
        role: What the unit starts.
        active: The unit is active, or about to be.
        enabled: It starts at boot.
        binary: The path of K3s that the unit starts.
        ours: This tool has installed it.
        changed: When the newest of its files changed, config.yaml apart, in seconds since the epoch; 0 if unknown.
        settings: By K3s' names; only those that are set.
        files: The files that settings come from.
        ignored: Keys of its files that a server of K3s skips, because it does not know them.
        variables: Variables of its environment that are no settings, such as those of a proxy.
        variable_origins: What sets each of them: an environment file, a drop-in of the unit, or the unit.
        problems: What cannot be read as K3s would, and why.
        dropins: The files of config.yaml.d, whether this K3s reads them or not, by path.
        tokens: The texts of files that `token-file` and `agent-token-file` name, by path.
    """

    unit: str
    role: Literal["server", "agent"]
    active: bool = False
    enabled: bool = False
    binary: str = ""
    ours: bool = False
    changed: int = 0
    settings: Mapping[str, Setting] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    variables: Mapping[str, Secret] = field(default_factory=dict)
    variable_origins: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    dropins: Mapping[str, Secret] = field(default_factory=dict)
    tokens: Mapping[str, Secret] = field(default_factory=dict)

    def text(self, key: str) -> str:
        """Return the value of a setting that is no list, which may be a secret; nothing where it is not set."""
        return self.settings[key].text if key in self.settings else ""

    def values(self, key: str) -> tuple[str, ...]:
        """Return the values of a list that has no secrets."""
        return tuple(map(str, self.settings[key].values)) if key in self.settings else ()
