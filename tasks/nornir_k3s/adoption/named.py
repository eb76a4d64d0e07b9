"""Files on the hosts of a cluster that settings name: private registries, audit policies, TLS files, proxies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nornir_k3s.adoption.datastore import FILES
from nornir_k3s.adoption.read import Found, HostFile
from nornir_k3s.inventory.named_files import named
from nornir_k3s.k3s_installed import VARIABLE
from nornir_k3s.model.masking import has_credentials
from nornir_k3s.model.secret import Secret

REGISTRIES = "/etc/rancher/k3s/registries.yaml"
_SECRET = re.compile(
    r"(?im)(^|[{,]|-\s)\s*[\"']?(auth|password|token|identity_?token|secret|client-key-data)[\"']?\s*:"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
)
# Settings whose files are secret in whatever form they are.
_SECRET_FILES = re.compile(r"(^| )(vpn-auth-file|token-auth-file|basic-auth-file)$")
_PROXIES = {
    "http": ("CONTAINERD_HTTP_PROXY", "HTTP_PROXY", "http_proxy"),
    "https": ("CONTAINERD_HTTPS_PROXY", "HTTPS_PROXY", "https_proxy"),
    "no_proxy": ("CONTAINERD_NO_PROXY", "NO_PROXY", "no_proxy"),
}


@dataclass
class Kept:
    """What comes beside the inventory.

    Arguments:
        settings: More of `k3s_cluster`.
        files: Texts for the folder of the inventory, by their path there.
        secrets: Texts for the state folder, by name.
        notes: What is left out, and why.
        private: Paths on hosts that are secret, whatever is in these files.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, Secret] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    private: frozenset[str] = frozenset()


def paths(found: Found) -> list[str]:
    """Return the paths to read from a server or agent."""
    own = found.k3s
    if own is None:
        return []
    return list(dict.fromkeys([REGISTRIES, *(own.text(key) for key in FILES if own.text(key)), *_named(found)]))


def _named(found: Found) -> dict[str, str]:
    """Return the paths that settings name, each with its setting."""
    own = found.k3s.settings if found.k3s else {}
    return named({key: list(map(str, one.values)) if key.endswith("-arg") else one.text for key, one in own.items()})


def keep(
    found: Mapping[str, Found], texts: Mapping[str, Mapping[str, HostFile]], tls: Mapping[str, str], state: str
) -> Kept:
    """Return what the files and variables of servers and agents are in an inventory.

    Arguments:
        found: Servers and agents, by name.
        texts: Their files by path.
        tls: The TLS files of the datastore, by K3s' setting.
        state: The state folder of the cluster, as the inventory names it.
    """
    all_named = (one for host in found.values() for one in _named(host).items())
    kept = Kept(private=frozenset(path for path, name in all_named if _SECRET_FILES.search(name)))
    _tls(kept, texts, tls)
    for path in dict.fromkeys(path for own in texts.values() for path in own):
        if path not in tls.values():
            _file(kept, path, found, texts, state)
    _variables(kept, found, state)
    return kept


def _tls(kept: Kept, texts: Mapping[str, Mapping[str, HostFile]], tls: Mapping[str, str]) -> None:
    for key, path in tls.items():
        one = next((own[path] for own in texts.values() if path in own), None)
        if one is None:
            kept.notes.append(f"{key} ({path}) could not be read on any server: put it where `datastore` names it")
        elif key == "datastore-keyfile" or _is_secret(one):  # a certificate may have its key in the same file
            kept.secrets[f"{key}.pem"] = one.text
        else:
            kept.files[f"files/{key}.pem"] = one.text.reveal()


def _file(
    kept: Kept, path: str, found: Mapping[str, Found], texts: Mapping[str, Mapping[str, HostFile]], state: str
) -> None:
    have = {name: own[path] for name, own in texts.items() if path in own}
    first = next(iter(have.values()))
    differ = sorted(name for name, one in have.items() if one != first)
    if path == REGISTRIES:
        lack = sorted(set(found) - set(have))
        if lack:
            kept.notes.append(f"{path} is not on {', '.join(lack)}: a deploy puts it there")
        if differ:
            kept.notes.append(f"{path} differs on {', '.join(differ)}: the inventory has that of {next(iter(have))}")
        secret = _is_secret(first)
        kept.settings["registries"] = {"file": f"{state}/registries.yaml"} if secret else "files/registries.yaml"
        _put(kept, "registries.yaml", first, secret=secret)
        return
    roles = list(dict.fromkeys(found[name].role for name in have))
    lack = sorted(name for name, one in found.items() if one.role in roles and name not in have)
    if differ or lack:
        why = f"differs on {', '.join(differ)}" if differ else f"is not on {', '.join(lack)}"
        kept.notes.append(f"{path}, which a setting names, {why}: it stays on the hosts, outside the inventory")
        return
    name = re.sub(r"[^A-Za-z0-9._-]", "-", path.strip("/"))
    secret = path in kept.private or _is_secret(first)
    _put(kept, name, first, secret=secret)
    kept.settings.setdefault("files", []).append(
        {
            "path": path,
            **({"secret": {"file": f"{state}/{name}"}} if secret else {"source": f"files/{name}"}),
            "mode": f"{first.mode:04o}",
            **({"owner": first.owner} if first.owner != "root" else {}),
            **({"group": first.group} if first.group != "root" else {}),
            "roles": roles,
        }
    )


def _is_secret(one: HostFile) -> bool:
    text = one.text.reveal()
    return bool(_SECRET.search(text)) or has_credentials(text)


def _put(kept: Kept, name: str, one: HostFile, *, secret: bool) -> None:
    if secret:
        kept.secrets[name] = one.text
    else:
        kept.files[f"files/{name}"] = one.text.reveal()


def _variables(kept: Kept, found: Mapping[str, Found], state: str) -> None:
    """Keep a proxy, and tell of other variables whether a deploy leaves them."""
    own = {name: one.k3s for name, one in found.items() if one.k3s}
    values: dict[tuple[str, str], Secret] = {}
    for one in own.values():
        values |= {(one.variable_origins.get(key, ""), key): value for key, value in one.variables.items()}
    _proxy(kept, {key: value for (origin, key), value in values.items() if not _in_dropin(origin)}, state)
    proxies = {name for names in _PROXIES.values() for name in names}
    # Deploy writes a proxy to /etc/default.
    remain = ("/etc/sysconfig/",) if "proxy" in kept.settings else ("/etc/sysconfig/", "/etc/default/")
    lost = set()
    stay: dict[str, set[str]] = {}
    for origin, key in values:
        if _in_dropin(origin) or (key not in proxies and origin.startswith(remain)):
            stay.setdefault(origin, set()).add(key)
        elif key not in proxies:
            lost.add(key)
    for origin, names in stay.items():
        hosts = ", ".join(name for name, one in own.items() if origin in one.variable_origins.values())
        said = f"{origin.removeprefix(VARIABLE)} sets {', '.join(sorted(names))} for K3s"
        drift = ", and drift has a warning of it until `known_drift` accepts it" if _in_dropin(origin) else ""
        kept.notes.append(f"{hosts}: {said}: it stays there, outside the inventory{drift}")
    if lost:
        kept.notes.append(
            f"variables of K3s' environment that the inventory cannot have: {', '.join(sorted(lost))}; to keep them,"
            " put them into a drop-in of the unit on the hosts (systemctl edit k3s, or k3s-agent)"
        )


def _in_dropin(origin: str) -> bool:
    return ".service.d/" in origin


def _proxy(kept: Kept, variables: Mapping[str, Secret], state: str) -> None:
    proxy: dict[str, Any] = {}
    for key, names in _PROXIES.items():
        value = next((variables[name].reveal() for name in names if name in variables), "")
        if value and key == "no_proxy":
            proxy[key] = [one.strip() for one in value.split(",") if one.strip()]
        elif value and has_credentials(value):
            proxy[key] = {"file": f"{state}/proxy-{key}"}
            kept.secrets[f"proxy-{key}"] = Secret(value)
        elif value:
            proxy[key] = value
    if proxy.keys() & {"http", "https"}:
        kept.settings["proxy"] = proxy
