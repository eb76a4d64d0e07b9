# A server's files before a change. `list` has a line a file: what it was (ours, foreign, absent or binary), and its
# path; copies lie below `root`, that of the binary is `binary` in STATE.
# A change may be on trial: a timer of the host takes it back, also after a reboot, unless the controller confirms it before.
UNDO=/etc/systemd/system/nornir-k3s-undo
undo_later() { # seconds unit script-base64
  cancel_undo
  printf '%s' "$3" | base64 -d >"$STATE/undo.draft"
  printf '[Unit]\nDescription=nornir-k3s: take back the change of %s that was not confirmed\n[Service]\nType=oneshot\n%s\n' \
    "$2" "ExecStart=/bin/sh $STATE/undo" | usual_modes tee "$UNDO.service" >/dev/null
  printf '[Timer]\nOnActiveSec=%s\nAccuracySec=1s\n[Install]\nWantedBy=timers.target\n' "$1" |
    usual_modes tee "$UNDO.timer" >/dev/null
  mv -f "$STATE/undo.draft" "$STATE/undo"
  systemctl daemon-reload
  systemctl enable -q --now "${UNDO##*/}.timer"
}
cancel_undo() {
  [ -e "$STATE/undo" ] || return 0
  systemctl disable -q --now "${UNDO##*/}.timer" || :
  rm -f "$UNDO.timer" "$UNDO.service" "$STATE/undo"
  systemctl daemon-reload
}
still_on_trial() {
  [ -e "$STATE/undo" ] || { echo 'the host has taken the change back: it was not confirmed in time' >&2; return 1; }
}
drop_previous() { # under another name first: half of a record is never taken for one
  cancel_undo
  rm -rf "$PREVIOUS".dropped
  [ ! -d "$PREVIOUS" ] || mv -fT "$PREVIOUS" "$PREVIOUS".dropped
  rm -rf "$PREVIOUS".dropped
  rm -f "$STATE/binary"
  drop_former_certificates
}
drop_former_certificates() { # what `k3s certificate rotate` has kept since the note was made
  [ -s "$STATE/certificates" ] || return 0
  for folder in /var/lib/rancher/k3s/server/tls-[0-9]*; do
    if [ -d "$folder" ] && [ "${folder##*-}" -ge "$(cat "$STATE/certificates")" ]; then rm -rf "$folder"; fi
  done
  rm -f "$STATE/certificates"
}
keep_binary() { # path running; where it can be another name of the same file, it takes no space
  [ -f "$1" ] || return 0
  if [ "$2" = yes ] || [ ! -e "$STATE/binary" ]; then
    ln -f "$1" "$STATE/binary" 2>/dev/null || cp -p "$1" "$STATE/binary"
  fi
}
list_binary() { # path
  [ ! -e "$STATE/binary" ] || grep -qxF "binary $1" "$PREVIOUS/list" || printf 'binary %s\n' "$1" >>"$PREVIOUS/list"
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
  if [ "$2" = binary ]; then
    [ -e "$STATE/binary" ] || return 0
    : >"$STATE/pending/$1"
    cp -p "$STATE/binary" "$draft"; sync "$draft" 2>/dev/null || :
    mv -f "$draft" "$3"
    rm -f "$STATE/binary"
    say did "restored:$3" changed
    return 0
  fi
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
  case $3 in /etc/systemd/system/*.service) # of another's K3s, which this one is again
    rm -f "$STATE/installed"
    systemctl daemon-reload ;;
  esac
  say did "restored:$3" changed
}
restore() { # unit always; what was restarted is not done until it was seen ready: the next run would do it again
  [ -e "$PREVIOUS/list" ] || { echo 'no previous files are kept on this host' >&2; return 1; }
  while read -r was path; do put_back "$1" "$was" "$path"; done <"$PREVIOUS/list"
  if [ "$2" = no ] && [ ! -e "$STATE/pending/$1" ] && systemctl is-active -q "$1"; then cancel_undo; return 0; fi
  act "$1" restart no '' ''
  : >"$STATE/pending/$1"
  cancel_undo
}
