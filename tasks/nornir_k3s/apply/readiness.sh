# Wait until a unit of K3s is ready. The controller drives the whole wait, chunk by chunk.
# A server is asked itself for its node; `url` is where an agent's kubelet asks for it.
ENDED='containerd exited: '
# The patterns say which lines of the journal name a reason, which reasons waiting cannot cure, and which may pass.
wait_until_ready() { # unit seconds seconds-waited-before verdicts hopeless patient k3s node accepted [url was-ready version]
  unit=$1 limit=$2 verdicts=$4 hopeless=$5 patient=$6 k3s=$7 node=$8 accepted=$9 missing='' died=0 judged=0
  almost=0 asked=0
  chunk=$(date +%s)
  begin=$((chunk - $3))
  shift 9
  url=${1:-} was_ready=${2:-} version=${3:-}
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
  [ -z "$missing" ] ||
    say journal "$({ named | tail -n 12; since "$begin" -n 15; containerd_said; } | distinct | base64 -w0)"
}
is_ready() {
  missing="service $unit is $(systemctl is-active "$unit")"
  if [ "$unit" = k3s-agent.service ]; then
    if ! systemctl is-active -q "$unit"; then is_almost
    elif [ -z "$was_ready" ] || posts; then missing=''
    else return 1; fi
    return
  fi
  systemctl is-active -q "$unit" || return 1
  missing='/readyz is not ok'
  [ "$(timeout 10 "$k3s" kubectl get --raw /readyz 2>/dev/null)" = ok ] || return 1
  node_is_ready || return 1
  missing=''
}
# An agent's node, as a server lists it.
posts() { node_is_ready --kubeconfig=/var/lib/rancher/k3s/agent/kubelet.kubeconfig --server="$url"; }
# What the node says, if its kubelet has posted it since the unit was started: what it said before is no answer. Not
# Ready for a reason that begins as `accepted` is enough.
node_is_ready() { # option-of-kubectl...
  ready='.status.conditions[?(@.type=="Ready")]'
  said=$(timeout 10 "$k3s" kubectl "$@" get node "$node" -o \
    "jsonpath={$ready.lastHeartbeatTime} {.status.nodeInfo.kubeletVersion} {$ready.status} {$ready.message}" 2>/dev/null)
  posted=${said%% *} said=${said#* }
  runs=${said%% *} said=${said#* }
  missing="node $node is not listed"
  [ -n "$posted" ] || return 1
  missing="node $node has not been reported since $unit was started"
  [ "$(date -d "$posted" +%s)" -ge "$(started)" ] || return 1
  missing="node $node runs $runs, expected $version"
  [ -z "$version" ] || [ "$runs" = "$version" ] || return 1
  missing="node $node is NotReady"
  case $said in 'True '*) return 0 ;; esac
  [ -n "$accepted" ] && case $said in "False $accepted"*) ;; *) return 1 ;; esac
}
# An agent tells systemd when its network policies are enforced. They wait for a report of the Ready node that is newer
# than themselves, and the kubelet may have sent its last one just before: the next comes after five minutes.
is_almost() {
  now=$(date +%s)
  [ -n "$url" ] && { [ -n "$accepted" ] || [ $((now - begin)) -ge 8 ]; } && [ $((now - asked)) -ge 3 ] || return 1
  [ "$(property SubState)" = start ] || return 1
  asked=$now activating=$missing
  if ! posts; then
    missing=$activating almost=0
    return 1
  fi
  missing=''
  case $said in True*) ;; *) return 0 ;; esac
  missing="$activating until its network policies are enforced: when the kubelet next reports, in at most 5 minutes"
  [ "$almost" != 0 ] || almost=$now
  [ $((now - almost)) -ge 10 ]
}
property() { systemctl show -p "$1" --value "$unit"; }
started() { date -d "$(property ExecMainStartTimestamp)" +%s; }
since() { # second option-of-journalctl...
  from=$1
  shift
  # K3s logs the keys of secrets that it adds and removes (k3s: pkg/server/handlers/secrets-encrypt.go).
  journalctl -u "$unit" -o cat --no-pager --since "@$from" "$@" 2>/dev/null |
    sed 's/\(secrets-encryption key: \|Removing [a-z]* key: \).*/\1(not shown)/'
}
# K3s itself says no more than that containerd has ended, and ends too.
containerd_said() {
  if named | grep -q "$ENDED"; then
    tail -n 5 /var/lib/rancher/k3s/agent/containerd/containerd.log 2>/dev/null | cut -c -400 | sed 's/^/containerd.log: /'
  fi
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
  # A server tries a PostgreSQL 300 times, a second apart, within one start. An agent, and that of a server, tries to join
  # every five seconds.
  case $unit in k3s-agent.service) said_by='' ;; *) said_by='Node password rejected' ;; esac
  recent=$now
  [ "$begin" -gt $((now - 30)) ] && recent=$begin || recent=$((now - 30))
  again=$(since "$recent" "_SYSTEMD_INVOCATION_ID=$(property InvocationID)" | grep -E "$verdicts" | grep -E "$hopeless")
  [ "$(printf '%s\n' "$again" | grep -c "$said_by")" -ge 3 ] && [ -n "$again" ] ||
    [ "$(printf '%s\n' "$again" | grep -c 'Failed to ping database')" -ge 8 ]
}
# A process that lives for longer than a minute has come further than those before.
ends() {
  [ "$(property ActiveState)" != failed ] || return 0 # systemd does not start it again
  [ "$(property NRestarts)" -ge 2 ] || return 1
  died=$(since "$begin" | grep -c 'Scheduled restart job')
  [ "$died" -ge 2 ] || return 1
  [ "$(property SubState)" = auto-restart ] || [ $((now - $(started))) -lt 60 ] || return 1
  last=$(named | tail -n 1)
  if printf '%s\n' "$last" | grep -qE "$hopeless"; then return 0; fi
  [ "$died" -ge 3 ] || return 1
  [ "$(named | grep -c "$ENDED")" -ge 3 ] || ! printf '%s\n' "$last" | grep -qE "$patient"
}
