"""The files of an inventory that was described: nothing that is there is lost."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from nornir_k3s import atomic_file
from nornir_k3s.adoption.describe import Description
from nornir_k3s.errors import UsageError
from nornir_k3s.state import tokens
from nornir_k3s.state.store import Store

_HEADS = {
    "hosts": "The hosts of the cluster, as `nornir-k3s adopt` has found them. The group says what a host is for.",
    "groups": "What the hosts are for.",
    "defaults": "What applies to all hosts, and the settings of the cluster. `nornir-k3s adopt` has read them from what"
    "\n# runs; behind each stands what set it. Settings that have K3s' defaults are left out.",
}
GROUPS = ("datastore", "servers", "agents", "lb")
_CONFIG = """\
# Configuration of Nornir and of nornir-k3s. The cluster itself is described in inventory/.
# Relative paths are relative to this file.
inventory:
  plugin: SimpleInventory
  options:
    host_file: inventory/hosts.yaml
    group_file: inventory/groups.yaml
    defaults_file: inventory/defaults.yaml
  transform_function: k3s_credentials
  transform_function_options: {base: inventory}    # for your own Nornir scripts that you start in this folder
runner:
  plugin: k3s_runner
  options: {num_workers: 20}    # hosts at the same time
logging:
  enabled: false                # each run writes a debug log to STATE/log
user_defined:
  k3s:
    state: .state               # secrets, kubeconfig, logs: back it up, keep it private, never commit it
"""


@dataclass(frozen=True)
class Places:
    """Where the inventory goes.

    Arguments:
        config: config.yaml, which is written where there is none.
        files: The paths of hosts.yaml, groups.yaml and defaults.yaml, by `hosts`, `groups` and `defaults`.
    """

    config: Path
    files: Mapping[str, Path]

    @property
    def base(self) -> Path:
        """The folder that relative paths of the inventory start from."""
        return self.files["hosts"].parent


def texts(found: Description, groups: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of the inventory's files.

    Arguments:
        groups: Data that groups have already.
        defaults: What defaults.yaml has besides the cluster: the login, and data of others.
    """
    cluster = _map(found.cluster)
    for (part, key), origin in found.origins.items():
        if origin and part in cluster and key in cluster[part]:
            cluster[part].yaml_add_eol_comment(origin, key)
    data = {**defaults.get("data", {}), "k3s_cluster": cluster}
    documents = {
        "hosts": found.hosts,
        "groups": {name: groups.get(name, {}) for name in dict.fromkeys([*GROUPS, *groups])},
        "defaults": {**defaults, "data": data},
    }
    return {kind: f"# {_HEADS[kind]}\n{_dumped(document)}" for kind, document in documents.items()}


def check(places: Places, found: Description, store: Store, *, force: bool) -> None:
    """Check that nothing would be lost.

    Raises:
        UsageError: Files of an inventory or of another cluster are there.
    """
    there = [str(path) for path in (*places.files.values(), *_beside(places, found)) if path.exists()]
    if there and not force:
        raise UsageError(
            f"already there: {', '.join(there)}",
            hint="choose another folder with --out, or --force, which keeps copies of them; nothing was written",
        )
    saved = store.read("token")
    if saved is not None and saved.strip() != found.secrets["token"].reveal() and not force:
        raise UsageError(
            f"{store.folder} is the state of another cluster of this name: its token is another",
            hint="choose another name with --name, or another folder with --out; nothing was written",
        )


def write(places: Places, found: Description, inventory: Mapping[str, str], store: Store) -> None:
    """Write secrets, then files; those that are there get another name.

    Raises:
        UsageError: One cannot be written.
    """
    try:
        before = store.read("token")
        token = found.secrets["token"]
        if before is not None and before.strip() != token.reveal():
            store.write(f"{tokens.NAME}-{found.secrets['token'].fingerprint()}.before", before)
        for name, secret in found.secrets.items():
            store.write(name, secret.reveal().rstrip("\n") + "\n")
        for path, text in _files(places, found, inventory):
            path.parent.mkdir(parents=True, exist_ok=True)
            _keep(path, text)
            atomic_file.write(path, text, mode=None)
    except OSError as error:
        raise UsageError(f"{error.filename or places.base} cannot be written: {error.strerror}") from None


def written(places: Places, found: Description) -> list[str]:
    """Return the paths of all files but secrets."""
    config = [] if places.config.exists() else [places.config]
    return [str(path) for path in (*config, *places.files.values(), *_beside(places, found))]


def _beside(places: Places, found: Description) -> Iterator[Path]:
    return (places.base / name for name in found.files)


def _files(places: Places, found: Description, inventory: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    for name, text in found.files.items():
        yield places.base / name, text
    for kind, path in places.files.items():
        yield path, inventory[kind]
    if not places.config.exists():
        yield places.config, _CONFIG


def _keep(path: Path, text: str) -> None:
    """Give a file that would be replaced by another text another name."""
    if not path.exists() or path.read_text() == text:
        return
    free = (path.with_name(f"{path.name}.before{number or ''}") for number in range(10_000))
    path.rename(next(one for one in free if not one.exists()))


def _map(value: Any) -> Any:  # noqa: ANN401 - any part of a document
    if isinstance(value, CommentedMap):
        return value
    if isinstance(value, Mapping):
        return CommentedMap({key: _map(one) for key, one in value.items()})
    return [_map(one) for one in value] if isinstance(value, list) else value


def _dumped(document: Any) -> str:  # noqa: ANN401 - a document
    yaml = YAML()
    yaml.width = 120
    out = io.StringIO()
    yaml.dump(_map(document), out)
    return out.getvalue()
