"""Finding: one problem of one host, and the table of everything the preflight looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Level = Literal["error", "warning", "accepted", "note"]

# id: what is looked at. Documented in docs/preflight.md (a test compares).
CHECKS: Mapping[str, str] = {
    "systemd": "systemd is the init system, and not older than 239",
    "architecture": "x86_64, arm64 or armhf",
    "packages": "groups datastore and lb: apt with package sources, and no half-installed package",
    "cpu": "a server has 2 cores",
    "memory": "a server has 2 GiB of memory, an agent 512 MiB",
    "disk": "1 GiB is free where the host's data will lie; below 5 GiB is a warning",
    "filesystem": "K3s' data are not on a network file system, and programs may be run from there",
    "address": "the host has the address the inventory gives it",
    "hostname": "host names differ, and none is localhost",
    "machine": "no machine is in the inventory twice",
    "clock": "clocks are within 3 s of the median: K3s takes files for newer than the cluster's otherwise",
    "default-route": "servers and agents have a default route: K3s does not start without one",
    "nameserver": "resolv.conf names a server that containers can reach",
    "cgroup": "the version asked for runs on the host's cgroups, and the memory and cpu controllers are on",
    "kernel": "the kernel has overlay, bridge netfilter, NAT and what flannel's backend needs",
    "inotify": "enough inotify instances for a host that runs containers",
    "keys": "enough kernel keys for root: each container takes one",
    "iptables": "no version of iptables that K3s warns of",
    "firewall": "firewalld and ufw are off, or open for the cluster",
    "selinux": "where SELinux enforces, its policy for K3s is installed",
    "port": "the ports the host's services listen on are free, or ours already",
    "reach": "hosts that must talk can: agents to every server, servers to the datastore, load balancers to servers",
    "vip": "nobody else has the VIP",
    "vip-network": "the VIP is in the network of the load balancers",
    "interface": "a load balancer has the interface that the inventory names",
    "cidr": "the networks of pods and services do not overlap what the host routes elsewhere",
    "role": "the host is not in the other group's role already",
    "embedded-etcd": "no files of an embedded etcd, which K3s would use instead of the datastore",
    "foreign-k3s": "K3s on the host, if any, was put there by this tool",
    "leftovers": "no certificates of another cluster, or of a false start",
    "token": "a server has not been one with another token",
    "datastore": "each server reaches every address of the datastore",
    "datastore-asked": "each server's sshd lets the external datastore be asked through it",
    "datastore-login": "an external datastore lets K3s' user in, from each server",
    "datastore-tls": "its certificate is of the CA that the inventory names, for its name, and has not ended",
    "datastore-rights": "the database is there, or may be created, and the user has the rights K3s uses",
    "datastore-settings": "nothing is set that K3s breaks on: increments, isolation, replicas, poolers, connections",
    "datastore-latency": "it answers within 20 ms",
    "datastore-version": "a note where K3s is not certified for the database's version",
    "datastore-members": "an etcd has the members that the inventory names, and each has its data",
    "datastore-moved": "a running cluster's data are in the datastore that the inventory names",
    "bootstrap": "a note where a first start was cut off; K3s mends it by itself",
    "foreign-data": "the datastore holds this cluster or none",
    "for-ever": "what a cluster can never change is as it was",
    "version": "no downgrade, and no minor version is left out",
    "no-agents": "there is a host that workloads may run on",
}


@dataclass(frozen=True)
class Finding:
    """One problem of one host.

    Arguments:
        host: Its name.
        id: Stable name of the check, a key of `CHECKS`.
        found: What is so.
        wanted: What must be so.
        todo: What to do.
        level: An error stops the run before the first change; a warning can be accepted in the inventory; a note asks
            for nothing.
    """

    host: str
    id: str
    found: str
    wanted: str
    todo: str
    level: Level = "error"

    def __str__(self) -> str:
        return f"{self.host}: {self.found}; wanted: {self.wanted} -> {self.todo} [{self.id}]"

    def accepted(self, ids: tuple[str, ...]) -> Finding:
        """Return the finding, accepted where it is a warning that the inventory names by ID or HOST:ID."""
        if self.level == "warning" and {self.id, f"{self.host}:{self.id}"} & set(ids):
            return replace(self, level="accepted")
        return self
