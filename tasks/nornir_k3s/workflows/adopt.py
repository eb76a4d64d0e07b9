"""adopt: reads a cluster that exists, and writes the inventory of it. No host is changed."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nornir.core import Nornir
from nornir.core.inventory import Host
from nornir.core.task import Result, Task

from nornir_k3s.adoption import datastore, describe, named, read, registration
from nornir_k3s.adoption import write as files
from nornir_k3s.adoption.describe import Description, Login
from nornir_k3s.adoption.read import Found, HostFile
from nornir_k3s.adoption.write import Places
from nornir_k3s.errors import HostError, HostsFailed, K3sError
from nornir_k3s.model.adoption import Adoption
from nornir_k3s.plugins.inherited import added_up
from nornir_k3s.plugins.runner import K3sRunner
from nornir_k3s.run import paths
from nornir_k3s.ssh.session import session
from nornir_k3s.state.store import Store

CONNECT, READ = 60.0, 120.0  # seconds
SSH_PORT = 22
_KEPT = ("artifacts", "rolling_update", "accept", "known_drift")


@dataclass(frozen=True)
class Wanted:
    """What is written, and where.

    Arguments:
        places: The files.
        state: The folder on the controller that has a folder for each cluster.
        name: Of the cluster.
        artifacts: A folder with its release, for hosts without Internet access.
        force: Replace files, and keep them under other names.
        rename: Hosts were given by their addresses: their nodes' names are their names in the inventory.
        write: False: return what would be written.
    """

    places: Places
    state: Path
    name: str = "k3s"
    artifacts: Path | None = None
    force: bool = False
    rename: bool = False
    write: bool = True


def adopt(
    nr: Nornir,
    out: Path | str,
    *,
    name: str = "k3s",
    state: Path | str | None = None,
    artifacts: Path | str | None = None,
    force: bool = False,
    rename: bool = False,
    write: bool = True,
) -> Adoption:
    """Read a cluster that exists, and write the inventory of it; nothing is changed on the hosts.

    Settings are taken from what runs: `/v1-k3s/config`, the nodes' annotations, units, environment and files, as K3s
    merges them. Defaults are left out. Secrets go to the state folder only, each file with mode 0600.

    Arguments:
        nr: A Nornir with the hosts of the cluster; they need no groups, and only what is needed to log in.
        out: The folder for config.yaml and `inventory/`.
        name: Of the cluster.
        state: The folder for secrets; default: `.state` in `out`.
        artifacts: A folder with K3s' release, which the inventory then names.
        force: Replace files that are there; they are kept under other names.
        rename: Name the hosts after their nodes.
        write: False: write nothing, and return what would be written.

    Returns:
        What was found, with the source of each setting, what differs between servers, and the hosts that are missing.

    Raises:
        UsageError: It is no cluster that this tool can run, or files are in the way; nothing was written.
        HostUnreachable: Or HostsFailed: hosts could not be read; nothing was written.
    """
    folder = Path(out).expanduser().resolve()
    inventory = {kind: folder / "inventory" / f"{kind}.yaml" for kind in ("hosts", "groups", "defaults")}
    wanted = Wanted(
        Places(folder / "config.yaml", inventory),
        Path(state).expanduser().resolve() if state else folder / ".state",
        name=name,
        artifacts=Path(artifacts).expanduser().resolve() if artifacts else None,
        force=force,
        rename=rename,
        write=write,
    )
    return carry_out(nr, wanted)


def carry_out(nr: Nornir, wanted: Wanted) -> Adoption:
    """Do what `adopt` does.

    Raises:
        K3sError: As `adopt`.
    """
    found: dict[str, Found] = _run(nr, "read", _read)
    names = describe.names(found) if wanted.rename else {name: name for name in found}
    by = describe.roles(found)
    urls = registration.urls(by["agents"], by["servers"], describe.nodes(by["servers"])).values()
    endpoints = filter(None, map(datastore.endpoint, by["servers"].values()))
    hosts = sorted({url.host for url in urls} | {host for one in endpoints for host, _ in one.hosts})

    def fetch(task: Task) -> tuple[dict[str, HostFile], Mapping[str, tuple[str, ...]]]:
        script = read.files_script(named.paths(found[task.host.name]), hosts)
        answer = session(task, deadline=CONNECT).run(script, what="reading files", timeout=READ)
        return read.parse_files(task.host.name, answer.stdout)

    texts = _run(nr, "read files", fetch)
    # One server may have a name in /etc/hosts that another does not know.
    resolved = {host: found for name in reversed(by["servers"]) for host, found in texts[name][1].items() if found}
    base = wanted.places.base
    defaults, logins = _logins(nr)
    description = describe.describe(
        {names[name]: one for name, one in found.items()},
        {names[name]: own for name, (own, _) in texts.items()},
        resolved,
        {names[name]: logins[name] for name in found},
        name=wanted.name,
        state=os.path.relpath(wanted.state / wanted.name, base),
        more=_kept(nr, wanted),
    )
    return _written(nr, wanted, description, defaults)


def _kept(nr: Nornir, wanted: Wanted) -> dict[str, Any]:
    """Return what an inventory that is there says of the cluster, and hosts do not tell."""
    given = nr.inventory.defaults.data.get("k3s_cluster")
    kept = {key: given[key] for key in _KEPT if key in given} if isinstance(given, Mapping) else {}
    folder = wanted.artifacts or (kept.get("artifacts") or {}).get("folder")
    if folder:
        kept["artifacts"] = {"folder": str((paths.of(nr, None, None).base / Path(folder).expanduser()).resolve())}
    return kept


def _written(nr: Nornir, wanted: Wanted, description: Description, defaults: Mapping[str, Any]) -> Adoption:
    store = Store(wanted.state / wanted.name, base=wanted.places.base)
    groups = {name: own for name, one in nr.inventory.groups.items() if (own := _group(one.data))}
    texts = files.texts(description, groups, defaults)
    report = description.report
    report.files = files.written(wanted.places, description)
    report.secrets = [str(store.folder / name) for name in description.secrets]
    files.check(wanted.places, description, store, force=wanted.force or not wanted.write)
    if wanted.write:
        files.write(wanted.places, description, texts, store)
    return report


def _group(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a group keeps: data of other tools; settings of K3s were read from the hosts."""
    own = {key: value for key, value in data.items() if key not in ("k3s", "k3s_ssh")}
    return {"data": own} if own else {}


def _read(task: Task) -> Found:
    answer = session(task, deadline=CONNECT).run(read.script(), what="reading", timeout=READ)
    return read.parse(task.host.name, answer.stdout)


def _run(nr: Nornir, title: str, work: Any) -> dict[str, Any]:  # noqa: ANN401 - what each host gives
    """Run a function on all hosts, and return what each gave.

    Raises:
        K3sError: That of the host that failed; HostsFailed for several.
    """

    def task_(task: Task) -> Result:
        try:
            return Result(host=task.host, result=work(task))
        except K3sError as error:
            return Result(host=task.host, failed=True, exception=error, result=str(error))

    runner = K3sRunner(num_workers=20, stop=getattr(nr.runner, "stop", None))
    results = nr.with_runner(runner).run(task=task_, name=title, raise_on_error=False)
    errors: list[K3sError] = []
    for name, result in results.items():
        if result.failed:
            error = result[0].exception
            if not isinstance(error, K3sError):
                raise error or AssertionError(name)
            errors.append(error)
    for name in nr.inventory.hosts:
        if name not in results:
            errors.append(HostError(name, f"left out of {title!r}: it failed in an earlier task on this Nornir object"))
    if errors:
        raise errors[0] if len(errors) == 1 else HostsFailed(errors)
    return {name: result[0].result for name, result in results.items()}


def _logins(nr: Nornir) -> tuple[dict[str, Any], dict[str, Login]]:
    """Return how the hosts were logged in to: what most have, for defaults.yaml, and the rest of each."""
    base = paths.of(nr, None, None).base
    all_keys = {name: _keys(host, base) for name, host in nr.inventory.hosts.items()}
    common: dict[str, Any] = {}
    for key in ("username", "connection_options", "k3s_ssh"):
        values = [json.dumps(own.get(key), sort_keys=True) for own in all_keys.values()]
        value = json.loads(Counter(values).most_common(1)[0][0])
        if value is not None:
            common[key] = value
    logins = {}
    for name, host in nr.inventory.hosts.items():
        own = {key: value for key, value in all_keys[name].items() if value != common.get(key)}
        data = {key: value for key, value in host.data.items() if key not in ("k3s", "k3s_ssh")}
        data |= {"k3s_ssh": own.pop("k3s_ssh")} if "k3s_ssh" in own else {}
        logins[name] = Login(own, data)
    data = {key: value for key, value in nr.inventory.defaults.data.items() if key not in ("k3s", "k3s_ssh")}
    data |= {"k3s_ssh": common.pop("k3s_ssh")} if "k3s_ssh" in common else {}
    return {**common, "data": data}, logins


def _keys(host: Host, base: Path) -> dict[str, Any]:
    known = host.get_connection_parameters("netmiko")
    keys: dict[str, Any] = {"hostname": known.hostname or host.name}
    if known.port and known.port != SSH_PORT:
        keys["port"] = known.port
    if known.username:
        keys["username"] = known.username
    # Secrets are references in `k3s_ssh`; a copy of them in the options is what these have become.
    extras = {key: value for key, value in (known.extras or {}).items() if key not in ("secret", "passphrase")}
    if extras:
        keys["connection_options"] = {"netmiko": {"platform": "linux", "extras": extras}}
    references = added_up(host, "k3s_ssh")
    for key, reference in references.items():
        if isinstance(reference, Mapping) and "file" in reference:
            references[key] = {"file": str((base / Path(str(reference["file"])).expanduser()).resolve())}
    return {**keys, **({"k3s_ssh": references} if references else {})}
