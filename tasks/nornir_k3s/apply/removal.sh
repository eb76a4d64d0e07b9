# A host leaves the cluster: K3s goes with its own script, then what this tool has put there, its folder last.
# K3s' script removes itself at its end (k3s: install.sh, create_uninstall).
uninstall_k3s() { # unit-without-suffix
  uninstall_unit "$1"
  say did "$STEP" changed
}
uninstall_unit() { # unit-without-suffix
  script=/usr/local/bin/$1-uninstall.sh unit=/etc/systemd/system/$1.service
  if [ -x "$script" ]; then
    usual_modes env -i PATH="$PATH" HOME=/root "$script" >"$STATE/uninstall.log" 2>&1 || {
      tail -n 12 "$STATE/uninstall.log" >&2
      return 1
    }
  fi
  if [ -e "$unit" ]; then # an earlier run was killed in the middle of that script
    systemctl disable -q --now "$1.service"
    rm -f "$unit" "$unit.env"
  fi
}
give_back() { # path: as it was before
  if [ -e "$1.before-nornir-k3s" ] || [ -L "$1.before-nornir-k3s" ]; then
    mode=$(grep -F "$1$(printf '\t')" "$STATE/modes" 2>/dev/null | head -n 1)
    if [ -n "$mode" ] && [ ! -L "$1.before-nornir-k3s" ]; then chmod "${mode##*[!0-7]}" "$1.before-nornir-k3s"; fi
    mv -fT "$1.before-nornir-k3s" "$1"
  else rm -f "$1"; fi
  case $1 in /etc/systemd/system/*.d/*) rmdir "$(dirname "$1")" 2>/dev/null || : ;; esac
}
forget_host() {
  if [ -f "$STATE/files" ]; then
    while read -r path; do give_back "$path"; done <"$STATE/files"
  fi
  forget_trial
  forget_folders
  systemctl daemon-reload
  rm -rf "$STATE"
  say did "$STEP" changed
}
forget_trial() { # a change that its timer would take back
  [ ! -e "$UNDO.timer" ] || systemctl disable -q --now "${UNDO##*/}.timer" || :
  rm -f "$UNDO.timer" "$UNDO.service"
}
forget_folders() { # those that it made, unless something is in them
  [ -f "$STATE/folders" ] || return 0
  sort -r "$STATE/folders" | while IFS= read -r path; do rmdir "$path" 2>/dev/null || :; done
}
# Since 1.34.2 the secret goes with the node, some seconds later; in earlier ones it stays (k3s: pkg/nodepassword). A host
# that waits with another password registers its node again at once.
forget_node() { # k3s node anew: yes if its host may do that
  secret=$(uid_of "$1" -n kube-system get secret "$2.node-password.k3s")
  timeout 60 "$1" kubectl delete node "$2" --ignore-not-found >&2
  n=0
  while [ -n "$secret" ] && [ "$(uid_of "$1" -n kube-system get secret "$2.node-password.k3s")" = "$secret" ]; do
    n=$((n + 1))
    [ "$n" -ne 12 ] ||
      timeout 30 "$1" kubectl -n kube-system delete secret "$2.node-password.k3s" --ignore-not-found >&2
    [ "$n" -lt 20 ] || { echo "secret kube-system/$2.node-password.k3s is still there" >&2; return 1; }
    sleep 0.5
  done
  [ "$3" = yes ] || [ -z "$(uid_of "$1" get node "$2")" ] ||
    { echo "node $2 is still there: its K3s has registered it again" >&2; return 1; }
  say did "$STEP" changed
}
uid_of() { # k3s argument-of-kubectl...
  program=$1
  shift
  timeout 30 "$program" kubectl "$@" --ignore-not-found -o 'jsonpath={.metadata.uid}'
}
