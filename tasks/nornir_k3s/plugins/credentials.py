"""Transform function: resolves the secrets a host's connection needs, and the paths in its options."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from nornir.core.inventory import ConnectionOptions, Host

from nornir_k3s.errors import UsageError
from nornir_k3s.references import resolve

CONNECTION = "netmiko"
# Keys of `k3s_ssh` in a host's data, and the option of the connection each becomes.
_OPTIONS = {"sudo_password": "secret", "passphrase": "passphrase"}
_PATHS = ("key_file", "alt_key_file", "ssh_config_file")


def k3s_credentials(host: Host, base: str = ".") -> None:
    """Give this host's connection its secrets and absolute paths; entry point `k3s_credentials`.

    Arguments:
        host: Its data may have `k3s_ssh` with `password`, `sudo_password` and `passphrase`, each a secret reference.
        base: What relative paths are relative to.

    Raises:
        UsageError: A reference gives nothing, or a key is unknown; it names host and key.
    """
    folder = Path(base)
    wanted: dict[str, Any] = host.get("k3s_ssh") or {}
    if not isinstance(wanted, dict):
        raise UsageError(f"{host.name}: k3s_ssh must be a mapping; it has password, sudo_password and passphrase")
    # Nornir shares one options dict between all hosts of a group: this host gets a copy of its own.
    inherited = host.get_connection_parameters(CONNECTION)
    extras = copy.deepcopy(inherited.extras or {})
    for key in _PATHS:
        if extras.get(key):
            extras[key] = str((folder / Path(str(extras[key])).expanduser()).resolve())
    for key, reference in wanted.items():
        if key != "password" and key not in _OPTIONS:
            raise UsageError(f"{host.name}: k3s_ssh.{key} is unknown; it has password, sudo_password and passphrase")
        if not isinstance(reference, dict):
            raise UsageError(
                f"{host.name}: k3s_ssh.{key} must be a reference: {{env: …}}, {{file: …}} or {{command: …}}"
            )
        try:
            secret = resolve(reference, folder)
        except UsageError as error:
            raise UsageError(f"{host.name}: k3s_ssh.{key}: {error.message}") from None
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
