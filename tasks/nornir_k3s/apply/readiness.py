"""When a K3s unit counts as ready: scripts that wait on the host for a bounded time and say what they saw.

A server is ready when its service is active, `/readyz` answers ok with credentials, and its own node is Ready: three
separate conditions, true one after the other (k3s: pkg/cli/server/server.go, pkg/agent/run.go).
"""

from __future__ import annotations

import base64
import shlex
from dataclasses import dataclass

from nornir_k3s import k3s
from nornir_k3s.facts import observe

# Within a script the condition is looked at often; the whole wait is driven from the controller, chunk by chunk.
CHUNK = 45

_LOOP = r"""
unit=UNIT
say() { printf '%s' "$1"; shift; for w in "$@"; do printf '\t%s' "$w"; done; printf '\n'; }
begin=$(date +%s)
# Pointless to wait on: the unit has died of a named cause more than once, or names it again and again without dying.
hopeless() {
  now=$(date +%s) since=$((begin - 5)); [ $((now - begin)) -ge 12 ] || return 1
  [ $((now - 30)) -le "$since" ] || since=$((now - 30))
  said=$(journalctl -u "$unit" -o cat --no-pager --since "@$since" 2>/dev/null | grep -E PATTERN) || return 1
  if [ "$unit" = k3s-agent.service ]; then return 0; fi
  died=$(systemctl show -p NRestarts --value "$unit")
  # K3s tries a PostgreSQL 300 times, a second apart, within one start.
  [ "${died:-0}" -ge 2 ] || [ "$(printf '%s\n' "$said" | grep -c 'Failed to ping database')" -ge 8 ]
}
missing=
look() { CONDITION
}
while :; do
  if look; then say waited yes; break; fi
  if hopeless; then say waited never "$missing"; break; fi
  if [ $(( $(date +%s) - begin )) -ge SECONDS ]; then say waited no "$missing"; break; fi
  sleep 0.3
done
[ -z "$missing" ] || say journal "$(journalctl -u "$unit" -n 15 -o cat --no-pager 2>/dev/null | base64 -w0)"
"""

_SERVER = rf"""
  missing="service $unit is $(systemctl is-active "$unit")"
  systemctl is-active -q "$unit" || return 1
  missing='/readyz is not ok'
  [ "$(timeout 10 {k3s.BINARY} kubectl get --raw /readyz 2>/dev/null)" = ok ] || return 1
  missing='node NODE is not listed'
  set -- $(timeout 10 {k3s.BINARY} kubectl get node NODE --no-headers 2>/dev/null)
  [ "${{1:-}}" = NODE ] || return 1
  missing="node NODE is $2"
  case $2 in Ready*) missing=; return 0;; *) return 1;; esac"""

_AGENT = """
  missing="service $unit is $(systemctl is-active "$unit")"
  systemctl is-active -q "$unit" || return 1
  missing="""


@dataclass(frozen=True)
class Answer:
    """What a wait saw: ready, hopeless, what is missing, and the unit's last journal lines."""

    ready: bool
    hopeless: bool
    missing: str
    journal: str


def server(node: str, seconds: int = CHUNK) -> str:
    """Return a script that waits until a server is ready, and then reads what only a ready server knows."""
    return _script("k3s.service", _SERVER.replace("NODE", shlex.quote(node)), seconds) + observe.server()


def agent(seconds: int = CHUNK) -> str:
    """Return a script that waits until an agent's service is active: it has joined and reaches an API server."""
    return _script("k3s-agent.service", _AGENT, seconds)


def _script(unit: str, condition: str, seconds: int) -> str:
    script = _LOOP.replace("UNIT", unit).replace("PATTERN", shlex.quote(k3s.fatal_pattern()))
    return script.replace("CONDITION", condition).replace("SECONDS", str(seconds))


def parse(text: str) -> Answer:
    """Return what the waiting script said."""
    state, missing, journal = "no", "the host's answer", ""
    for line in text.splitlines():
        match line.split("\t"):
            case ["waited", word, *rest]:
                state, missing = word, (rest[0] if rest else "")
            case ["journal", encoded]:
                journal = base64.b64decode(encoded).decode(errors="replace")
    return Answer(state == "yes", state == "never", missing, journal)
