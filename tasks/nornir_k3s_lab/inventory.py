"""Read a lab from the config.yaml and the inventory of Nornir, without InitNornir."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nornir.core.inventory import Host
from nornir.plugins.inventory import SimpleInventory
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from nornir_k3s_lab.errors import LabConfigError
from nornir_k3s_lab.model import RELEASES, LabHost, LabSpec, problems_of


def load(config: Path, inventory: Path | None = None) -> LabSpec:
    """Read a lab.

    Arguments:
        config: The config.yaml; paths in it are relative to its folder.
        inventory: A folder with hosts.yaml, groups.yaml and defaults.yaml, instead of the files that `config` names.

    Raises:
        LabConfigError: With all problems at once.
    """
    settings = _read_config(config)
    lab = ((settings.get("user_defined") or {}).get("lab")) or {}
    if not isinstance(lab, dict) or not {"name", "network"} <= lab.keys():
        raise LabConfigError(f"{config}: user_defined.lab with name and network is missing", hint="add both")
    files = _inventory_files(config, settings, inventory)
    if not files["host_file"].exists():
        raise LabConfigError(f"{files['host_file']} does not exist", hint="give its folder with --inventory")
    loaded = SimpleInventory(**{option: str(file) for option, file in files.items()}).load()
    base = files["host_file"].parent
    hosts = tuple(_lab_host(host, base) for host in loaded.hosts.values())
    folder = config.resolve().parent / ".lab" / str(lab["name"])
    problems = [*_setting_problems(loaded.hosts.values()), *problems_of(str(lab["name"]), str(lab["network"]), hosts)]
    keys = {_extra(host, "key_file", base) or folder / "id_ed25519" for host in loaded.hosts.values()}
    known = {_extra(host, "alt_key_file", base) or folder / "known_hosts" for host in loaded.hosts.values()}
    if len(keys) > 1 or len(known) > 1:
        problems.append("all hosts of the lab must share one key_file and one alt_key_file")
    if problems:
        raise LabConfigError(*problems)
    return LabSpec(str(lab["name"]), str(lab["network"]), hosts, key_file=keys.pop(), known_hosts=known.pop())


def _read_config(config: Path) -> dict[str, Any]:
    try:
        settings = YAML(typ="safe").load(config.read_text())  # as Nornir reads it
    except OSError as error:
        raise LabConfigError(f"cannot read {config}: {error.strerror}", hint="give the file with --config") from error
    except (YAMLError, ValueError, AssertionError) as error:
        raise LabConfigError(f"{config} is not valid YAML: {error}") from error
    if not isinstance(settings, dict):
        raise LabConfigError(f"{config} must contain a mapping")
    return settings


def _inventory_files(config: Path, settings: dict[str, Any], inventory: Path | None) -> dict[str, Path]:
    names = {"host_file": "hosts.yaml", "group_file": "groups.yaml", "defaults_file": "defaults.yaml"}
    if inventory is not None:
        return {option: inventory.resolve() / name for option, name in names.items()}
    options = ((settings.get("inventory") or {}).get("options")) or {}
    base = config.resolve().parent
    return {option: base / Path(options.get(option, name)).expanduser() for option, name in names.items()}


def _lab_host(host: Host, base: Path) -> LabHost:
    ssh = host.get("k3s_ssh") or {}
    password = ssh.get("sudo_password") if isinstance(ssh, dict) else None
    file = password.get("file") if isinstance(password, dict) else None
    lab = host.get("k3s_lab")
    return LabHost(
        name=host.name,
        address=str(host.hostname),
        user=host.username or "root",
        sudo_password_file=_absolute(base, file) if file else None,
        release=str(lab.get("release", RELEASES[0])) if isinstance(lab, dict) else RELEASES[0],
    )


def _setting_problems(hosts: Iterable[Host]) -> Iterator[str]:
    for host in hosts:
        settings = host.get("k3s_lab")
        if settings is None:
            continue
        if not isinstance(settings, dict) or settings.keys() - {"release"}:
            yield f"{host.name}: k3s_lab must be a mapping that has the key `release` at most, not {settings!r}"


def _extra(host: Host, key: str, base: Path) -> Path | None:
    value = (host.get_connection_parameters("netmiko").extras or {}).get(key)
    return _absolute(base, value) if value else None


def _absolute(base: Path, value: str) -> Path:
    return (base / Path(value).expanduser()).resolve()
