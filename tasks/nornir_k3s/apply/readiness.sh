# Wait until a unit of K3s is ready. The controller drives the whole wait, chunk by chunk.
# Without a node the active unit is enough. `own` is an agent's node, whose reason not to be Ready may be accepted.
# The patterns say which lines of the journal name a reason, which reasons waiting cannot cure, and which may pass.
wait_until_ready() { # unit seconds seconds-waited-before verdicts hopeless patient k3s node accepted [own url]
  unit=$1 limit=$2 verdicts=$4 hopeless=$5 patient=$6 k3s=$7 node=$8 accepted=$9 missing='' died=0 judged=0
  chunk=$(date +%s)
  begin=$((chunk - $3))
  shift 9
  own=${1:-} url=${2:-}
  while :; do
    if is_ready; then state=yes; elif is_hopeless; then state=never
    elif [ $(($(date +%s) - chunk)) -ge "$limit" ]; then state=no
    else
      sleep 0.3
      continue
    fi
    say waited "$state" "$missing" "$died"
    break
  done
  [ -z "$missing" ] || say journal "$({ named | tail -n 12; since "$begin" -n 15; } | distinct | base64 -w0)"
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
  [ "$(date -d "${said%% *}" +%s)" -ge "$(started)" ]
}
property() { systemctl show -p "$1" --value "$unit"; }
started() { date -d "$(property ExecMainStartTimestamp)" +%s; }
since() { # second option-of-journalctl...
  from=$1
  shift
  journalctl -u "$unit" -o cat --no-pager --since "@$from" "$@" 2>/dev/null
}
named() { since "$begin" | grep -E "$verdicts"; }
distinct() { awk '{ text = $0; sub(/^time="[^"]*" /, "", text) } !seen[text]++'; }
# Pointless to wait on: the unit has ended again and again since the wait began, and not for a reason that may pass; or
# its process names a cause again and again without ending. What was written before does not count.
is_hopeless() {
  now=$(date +%s)
  [ $((now - begin)) -ge 12 ] && [ $((now - judged)) -ge 2 ] || return 1
  judged=$now
  repeats || ends
}
repeats() {
  # A server tries a PostgreSQL 300 times, a second apart, within one start; an agent tries to join every five seconds.
  case $unit in k3s-agent.service) repeated='' often=3 ;; *) repeated='Failed to ping database' often=8 ;; esac
  recent=$now
  [ "$begin" -gt $((now - 30)) ] && recent=$begin || recent=$((now - 30))
  [ "$(since "$recent" "_SYSTEMD_INVOCATION_ID=$(property InvocationID)" | grep -E "$verdicts" | grep -E "$hopeless" |
    grep -c "$repeated")" -ge "$often" ]
}
# A process that lives for longer than a minute has come further than those before.
ends() {
  [ "$(property NRestarts)" -ge 2 ] || return 1
  died=$(since "$begin" | grep -c 'Scheduled restart job')
  [ "$died" -ge 2 ] || return 1
  [ "$(property SubState)" = auto-restart ] || [ $((now - $(started))) -lt 60 ] || return 1
  last=$(named | tail -n 1)
  if printf '%s\n' "$last" | grep -qE "$hopeless"; then return 0; fi
  [ "$died" -ge 3 ] && ! printf '%s\n' "$last" | grep -qE "$patient"
}
