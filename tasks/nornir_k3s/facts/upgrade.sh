# What matters only before an upgrade.

# Each server counts the requests that it has served itself, since it started.
fact_requested_apis() { # k3s
  systemctl is-active -q k3s.service 2>/dev/null || return 0
  timeout 20 "$1" kubectl get --raw /metrics 2>/dev/null | grep '^apiserver_requested_deprecated_apis{' \
    | while IFS= read -r line; do say requested_apis "$line"; done
}

fact_containerd_templates() { # folder
  for path in "$1"/*.tmpl; do
    if [ -f "$path" ]; then say containerd_templates "$path" "$(base64 -w0 <"$path")"; fi
  done
}
