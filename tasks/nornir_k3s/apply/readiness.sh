# Wait until a unit of K3s is ready. The controller drives the whole wait, chunk by chunk.
wait_until_ready() { # unit seconds pattern-of-hopeless-causes k3s node; without a node the active unit is enough
  unit=$1 limit=$2 pattern=$3 k3s=$4 node=$5 begin=$(date +%s) missing=''
  while :; do
    if is_ready; then state=yes; elif is_hopeless; then state=never
    elif [ $(($(date +%s) - begin)) -ge "$limit" ]; then state=no
    else
      sleep 0.3
      continue
    fi
    say waited "$state" "$missing"
    break
  done
  [ -z "$missing" ] || say journal "$(journalctl -u "$unit" -n 15 -o cat --no-pager 2>/dev/null | base64 -w0)"
}
is_ready() {
  missing="service $unit is $(systemctl is-active "$unit")"
  systemctl is-active -q "$unit" || return 1
  if [ -n "$node" ]; then
    missing='/readyz is not ok'
    [ "$(timeout 10 "$k3s" kubectl get --raw /readyz 2>/dev/null)" = ok ] || return 1
    missing="node $node is not listed"
    # shellcheck disable=SC2046  # a row of a table
    set -- $(timeout 10 "$k3s" kubectl get node "$node" --no-headers 2>/dev/null)
    [ "${1:-}" = "$node" ] || return 1
    missing="node $node is $2"
    case $2 in Ready*) ;; *) return 1 ;; esac
  fi
  missing=''
}
# Pointless to wait on: the unit has died of a named cause more than once, or names it again and again without dying.
is_hopeless() {
  now=$(date +%s) since=$((begin - 5))
  [ $((now - begin)) -ge 12 ] || return 1
  [ $((now - 30)) -le "$since" ] || since=$((now - 30))
  causes=$(journalctl -u "$unit" -o cat --no-pager --since "@$since" 2>/dev/null | grep -E "$pattern") || return 1
  if [ "$unit" = k3s-agent.service ]; then return 0; fi
  died=$(systemctl show -p NRestarts --value "$unit")
  # K3s tries a PostgreSQL 300 times, a second apart, within one start.
  [ "${died:-0}" -ge 2 ] || [ "$(printf '%s\n' "$causes" | grep -c 'Failed to ping database')" -ge 8 ]
}
