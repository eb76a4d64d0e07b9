"""Checks of one host by itself: machine, kernel, packages.

Sources: docs.k3s.io `installation/requirements.md`, `advanced.md`, `known-issues.md`; k3s
`contrib/util/check-config.sh`, `pkg/cgroups`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from nornir_k3s import k3s
from nornir_k3s.model.cluster import (
    NODES,
    Cluster,
    Member,
)
from nornir_k3s.model.finding import Finding, Severity, problem
from nornir_k3s.model.host_facts import HostFacts

ARCHITECTURES = {"x86_64", "aarch64", "armv7l"}
_NETWORK_FS = {"nfs", "nfs4", "cifs", "smb2", "fuseblk", "9p"}
_GIB = 1 << 20  # in KiB
_OLD_IPTABLES = re.compile(r"v1\.8\.[0-4]\b.*nf_tables|v1\.([0-5]\.\d+|6\.[01])\b")


def check(cluster: Cluster, member: Member, seen: HostFacts) -> Iterator[Finding]:
    """Yield what is wrong with the host as a machine."""
    yield from _system(member, seen)
    yield from _room(member, seen)
    if member.role in NODES:
        yield from _size(member, seen)
        yield from _cgroups(cluster, member, seen)
        yield from _kernel(cluster, member, seen)
        yield from _guards(cluster, member, seen)
    else:
        yield from _packages(member, seen)


def _system(member: Member, seen: HostFacts) -> Iterator[Finding]:
    if seen.system.init != "systemd":
        remedy = "use a distribution with systemd"
        yield problem(member.name, "systemd", "the init system is not systemd", "systemd", remedy)
    version = seen.capacity.systemd
    number = re.match(r"\d+", version)
    if number and int(number[0]) < 239:
        yield problem(member.name, "systemd", f"systemd is {version}", "239 or newer", "use a newer distribution")
    if seen.system.arch not in ARCHITECTURES:
        wanted = "x86_64, arm64 or armhf"
        yield problem(
            member.name, "architecture", f"the architecture is {seen.system.arch}", wanted, "use another machine"
        )
    if seen.system.hostname.partition(".")[0].lower() == "localhost":
        remedy = "set one: hostnamectl set-hostname NAME"
        yield problem(member.name, "hostname", "its host name is localhost", "a name of its own", remedy, "warning")


def _room(member: Member, seen: HostFacts) -> Iterator[Finding]:
    free = seen.system.disk_kib
    for path, kind, kib, options in seen.mounts:
        free = kib if path == k3s.DATA and kib else free
        if kind in _NETWORK_FS:
            remedy = "mount a local disk there"
            yield problem(member.name, "filesystem", f"{path} is on {kind}", "a local file system", remedy, "warning")
        for word, why in (("noexec", "programs are run from there"), ("ro", "files are written there")):
            if word in options:
                yield problem(member.name, "filesystem", f"{path} is mounted {word}", why, f"mount it without {word}")
    where = k3s.DATA if member.role in NODES else "/var/lib"
    if free and free < 5 * _GIB:
        severity: Severity
        severity, wanted = ("error", "1 GiB") if free < _GIB else ("warning", "5 GiB")
        found = f"{free // 1024} MiB are free below {where}"
        yield problem(member.name, "disk", found, f"{wanted} at least", "make room", severity)


def _size(member: Member, seen: HostFacts) -> Iterator[Finding]:
    server = member.role == "servers"
    cpus = seen.capacity.cpus
    if server and 0 < cpus < 2:
        yield problem(member.name, "cpu", f"it has {cpus} core", "2 cores for a server", "add cores", "warning")
    needed = 2048 if server else 512
    if (
        seen.system.memory_kib and seen.system.memory_kib < needed * 1024 * 0.93
    ):  # what the kernel takes for itself is not counted
        found, wanted = f"it has {seen.system.memory_kib // 1024} MiB of memory", f"{needed} MiB"
        yield problem(member.name, "memory", found, wanted, "add memory", "warning")


def _cgroups(cluster: Cluster, member: Member, seen: HostFacts) -> Iterator[Finding]:
    if seen.system.cgroup not in ("", "cgroup2fs") and k3s.parse_version(cluster.version) >= k3s.parse_version(
        "v1.35.0+k3s1"
    ):
        allowed = "fail-cgroupv1=false"
        role = cluster.server if member.role == "servers" else cluster.agent
        if allowed not in str(role.get("kubelet-arg", "")) + str(member.settings.get("kubelet-arg", "")):
            found, wanted = "it runs cgroup v1, which a kubelet from 1.35 refuses", "cgroup v2"
            remedy = f"boot with cgroup v2, or set kubelet-arg {allowed}"
            yield problem(member.name, "cgroup", found, wanted, remedy)
    controllers = seen.kernel.controllers
    needed = ("cpu", "cpuset", "memory") if seen.system.cgroup == "cgroup2fs" else ("memory",)
    missing = [name for name in needed if name not in controllers]
    if controllers and missing:
        remedy = "boot with cgroup_enable=memory cgroup_memory=1" if "memory" in missing else "enable them"
        found = f"cgroup controllers are off: {', '.join(missing)}"
        yield problem(member.name, "cgroup", found, "K3s does not start without them", remedy)


def _kernel(cluster: Cluster, member: Member, seen: HostFacts) -> Iterator[Finding]:
    for name, state in seen.kernel.modules.items():
        if state == "no":
            severity: Severity = "error" if name == "overlay" else "warning"
            found = f"the kernel has no module {name}"
            remedy = "install the package with the kernel's further modules (kernel-modules-extra, linux-modules-extra)"
            yield problem(member.name, "kernel", found, name, remedy, severity)
    if seen.system.inotify_instances and seen.system.inotify_instances < 512:
        found, wanted = (
            f"fs.inotify.max_user_instances is {seen.system.inotify_instances}",
            "8192 where many containers run",
        )
        yield problem(member.name, "inotify", found, wanted, "raise it with sysctl", "warning")
    keys = seen.kernel.keys
    if 0 < keys < 10000:
        found = f"kernel.keys.root_maxkeys is {keys}"
        yield problem(member.name, "keys", found, "10000 or more", "raise it with sysctl", "warning")
    version = seen.kernel.iptables
    bundled = cluster.server.get("prefer-bundled-bin") or member.settings.get("prefer-bundled-bin")
    if version and _OLD_IPTABLES.search(version) and not bundled:
        remedy = "update iptables, or set prefer-bundled-bin: true"
        yield problem(member.name, "iptables", version, "1.8.5 or newer", remedy, "warning")


def _guards(cluster: Cluster, member: Member, seen: HostFacts) -> Iterator[Finding]:
    for name in seen.firewalls:
        if name in ("firewalld", "ufw"):
            remedy = f"stop {name}, or open 6443/tcp, 10250/tcp, 8472/udp and the cluster's networks in it"
            yield problem(member.name, "firewall", f"{name} is on", "off, or open for the cluster", remedy, "warning")
    if seen.selinux.mode != "Enforcing":
        return
    if not seen.selinux.policy:
        found, remedy = "SELinux enforces, and there is no k3s-selinux", "install k3s-selinux and container-selinux"
        yield problem(member.name, "selinux", found, "its policy for K3s", remedy)
    elif not {**cluster.server, **cluster.agent, **member.settings}.get("selinux"):
        remedy = "set `selinux: true` under k3s_cluster.server and k3s_cluster.agent"
        found = "SELinux enforces, and K3s is not told"
        yield problem(member.name, "selinux", found, "`selinux: true`", remedy, "warning")


def _packages(member: Member, seen: HostFacts) -> Iterator[Finding]:
    if seen.system.package_manager != "apt":
        found, remedy = "the package manager is not apt", "use Debian or Ubuntu for this group"
        yield problem(member.name, "packages", found, "apt", remedy)
        return
    if broken := seen.apt.broken:
        found = f"half-installed packages: {', '.join(broken[:5])}"
        yield problem(member.name, "packages", found, "none", "dpkg --configure -a is run first", "warning")
    if seen.apt.sources == 0 and not seen.packages:
        found, remedy = "apt has no package sources", "add some below /etc/apt/sources.list.d"
        yield problem(member.name, "packages", found, "sources with the packages of this group", remedy)
