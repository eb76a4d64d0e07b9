# The Lease of the cluster, by K3s' own kubectl. It is used with --raw: anything else keeps a cache on the host, and a raw
# `replace` is one PUT, which the API refuses when the resourceVersion is not the newest.
# The time of a Lease is this server's: controllers' clocks do not count.
lease_said() { # status text
  if [ "$1" = 0 ]; then say lease ok "$(printf '%s' "$2" | base64 -w0)" "$(date +%s.%N)"
  else say lease failed "$(printf '%s' "$2" | base64 -w0)" "$(date +%s.%N)"; fi
}
lease_read() { # k3s path
  status=0
  said=$(timeout 5 "$1" kubectl get --raw "$2" 2>&1) || status=$?
  lease_said "$status" "$said"
}
lease_write() { # k3s create-or-replace path object-in-base64; @NOW@ in it becomes the time
  status=0
  said=$(printf '%s' "$4" | base64 -d | sed "s/@NOW@/$(date -u +%Y-%m-%dT%H:%M:%S.%6NZ)/g" |
    timeout 5 "$1" kubectl "$2" --raw "$3" -f - 2>&1) || status=$?
  lease_said "$status" "$said"
}
