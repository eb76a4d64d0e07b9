"""The user's own files and manifests: what is wrong with them, and what is delivered."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from nornir_k3s import k3s
from nornir_k3s.errors import ArtifactError
from nornir_k3s.inventory.rules import Found, typed
from nornir_k3s.inventory.schema import ClusterModel
from nornir_k3s.model.cluster import UserFile
from nornir_k3s.model.secret import Secret

MANIFESTS = f"{k3s.DATA}/server/manifests"
# K3s writes these there itself, at every start (k3s: manifests/).
_PACKAGED = ("ccm", "coredns", "local-storage", "metrics-server", "rolebindings", "runtimes", "traefik")
_MANIFEST = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]*\.(ya?ml|json)")
# What K3s or this tool writes or runs; a file there would be lost, or would change what nobody compares.
_TAKEN = (
    *(f"/etc/rancher/{name}" for name in ("k3s/config.yaml", "k3s/registries.yaml", "k3s/k3s.yaml", "k3s/datastore-")),
    *(
        "/etc/rancher/node/",
        "/etc/default/k3s",
        "/etc/systemd/system/k3s",
        "/usr/local/bin/k3s",
        "/var/lib/nornir-k3s/",
    ),
    *("/run/", "/proc/", "/sys/", "/dev/", f"{k3s.DATA}/data/"),
    *(f"{k3s.DATA}/agent/{name}" for name in ("client-", "serving-", "server-")),
    *(f"{k3s.DATA}/server/{name}" for name in ("tls/", "cred/", "db/", "token", "node-token", "agent-token")),
)


def problems(model: ClusterModel, at: Callable[[Path], Path]) -> Iterator[Found]:
    """Yield what is wrong with `files` and `manifests`.

    Arguments:
        at: Returns the absolute path of one in the inventory.
    """
    yield from _files(model, at)
    yield from _manifests(model, at)


def _files(model: ClusterModel, at: Callable[[Path], Path]) -> Iterator[Found]:
    seen: set[tuple[str, str]] = set()
    for index, file in enumerate(model.files):
        path = PurePosixPath(file.path)
        if str(path) != file.path or ".." in path.parts:
            yield ("files", index, "path"), f"{file.path!r} is not the plain path of a file"
        elif file.path.startswith(MANIFESTS + "/"):
            yield ("files", index, "path"), "K3s applies what lies there: give it in `manifests`"
        elif file.path.startswith(_TAKEN):
            yield ("files", index, "path"), f"{file.path} belongs to K3s or to this tool: choose another path"
        if file.source and not at(file.source).is_file():
            yield ("files", index, "source"), f"there is no file {at(file.source)}"
        for role in file.roles:
            if (role, file.path) in seen:
                yield ("files", index, "path"), f"{file.path} is given twice for {role}"
            seen.add((role, file.path))


def _manifests(model: ClusterModel, at: Callable[[Path], Path]) -> Iterator[Found]:
    seen: set[str] = set()
    disabled = typed(model.server).get("disable", [])
    for index, path in enumerate(model.manifests):
        name, stem = path.name, path.name.rpartition(".")[0]
        if not at(path).is_file():
            yield ("manifests", index), f"there is no file {at(path)}"
        elif not _MANIFEST.fullmatch(name):
            yield ("manifests", index), f"{name!r} is not the name of a manifest, as cilium.yaml"
        elif stem in _PACKAGED:
            yield ("manifests", index), f"K3s writes a manifest {name} of its own: choose another name"
        elif isinstance(disabled, list) and stem in disabled:
            yield ("manifests", index), f"`disable` has {stem}, so K3s would delete what {name} describes"
        elif name in seen:
            yield ("manifests", index), f"there are two manifests {name}"
        seen.add(name)


def delivered(
    model: ClusterModel, at: Callable[[Path], Path], secrets: Mapping[str, Secret | None]
) -> tuple[UserFile, ...]:
    """Return the user's files and manifests with their texts.

    Arguments:
        at: Returns the absolute path of one in the inventory.
        secrets: The texts of those that are references, by `file PATH`.

    Raises:
        ArtifactError: One cannot be read.
    """
    found = [
        UserFile(
            file.path,
            read(at(file.source), f"files: {file.path}") if file.source else secrets[f"file {file.path}"] or Secret(""),
            int(file.mode, 8),
            file.owner,
            file.group,
            tuple(file.roles),
            restart=file.restart,
        )
        for file in model.files
    ]
    # A manifest may hold secrets. K3s looks at the folder every 15 s: nothing restarts.
    found += [
        UserFile(f"{MANIFESTS}/{path.name}", read(at(path), "manifests"), restart=False) for path in model.manifests
    ]
    return tuple(found)


def read(path: Path, what: str) -> Secret:
    """Return the text of a file of the user's.

    Raises:
        ArtifactError: It cannot be read, or is not text.
    """
    try:
        return Secret(path.read_text())
    except OSError as error:
        raise ArtifactError(f"{what}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ArtifactError(f"{what}: {path} is not text") from None
