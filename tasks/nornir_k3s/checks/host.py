"""Checks of a single host: machine, kernel, packages.

Sources: docs.k3s.io `installation/requirements.md`, `advanced.md`, `known-issues.md`; k3s
`contrib/util/check-config.sh`, `pkg/cgroups`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from nornir_k3s import k3s
from nornir_k3s.checks.stored import NAMES
from nornir_k3s.model.cluster import (
    NODES,
    Cluster,
    Member,
    Setting,
)
from nornir_k3s.model.family import FAMILIES
from nornir_k3s.model.finding import Finding, Severity, problem
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.roles import datastore

ARCHITECTURES = {"x86_64", "aarch64", "armv7l"}
_NETWORK_FS = {"nfs", "nfs4", "cifs", "smb2", "fuseblk", "9p"}
_GIB = 1 << 20  # in KiB
_OLD_WATCHES = 8192  # the default of inotify before Linux 5.11, and on small machines since then
_NOT_LOADABLE = {
    "no": (
        "cannot be loaded, and is not loaded",
        "install the extra kernel modules (kernel-modules-extra, linux-modules-extra); reboot after a new kernel; "
        "in a container, load it on the machine",
    ),
    "disabled": ("is disabled in modprobe.d", "remove its `install` line from /etc/modprobe.d"),
}
_OLD_IPTABLES = re.compile(r"v1\.8\.[0-4]\b.*nf_tables|v1\.([0-5]\.\d+|6\.[01])\b")


def check(cluster: Cluster, member: Member, facts: HostFacts) -> Iterator[Finding]:
    """Yield the problems of the host itself."""
    yield from _system(member, facts)
    yield from _ssh(member, facts)
    yield from _disk(member, facts)
    yield from _firewall(cluster, member, facts)
    if member.role in NODES:
        yield from _size(member, facts)
        yield from _cgroups(cluster, member, facts)
        yield from _kernel(cluster, member, facts)
        yield from _security(cluster, member, facts)
    if set(member.roles) - set(NODES):
        yield from _packages(cluster, member, facts)
        yield from _others(cluster, member, facts)


def _system(member: Member, facts: HostFacts) -> Iterator[Finding]:
    if facts.system.init != "systemd":
        remedy = "use a distribution with systemd"
        yield problem(member.name, "systemd", "the init system is not systemd", "systemd", remedy)
    version = facts.capacity.systemd
    number = re.match(r"\d+", version)
    if number and int(number[0]) < 239:
        yield problem(
            member.name, "systemd", f"systemd is version {version}", "239 or newer", "use a newer distribution"
        )
    if facts.system.arch not in ARCHITECTURES:
        wanted = "x86_64, arm64 or armhf"
        yield problem(
            member.name, "architecture", f"the architecture is {facts.system.arch}", wanted, "use another machine"
        )
    if facts.system.hostname.partition(".")[0].lower() == "localhost":
        remedy = "set one: hostnamectl set-hostname NAME"
        yield problem(member.name, "hostname", "the host name is localhost", "a unique name", remedy, "warning")


def _ssh(member: Member, facts: HostFacts) -> Iterator[Finding]:
    if facts.ssh_sessions == 1:
        found = "sshd allows one session on a connection: the lock of the cluster would take the place of every command"
        remedy = "set MaxSessions 2 or more in /etc/ssh/sshd_config, and reload sshd"
        yield problem(member.name, "ssh-sessions", found, "at least 2", remedy)


def _disk(member: Member, facts: HostFacts) -> Iterator[Finding]:
    free = facts.system.disk_kib
    for path, kind, kib, options in facts.mounts:
        free = kib if path == k3s.DATA and kib else free
        if kind in _NETWORK_FS:
            remedy = "mount a local disk there"
            found = f"{path} is on a network file system ({kind})"
            yield problem(member.name, "filesystem", found, "a local file system", remedy, "warning")
        for option, expected in (("noexec", "K3s can run programs there"), ("ro", "K3s can write files there")):
            if option in options:
                found, remedy = f"{path} is mounted {option}", f"mount it without {option}"
                yield problem(member.name, "filesystem", found, expected, remedy)
    folder = k3s.DATA if member.role in NODES else "/var/lib"
    if free and free < 5 * _GIB:
        severity: Severity
        severity, wanted = ("error", "1 GiB") if free < _GIB else ("warning", "5 GiB")
        found = f"{free // 1024} MiB of disk space are free in {folder}"
        yield problem(member.name, "disk", found, f"at least {wanted}", "free disk space", severity)


def _size(member: Member, facts: HostFacts) -> Iterator[Finding]:
    server = member.role == "servers"
    cpus = facts.capacity.cpus
    if server and 0 < cpus < 2:
        yield problem(member.name, "cpu", f"{cpus} CPU core", "at least 2 for a server", "add cores", "warning")
    needed = 2048 if server else 512
    memory = facts.system.memory_kib
    if memory and memory < needed * 1024 * 0.93:  # MemTotal is without what the kernel reserves
        found = f"{memory // 1024} MiB of memory"
        yield problem(member.name, "memory", found, f"at least {needed} MiB", "add memory", "warning")


def _cgroups(cluster: Cluster, member: Member, facts: HostFacts) -> Iterator[Finding]:
    refused = k3s.parse_version(cluster.version) >= k3s.parse_version("v1.35.0+k3s1")
    if refused and facts.system.cgroup not in ("", "cgroup2fs"):
        allowed = "fail-cgroupv1=false"
        if not _runs_on_cgroup_v1(cluster.settings_of(member).get("kubelet-arg", [])):
            found, wanted = "the host uses cgroup v1, which kubelet 1.35 and newer refuses", "cgroup v2"
            remedy = f"boot with cgroup v2, or set kubelet-arg {allowed}"
            yield problem(member.name, "cgroup", found, wanted, remedy)
    controllers = facts.kernel.controllers
    needed = ("cpu", "cpuset", "memory") if facts.system.cgroup == "cgroup2fs" else ("memory",)
    missing = [name for name in needed if name not in controllers]
    if controllers and missing:
        remedy = (
            "boot with cgroup_enable=memory cgroup_memory=1" if "memory" in missing else "enable them in the kernel"
        )
        found = f"cgroup controllers are disabled: {', '.join(missing)}"
        yield problem(member.name, "cgroup", found, f"{', '.join(needed)}: K3s does not start without them", remedy)


def _runs_on_cgroup_v1(arguments: Setting) -> bool:
    items = arguments if isinstance(arguments, list) else [str(arguments)]
    pairs = (str(item).removeprefix("--").partition("=") for item in items)
    given = [value for name, _, value in pairs if name == "fail-cgroupv1"]
    return bool(given) and k3s.boolean(given[-1]) is False


def _kernel(cluster: Cluster, member: Member, facts: HostFacts) -> Iterator[Finding]:
    for name, state in facts.kernel.modules.items():
        if state in _NOT_LOADABLE:
            severity: Severity = "error" if name == "overlay" else "warning"
            found, remedy = f"kernel module {name} {_NOT_LOADABLE[state][0]}", _NOT_LOADABLE[state][1]
            yield problem(member.name, "kernel", found, name, remedy, severity)
    if not facts.kernel.kmsg:
        found = "/dev/kmsg cannot be opened: the kubelet ends at its start"
        remedy = "give the container this device of its machine; or at each boot: mknod /dev/kmsg c 1 11"
        yield problem(member.name, "kmsg", found, "/dev/kmsg", remedy)
    for setting, value, least, wanted in (
        ("max_user_instances", facts.system.inotify_instances, 512, "8192"),
        ("max_user_watches", facts.kernel.watches, _OLD_WATCHES + 1, "524288"),
    ):
        if 0 < value < least:
            found = f"fs.inotify.{setting} is {value}"
            remedy = f"sysctl -w fs.inotify.{setting}={wanted}, and the same in /etc/sysctl.d"
            yield problem(member.name, "inotify", found, f"{wanted} for many containers", remedy, "warning")
    keys = facts.kernel.keys
    if 0 < keys < 10000:
        found = f"kernel.keys.root_maxkeys is {keys}"
        yield problem(member.name, "keys", found, "10000 or more", "increase it with sysctl", "warning")
    version = facts.kernel.iptables
    bundled = cluster.settings_of(member).get("prefer-bundled-bin")
    if version and _OLD_IPTABLES.search(version) and not bundled:
        remedy = "update iptables, or set prefer-bundled-bin: true"
        yield problem(member.name, "iptables", version, "1.8.5 or newer", remedy, "warning")


def _firewall(cluster: Cluster, member: Member, facts: HostFacts) -> Iterator[Finding]:
    needs = ["6443/tcp, 10250/tcp, 8472/udp and the pod and service networks"] if member.role in NODES else []
    if "datastore" in member.roles:
        needs += [f"{port}/tcp" for port in datastore.kind(cluster).ports]
    if "lb" in member.roles:
        needs += [f"{cluster.registration.port}/tcp", "VRRP (IP protocol 112)"]
    for name in facts.firewalls:
        if name in ("firewalld", "ufw"):
            remedy = f"stop {name}, or allow {', '.join(needs)} in it"
            expected = "inactive, or open for the cluster"
            yield problem(member.name, "firewall", f"{name} is active", expected, remedy, "warning")


def _security(cluster: Cluster, member: Member, facts: HostFacts) -> Iterator[Finding]:
    if facts.selinux.mode != "Enforcing":
        return
    if not facts.selinux.policy:
        found = "SELinux is enforcing, but k3s-selinux is not installed"
        remedy = "install k3s-selinux and container-selinux"
        yield problem(member.name, "selinux", found, "the SELinux policy for K3s", remedy)
    elif not cluster.settings_of(member).get("selinux"):
        remedy = "set `selinux: true` under k3s_cluster.server and k3s_cluster.agent"
        found = "SELinux is enforcing, but K3s' setting `selinux` is off"
        yield problem(member.name, "selinux", found, "`selinux: true`", remedy, "warning")


def _packages(cluster: Cluster, member: Member, facts: HostFacts) -> Iterator[Finding]:
    family, repositories = facts.known_family, facts.repositories
    if family is None or family.manager not in facts.system.package_manager.split():
        known = [one.manager for one in ([family] if family else FAMILIES)]
        found = f"the package manager is not {' or '.join(known)}"
        remedy = f"use {' or '.join(one.name for one in FAMILIES)} for this group"
        yield problem(member.name, "packages", found, " or ".join(known), remedy)
        return
    if broken := repositories.broken:
        found = f"half-installed packages: {', '.join(broken[:5])}"
        severity: Severity = "error" if family.by_person else "warning"
        yield problem(member.name, "packages", found, "none", family.repair, severity)
    if repositories.sources == 0 and not facts.packages:
        found, remedy = f"{family.manager} has no package sources", f"add them in {family.sources}"
        yield problem(member.name, "packages", found, "sources of this group's packages", remedy)
    if "datastore" in member.roles and not datastore.unit(cluster, family):
        kind = cluster.managed.kind
        found = f"{facts.system.os_name or family.name} has no package of {kind}"
        has = " or ".join(one.name for one in FAMILIES if one.service(kind).unit)
        remedy = f"use {has} for this group, another kind of datastore, or one of your own: docs/datastores/{kind}.md"
        yield problem(member.name, "packages", found, f"a package of {kind}", remedy)


def _others(cluster: Cluster, member: Member, facts: HostFacts) -> Iterator[Finding]:
    """Yield the services that a deploy would take from others: it writes their configuration anew."""
    services: dict[str, list[str]] = {}
    for service, what in dict.fromkeys(facts.others):
        services.setdefault(service, []).append(what)
    for service, things in services.items():
        more = f" and {len(things) - 5} more" if len(things) > 5 else ""
        found = f"{service} on this host serves others: {', '.join(things[:5])}{more}"
        severity: Severity
        expected, severity = f"a {service} of this cluster alone", "error"
        remedy = (
            f"use another host; or let deploy replace its configuration: `take_over: [{member.name}]` under k3s_cluster"
        )
        if service in NAMES and cluster.managed.kind != "etcd":
            remedy += "; or let deploy only add its database and users: `datastore: {shared: true}`"
        if service in NAMES and cluster.managed.shared:
            expected = "a database and users beside them"
            severity, remedy = (
                "note",
                "nothing to do: `shared: true` sets nothing for others, and restarts nothing",
            )
        elif member.name in cluster.take_over:
            severity, remedy = "note", "nothing to do: `take_over` names the host; its files are kept as copies"
        yield problem(member.name, "in-use", found, expected, remedy, severity)
