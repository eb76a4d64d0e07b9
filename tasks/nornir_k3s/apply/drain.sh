# Nodes are drained before K3s is replaced on them. What is cordoned here has an annotation, by which a later run knows it where
# this one was killed. A node that somebody else has cordoned stays so.
MARK=nornir-k3s/cordoned
answers() { # whether the API is ready: a server that is being restarted is asked again, then another one is
  tries=0
  until [ "$(timeout 10 "$k3s" kubectl get --raw /readyz 2>/dev/null)" = ok ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 5 ] || return 1
    sleep 1
  done
}
patch() { "$k3s" kubectl patch node "$1" --type=merge -p "$2"; } # node patch
says() { printf '%s' "$found" | grep -qE "\"$1\": ?$2"; } # key value
cordon() { # node
  found=$("$k3s" kubectl get --raw "/api/v1/nodes/$1") || return 1
  says unschedulable true || patch "$1" "{\"metadata\":{\"annotations\":{\"$MARK\":\"yes\"}},\"spec\":{\"unschedulable\":true}}"
}
release() { # node
  found=$("$k3s" kubectl get --raw "/api/v1/nodes/$1") || return 1
  says "$MARK" '"yes"' || return 0
  patch "$1" "{\"metadata\":{\"annotations\":{\"$MARK\":null}},\"spec\":{\"unschedulable\":null}}"
}
drain_nodes() { # k3s nodes option-of-kubectl-drain...; all are cordoned before the first is drained
  k3s=$1 nodes=$2
  shift 2
  answers || { say unanswered; return 0; }
  said=$(mktemp -d)
  for node in $nodes; do
    cordon "$node" >"$said/$node" 2>&1 || : >"$said/$node.failed"
  done
  for node in $nodes; do
    [ -e "$said/$node.failed" ] ||
      { "$k3s" kubectl drain "$node" "$@" >"$said/$node" 2>&1 || : >"$said/$node.failed"; } &
  done
  wait
  for node in $nodes; do
    if [ -e "$said/$node.failed" ]; then
      release "$node" >>"$said/$node" 2>&1 || :
      say drained "$node" failed "$(grep -v '^evicting pod ' "$said/$node" | tail -n 12 | base64 -w0)"
    else say drained "$node" ok ''
    fi
  done
  rm -rf "$said"
}
release_nodes() { # k3s nodes
  k3s=$1
  answers || { say unanswered; return 0; }
  for node in $2; do
    if why=$(release "$node" 2>&1); then say drained "$node" ok ''
    else say drained "$node" failed "$(printf '%s\n' "$why" | base64 -w0)"; fi
  done
}
