# Wait until a unit of K3s is ready. The controller drives the whole wait, chunk by chunk.
# Without a node the active unit is enough. `own` is an agent's node, whose reason not to be Ready may be accepted.
wait_until_ready() { # unit seconds pattern-of-hopeless-causes k3s node accepted [own url]
  unit=$1 limit=$2 pattern=$3 k3s=$4 node=$5 accepted=$6 own=${7:-} url=${8:-} begin=$(date +%s) missing=''
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
  systemctl is-active -q "$unit" || lacks_its_cni || return 1
  if [ -n "$node" ]; then
    missing='/readyz is not ok'
    [ "$(timeout 10 "$k3s" kubectl get --raw /readyz 2>/dev/null)" = ok ] || return 1
    missing="node $node is not listed"
    # shellcheck disable=SC2046  # a row of a table
    set -- $(timeout 10 "$k3s" kubectl get node "$node" --no-headers 2>/dev/null)
    [ "${1:-}" = "$node" ] || return 1
    missing="node $node is $2"
    case $2 in Ready*) ;; *) is_accepted "$node" || return 1 ;; esac
  fi
  missing=''
}
# Not Ready, and the kubelet posts why: a reason that begins so is accepted.
is_accepted() { # node option-of-kubectl...
  [ -n "$accepted" ] || return 1
  name=$1 ready='.status.conditions[?(@.type=="Ready")]'
  shift
  said=$(timeout 10 "$k3s" kubectl "$@" get node "$name" -o \
    "jsonpath={$ready.lastHeartbeatTime} {$ready.status} {$ready.message}" 2>/dev/null)
  case $said in *" False $accepted"*) ;; *) return 1 ;; esac
}
# An agent that is starting, whose kubelet has posted since this start: it asks with the kubelet's own certificate.
lacks_its_cni() {
  [ -n "$own" ] && [ "$(systemctl is-active "$unit")" = activating ] || return 1
  is_accepted "$own" --kubeconfig=/var/lib/rancher/k3s/agent/kubelet.kubeconfig --server="$url" || return 1
  started=$(date -d "$(systemctl show -p ExecMainStartTimestamp --value "$unit")" +%s)
  [ "$(date -d "${said%% *}" +%s)" -ge "$started" ]
}
# Pointless to wait on: the unit has died more than once and its process named a cause, or it names one again and again
# without dying. What an earlier process wrote does not count.
is_hopeless() {
  now=$(date +%s)
  [ $((now - begin)) -ge 12 ] || return 1
  process=$(systemctl show -p InvocationID --value "$unit")
  causes=$(journalctl "_SYSTEMD_INVOCATION_ID=$process" -o cat --no-pager --since "@$((now - 30))" 2>/dev/null |
    grep -E "$pattern") || return 1
  died=$(systemctl show -p NRestarts --value "$unit")
  # A server tries a PostgreSQL 300 times, a second apart, within one start; an agent tries to join every five seconds.
  case $unit in k3s-agent.service) repeated='' often=3 ;; *) repeated='Failed to ping database' often=8 ;; esac
  [ "${died:-0}" -ge 2 ] || [ "$(printf '%s\n' "$causes" | grep -c "$repeated")" -ge "$often" ]
}
