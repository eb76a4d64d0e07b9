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
    "selinux": "an enforcing SELinux lets HAProxy use the port of the API (RHEL family)",
    "artifact": "K3s' binary, installer and images are those of the release, by SHA-256",
    "install": "the unit and the links of K3s' installer exist",
    "file": "a file has its content, mode and owner; diffs mask secrets",
    "unit": "a unit is active, has not failed, and does not keep restarting",
    "enabled": "a unit is enabled",
    "stale": "a process is not older than the configuration or the binary that it should have read",
    "command": "a unit runs the command that it was installed with",
    "settings": "no drop-in or environment file sets anything that is not in the inventory",
    "database": "the managed datastore has its database, users and rights",
    "setting": "the effective settings of servers and agents are those of the inventory, the same on all servers",
    "node": "every server and agent is a node, Ready, schedulable, with its role, version and node password",
    "stranger": "every node has a host in the inventory, and no load balancer has left it without being removed",
    "label": "a node has the labels of the inventory",
    "taint": "a node has the taints of the inventory, and no others",
    "backend": "each server is up in each load balancer",
    "vip": "exactly one load balancer has the VIP",
    "names": "the API's certificate contains the registration address",
    "api": "a server lists the nodes; agents and servers reach the API through the registration address",
    "kubeconfig": "the kubeconfig of the last deploy works from the controller",
    "certificate": "no certificate of K3s, of the datastore or of the load balancers' health check expires soon",
    "encryption": "the keys of secrets are the same on all servers, and no change of them was left half-done",
    "latency": "the round trip to the datastore is short",
    "connections": "the datastore has free connections",
    "table": "K3s' table is not too large",
    "compaction": "the datastore is compacted",
    "revision": "the datastore's newest revision is not lower than before",
    "backup": "the last backup, if one was made from this machine, is not too old",
    "disk": "a host has free disk space and inodes",
    "check": "the checks of the preflight: see docs/preflight.md",
    "unread": "all files of a host that was read could be compared",
}

# The checks before the first change of a deploy. Documented in docs/preflight.md (a test compares).
CHECKS: Mapping[str, str] = {
    "systemd": "systemd is the init system, and not older than 239",
    "architecture": "x86_64, arm64 or armhf",
    "packages": "groups datastore and lb: apt or dnf with package sources, and no half-installed package",
    "in-use": "groups datastore and lb: no database, user, frontend or VIP of others, unless the inventory allows it",
    "cpu": "a server has 2 cores",
    "memory": "a server has 2 GiB of memory, an agent 512 MiB",
    "disk": "1 GiB is free for the host's data; below 5 GiB is a warning",
    "filesystem": "K3s' data are not on a network file system, nor mounted read-only or noexec",
    "address": "the host has its address from the inventory",
    "hostname": "host names are unique, and none is localhost",
    "machine": "no machine is in the inventory twice (machine-id)",
    "clock": "clocks are within 3 s of the median: otherwise K3s takes old files as newer than the datastore's",
    "ssh-sessions": "sshd allows two sessions on one connection (MaxSessions): the lock of the cluster needs its own",
    "default-route": "servers and agents have a default route: K3s does not start without one",
    "nameserver": "containers get the host's name servers: none of resolv.conf, or systemd-resolved's, is loopback",
    "cgroup": "the K3s version supports the host's cgroups, and the memory and cpu controllers are enabled",
    "kernel": "the kernel has overlay, bridge netfilter, NAT and the modules of flannel's backend",
    "kmsg": "/dev/kmsg can be opened: the kubelet does not start without it",
    "inotify": "there are enough inotify instances and watches for a host that runs containers",
    "keys": "there are enough kernel keys for root: each container needs one",
    "iptables": "iptables is not a version that K3s warns of",
    "firewall": "firewalld and ufw are inactive, or open for the cluster",
    "selinux": "if SELinux is enforcing, its policy for K3s is installed",
    "port": "the ports of the host's services are free, or used by them already",
    "name": "hosts resolve the names that they use, and the controller that of the registration address",
    "registration": "an external registration address leads to every server, and passes their TLS through",
    "reach": "hosts can connect: agents to every server, servers to the datastore, load balancers to servers",
    "vip": "no other machine has the VIP",
    "vrid": "no other router of the network sends VRRP with the virtual router ID of the load balancers",
    "vip-network": "the VIP is in the network of the load balancers; for one that is routed to them, `accept` it",
    "interface": "a load balancer has the interface from the inventory",
    "cidr": "the networks of pods and services do not overlap the host's routes",
    "named-file": "files that settings name are on the host, or delivered by `files`",
    "cni": "a note if flannel is off: the network of pods is then the user's, and nodes are not Ready without it",
    "role": "the host does not have the other role (server or agent) already",
    "embedded-etcd": "no files of an embedded etcd, which K3s would use instead of the datastore",
    "foreign-k3s": "K3s on the host is this tool's, or the inventory describes it: what would change is named",
    "other-kubernetes": "no RKE2, k0s, MicroK8s or kubelet, and no second K3s",
    "extra-settings": "no other file, environment or flag has another value of what must be the inventory's",
    "sqlite": "no files of SQLite: a cluster of this host alone, whose objects would be lost without a move",
    "moving": "no move of the datastore was interrupted: K3s starts on no half-copied one",
    "leftovers": "no certificates of another cluster, or of a failed start",
    "reimaged": "a host has the password of its node: the cluster refuses a reinstalled host",
    "token": "a server was not set up with another token",
    "agent-token": "servers have the inventory's agent token once they have run: another comes by `rotate agent-token`",
    "datastore": "each server can connect to every address of the datastore",
    "datastore-asked": "the external datastore can be checked from each server (sshd allows TCP forwarding)",
    "datastore-login": "an external datastore accepts K3s' user, from each server",
    "datastore-tls": "its certificate is signed by the CA in the inventory, has its name, and has not expired",
    "datastore-rights": "the database exists, or may be created, and the user has the rights that K3s uses",
    "datastore-settings": "no setting breaks K3s: increments, isolation, replicas, poolers, connections",
    "datastore-collation": "keys are compared byte by byte: K3s from 1.34.10, 1.35.7, 1.36.3 on fails otherwise",
    "datastore-pooler": "no PgBouncer: from K3s 1.34.10, 1.35.6, 1.36.2 on K3s ends behind one; you can `accept` it",
    "datastore-latency": "it answers within 20 ms",
    "datastore-version": "a note if K3s is not certified for its version, or the packages are newer than the data",
    "datastore-shared": "with `shared: true`, the database server of others runs, listens, and suits K3s as it is",
    "datastore-members": "an etcd has the members from the inventory, and each has its data",
    "datastore-single": "a note if the loss of one datastore host stops the cluster",
    "datastore-moved": "the cluster's data are in the datastore from the inventory, and no package starts an empty one",
    "bootstrap": "a note if a first start was interrupted; K3s recovers by itself",
    "foreign-data": "the datastore has the data of this cluster, or none",
    "for-ever": "settings that can never be changed are those of the running cluster, wherever they come from",
    "encryption": "encryption of secrets can be turned on or off: all servers are ready, and their keys are related",
    "version": "no downgrade, and no minor version is skipped",
    "skew": "with `--limit`, no agent becomes newer than a server",
    "removed-api": "before an upgrade: no API is in use that the new version lacks",
    "containerd-template": "before an upgrade: templates of containerd's configuration fit the new version",
    "traefik": "before an upgrade: the values of K3s' Traefik fit its new chart; `accept` it if they do",
    "node-ready": "before an upgrade: every node is Ready",
    "kube-system": "before an upgrade: the pods of kube-system are ready; they are compared with those afterwards",
    "datastore-dump": "before an upgrade to another minor version: an external datastore is dumped, too",
    "install-variables": "before an upgrade: the unit's environment file, which is overwritten, loses nothing",
    "feature-gate": "no feature gate of a component that the version does not have, or has locked: it would not start",
    "removed-argument": "no argument (`kubelet-arg`, …) that its component does not have any more: it would not start",
    "deprecated": "no deprecated setting or argument of a component, which a later version removes",
    "left": "no host has left the inventory that is still a node, a load balancer or a host of the datastore",
    "no-agents": "there is a host for workloads",
}


# Errors that the inventory can accept: only people know whether they are none.
ACCEPTABLE = ("vip-network", "removed-api", "datastore-pooler", "traefik")


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
    age: Age = Field(
        "",
        description="compared with the run before: new, also if it got worse or is another one, or stayed",
    )
    before: str = Field("", description="what the run before found, if that was less severe or something else")
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
        """Return this finding, accepted if the inventory names it as ID or HOST:ID: a warning, or one of ACCEPTABLE."""
        mild = self.severity == "warning" or self.subject in ACCEPTABLE
        if mild and {self.subject, f"{self.host}:{self.subject}"} & set(ids):
            return self.model_copy(update={"accepted": "in the inventory's `accept`", "severity": "warning"})
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
