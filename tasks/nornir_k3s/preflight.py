"""Preflight: the checks without which a run would end badly. Pure: desired and observed state in, findings out.

Sources: docs.k3s.io `installation/requirements.md`, `datastore/ha.md`; k3s `pkg/cluster/managed.go` (files of an
embedded etcd win over an external endpoint), `pkg/cluster/storage.go` (the bootstrap key).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import yaml

from nornir_k3s import k3s
from nornir_k3s.cluster import Cluster, Member
from nornir_k3s.observe import Observed

ARCHITECTURES = {"x86_64", "aarch64", "armv7l"}
# Beyond this K3s takes another server's files for newer than the datastore's (k3s: pkg/cluster/bootstrap.go).
MAX_SKEW = 3.0
PORTS = {"servers": (6443, 6444, 10250), "agents": (10250,), "lb": (), "datastore": ()}


@dataclass(frozen=True)
class Finding:
    """One problem of one host.

    Arguments:
        host: Its name.
        id: Stable name of the check.
        found: What is so.
        todo: What to do.
        level: An error stops the run before the first change.
    """

    host: str
    id: str
    found: str
    todo: str
    level: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        return f"{self.host}: {self.found} -> {self.todo} [{self.id}]"


def check(cluster: Cluster, observed: Mapping[str, Observed]) -> list[Finding]:
    """Return every finding of every host, errors first.

    Arguments:
        cluster: What must be true.
        observed: What is true, by host name; every member is in it.
    """
    findings: list[Finding] = []
    for member in cluster.members:
        seen = observed[member.name]
        findings += _host(member, seen)
        findings += _addresses(cluster, member, seen)
        findings += _ports(cluster, member, seen)
        if member.role in ("servers", "agents"):
            findings += _node(cluster, member, seen)
    findings += _same_machine(cluster, observed)
    findings += _clocks(observed)
    findings += _datastore(cluster, observed)
    findings += _living(cluster, observed)
    return sorted(findings, key=lambda f: f.level != "error")


def _host(member: Member, seen: Observed) -> Iterator[Finding]:
    if seen.init != "systemd":
        yield Finding(member.name, "systemd", "the init system is not systemd", "use a distribution with systemd")
    if seen.arch not in ARCHITECTURES:
        yield Finding(
            member.name, "architecture", f"the architecture is {seen.arch}", "K3s runs on x86_64, arm64 and armhf"
        )
    if member.role in ("datastore", "lb") and seen.manager != "apt":
        yield Finding(member.name, "packages", "the package manager is not apt", "use Debian or Ubuntu for this group")
    if seen.disk_kib and seen.disk_kib < 1024 * 1024:
        yield Finding(
            member.name, "disk", f"{seen.disk_kib // 1024} MiB are free below /var/lib", "make 1 GiB free at least"
        )


def _addresses(cluster: Cluster, member: Member, seen: Observed) -> Iterator[Finding]:
    if not seen.interface_of(member.address):
        have = ", ".join(address for _, address in seen.addresses if not address.startswith(("127.", "::1", "fe80")))
        yield Finding(
            member.name,
            "address",
            f"{member.address} is on none of its interfaces ({have})",
            "correct the host's address",
        )
    vip = str(cluster.registration.address or "")
    if vip and member.role != "lb" and seen.interface_of(vip):
        yield Finding(member.name, "vip", f"it carries the VIP {vip} itself", "choose a free address for the VIP")


def _ports(cluster: Cluster, member: Member, seen: Observed) -> Iterator[Finding]:
    ours = {"servers": k3s.UNITS["server"], "agents": k3s.UNITS["agent"], "lb": "haproxy.service"}.get(member.role, "")
    if ours and seen.unit(ours).active in ("active", "activating", "reloading"):
        return
    wanted = (cluster.registration.port,) if member.role == "lb" else PORTS[member.role]
    for local, who in seen.listening:
        port = local.rpartition(":")[2]
        if port.isdigit() and int(port) in wanted and "k3s" not in who:
            name = who.split('"')[1] if '"' in who else "another program"
            yield Finding(member.name, "port", f"port {port} is taken by {name} ({local})", f"stop {name} or move it")


def _node(cluster: Cluster, member: Member, seen: Observed) -> Iterator[Finding]:
    if not seen.defaults:
        yield Finding(
            member.name, "default-route", "it has no default route, and K3s does not start without one", "add one"
        )
    other = k3s.UNITS["agent" if member.role == "servers" else "server"]
    if f"/etc/systemd/system/{other}" in seen.present:
        yield Finding(
            member.name,
            "role",
            f"{other} is installed: it has been in the other group",
            "uninstall that K3s first, or move it back",
        )
    if f"{k3s.DATA}/server/db/etcd/member/wal" in seen.present:
        yield Finding(
            member.name,
            "embedded-etcd",
            "files of an embedded etcd lie below server/db/etcd: K3s would use it and ignore the datastore endpoint",
            "back up and remove them, if that cluster is no longer needed",
        )
    if seen.cgroup not in ("", "cgroup2fs") and k3s.parse_version(cluster.version) >= k3s.parse_version("v1.35.0+k3s1"):
        allowed = "fail-cgroupv1=false"
        role = cluster.server if member.role == "servers" else cluster.agent
        if allowed not in str(role.get("kubelet-arg", "")) + str(member.settings.get("kubelet-arg", "")):
            yield Finding(
                member.name,
                "cgroup",
                "it runs cgroup v1, which a kubelet from 1.35 refuses",
                f"boot with cgroup v2, or set kubelet-arg {allowed}",
            )
    if seen.inotify and seen.inotify < 512:
        yield Finding(
            member.name,
            "inotify",
            f"fs.inotify.max_user_instances is {seen.inotify}; dense hosts need 8192",
            "raise it with sysctl",
            "warning",
        )
    if member.role == "servers" and seen.memory_kib and seen.memory_kib < 1900 * 1024:
        yield Finding(
            member.name,
            "memory",
            f"it has {seen.memory_kib // 1024} MiB of memory; a server needs 2 GiB",
            "add memory",
            "warning",
        )


def _same_machine(cluster: Cluster, observed: Mapping[str, Observed]) -> Iterator[Finding]:
    for what, attribute in (("machine-id", "machine"), ("host name", "hostname")):
        first: dict[str, str] = {}
        for member in cluster.members:
            value = getattr(observed[member.name], attribute)
            if what == "host name" and member.role not in ("servers", "agents"):
                continue
            if value and value in first:
                yield Finding(
                    member.name,
                    attribute,
                    f"it has the same {what} as {first[value]} ({value})",
                    "is it one machine twice, or a clone?",
                    "error" if attribute == "machine" else "warning",
                )
            first.setdefault(value, member.name)


def _clocks(observed: Mapping[str, Observed]) -> Iterator[Finding]:
    # Each host's clock was read at another moment: `skew` is against the controller's clock at that moment.
    skews = {name: seen.skew for name, seen in observed.items()}
    if not skews:
        return
    middle = statistics.median(skews.values())
    for name, skew in skews.items():
        if abs(skew - middle) > MAX_SKEW:
            yield Finding(
                name, "clock", f"its clock is {skew - middle:+.1f} s off the others'", "run an NTP client on every host"
            )


def _datastore(cluster: Cluster, observed: Mapping[str, Observed]) -> Iterator[Finding]:
    key = k3s.bootstrap_key(cluster.token)
    for member in cluster.of("datastore"):
        for what, name, _ in observed[member.name].database:
            if what == "bootstrap" and name != key:
                yield Finding(
                    member.name,
                    "foreign-data",
                    f"the database holds a cluster made with another token (its key is {name}, this token's is {key})",
                    "give that cluster's token, or another database",
                )
    for member in cluster.of("servers"):
        for address in observed[member.name].unreachable:
            yield Finding(
                member.name,
                "datastore",
                f"it cannot connect to the datastore at {address}",
                "check that it runs, the address in the endpoint, routes and firewalls",
            )
    cluster_ca = next((o.ca_cert for m in cluster.of("servers") if (o := observed[m.name]).ready), "")
    for member in cluster.of("servers"):
        seen = observed[member.name]
        if seen.token and seen.token != cluster.token.fingerprint():
            yield Finding(
                member.name,
                "token",
                f"it has been a server with another token: fingerprint {seen.token}, now {cluster.token.fingerprint()}",
                f"give that token, or remove {k3s.DATA}/server if that cluster is gone",
            )
        elif seen.ca_cert and cluster_ca and seen.ca_cert != cluster_ca:
            yield Finding(
                member.name,
                "leftovers",
                f"{k3s.DATA}/server/tls holds another CA than the running cluster's: files of a false start",
                f"remove {k3s.DATA}/server/tls and {k3s.DATA}/server/cred on it; K3s fetches the right ones",
            )


# What a cluster can never change once it was started (docs.k3s.io `cli/server.md`; k3s#3967).
_FOR_EVER = {"cluster-cidr": "10.42.0.0/16", "service-cidr": "10.43.0.0/16"}


def _living(cluster: Cluster, observed: Mapping[str, Observed]) -> Iterator[Finding]:
    """Measure the inventory by the servers that are up: a new file does not change what a cluster was started with."""
    for member in cluster.of("servers"):
        seen = observed[member.name]
        state = seen.files.get(k3s.CONFIG)
        if not seen.ready or state is None or state.text is None:
            continue
        for key, default in _FOR_EVER.items():
            live = _setting(state.text, key, default)
            wanted = cluster.server.get(key, default)
            wanted = ",".join(wanted) if isinstance(wanted, list) else str(wanted)
            if live != wanted:
                yield Finding(
                    member.name,
                    "for-ever",
                    f"the running cluster has {key} {live}, the inventory says {wanted}",
                    "put the old value back: it cannot be changed after the first start",
                )


def _setting(text: str, key: str, default: str) -> str:
    try:
        value = (yaml.safe_load(text) or {}).get(key, default)
    except (yaml.YAMLError, AttributeError):
        return default
    return ",".join(str(v) for v in value) if isinstance(value, list) else str(value)
