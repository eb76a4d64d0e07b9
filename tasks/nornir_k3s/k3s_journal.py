"""K3s' journal: which of its lines say why it ended or waits, and what they mean.

A healthy K3s prints hundreds of errors while it starts: refused connections to its own ports, to containerd and to
other servers. So only the lines count in which K3s says its last word, or what it waits for (k3s: cmd/k3s/main.go,
pkg/signals, pkg/agent/config; kine: pkg/drivers/generic).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Extended regular expression (grep -E), also valid in Python.
VERDICTS = "|".join(
    (
        "level=fatal",
        "^Error: ",
        "^panic: ",
        "^F[0-9]{4} ",  # the components' fatal lines (klog)
        '"command failed" err=',
        '"leaderelection lost"',
        "Shutdown request received: .* exited: ",
        "Failed to ping database connection: ",
        "Failed to validate connection to cluster at ",
        "server is not ready: ",
        "Waiting for containerd startup: .*Unimplemented",
        ": Failed at step ",
        "Failed with result 'oom-kill'",
    )
)


_FEW = 3  # as many files are named; the journal has the others


@dataclass(frozen=True)
class Cause:
    """The meaning of a journal line: the cause, what to do, and whether waiting longer is pointless."""

    text: str
    hint: str
    fatal: bool = True

    def advice(self, journal: str, node: str) -> str:
        """Return the hint with the names in it filled in: the node's, and those of the files that K3s refuses."""
        paths = re.search(r"(/\S+(?:, /\S+)*) newer than datastore", journal)
        few = paths[1].replace(",", "") if paths and paths[1].count(",") < _FEW else "the files that the line names"
        return self.hint.format(node=node, files=few)


CAUSES: tuple[tuple[str, Cause], ...] = (
    (
        "bootstrap data already found and encrypted with different token",
        Cause(
            "the datastore has the data of a cluster with another token",
            "set that cluster's token (after `k3s token rotate`, the new one), or use an empty database",
        ),
    ),
    (
        "newer than datastore",
        Cause(
            "files on this server are newer than the cluster's data",
            "check the clocks, move {files} to another folder there, then deploy again: K3s takes the cluster's",
        ),
    ),
    ("failed to normalize server token", Cause("K3s refuses the format of the token", "use letters and digits only")),
    ("address already in use", Cause("a port that K3s needs is in use", "find its owner with `ss -lntp` on the host")),
    ("Error 1045", Cause("the database refuses user or password", "check the datastore's user and password")),
    ("Error 1698", Cause("the database refuses the user", "check the datastore's user and password")),
    ("Error 1044", Cause("the database user has no right to this database", "create the database or grant the right")),
    ("28P01", Cause("the database refuses the password", "check the datastore's user and password")),
    ("3D000", Cause("the database does not exist", "create it, or let the user create databases")),
    (
        "no pg_hba.conf entry",
        Cause("PostgreSQL does not allow connections from this host", "add the host to pg_hba.conf"),
    ),
    ("unknown driver", Cause("K3s does not know the scheme of the datastore endpoint", "use mysql, postgres or https")),
    (
        "default addr for network",
        Cause("the MySQL endpoint lacks tcp()", "write mysql://user:password@tcp(host:3306)/db"),
    ),
    ("invalid DSN", Cause("the datastore endpoint cannot be read", "check its form")),
    ("error parsing URL", Cause("the PostgreSQL endpoint cannot be read", "percent-encode user and password")),
    (
        "certificate has expired or is not yet valid",
        Cause(
            "a TLS certificate has expired, or is not yet valid by this host's clock",
            "check the clock; restart K3s where `nornir-k3s status` shows an expired certificate; "
            "renew that of an external datastore",
        ),
    ),
    ("x509: ", Cause("a TLS certificate is not trusted or has the wrong name", "check the CA and the names in it")),
    (
        "logging configuration should not be changed",
        Cause(
            "an argument of a component changes the logging of all of them, which are one process",
            "remove v, vmodule and log arguments from the *-arg settings; set `v` of K3s itself",
        ),
    ),
    (
        "must share the same IP version",
        Cause(
            "the networks of pods and services and the addresses of the node have different IP versions",
            "give each server and agent a `node-ip` of every IP version in cluster-cidr and service-cidr",
        ),
    ),
    ("invalid flag use", Cause("two settings exclude each other", "see the line in the journal")),
    (
        "flag provided but not defined",
        Cause("this version of K3s does not know a key of the configuration", "remove the key"),
    ),
    (" for flag -", Cause("a setting has an invalid value", "correct the value that the line names")),
    ("invalid boolean value", Cause("a setting takes true or false only", "correct the value that the line names")),
    (
        "unknown flag: --",
        Cause("a component does not know its argument", "correct the *-arg setting that the line names"),
    ),
    (
        "configured to not run on a host using cgroup v1",
        Cause("this kubelet does not run on cgroup v1", "boot with cgroup v2, or set kubelet-arg fail-cgroupv1=false"),
    ),
    (
        "invalid kernel flag",
        Cause("protect-kernel-defaults is on and a sysctl is wrong", "set the sysctl that the line names"),
    ),
    (
        "failed to find memory cgroup",
        Cause("the memory cgroup is disabled", "boot with cgroup_enable=memory cgroup_memory=1"),
    ),
    (
        "unknown service runtime.v1.RuntimeService",
        Cause("containerd's CRI plugin did not load", "raise fs.inotify.max_user_instances to 8192 or more"),
    ),
    (
        "Node password rejected",
        Cause(
            "the cluster has a node of this name with another node password (a re-imaged host?)",
            "`nornir-k3s replace {node}`; or on a server `k3s kubectl delete node {node}` and, before 1.34.2, "
            "`k3s kubectl -n kube-system delete secret {node}.node-password.k3s`; then deploy again",
        ),
    ),
    (
        "token CA hash does not match",
        Cause("the token is of another cluster than the registration address", "check address and token"),
    ),
    ("not authorized", Cause("the cluster refuses the token", "check the token in the inventory")),
    (
        "no such host",
        Cause("a name cannot be resolved on this host", "check DNS for the name in that line", fatal=False),
    ),
    (
        "failed to get CA certs",
        Cause("the registration address does not answer", "check the load balancers and the address", fatal=False),
    ),
    (
        "server is not ready: ",
        Cause("no server answers the agent", "check the servers and the load balancers", fatal=False),
    ),
    (
        "leaderelection lost",
        Cause(
            "the datastore or this host was too slow to renew the leader lease",
            "check load and disks of this host and the datastore",
            fatal=False,
        ),
    ),
    (
        "Failed with result 'oom-kill'",
        Cause("the kernel ended K3s: out of memory", "give the host more memory, or end what else uses it"),
    ),
)

# A datastore that gives no answer: it may still come. The lines of other connections look the same.
_AWAY = (
    (
        "connect: connection refused",
        Cause("the datastore's port is closed", "check that the datastore runs", fatal=False),
    ),
    (
        "i/o timeout|connect: no route to host|connect: network is unreachable",
        Cause("the datastore does not answer", "check route and firewall to the datastore", fatal=False),
    ),
    (
        "Error 1040|SQLSTATE 53300",
        Cause("the database has no free connection", "raise its max_connections, or set `datastore_pool`", fatal=False),
    ),
    ("SQLSTATE 57P03", Cause("the database is starting", "wait until it has started", fatal=False)),
)

# Waiting cannot cure it if it comes again: that is counted, as for causes that nobody knows.
_AGAIN = (
    (
        "containerd exited: ",
        Cause(
            "containerd has ended, and K3s with it",
            "see its log; a cause may be your own template in /var/lib/rancher/k3s/agent/etc/containerd",
        ),
    ),
)


def diagnose(journal: str, datastore: Sequence[tuple[str, int]] = ()) -> Cause | None:
    """Return the cause of a failure, or None; fatal causes first, the newest line first.

    Arguments:
        journal: Lines, also harmless ones.
        datastore: Host and port of each address of the datastore.
    """
    lines = [line for line in reversed(journal.splitlines()) if re.search(VERDICTS, line)]
    found = [cause for line in lines if (cause := _cause(line, datastore))]
    return next((cause for cause in found if cause.fatal), found[0] if found else None)


def _cause(line: str, datastore: Sequence[tuple[str, int]]) -> Cause | None:
    known = next((cause for pattern, cause in (*CAUSES, *_AGAIN) if pattern in line), None)
    about = re.search(_about(datastore), line)
    return known or (next((cause for pattern, cause in _AWAY if re.search(pattern, line)), None) if about else None)


def last_word(journal: str) -> str:
    """Return what the newest line says in which K3s named a reason, or nothing."""
    line = next((line for line in reversed(journal.splitlines()) if re.search(VERDICTS, line)), "")
    message = re.search(r'msg="((?:[^"\\]|\\.)*)"', line)
    return (message[1] if message else line).replace(r"\"", '"').removeprefix("Error: ").strip()


def fatal_pattern() -> str:
    """Return an extended regular expression (grep -E) for causes that waiting cannot cure."""
    return "|".join(_escaped(pattern) for pattern, cause in CAUSES if cause.fatal)


def patient_pattern(datastore: Sequence[tuple[str, int]] = ()) -> str:
    """Return an extended regular expression (grep -E) for causes that may pass while K3s is waited for."""
    waits = [_escaped(pattern) for pattern, cause in CAUSES if not cause.fatal]
    return "|".join([*waits, f"({_about(datastore)}).*({'|'.join(pattern for pattern, _ in _AWAY)})"])


def _about(datastore: Sequence[tuple[str, int]]) -> str:
    """Return the expression for lines about the datastore: kine's words, or its own address.

    A line has the address that a name was resolved to: of a name, only the port is compared.
    """
    places = []
    for host, port in datastore:
        literal = re.fullmatch(r"[0-9.]+|.*:.*", host)
        places.append(_escaped(f"[{host}]:{port}" if ":" in host else f"{host}:{port}") if literal else f"[^ ]+:{port}")
    own = [f"dial tcp ({'|'.join(places)}): "] if places else []
    return "|".join(["creating storage endpoint: ", "Failed to ping database connection: ", *own])


def _escaped(text: str) -> str:
    return re.sub(r"([.()\[\]*+?])", r"\\\1", text)
