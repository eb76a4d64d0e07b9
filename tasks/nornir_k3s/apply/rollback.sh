# A server's files before a change. `list` has a line a file: what it was (ours, foreign or absent), and its path;
# copies lie below `root`.
drop_previous() { # under another name first: half of a record is never taken for one
  rm -rf "$PREVIOUS".dropped
  [ ! -d "$PREVIOUS" ] || mv -fT "$PREVIOUS" "$PREVIOUS".dropped
  rm -rf "$PREVIOUS".dropped
}
keep_previous() { # path
  if [ ! -e "$PREVIOUS/list" ] || cut -d' ' -f2- "$PREVIOUS/list" | grep -qxF "$1"; then return 0; fi
  was=absent
  if [ -e "$1" ] || [ -L "$1" ]; then
    was=foreign; if grep -qxF "$1" "$STATE/files" 2>/dev/null; then was=ours; fi
    mkdir -p "$PREVIOUS/root$(dirname "$1")"
    cp -a "$1" "$PREVIOUS/draft"; sync "$PREVIOUS/draft" 2>/dev/null || :
    mv -fT "$PREVIOUS/draft" "$PREVIOUS/root$1"
  fi
  printf '%s %s\n' "$was" "$1" >>"$PREVIOUS/list"
}
unlist() { # path
  { grep -vxF "$1" "$STATE/files" 2>/dev/null || :; } >"$STATE/.files"
  mv -f "$STATE/.files" "$STATE/files"
}
put_back() { # unit what-it-was path
  copy="$PREVIOUS/root$3" draft="$(dirname "$3")/.nornir-k3s.$$"
  if [ "$2" = absent ]; then
    [ -e "$3" ] || [ -L "$3" ] || return 0
    : >"$STATE/pending/$1"
    rm -f "$3"
  else
    if [ -f "$3" ] && [ ! -L "$3" ] && cmp -s "$copy" "$3" &&
      [ "$(stat -c '%a %U %G' "$3")" = "$(stat -c '%a %U %G' "$copy")" ]; then return 0; fi
    : >"$STATE/pending/$1"
    folder "$(dirname "$3")"
    cp -a "$copy" "$draft"; sync "$draft" 2>/dev/null || :
    mv -fT "$draft" "$3"
  fi
  unlist "$3"
  if [ "$2" = ours ]; then printf '%s\n' "$3" >>"$STATE/files"; fi
  say did "restored:$3" changed
}
restore() { # unit always; what was restarted is not done until it was seen ready: the next run would do it again
  [ -e "$PREVIOUS/list" ] || { echo 'no previous files are kept on this host' >&2; return 1; }
  while read -r was path; do put_back "$1" "$was" "$path"; done <"$PREVIOUS/list"
  if [ "$2" = no ] && [ ! -e "$STATE/pending/$1" ] && systemctl is-active -q "$1"; then return 0; fi
  act "$1" restart no ''
  : >"$STATE/pending/$1"
}
