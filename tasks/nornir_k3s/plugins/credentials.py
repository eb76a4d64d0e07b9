"""Transform function: resolves the secret references of a host's connection, and the paths in its options."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

from nornir.core.inventory import ConnectionOptions, Host

from nornir_k3s.errors import UsageError
from nornir_k3s.plugins.inherited import added_up, levels
from nornir_k3s.state.references import resolve

CONNECTION = "netmiko"
# Keys of `k3s_ssh` in a host's data, and the connection options that they become.
_OPTIONS = {"sudo_password": "secret", "passphrase": "passphrase"}
_KEYS = "password, sudo_password and passphrase"
_PATHS = ("key_file", "alt_key_file", "ssh_config_file")


def k3s_credentials(host: Host, base: str = ".", problems: list[tuple[str, str, str]] | None = None) -> None:
    """Set the secrets and absolute paths of this host's connection; entry point `k3s_credentials`.

    Arguments:
        host: Its data, its groups' and the defaults' may have `k3s_ssh` with `password`, `sudo_password` and
            `passphrase`, each a secret reference; of each the nearest one counts.
        base: The folder that relative paths start from.
        problems: A list for all problems, each with host, key and message.

    Raises:
        UsageError: A reference cannot be resolved, or a key is unknown, and there is no list for problems.
    """
    found = list(_problems(host, Path(base)))
    if found and problems is None:
        name, key, text = found[0]
        raise UsageError(f"{name}: {key}: {text}")
    if problems is not None:
        problems += found


def _problems(host: Host, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Set the host's options; yield the problems."""
    if any(not isinstance(value, dict) for _, value in levels(host, "k3s_ssh")):
        yield host.name, "k3s_ssh", f"it must be a mapping of {_KEYS}"
        return
    wanted = added_up(host, "k3s_ssh")
    # Nornir shares the options of a group between its hosts: this host gets its own copy.
    inherited = host.get_connection_parameters(CONNECTION)
    extras = copy.deepcopy(inherited.extras or {})
    for key in _PATHS:
        if extras.get(key):
            extras[key] = str((folder / Path(str(extras[key])).expanduser()).resolve())
    for key, reference in wanted.items():
        if key != "password" and key not in _OPTIONS:
            yield host.name, f"k3s_ssh.{key}", f"it is unknown; there are {_KEYS}"
            continue
        try:
            secret = resolve(reference, folder)
        except UsageError as error:
            yield host.name, f"k3s_ssh.{key}", error.message
            continue
        if key == "password":
            host.password = secret.reveal()
        else:
            extras[_OPTIONS[key]] = secret.reveal()
    own = host.connection_options.get(CONNECTION) or ConnectionOptions()
    host.connection_options[CONNECTION] = ConnectionOptions(
        hostname=own.hostname,
        port=own.port,
        username=own.username,
        password=own.password,
        platform=own.platform,
        extras=extras,
    )
