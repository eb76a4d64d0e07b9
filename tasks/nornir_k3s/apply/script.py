"""apply: steps in, one script out. Only its scripts write on a host; each step looks again before it acts."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Sequence

from nornir_k3s.apply import rollback
from nornir_k3s.model.host_spec import Artifact, File, Forget, Gone, HostSpec, Install, Unit
from nornir_k3s.model.paths import (
    INSTALLER,
    STATE,
)
from nornir_k3s.model.secret import Secret
from nornir_k3s.model.step import (
    Step,
)
from nornir_k3s.planner import (
    install_mark,
)

BUSY = 75
_PRELUDE = r"""
set -eu
step=start
say() { printf '%s' "$1"; shift; for w in "$@"; do printf '\t%s' "$w"; done; printf '\n'; }
trap 'rc=$?; [ "$rc" = 0 ] || say fail "$step"' EXIT
mkdir -p -m 700 STATE STATE/pending
# The script of a run that was killed may still be at work: it is let finish.
exec 9>STATE/lock
flock -w 300 9 || { echo 'another run is at work on this host' >&2; exit BUSY; }

# Its own ledger says which files are ours; anything else is kept beside before it is replaced.
keep_foreign() {
  [ -e "$1" ] || [ -L "$1" ] || return 0
  if [ -f STATE/files ] && grep -qxF "$1" STATE/files; then return 0; fi
  if [ ! -e "$1.before-nornir-k3s" ]; then cp -a "$1" "$1.before-nornir-k3s"; say kept "$1" "$1.before-nornir-k3s"; fi
}
put() { # path mode group unit check; the content comes base64-encoded on stdin
  dir=$(dirname "$1"); [ -d "$dir" ] || mkdir -p -m 755 "$dir"
  draft="$dir/.nornir-k3s.$$"
  ( umask 077; base64 -d >"$draft" )
  if [ -f "$1" ] && [ ! -L "$1" ] && cmp -s "$draft" "$1"; then
    rm -f "$draft"
    if [ "$(stat -c '%a %U %G' "$1")" = "$2 root $3" ]; then say did "$step" same; return 0; fi
    chown "root:$3" "$1"; chmod "$2" "$1"; settle "$1"
    say did "$step" changed; return 0
  fi
  chown "root:$3" "$draft"; chmod "$2" "$draft"
  if [ -n "$5" ] && ! out=$(eval "$5" 2>&1); then
    rm -f "$draft"; printf 'the new %s is refused:\n%s\n' "$1" "$out" >&2; return 1
  fi
  keep_previous "$1"
  keep_foreign "$1"
  if [ -n "$4" ]; then : >"STATE/pending/$4"; fi
  sync "$draft" 2>/dev/null || :
  mv -fT "$draft" "$1"
  grep -qxF "$1" STATE/files 2>/dev/null || printf '%s\n' "$1" >>STATE/files
  say did "$step" changed
}
settle() { # path: it is newer now than the process that has read it, for its mode alone
  line=$(printf '%s\t%s' "$1" "$(stat -c %Z "$1")")
  { grep -vF "$1$(printf '\t')" STATE/settled 2>/dev/null || :; printf '%s\n' "$line"; } >STATE/.settled
  mv -f STATE/.settled STATE/settled
}
remove() { # path unit
  keep_previous "$1"
  : >"STATE/pending/$2"
  rm -f "$1"
  unlist "$1"
  say did "$step" changed
}
fetch() { # url path sha256; the draft stays where the connection breaks, and is gone on with
  dir=$(dirname "$2") draft="$(dirname "$2")/.$(basename "$2").fetched"
  [ -d "$dir" ] || mkdir -p -m 755 "$dir"
  for try in 1 2 3 4; do
    if command -v curl >/dev/null 2>&1; then curl -fsSL --connect-timeout 20 -C - -o "$draft" "$1" 2>STATE/fetch.log
    else wget -q -c -T 20 -O "$draft" "$1" 2>STATE/fetch.log; fi && break
    [ "$try" != 4 ] || { cat STATE/fetch.log >&2; echo "cannot fetch $1" >&2; return 1; }
    sleep 1
  done
  have=$(sha256sum <"$draft")
  if [ "${have%% *}" != "$3" ]; then
    rm -f "$draft"; echo "$1 has the SHA-256 ${have%% *}, published is $3" >&2; return 1
  fi
  mv -fT "$draft" "$2"
}
receipt() { # path sha256
  line=$(printf '%s\t%s\t%s' "$1" "$(stat -c '%s %Y %Z %i' "$1")" "$2")
  { grep -vF "$1$(printf '\t')" STATE/receipts 2>/dev/null || :; printf '%s\n' "$line"; } >STATE/.receipts
  mv -f STATE/.receipts STATE/receipts
}
journal() { say journal "$(journalctl -u "$1" -n 20 -o cat --no-pager 2>/dev/null | base64 -w0)"; }
act() { # unit action blocking proof reload
  begin=$(date +%s)
  systemctl enable -q "$1"
  # A package's own scripts may have started it before its files were written.
  if [ "$2" = start ] && [ -e "STATE/pending/$1" ] && systemctl is-active -q "$1"; then
    set -- "$1" restart "$3" "$4" "$5"
  fi
  case $2 in
    reload)
      if [ -n "$5" ]; then eval "$5" && mkdir -p STATE/reloaded && : >"STATE/reloaded/$1"
      else systemctl reload "$1"
      fi ;;
    enable) : ;;
    *) systemctl reset-failed "$1" 2>/dev/null || :
       if [ "$3" = wait ]; then systemctl "$2" "$1"
       else { [ "$2" = start ] || systemctl stop "$1"; } && systemctl start --no-block "$1"
       fi ;;
  esac || { journal "$1"; return 1; }
  n=0
  until [ -z "$4" ] || eval "$4"; do
    n=$((n+1)); [ "$n" -lt 40 ] || { journal "$1"; return 1; }
    sleep 0.25
  done
  rm -f "STATE/pending/$1"
  say did "$step" changed
}
""".replace("STATE", STATE).replace("BUSY", str(BUSY))
_PRELUDE += rollback.SHELL
_END = "\nstep=end\nsay end\n"


def script(steps: Sequence[Step], spec: HostSpec, *, before: str = "") -> Secret:
    """Return the one script that carries out these steps; a Secret, since files in it may hold some.

    Arguments:
        steps: In this order. Artefacts must have been pushed before.
        spec: The host's spec, for the note that the installer has run.
        before: Lines that come first.
    """
    return Secret(_PRELUDE + before + "\n".join(_lines(step, spec) for step in steps) + _END)


def restore(unit: str, *, always: bool) -> str:
    """Return the script that puts a server's previous files back and restarts its unit; it may run again.

    Arguments:
        unit: The server's.
        always: Restart it also where no file had to be put back.
    """
    return wrapped("putting the previous files back", f"restore {unit} {'yes' if always else 'no'}")


def forget(unit: str) -> str:
    """Return the script that removes the previous files: the server was seen ready with those it has."""
    return wrapped("removing the previous files", f"drop_previous\nrm -f {STATE}/pending/{unit}")


def wrapped(what: str, lines: str) -> str:
    """Return a script of other lines that write on a host, alone as all scripts that do."""
    return f"{_PRELUDE}step={shlex.quote(what)}\n{lines}{_END}"


def _lines(step: Step, spec: HostSpec) -> str:  # noqa: PLR0911 - one line a kind of step
    head = f"step={shlex.quote(step.id)}\n"
    match step.payload:
        case File():
            return head + _file(step.payload)
        case Gone():
            return head + f"remove {shlex.quote(step.payload.path)} {shlex.quote(step.payload.unit)}\n"
        case Forget():
            return head + 'say did "$step" changed\n'  # by `forget`, when the server was seen ready
        case Unit():
            blocking = "no" if spec.install else "wait"
            unit = step.payload
            return (
                head
                + f"act {unit.name} {step.action} {blocking} {shlex.quote(unit.proof)} {shlex.quote(unit.reload)}\n"
            )
        case Artifact():
            return head + _artifact(step.payload)
        case Install():
            return head + _install(step.payload, install_mark(spec))
        case Secret():
            return head + step.payload.reveal() + 'say did "$step" changed\n'
        case tuple():
            return head + _packages(step.payload)
        case _:
            raise AssertionError(step)


def _file(file: File) -> str:
    encoded = base64.b64encode(file.text.reveal().encode()).decode()
    check = file.check.replace("{}", '"$draft"')
    quoted = " ".join(shlex.quote(word) for word in (file.path, f"{file.mode:o}", file.group, file.unit, check))
    return f"put {quoted} <<'END'\n{encoded}\nEND\n"


def _artifact(artifact: Artifact) -> str:
    path = shlex.quote(artifact.path)
    fetch = f"fetch {shlex.quote(artifact.url)} {path} {artifact.sha256}\n" if artifact.url else ""
    return fetch + f'chmod {artifact.mode:o} {path}\nreceipt {path} {artifact.sha256}\nsay did "$step" changed\n'


def _packages(names: Sequence[str]) -> str:
    listed = " ".join(shlex.quote(name) for name in names)
    return f"""export DEBIAN_FRONTEND=noninteractive
# Into a file: a pipe that breaks when the connection is lost would end dpkg half-way.
quietly() {{ "$@" >{STATE}/apt.log 2>&1 || {{ tail -n 20 {STATE}/apt.log >&2; return 1; }}; }}
apt() {{ quietly apt-get -qy -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"; }}
quietly dpkg --configure -a
apt update
apt -o Dpkg::Options::=--force-confold --no-install-recommends install {listed}
dpkg-query -W -f 'package\t${{Package}}\t${{Version}}\n' {listed}
say did "$step" changed
"""


def _install(install: Install, mark: str) -> str:
    # A clean environment: the installer writes every K3S_* variable it sees into the unit's environment file.
    return f"""out=$(env -i PATH="$PATH" HOME=/root INSTALL_K3S_SKIP_DOWNLOAD=true INSTALL_K3S_SKIP_START=true \\
  INSTALL_K3S_SKIP_SELINUX_RPM=true sh {INSTALLER} {install.role} 2>&1) || {{ printf '%s\\n' "$out" >&2; exit 1; }}
printf '%s' '{mark}' >{STATE}/installed
say did "$step" changed
"""


def packages(text: str) -> dict[str, str]:
    """Return the versions of the packages that the script has installed."""
    lines = (line.split("\t") for line in text.splitlines())
    return {words[1]: words[2] for words in lines if words[0] == "package" and len(words) == 3}


def parse(text: str) -> tuple[list[str], list[tuple[str, str]], str, str]:
    """Return what the script said: changed steps, foreign files kept aside, the step that failed, its journal."""
    changed, kept, failed, journal = [], [], "", ""
    for line in text.splitlines():
        match line.split("\t"):
            case ["did", step, "changed"]:
                changed.append(step)
            case ["kept", path, copy]:
                kept.append((path, copy))
            case ["fail", step]:
                failed = step
            case ["journal", encoded]:
                journal = base64.b64decode(encoded).decode(errors="replace")
    return changed, kept, failed, journal
