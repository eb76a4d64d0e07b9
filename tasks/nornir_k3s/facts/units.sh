# systemd units, and what K3s' installer has made.

fact_units() { # name...
  { units --timestamp=unix "$@" 2>/dev/null || units "$@" | in_seconds; } |
    while IFS= read -r line; do say units "$line"; done
}
units() {
  properties=Id,LoadState,ActiveState,SubState,UnitFileState,NRestarts,ExecMainStartTimestamp,StateChangeTimestamp
  systemctl show -p "$properties,ExecStart,DropInPaths" "$@"
}
# systemd before 247 cannot print seconds.
in_seconds() {
  while IFS= read -r line; do
    case $line in *Timestamp=?*) line="${line%%=*}=@$(date -d "${line#*=}" +%s)" ;; esac
    printf '%s\n' "$line"
  done
}

fact_missing_links() { # folder
  for name in kubectl crictl ctr; do
    [ -e "$1/$name" ] || command -v "$name" >/dev/null 2>&1 || say missing_links "$1/$name"
  done
}

fact_foreign_units() { # state-folder
  [ ! -e "$1/installed" ] || return 0
  for unit in k3s.service k3s-agent.service; do
    [ ! -e "/etc/systemd/system/$unit" ] || say foreign_units "$unit"
  done
}
