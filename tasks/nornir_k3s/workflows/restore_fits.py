"""Whether a backup fits a cluster: what keeps a restore from beginning."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from nornir.core.task import Result, Task

from nornir_k3s import k3s
from nornir_k3s.checks import host, network
from nornir_k3s.errors import HostsFailed, Interrupted, K3sError, PreflightFailed
from nornir_k3s.facts.database import DatastoreHealth
from nornir_k3s.facts.storage import FreeSpace
from nornir_k3s.model.backup import ROWS, Manifest
from nornir_k3s.model.finding import Finding, problem
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.together import together
from nornir_k3s.roles import datastore, left
from nornir_k3s.run import gather
from nornir_k3s.run.context import Run
from nornir_k3s.state import known_cluster

_LEAST = 1024  # MiB, as the preflight wants them
_UNPACKED = 6  # times the size of a compressed dump: the table of K3s' protobuf values, with its indexes


def of_another(run: Run, manifest: Manifest) -> Iterator[str]:
    """Yield what can be told before a host is contacted: another cluster, kind, token, or a K3s that is too old."""
    cluster = run.cluster
    if manifest.cluster != cluster.name:
        yield f"it is a backup of cluster {manifest.cluster}, and this one is {cluster.name}"
    yield from _dump(run, manifest)
    if k3s.parse_version(cluster.version) < k3s.parse_version(manifest.k3s_version):
        yield f"its nodes ran {manifest.k3s_version}, and the inventory has the older {cluster.version}"
    if token_is_given(run) and cluster.token.fingerprint() != manifest.token:
        yield (
            f"its token has the fingerprint {manifest.token}, and the `token` of the inventory "
            f"{cluster.token.fingerprint()}: give the token that the cluster had then"
        )


def _dump(run: Run, manifest: Manifest) -> Iterator[str]:
    """Yield that the dump cannot be put into the datastore; one of rows goes into every kind."""
    kind = datastore.spoken(run.cluster)
    if has_rows(manifest):
        return
    if not run.cluster.is_managed:
        others = [part.name for part in manifest.parts if part.name.startswith("datastore.")]
        what = f"its {others[0]} is for the tools of the {manifest.datastore}" if others else "its dump is elsewhere"
        yield f"the datastore is external, and it has no part {ROWS}: {what}"
    elif manifest.datastore != kind:
        yield f"it has the data of a {manifest.datastore}, and the datastore is a {kind}"
    elif manifest.part(dump_part(run, manifest)) is None:
        yield f"it has no part {dump_part(run, manifest)}: its dump is of a command of its own"


def has_rows(manifest: Manifest) -> bool:
    """Return whether the dump has the rows of K3s' table, in a file of SQLite."""
    return manifest.part(ROWS) is not None


def dump_part(run: Run, manifest: Manifest) -> str:
    """Return the name of the part that has the datastore's dump."""
    if has_rows(manifest):
        return ROWS
    member = run.cluster.of("datastore")[0]
    return f"datastore.{datastore.kind(run.cluster).dump(run.cluster, member).suffix}"


def token_is_given(run: Run) -> bool:
    """Return whether the inventory has the token; else this tool keeps it."""
    return bool(run.nr.inventory.defaults.data["k3s_cluster"].get("token"))


def other_ca(run: Run, manifest: Manifest) -> Iterator[str]:
    """Yield that neither token nor CA are those of the cluster."""
    known = run.ca_prefix or known_cluster.ca(run.store)[0]
    if known and manifest.ca and known != manifest.ca and run.cluster.token.fingerprint() != manifest.token:
        yield "it is of another cluster: neither its token nor its CA are those of this one"


def would_write(run: Run, lost: Collection[str]) -> Iterator[str]:
    """Yield servers that would go on and write to the restored data."""
    for member in left.members(run.cluster, run.facts):
        if member.role == "servers" and member.name not in lost:
            text = f"server {member.name} is not in the inventory and may run"
            yield f"{text}: add it, remove it first, or, if it is gone for good, add --lost {member.name}"


def require_sound(run: Run, manifest: Manifest) -> None:
    """Check what would end the restore when K3s is stopped: problems of hosts, a full disk, a release that is missing.

    Raises:
        PreflightFailed: A host has a problem; nothing was changed.
        ArtifactError: K3s' release cannot be had, and nothing was changed; HostsFailed: both.
    """
    members = [member for member in run.cluster.members if member.name in run.facts]
    found = [
        one.accept(run.cluster.accept)
        for member in members
        for check in (host.check, network.check)
        for one in check(run.cluster, member, run.facts[member.name])
    ]
    found += _room(run, manifest)
    errors: list[K3sError] = []
    try:
        gather.find_artifacts(run)
    except Interrupted:
        raise
    except K3sError as error:
        errors.append(error)
    if problems := [one for one in found if one.level == "error"]:
        errors.append(PreflightFailed(problems, together(problems)))
    if errors:
        raise errors[0] if len(errors) == 1 else HostsFailed(errors)


def _room(run: Run, manifest: Manifest) -> Iterator[Finding]:
    """Yield servers whose disk is full, and hosts of the datastore that have no room for what is restored."""
    names = [member.name for role in ("servers", "datastore") for member in run.of(role)]
    read = run.phase("room", dict.fromkeys(names), _read_room, width=run.widths["stage"], reads=True)
    for name, facts in read.items():
        need, why = _LEAST, ""
        if "datastore" in run.member(name).roles:
            need, why = _LEAST + _copy(run, manifest, facts), ": the data are restored beside those that are there"
        for space in facts.space:
            if space.path == "/var/lib" and space.free_mib < need:
                text = f"{space.free_mib} MiB of disk space are free in /var/lib"
                yield problem(name, "disk", text, f"at least {need} MiB{why}", "free disk space")


def _read_room(task: Task, run: Run) -> Result:
    return Result(host=task.host, result=gather.read_facts(task, run, [FreeSpace(), DatastoreHealth()]))


def _copy(run: Run, manifest: Manifest, facts: HostFacts) -> int:
    """Return the MiB of the dump and of the data in it, which are hardly larger than those that are there."""
    name, health = dump_part(run, manifest), facts.datastore_health
    part = manifest.part(name)
    packed = part.bytes if part else 0
    plain = packed if name.endswith(".etcd") else _UNPACKED * packed
    there = max((health.table or (0, 0))[1], (health.etcd_size or (0, 0))[0])
    return (packed + max(plain, there)) >> 20
