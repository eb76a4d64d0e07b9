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

fact_system_pods() { # k3s
  pods=$(timeout 20 "$1" kubectl get --raw /api/v1/namespaces/kube-system/pods 2>/dev/null) || return 0
  say system_pods "$(printf '%s' "$pods" | base64 -w0)"
}

# Values may be secrets: only what matters of them leaves the host.
fact_traefik_values() { # k3s
  path=/apis/helm.cattle.io/v1/namespaces/kube-system/helmchartconfigs/traefik
  values=$(timeout 20 "$1" kubectl get --raw "$path" 2>/dev/null) || return 0
  case $values in
    *kubernetesIngressNginx*) say traefik_values kubernetesIngressNginx ;;
    *) say traefik_values others ;;
  esac
}

# Where K3s does not run, no node tells its version.
fact_installed_version() { # k3s
  [ -x "$1" ] || return 0
  say installed_version "$(timeout 10 "$1" --version 2>/dev/null | sed -n 's/^k3s version \(v[^ ]*\).*/\1/p')"
}
