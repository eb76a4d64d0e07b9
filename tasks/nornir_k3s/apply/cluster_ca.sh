# The CAs of K3s on a server, and those that replace them (docs.k3s.io `cli/certificate.md`). Keys come and go on stdin and
# stdout: never in argv.
read_ca() { # folder name...
  folder=$1
  shift
  for name in "$@"; do say ca "$name" "$(base64 -w0 <"$folder/$name")"; done
}
new_ca_file() { # folder name content-base64
  mkdir -p "$1/tls/etcd"
  printf '%s' "$3" | base64 -d >"$1/tls/$2"
}
# Files that are missing are only a warning, and K3s says that all is well: each is looked for. The answer of a server that
# refuses them is in its journal.
store_ca() { # k3s unit folder name...
  k3s=$1 unit=$2 folder=$3 begin=$(date +%s)
  shift 3
  for name in "$@"; do [ -s "$folder/tls/$name" ] || { echo "$folder/tls/$name is missing" >&2; return 1; }; done
  "$k3s" certificate rotate-ca --path "$folder" >"$STATE/rotate-ca.log" 2>&1 || {
    tail -n 3 "$STATE/rotate-ca.log" >&2
    journalctl -u "$unit" --since "@$begin" -o cat --no-pager 2>/dev/null | grep -i certificate | tail -n 5 >&2
    rm -rf "$folder"
    return 1
  }
  rm -rf "$folder" "$STATE/rotate-ca.log"
  say did "$STEP" changed
}
