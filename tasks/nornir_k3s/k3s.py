"""K3s itself: its settings, those that must match, tokens, versions, and the causes of failures in its journal.

Sources: docs.k3s.io `cli/server.md`, `cli/agent.md`, `cli/token.md`, `datastore/ha.md`; k3s
`pkg/daemons/config/types.go` (`CriticalControlArgs`), `pkg/clientaccess/token.go`, `pkg/cluster/storage.go`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from packaging.version import Version

from nornir_k3s import k3s_settings
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.suggest import did_you_mean

CONFIG = "/etc/rancher/k3s/config.yaml"
BINARY = "/usr/local/bin/k3s"
DATA = "/var/lib/rancher/k3s"
API_PORT = 6443
CONNECTIONS = 100  # of one server at its peak: kine does not limit its pool (docs.k3s.io sizes it so)
NO_CNI = "container runtime network not ready: "  # how the kubelet begins, when it waits for nothing but a CNI
UNITS = {"server": "k3s.service", "agent": "k3s-agent.service"}

AGENT_SETTINGS = k3s_settings.where(on=("agent", "both"))
SERVER_SETTINGS = k3s_settings.where(on=("server", "both"))
# With an external datastore K3s does not compare these between servers: only this tool does.
MUST_MATCH = k3s_settings.where(match=True)
# Settings that only this tool writes, and what to do instead.
OURS = {
    "token": "give it as `token` of the cluster",
    "token-file": "give it as `token` of the cluster",
    "agent-token": "give it as `agent_token` of the cluster",
    "agent-token-file": "give it as `agent_token` of the cluster",
    "server": "agents get the registration address; servers need none with an external datastore",
    "datastore-endpoint": "give it as `datastore` of the cluster",
    "datastore-cafile": "give it as `datastore` of the cluster",
    "datastore-certfile": "give it as `datastore` of the cluster",
    "datastore-keyfile": "give it as `datastore` of the cluster",
    "cluster-init": "it starts an embedded etcd; this tool is for external datastores",
    "cluster-reset": "it is for embedded etcd",
    "disable-apiserver": "K3s refuses it with an external datastore",
    "disable-etcd": "K3s refuses it with an external datastore",
    "disable-controller-manager": "every server of this tool runs the whole control plane",
    "disable-agent": "a server without its agent never becomes a node, so its readiness is unknown",
    "log": "K3s then reports ready to systemd at once, and the journal stays empty",
    "data-dir": f"this tool expects K3s' files in {DATA}",
    "write-kubeconfig": "this tool, and kubectl on the servers, expect it at K3s' default path",
    "with-node-id": "it makes the node's name unpredictable; give `node-name` instead",
    "config": f"the settings are written to {CONFIG}",
}
LISTS = k3s_settings.where(**{"is": ("list", "split")})
# Those whose values K3s splits at commas; the others are used as they are.
SPLIT = k3s_settings.where(**{"is": "split"})
ONE_HOST = k3s_settings.where(**{"one-host": True})
BOOLEANS = k3s_settings.where(**{"is": "boolean"})
CHOICES: dict[str, tuple[str, ...]] = {
    key: tuple(row["choices"]) for key, row in k3s_settings.TABLE.items() if "choices" in row
}
PACKAGED = ("coredns", "servicelb", "traefik", "local-storage", "metrics-server", "runtimes")
SERVER_TAINT = "CriticalAddonsOnly=true:NoExecute"

_VERSION = re.compile(r"^v(\d+\.\d+\.\d+)(-rc\d+)?\+k3s(\d+)$")
_BOOTSTRAP_TOKEN = re.compile(r"^[a-z0-9]{6}\.[a-z0-9]{16}$")


def parse_version(text: str) -> Version:
    """Return a K3s version that orders as releases do.

    Arguments:
        text: As K3s prints it, `v1.34.9+k3s1`.

    Raises:
        ValueError: It is not a K3s version.
    """
    match = _VERSION.match(text)
    if not match:
        raise ValueError(f"{text!r} is not a K3s version; one looks like v1.34.9+k3s1")
    base, candidate, build = match.groups()
    return Version(f"{base}{(candidate or '').replace('-', '')}+k3s{build}")


def unknown_settings(given: Iterable[str], known: frozenset[str]) -> list[str]:
    """Return a problem for each key that K3s does not have or that this tool sets itself."""
    problems = []
    for key in given:
        if key in OURS:
            problems.append(f"`{key}` cannot be given here: {OURS[key]}")
        elif key.rstrip("+") not in known:
            problems.append(f"K3s has no setting `{key}` here" + did_you_mean(key, known))
    return problems


def unknown_to_version(key: str, version: str) -> str:
    """Return why this version of K3s does not know a setting, and which does, or nothing."""
    release = parse_version(version).release
    return k3s_settings.unknown_to(key.rstrip("+"), release)


def boolean(value: object) -> bool | None:
    """Return the value of a boolean setting in any form that K3s takes (Go's strconv.ParseBool); None for others."""
    text = str(value)
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    return False if text in ("0", "f", "F", "FALSE", "false", "False") else None


def new_token() -> Secret:
    """Return a new token: 64 hex digits, a form that K3s always accepts."""
    return Secret(secrets.token_hex(32))


def token_problem(token: Secret) -> str | None:
    """Return why a first server of K3s refuses this token, or None (docs: cli/token.md; k3s#7313)."""
    text = token.reveal()
    if not text or text != text.strip():
        return "it is empty or has blanks around it"
    if any(ch.isspace() or not ch.isprintable() for ch in text):
        return "it contains blanks or control characters"
    if _BOOTSTRAP_TOKEN.match(text):
        return "it has the form of a bootstrap token (6 characters, a dot, 16 characters), which a server refuses"
    if text.startswith("K10"):
        return "it is in the full form K10<hash>::<user>:<password>; give the password alone"
    if ":" in text:
        return "it contains `:`, which separates user and password in K3s' own token file"
    return None


def bootstrap_key(token: Secret) -> str:
    """Return the datastore's key of the bootstrap data for this token (k3s: pkg/cluster/storage.go, storageKey)."""
    return "/bootstrap/" + hashlib.sha256(token.reveal().encode()).hexdigest()[:12]


def agent_token(ca_prefix: str, *, token: Secret, agent: Secret | None) -> Secret:
    """Return the full token for an agent, which verifies the cluster's CA before it sends its password.

    Arguments:
        ca_prefix: `K10` and the CA's hash, the first 67 characters of a server's token file.
        token: The server token.
        agent: The agent token, if the cluster has one.
    """
    user, password = ("node", agent) if agent else ("server", token)
    return Secret(f"{ca_prefix}::{user}:{password.reveal()}")


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
            "`k3s kubectl delete node {node}` on a server, then deploy again",
        ),
    ),
    (
        "token CA hash does not match",
        Cause("the token is of another cluster than the registration address", "check address and token"),
    ),
    ("not authorized", Cause("the cluster refuses the token", "check the token in the inventory")),
    (
        "failed to get CA certs",
        Cause("the registration address does not answer", "check the load balancers and the address", fatal=False),
    ),
    ("connection refused", Cause("the datastore's port is closed", "check that the datastore runs", fatal=False)),
    ("i/o timeout", Cause("the datastore does not answer", "check route and firewall to the datastore", fatal=False)),
)


def diagnose(journal: str) -> Cause | None:
    """Return the cause of a failure, from the lines of a journal, or None; fatal causes first."""
    found = [cause for pattern, cause in CAUSES if pattern in journal]
    return next((c for c in found if c.fatal), found[0] if found else None)


def fatal_pattern() -> str:
    """Return an extended regular expression (grep -E) for journal lines of fatal causes."""
    return "|".join(re.sub(r"([.()\[\]*+?])", r"\\\1", pattern) for pattern, cause in CAUSES if cause.fatal)
