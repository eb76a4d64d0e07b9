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

# K3s' installer names a unit after INSTALL_K3S_NAME, too; other distributions of Kubernetes use the same ports and files.
fact_foreign_units() { # state-folder folder-of-units...
  state=$1
  shift
  for folder in "$@"; do
    for path in "$folder"/k3s.service "$folder"/k3s-*.service "$folder"/rke2-*.service "$folder"/k0s*.service \
      "$folder"/kubelet.service "$folder"/snap.microk8s.daemon-k*.service; do
      [ -e "$path" ] || continue
      case $path in
        */k3s.service | */k3s-agent.service) [ ! -e "$state/installed" ] || continue ;;
        */k3s-*) grep -qE "^ExecStart=.*[/ '\"]k3s( *\\\\?$| +(server|agent))" "$path" || continue ;;
      esac
      say foreign_units "${path##*/}"
    done
  done
}
