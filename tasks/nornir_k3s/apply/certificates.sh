# K3s deletes its certificates and their keys, and goes on until it is restarted; the CAs stay (k3s: pkg/cli/cert). The
# folder that it keeps them in is removed when it is ready again (rollback.sh).
# shellcheck disable=SC2153  # STATE is set by the script around this
drop_certificates() { # k3s unit data-folder
  : >"$STATE/pending/$2"
  [ -s "$STATE/certificates" ] || date +%s >"$STATE/certificates"
  "$1" certificate rotate --data-dir "$3" >"$STATE/certificates.log" 2>&1 || {
    tail -n 12 "$STATE/certificates.log" >&2
    return 1
  }
  rm -f "$STATE/certificates.log"
  say did "$STEP" changed
}
