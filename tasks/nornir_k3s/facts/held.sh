# What a host holds of its cluster's secrets, for a controller that does not have them. SSH encrypts it, nothing logs it.
fact_held() { # unit, empty for none; path...
  if [ -n "$1" ] && systemctl is-active -q "$1" 2>/dev/null; then say held "$1" "$(echo active | base64 -w0)"; fi
  shift
  for path in "$@"; do
    if [ -f "$path" ]; then say held "$path" "$(base64 -w0 <"$path")"; fi
  done
}
