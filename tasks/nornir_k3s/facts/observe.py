"""What is true on a host: one script that only reads, and its typed answer.

This module cannot write on a host: it must not import `apply` (a test says so).
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from nornir_k3s import k3s
from nornir_k3s.model.host_facts import ArtifactState, FileState, NodeState, Observed, UnitState
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.model.paths import IMAGES, STATE

KUBECONFIG = "/etc/rancher/k3s/k3s.yaml"
LINKS = "/usr/local/bin"  # where the installer puts kubectl, crictl and ctr, unless the host has its own
MAX_TEXT = 65536

# What every look is written in: records of words with tabs between them.
SAY = r"""
tab="$(printf '\t')"
say() { printf '%s' "$1"; shift; for w in "$@"; do printf '\t%s' "$w"; done; printf '\n'; }
"""
_PRELUDE = SAY + (
    r"""
look_file() {
  if [ -L "$1" ]; then say file "$1" link 0 - - 0 0 "$(readlink "$1")"
  elif [ -f "$1" ]; then
    p=$1 want=$2 show=$3
    set -- $(stat -c '%a %U %G %s %Z %Y' "$p")
    h=$(sha256sum <"$p"); h=${h%% *}
    say file "$p" file "$1" "$2" "$3" "$4" "$5" "$h" "$6"
    [ "$h" = "$want" ] || [ "$show" = hide ] || [ "$4" -gt MAX_TEXT ] || say text "$p" "$(base64 -w0 <"$p")"
  elif [ -e "$1" ]; then say file "$1" other 0 - - 0 0 -
  else say file "$1" absent 0 - - 0 0 -
  fi
}
# systemd before 247 cannot print seconds.
old_times() {
  while IFS= read -r line; do
    case $line in *Timestamp=?*) line="${line%%=*}=@$(date -d "${line#*=}" +%s)";; esac
    printf '%s\n' "$line"
  done
}
# A receipt says what we put there and how it looked then; only a file that still looks so is taken at its word.
deep=
look_artifact() {
  if [ ! -f "$1" ]; then say artifact "$1" - 0 0; return; fi
  now=$(stat -c '%s %Y %Z %i %a' "$1"); mode=${now##* } now=${now% *}
  written=${now#* } written=${written%% *}
  if [ -z "$deep" ] && [ -f STATE/receipts ]; then
    while IFS="$tab" read -r rpath rstat rsum; do
      if [ "$rpath" = "$1" ] && [ "$rstat" = "$now" ]; then say artifact "$1" "$rsum" "$mode" "$written"; return; fi
    done <STATE/receipts
  fi
  h=$(sha256sum <"$1"); say artifact "$1" "${h%% *}" "$mode" "$written"
}
"""
).replace("MAX_TEXT", str(MAX_TEXT)).replace("STATE", STATE)

ADDRESSES = r"""
ip -o addr show 2>/dev/null | while read -r _ dev fam addr _; do
  case $fam in inet|inet6) say address "$dev" "$addr";; esac
done
"""

_HOST = rf"""
say now "$(date +%s.%N)"
say uname "$(uname -m)" "$(uname -r)"
say hostname "$(uname -n)"
say machine "$(cat /etc/machine-id 2>/dev/null)"
if [ -r /etc/os-release ]; then ( . /etc/os-release; say os "${{ID:-}}" "${{VERSION_ID:-}}" "${{PRETTY_NAME:-}}" ); fi
if [ -d /run/systemd/system ]; then say init systemd; else say init other; fi
if command -v apt-get >/dev/null 2>&1; then say manager apt; fi
{ADDRESSES.strip()}
ip route show default 2>/dev/null | while read -r line; do say default "$line"; done
ip -6 route show default 2>/dev/null | while read -r line; do say default "$line"; done
ss -Hlntp 2>/dev/null | while read -r _ _ _ local _ who; do say listen "$local" "${{who:-}}"; done
say cgroup "$(stat -fc %T /sys/fs/cgroup 2>/dev/null)"
say inotify "$(cat /proc/sys/fs/inotify/max_user_instances 2>/dev/null)"
say memory_kib "$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)"
say disk_kib "$(df -Pk /var/lib 2>/dev/null | {{ read -r _; read -r _ _ _ free _; echo "$free"; }})"
"""

# kubectl asks with --raw: anything else would keep what it finds out about the API in a cache on the host.
_SERVER = rf"""
if [ -s {k3s.DATA}/server/token ]; then
  say ca "$(cut -c1-67 {k3s.DATA}/server/token)"
  say token "$(sed 's/^K10[0-9a-f]*::[^:]*://' {k3s.DATA}/server/token | tr -d '\n' | sha256sum | cut -c1-12)"
fi
if [ -s {k3s.DATA}/server/tls/server-ca.crt ]; then say cacert "$(base64 -w0 <{k3s.DATA}/server/tls/server-ca.crt)"; fi
if systemctl is-active -q k3s.service 2>/dev/null; then
  say ready "$(timeout 10 {k3s.BINARY} kubectl get --raw /readyz 2>/dev/null | tr -d '\n')"
  nodes=$(timeout 10 {k3s.BINARY} kubectl REGISTRATION get --raw /api/v1/nodes 2>/dev/null) && say through ||
    nodes=$(timeout 10 {k3s.BINARY} kubectl get --raw /api/v1/nodes 2>/dev/null) &&
    say nodes "$(printf '%s' "$nodes" | base64 -w0)"
  say kubeconfig "$(base64 -w0 <{KUBECONFIG})"
fi
"""


def server(url: str = "") -> str:
    """Return the lines for a server: what it knows of the cluster.

    Arguments:
        url: Ask for the nodes through this registration address first, as everybody else will.
    """
    return _SERVER.replace("REGISTRATION", shlex.quote(f"--server={url}") if url else "").replace(
        "&& say through ||", "&& say through ||" if url else "||"
    )


def script(spec: HostSpec, *, role: str, url: str = "", look: str = "", deep: bool = False) -> str:
    """Return the one script that reads everything the plan needs from a host.

    Arguments:
        spec: What the host must look like: names the files, units and packages to look at.
        role: datastore, servers, agents or lb.
        url: The fixed registration address.
        look: More lines, which print records of their own.
        deep: Hash also the large files that look as they did when they were put there.
    """
    lines = [_PRELUDE, _HOST]
    if deep:
        lines.append("deep=yes")
    if spec.packages:
        names = " ".join(spec.packages)
        lines.append(
            f"dpkg-query -W -f '${{Package}}\\t${{db:Status-Abbrev}}\\t${{Version}}\\n' {names} 2>/dev/null"
            ' | while read -r name status version; do [ "$status" = ii ] && say package "$name" "$version"; done'
        )
    lines += [
        f"look_file {shlex.quote(file.path)} {file.sha256} {'hide' if file.masking == 'all' else 'show'}"
        for file in spec.files
    ]
    # More than the spec has: its artefacts may not be known before the host's architecture is.
    paths = [artifact.path for artifact in spec.artifacts if not artifact.path.startswith(IMAGES)]
    paths += [k3s.BINARY, spec.install.script] if spec.install else []
    lines += [f"look_artifact {shlex.quote(path)}" for path in dict.fromkeys(paths)]
    if spec.install:
        lines.append(f'for p in {IMAGES}/*.tar*; do [ -f "$p" ] && look_artifact "$p"; done')
    if spec.gone:
        lines.append(f'while IFS= read -r p; do say ours "$p"; done <{STATE}/files 2>/dev/null')
    lines += [f"[ -e {shlex.quote(path)} ] && say present {shlex.quote(path)}" for path in spec.watch]
    units = [unit.name for unit in spec.units]
    if units:
        shown = "Id,LoadState,ActiveState,SubState,UnitFileState,NRestarts,ExecMainStartTimestamp,StateChangeTimestamp"
        shown += ",ExecStart,DropInPaths"
        lines.append(
            f"units() {{ systemctl show $1 -p {shown} {' '.join(units)}; }}; "
            "{ units --timestamp=unix 2>/dev/null || units | old_times; }"
            ' | while IFS= read -r line; do say unit "$line"; done'
        )
        lines.append(
            f'[ -r {STATE}/settled ] && while IFS="$tab" read -r p t; do say settled "$p" "$t"; done <{STATE}/settled'
        )
        lines.append(f'for p in {STATE}/pending/*; do [ -e "$p" ] && say pending "${{p##*/}}"; done')
        lines.append(
            f'for p in {STATE}/reloaded/*; do [ -e "$p" ] && say reloaded "${{p##*/}}" "$(stat -c %Y "$p")"; done'
        )
    if spec.install:
        lines.append(f'[ -r {STATE}/installed ] && say installed "$(cat {STATE}/installed)"')
        lines.append(
            "for c in kubectl crictl ctr; do "
            f'[ -e {LINKS}/$c ] || command -v $c >/dev/null 2>&1 || say fact nolink "{LINKS}/$c"; done'
        )
    if role == "servers":
        lines.append(server(url))
    lines += [look, "say end"]
    return "\n".join(lines)


def parse(host: str, text: str) -> Observed:
    """Return what the script's answer says.

    Raises:
        ValueError: The answer is not complete.
    """
    observed = Observed(host)
    unit: dict[str, str] = {}
    ended = False
    for line in text.splitlines():
        kind, *words = line.split("\t")
        if kind == "unit":
            _unit_line(observed, unit, words[0] if words else "")
        elif kind == "end":
            ended = True
        else:
            _record(observed, kind, words)
    _unit_line(observed, unit, "")
    if not ended:
        raise ValueError("the answer of the observing script is cut short")
    return observed


def _unit_line(observed: Observed, unit: dict[str, str], line: str) -> None:
    if line:
        key, _, value = line.partition("=")
        unit[key] = value
        return
    if "Id" in unit:
        observed.units[unit["Id"]] = UnitState(
            load=unit.get("LoadState", ""),
            active=unit.get("ActiveState", ""),
            sub=unit.get("SubState", ""),
            enabled=unit.get("UnitFileState", ""),
            restarts=_int(unit.get("NRestarts", "")),
            started=_int(unit.get("ExecMainStartTimestamp", "").lstrip("@")),
            changed=_int(unit.get("StateChangeTimestamp", "").lstrip("@")),
            command=_argv(unit.get("ExecStart", "")),
            dropins=tuple(unit.get("DropInPaths", "").split()),
        )
    unit.clear()


def _argv(text: str) -> str:
    return text.partition("argv[]=")[2].partition(" ;")[0].strip()


def _int(text: str) -> int:
    return int(text) if text.strip().isdigit() else 0


def _record(observed: Observed, kind: str, words: list[str]) -> None:  # noqa: PLR0912, PLR0915 - one line a record
    match kind, words:
        case "now", [text]:
            observed.now = float(text)
        case "uname", [arch, kernel]:
            observed.arch, observed.kernel = arch, kernel
        case "hostname" | "machine" | "init" | "manager" | "cgroup" | "token" | "installed", [text]:
            setattr(observed, kind, text)
        case "os", [name, version, pretty]:
            observed.os = (name, version, pretty)
        case "address", [dev, address]:
            observed.addresses.append((dev, address))
        case "default", [line]:
            observed.defaults.append(line)
        case "listen", [local, who]:
            observed.listening.append((local, who))
        case "reloaded", [name, when]:
            observed.reloaded[name] = _int(when)
        case "inotify" | "memory_kib" | "disk_kib", [text]:
            setattr(observed, kind, _int(text))
        case "package", [name, version]:
            observed.packages[name] = version
        case "file", [path, what, mode, owner, group, size, changed, last, *rest]:
            written = int(rest[0]) if rest else 0
            observed.files[path] = FileState(
                what, int(mode, 8), owner, group, int(size), int(changed), last, written=written
            )
        case "settled", [path, when]:
            observed.settled[path] = _int(when)
        case "text", [path, encoded]:
            state = observed.files[path]
            text = base64.b64decode(encoded).decode(errors="replace")
            observed.files[path] = FileState(**{**state.__dict__, "text": text})
        case "artifact", [path, digest, mode, written]:
            observed.artifacts[path] = ArtifactState(digest, int(mode, 8), int(written))
        case "db", [what, name, value]:
            observed.database.append((what, name, value))
        case "fact", [name, *rest]:
            observed.facts.setdefault(name, []).append(tuple(rest))
        case "present" | "pending" | "ours", [text]:
            getattr(observed, kind).add(text)
        case "unreachable", [address, *why]:
            observed.unreachable.append((address, why[0] if why else ""))
        case "ca", [prefix]:
            observed.ca_prefix = prefix if prefix.startswith("K10") else ""
        case "cacert", [encoded]:
            observed.ca_cert = base64.b64decode(encoded).decode(errors="replace")
        case "kubeconfig", [encoded]:
            observed.kubeconfig = base64.b64decode(encoded).decode(errors="replace")
        case "through", []:
            observed.through = True
        case "ready", [text]:
            observed.ready = text == "ok"
        case "nodes", [encoded]:
            observed.nodes = nodes(json.loads(base64.b64decode(encoded))["items"])
        case _:
            pass  # a line that a program on the host wrote


def nodes(items: Iterable[dict[str, Any]]) -> list[NodeState]:
    """Return Kubernetes' node objects as typed states."""
    found = []
    for item in items:
        labels = item["metadata"].get("labels", {})
        spec, status = item.get("spec", {}), item.get("status", {})  # one that somebody made by hand has neither
        taints = spec.get("taints") or []
        found.append(
            NodeState(
                name=item["metadata"]["name"],
                ready=any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", [])),
                version=status.get("nodeInfo", {}).get("kubeletVersion", ""),
                roles=tuple(sorted(k.split("/")[1] for k in labels if k.startswith("node-role.kubernetes.io/"))),
                taints=tuple(f"{t['key']}={t.get('value', '')}:{t['effect']}" for t in taints),
                labels=tuple(sorted(labels.items())),
                schedulable=not spec.get("unschedulable", False),
                since=_since(status.get("conditions", [])),
                args=_args(item["metadata"].get("annotations", {}).get("k3s.io/node-args", "")),
            )
        )
    return found


def _since(conditions: Iterable[dict[str, Any]]) -> int:
    times = [c.get("lastTransitionTime") for c in conditions if c["type"] == "Ready"]
    try:
        return int(datetime.fromisoformat(times[0]).timestamp()) if times and times[0] else 0
    except ValueError:
        return 0


def _args(text: str) -> tuple[str, ...]:
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return ()
    return tuple(str(word) for word in found) if isinstance(found, list) else ()
