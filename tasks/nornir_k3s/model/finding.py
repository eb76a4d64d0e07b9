"""Finding: a problem found by the preflight or by a drift check."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

Severity = Literal["error", "warning", "note"]
Age = Literal["", "new", "stayed"]
CLUSTER = "cluster"  # the host of findings that concern the whole cluster
CHECK = "check"  # the kind of all findings of checks; their subject is a key of CHECKS

# kind: what is compared. Documented in docs/drift.md (a test compares).
KINDS: Mapping[str, str] = {
    "package": "a package of the host is installed",
    "artifact": "K3s' binary, installer and images are the ones asked for, by SHA-256",
    "install": "the unit and the links that K3s' installer makes are there",
    "file": "a file has the content, mode and owner it must have; diffs mask secrets",
    "unit": "a unit is active, has not failed, and does not restart over and over",
    "enabled": "a unit is enabled",
    "stale": "a process is not older than the configuration, or the binary, that it should have read",
    "command": "a unit runs the command it was installed with",
    "settings": "no drop-in or environment file has settings that the inventory does not have",
    "database": "the managed datastore has its database, users and rights",
    "setting": "what a running server or agent says of itself is what the inventory asks for, on all alike",
    "node": "every server and agent is a node, Ready, schedulable, of its role, and of the version asked for",
    "stranger": "every node has a host in the inventory",
    "label": "a node has the labels it was given",
    "taint": "a node has the taints it was given, and no others",
    "backend": "each load balancer sees each server up",
    "vip": "exactly one load balancer has the VIP",
    "names": "the certificate behind the registration address has its names",
    "api": "a server lists the nodes, also through the registration address",
    "kubeconfig": "the kubeconfig that was handed over works from the controller",
    "certificate": "no certificate of K3s, or of someone else's datastore, ends soon",
    "latency": "the datastore answers fast",
    "connections": "the datastore has connections left",
    "table": "K3s' table is not too large",
    "compaction": "the datastore is compacted",
    "disk": "a host has room and inodes left",
    "check": "what the preflight looks at: see docs/preflight.md",
    "unread": "a host that answered could be judged as a whole",
}

# The checks before the first change of a deploy. Documented in docs/preflight.md (a test compares).
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


class Finding(BaseModel):
    """A problem, or a difference from the inventory."""

    model_config = ConfigDict(frozen=True)

    host: str = Field(description="its name, or `cluster`")
    kind: str = Field(description="a key of the table in docs/drift.md; `check`: one of docs/preflight.md")
    subject: str = Field(description="the path, unit, node, setting, … in question; of a check, its id")
    found: str
    expected: str
    remedy: str = Field(description="what the next deploy does, or what a person must do")
    fixed_by: Literal["deploy", "person"] = Field("person", description="who does it")
    severity: Severity = "warning"
    since: datetime | None = Field(None, description="since when, if the host knows")
    diff: str = Field("", description="unified, from the current to the desired content; secrets are masked")
    age: Age = Field("", description="compared with the run before: new or stayed")
    accepted: str = Field("", description="why it is accepted in the inventory")
    until: date | None = Field(None, description="last day of the acceptance; after it the finding counts again")

    @computed_field(description="HOST/KIND:SUBJECT; the same in every run")
    @property
    def id(self) -> str:
        """HOST/KIND:SUBJECT; the same in every run."""
        return f"{self.host}/{self.kind}:{self.subject}"

    @property
    def counts(self) -> bool:
        """Whether it counts as drift: notes and accepted findings do not."""
        return self.severity != "note" and not self.accepted

    @property
    def level(self) -> str:
        """Its severity, or `accepted`."""
        return "accepted" if self.accepted else self.severity

    def accept(self, ids: Collection[str]) -> Finding:
        """Return this finding, accepted if it is a warning that the inventory names as ID or HOST:ID."""
        if self.severity == "warning" and {self.subject, f"{self.host}:{self.subject}"} & set(ids):
            return self.model_copy(update={"accepted": "in the inventory's `accept`"})
        return self

    def __str__(self) -> str:
        label = self.subject if self.kind == CHECK else self.id
        return f"{self.host}: {self.found}; expected: {self.expected} -> {self.remedy} [{label}]"


def problem(  # noqa: PLR0917 - the order of a sentence
    host: str, check: str, found: str, expected: str, remedy: str, severity: Severity = "error"
) -> Finding:
    """Return the finding of one of CHECKS."""
    return Finding(
        host=host, kind=CHECK, subject=check, found=found, expected=expected, remedy=remedy, severity=severity
    )
