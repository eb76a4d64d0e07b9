# What lies on servers and agents beside what this tool wrote.

fact_agent_ca() { # data-folder
  if [ -s "$1/agent/server-ca.crt" ]; then say agent_ca "$(sha256sum <"$1/agent/server-ca.crt" | cut -c1-64)"; fi
}

# Asked as the kubelet, with the CA that this agent has joined with: what makes it join again, or not.
fact_registration() { # k3s registration-url data-folder
  kubeconfig=$3/agent/kubelet.kubeconfig
  [ -s "$kubeconfig" ] || return 0
  case $(systemctl is-active k3s-agent.service 2>/dev/null) in active | activating | reloading) ;; *) return 0 ;; esac
  if why=$(timeout 10 "$1" kubectl --kubeconfig="$kubeconfig" --server="$2" get --raw /version 2>&1 >/dev/null); then
    say registration ''
  else
    say registration "$(printf '%s\n' "${why:-timeout after 10 s}" | tail -n 1)"
  fi
}

# K3s moves the old file to the new place when it starts.
fact_node_password() { # data-folder
  if [ -s /etc/rancher/node/password ] || [ -s "$1/agent/node-password.txt" ]; then say node_password yes
  else say node_password no; fi
}

# A file may also hold a private key, which stays on the host. K3s keeps that of its port as a Secret, in JSON.
fact_certificates() { # pattern...
  for pattern in "$@"; do
    for path in $pattern; do
      [ -f "$path" ] || continue
      case $path in
        *.json) pem=$(sed -n 's/.*"tls\.crt": *"\([A-Za-z0-9+/=]*\)".*/\1/p' "$path" 2>/dev/null) ;;
        *) pem=$(sed -n '/-----BEGIN CERT/,/-----END CERT/p' "$path" 2>/dev/null | base64 -w0) ;;
      esac
      say certificates "$path" "$pem" "$(stat -c %Y "$path" 2>/dev/null || echo 0)"
    done
  done
}

# Names of settings only: their values may be secrets.
fact_extra_settings() { # k3s or k3s-agent
  for path in /etc/rancher/k3s/config.yaml.d/*.y*ml; do
    settings "$path" "s/^\({ *\)\{0,1\}[\"']\{0,1\}\([A-Za-z0-9-]\{1,\}\)+\{0,1\}[\"']\{0,1\} *:.*/\2/p"
  done
  for path in "/etc/default/$1" "/etc/sysconfig/$1" "/etc/systemd/system/$1.service.env"; do
    settings "$path" 's/^ *\(export  *\)\{0,1\}\([A-Za-z_][A-Za-z0-9_]*\)=.*/\2/p'
  done
}
settings() { # path pattern
  [ -f "$1" ] || return 0
  names=$(sed -n "$2" "$1" | tr '\n' ' ')
  [ -z "$names" ] || say extra_settings "$1" "$names" "$(stat -c %Z "$1")"
}
