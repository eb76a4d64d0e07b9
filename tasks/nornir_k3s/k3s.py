"""K3s itself: its settings, those that must match, tokens, versions.

Sources: docs.k3s.io `cli/server.md`, `cli/agent.md`, `cli/token.md`, `datastore/ha.md`; k3s
`pkg/daemons/config/types.go` (`CriticalControlArgs`), `pkg/clientaccess/token.go`, `pkg/cluster/storage.go`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
from collections.abc import Iterable

from packaging.version import Version

from nornir_k3s import k3s_settings
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.suggest import did_you_mean

CONFIG = "/etc/rancher/k3s/config.yaml"
# Containers get the first of these whose name servers all suit them (k3s: pkg/agent/config/config.go).
RESOLV_CONFS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
BINARY = "/usr/local/bin/k3s"
DATA = "/var/lib/rancher/k3s"
PASSWD = f"{DATA}/server/cred/passwd"  # the tokens, as this server had them when it started
API_PORT = 6443
SHARED_PORT = 7443  # of a load balancer on a host that runs K3s, where it has API_PORT
# What else K3s and its kubelet, kube-proxy and containerd listen on.
AGENT_PORTS = (6444, 10248, 10249, 10250, 10256, 10010)
SERVER_PORTS = (*AGENT_PORTS, 10257, 10258, 10259)
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
    "rootless": "this tool runs K3s as root; a rootless one is a service of its user, with other paths",
    "log": "K3s then reports ready to systemd at once, and the journal stays empty",
    "data-dir": f"this tool expects K3s' files in {DATA}",
    "write-kubeconfig": "this tool, and kubectl on the servers, expect it at K3s' default path",
    "with-node-id": "it makes the node's name unpredictable; give `node-name` instead",
    "config": f"the settings are written to {CONFIG}",
}
# Settings that K3s still takes by these names, without naming them in its help (k3s: pkg/cli/cmds/server.go).
OLD_NAMES = {
    "kube-controller-arg": "kube-controller-manager-arg",
    "kube-cloud-controller-arg": "kube-cloud-controller-manager-arg",
}
LISTS = k3s_settings.where(**{"is": ("list", "split")})
# Those whose values K3s splits at commas; the others are used as they are.
SPLIT = k3s_settings.where(**{"is": "split"})
ONE_HOST = k3s_settings.where(**{"one-host": True})
SECRETS = k3s_settings.where(secret=True)
# Keys of config.yaml whose values are never shown; some are of other datastores, or of K3s before 1.17.
MASKED = SECRETS | {
    *("token", "agent-token", "datastore-endpoint", "cluster-secret"),
    *("etcd-s3-access-key", "etcd-s3-secret-key", "etcd-s3-session-token"),
}
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


def is_version(text: str) -> bool:
    """Return whether this is a version of K3s."""
    return _VERSION.match(text) is not None


def minor(version: str) -> str:
    """Return the minor version of a K3s version: `1.34`."""
    return ".".join(map(str, parse_version(version).release[:2]))


def unknown_settings(given: Iterable[str], known: frozenset[str]) -> list[str]:
    """Return a problem for each key that K3s does not have or that this tool sets itself."""
    problems = []
    for key in given:
        plain = key.removesuffix("+")
        if plain in OURS:
            problems.append(f"`{key}` cannot be given here: {OURS[plain]}")
        elif plain in OLD_NAMES:
            problems.append(f"`{key}` is an old name: write `{OLD_NAMES[plain]}`")
        elif plain not in known and plain in SERVER_SETTINGS:
            problems.append(f"K3s has no setting `{key}` here: it is one of servers")
        elif plain not in known and plain in AGENT_SETTINGS:
            problems.append(f"K3s has no setting `{key}` here: it is one of agents")
        elif plain not in known:
            problems.append(f"K3s has no setting `{key}` here" + did_you_mean(key, known))
    return problems


def unknown_to_version(key: str, version: str) -> str:
    """Return why this version of K3s does not know a setting, and which does, or nothing."""
    release = parse_version(version).release
    return k3s_settings.unknown_to(key.rstrip("+"), release)


def reached(version: str, *firsts: str) -> bool:
    """Return whether a version is not older than the first release of its minor version, of those that are given.

    Arguments:
        version: `v1.35.7+k3s1`.
        firsts: `1.34.10`, `1.35.7`; later minor versions count, earlier ones do not.
    """
    return k3s_settings.reached(firsts, parse_version(version).release)


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


def binds_one_address(address: str) -> bool:
    """Return whether K3s, with this `bind-address`, listens on one address only."""
    try:
        return not ipaddress.ip_address(address).is_unspecified
    except ValueError:
        return False


def same_minor(one: str, other: str) -> bool:
    """Return whether two versions differ in their patch only, or not at all; False if one is unknown."""
    try:
        return parse_version(one).release[:2] == parse_version(other).release[:2]
    except ValueError:
        return False
