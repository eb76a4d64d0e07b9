# Have the cluster sign a certificate request. The request object is removed afterwards; nothing on disk changes.
sign_request() { # k3s name manifest
  set -eu
  k3s=$1 manifest=$3
  # A request that a killed run has left holds another key.
  request 2>/dev/null || {
    "$k3s" kubectl delete csr "$2" --ignore-not-found >/dev/null
    request
  }
  "$k3s" kubectl certificate approve "$2" >/dev/null
  n=0
  until pem=$("$k3s" kubectl get csr "$2" -o 'jsonpath={.status.certificate}') && [ -n "$pem" ]; do
    n=$((n + 1))
    [ "$n" -lt 150 ]
    sleep 0.2
  done
  "$k3s" kubectl delete csr "$2" >/dev/null
  say certificate "$pem"
}
request() { printf '%s\n' "$manifest" | "$k3s" kubectl create -f - >/dev/null; }
