# What a server knows of its cluster. kubectl is used with --raw: anything else keeps a cache on the host.

fact_server() { # data-folder
  prefix='' token='' certificate=''
  if [ -s "$1/server/token" ]; then
    prefix=$(cut -c1-67 "$1/server/token")
    token=$(sed 's/^K10[0-9a-f]*::[^:]*://' "$1/server/token" | tr -d '\n' | sha256sum | cut -c1-12)
  fi
  if [ -s "$1/server/tls/server-ca.crt" ]; then certificate=$(base64 -w0 <"$1/server/tls/server-ca.crt"); fi
  say server "$prefix" "$token" "$certificate"
}

fact_api() { # k3s registration-url, empty for none; with a third word it says why that one does not answer
  systemctl is-active -q k3s.service 2>/dev/null || return 0
  say api ready "$(timeout 10 "$1" kubectl get --raw /readyz 2>/dev/null | tr -d '\n')"
  if [ -n "$2" ] && nodes=$(timeout 10 "$1" kubectl --server="$2" get --raw /api/v1/nodes 2>/dev/null); then
    say api through-address "$(printf '%s' "$nodes" | base64 -w0)"
  elif nodes=$(timeout 10 "$1" kubectl get --raw /api/v1/nodes 2>/dev/null); then
    say api directly "$(printf '%s' "$nodes" | base64 -w0)"
    [ -z "${3:-}" ] || say api error "$(timeout 10 "$1" kubectl --server="$2" get --raw /readyz 2>&1 | tail -n 1)"
  fi
}

fact_lease() { # k3s path
  systemctl is-active -q k3s.service 2>/dev/null || return 0
  found=$(timeout 10 "$1" kubectl get --raw "$2" 2>/dev/null) || return 0
  say lease "$(printf '%s' "$found" | base64 -w0)" "$(date +%s)"
}

fact_kubeconfig() { # path
  if systemctl is-active -q k3s.service 2>/dev/null && [ -s "$1" ]; then say kubeconfig "$(base64 -w0 <"$1")"; fi
}

# The credential comes on this script's stdin and goes on by a pipe: never in argv, never in a file.
fact_effective_config() { # k3s CA head tail: both base64-encoded, the CA's certificate belongs between them
  if systemctl is-active -q k3s.service 2>/dev/null && [ -s "$2" ]; then
    say effective_config "$({
      printf '%s' "$3" | base64 -d
      base64 -w0 <"$2"
      printf '%s' "$4" | base64 -d
    } | timeout 10 "$1" kubectl --kubeconfig /dev/stdin get --raw /v1-k3s/config 2>/dev/null | base64 -w0)"
  fi
}

fact_password_refused() { # k3s node
  systemctl is-active -q k3s.service 2>/dev/null || return 0
  where="reason%3DNodePasswordValidationFailed%2CinvolvedObject.name%3D$2"
  events=$(timeout 10 "$1" kubectl get --raw "/api/v1/events?fieldSelector=$where" 2>/dev/null) || return 0
  say password_refused "$(printf '%s' "$events" | base64 -w0)"
}

# Wait until every node is Ready; then a little for the registration address, which may not lead a server to itself.
wait_for_nodes() { # k3s registration-url seconds node...
  k3s=$1 url=$2 limit=$3 begin=$(date +%s)
  shift 3
  until nodes_ready "$@" || [ $(($(date +%s) - begin)) -ge "$limit" ]; do sleep 0.3; done
  begin=$(date +%s)
  until address_answers || [ $(($(date +%s) - begin)) -ge 5 ]; do sleep 0.3; done
}
address_answers() { timeout 5 "$k3s" kubectl --server="$url" get --raw /version >/dev/null 2>&1; }
nodes_ready() {
  list=$(timeout 15 "$k3s" kubectl get nodes --no-headers 2>/dev/null) || return 1
  for name in "$@"; do printf '%s\n' "$list" | grep -qE "^$name +Ready" || return 1; done
}
