"""Previous: a server's files as they were before a change, so that a change it does not survive can be taken back.

They are kept on the host itself by the same script that changes them, before it does, until the server was seen ready
with the new ones. This is text only: `apply` makes scripts of it.
"""

from __future__ import annotations

from nornir_k3s.model.host_facts import Observed
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.model.paths import (
    PREVIOUS,
    STATE,
)
from nornir_k3s.planner import (
    renewed,
)

# `list` has a line for each file: what it was (ours, foreign or absent), and its path; copies lie below `root`.
SHELL = r"""
drop_previous() { # under another name first: half of a record is never taken for one
  rm -rf PREVIOUS.dropped
  [ ! -d PREVIOUS ] || mv -fT PREVIOUS PREVIOUS.dropped
  rm -rf PREVIOUS.dropped
}
keep_previous() { # path
  if [ ! -e PREVIOUS/list ] || cut -d' ' -f2- PREVIOUS/list | grep -qxF "$1"; then return 0; fi
  was=absent
  if [ -e "$1" ] || [ -L "$1" ]; then
    was=foreign; if grep -qxF "$1" STATE/files 2>/dev/null; then was=ours; fi
    mkdir -p "PREVIOUS/root$(dirname "$1")"
    cp -a "$1" PREVIOUS/draft; sync PREVIOUS/draft 2>/dev/null || :
    mv -fT PREVIOUS/draft "PREVIOUS/root$1"
  fi
  printf '%s %s\n' "$was" "$1" >>PREVIOUS/list
}
unlist() { # path
  { grep -vxF "$1" STATE/files 2>/dev/null || :; } >STATE/.files
  mv -f STATE/.files STATE/files
}
put_back() { # unit what-it-was path
  copy="PREVIOUS/root$3" draft="$(dirname "$3")/.nornir-k3s.$$"
  if [ "$2" = absent ]; then
    [ -e "$3" ] || [ -L "$3" ] || return 0
    : >"STATE/pending/$1"
    rm -f "$3"
  else
    if [ -f "$3" ] && [ ! -L "$3" ] && cmp -s "$copy" "$3" &&
      [ "$(stat -c '%a %U %G' "$3")" = "$(stat -c '%a %U %G' "$copy")" ]; then return 0; fi
    : >"STATE/pending/$1"
    mkdir -p "$(dirname "$3")"
    cp -a "$copy" "$draft"; sync "$draft" 2>/dev/null || :
    mv -fT "$draft" "$3"
  fi
  unlist "$3"
  if [ "$2" = ours ]; then printf '%s\n' "$3" >>STATE/files; fi
  say did "restored:$3" changed
}
restore() { # unit always; what was restarted is not done until it was seen ready: the next run would do it again
  [ -e PREVIOUS/list ] || { echo 'no previous files are kept on this host' >&2; return 1; }
  while read -r was path; do put_back "$1" "$was" "$path"; done <PREVIOUS/list
  if [ "$2" = no ] && [ ! -e "STATE/pending/$1" ] && systemctl is-active -q "$1"; then return 0; fi
  act "$1" restart no ''
  : >"STATE/pending/$1"
}
""".replace("PREVIOUS", PREVIOUS).replace("STATE", STATE)


def kept(spec: HostSpec, seen: Observed) -> bool:
    """Say whether a change of this server can be taken back.

    It was ready before the change, or before the change of an earlier run that ended too soon; and its K3s stays the
    same, since an older K3s does not start on what a newer one has written.
    """
    return (seen.ready or PREVIOUS in seen.present) and not renewed(spec, seen)


def begin(spec: HostSpec, seen: Observed) -> str:
    """Return the lines with which the script of a change begins; a record that is there already is gone on with."""
    return f"mkdir -p -m 700 {PREVIOUS}\n: >>{PREVIOUS}/list\n" if kept(spec, seen) else "drop_previous\n"
