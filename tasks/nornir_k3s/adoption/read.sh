# What is on a host that an inventory is written for: it is only read. Tokens, endpoints and passwords are among it.

adoption_host() { # data-folder
  for unit in haproxy keepalived mariadb mysql mysqld postgresql etcd; do
    ! systemctl is-active -q "$unit.service" 2>/dev/null || say adoption active "$unit"
  done
  for path in /etc/haproxy/haproxy.cfg /etc/haproxy/conf.d/*.cfg /etc/keepalived/keepalived.conf \
    /etc/keepalived/conf.d/*.conf /etc/keepalived/keepalived.conf.d/*.conf; do
    [ ! -f "$path" ] || adoption_text text "$path"
  done
  [ ! -e /var/lib/nornir-k3s/files ] || say adoption ours ''
  for name in token agent-token; do
    [ ! -s "$1/server/$name" ] || say adoption "$name" "$(base64 -w0 <"$1/server/$name")"
  done
  [ ! -d "$1/server/db/etcd/member" ] || say adoption etcd ''
  [ ! -s "$1/server/db/state.db" ] || say adoption sqlite ''
  adoption_k3s "$1"
}
adoption_k3s() { # data-folder
  k3s=''
  for path in "$(command -v k3s)" /usr/local/bin/k3s /opt/bin/k3s; do
    if [ -z "$k3s" ] && [ -x "$path" ]; then k3s=$path; fi
  done
  [ -n "$k3s" ] || return 0
  say adoption version "$("$k3s" --version 2>/dev/null | sed -n '1s/^k3s version \([^ ]*\).*/\1/p')"
  [ -s /etc/rancher/k3s/k3s.yaml ] || return 0
  if nodes=$(timeout 20 "$k3s" kubectl get --raw /api/v1/nodes 2>/dev/null); then
    say adoption nodes "$(printf '%s' "$nodes" | base64 -w0)"
  fi
  [ ! -s "$1/server/cred/passwd" ] || say adoption config "$(adoption_config "$1" | base64 -w0)"
}
# K3s gives its settings to the user `node`; its password goes on by a pipe: never in argv, never in a file.
adoption_config() { # data-folder
  password=$(sed -n 's/,node,node,.*//p' "$1/server/cred/passwd" | head -n 1 | sed 's/[\\"]/\\&/g')
  server=$(sed -n 's/^ *server: *//p' /etc/rancher/k3s/k3s.yaml 2>/dev/null | head -n 1)
  {
    printf '{"apiVersion":"v1","kind":"Config","current-context":"k","contexts":[{"name":"k","context":'
    printf '{"cluster":"k","user":"k"}}],"users":[{"name":"k","user":{"username":"node","password":"%s"}}],' "$password"
    printf '"clusters":[{"name":"k","cluster":{"server":"%s","certificate-authority-data":"' \
      "${server:-https://127.0.0.1:6443}"
    base64 -w0 <"$1/server/tls/server-ca.crt"
    printf '"}}]}'
  } | timeout 20 "$k3s" kubectl --kubeconfig /dev/stdin get --raw /v1-k3s/config 2>/dev/null || true
}
adoption_text() { # kind path
  [ "$(stat -Lc %s "$2")" -gt 262144 ] || say adoption "$1" "$2" "$(base64 -w0 <"$2")"
}

# Files that settings name, and addresses of names.
adoption_files() { # path...
  for path in "$@"; do
    [ -f "$path" ] && [ "$(stat -Lc %s "$path")" -le 262144 ] || continue
    # shellcheck disable=SC2046  # three words
    say adoption file "$path" $(stat -Lc '%a %U %G' "$path") "$(base64 -w0 <"$path")"
  done
}
