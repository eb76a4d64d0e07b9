#!/bin/sh
# A stand-in for K3s that the tests bring. It unpacks itself once and runs what it unpacked.
version=@VERSION@ sum=@SUM@ lines=@LINES@
case ${0##*/}:$1 in
  k3s:--version|k3s:-v) printf 'k3s version %s (ae112bdf)\ngo version go1.26.8\n' "$version"; exit 0 ;;
esac

# @DELAYS@

# What `kubectl get --raw` gets without trouble is fetched by curl: Python takes a tenth of a second to start, hundreds of
# times in a run of the tests. In any other case the client itself asks, in kubectl's words.
ask() {
  config=${K3S_STANDIN_ETC:-/etc/rancher}/k3s/k3s.yaml url='' key=''
  while :; do
    case $1 in
      --server=*) url=${1#*=} ;;
      --kubeconfig=*) config=${1#*=} ;;
      *) break ;;
    esac
    shift
  done
  method=GET
  case "$# $1 $2 $4 $5" in
    "3 get --raw  ") ;;
    "5 create --raw -f -") method=POST ;;
    "5 replace --raw -f -") method=PUT ;;
    *) return 1 ;;
  esac
  [ -z "$KUBECONFIG" ] && [ -f "$config" ] && command -v curl >/dev/null || return 1
  umask 077
  set -f
  files=$(mktemp -d) || return 1
  trap 'rm -rf "$files"' EXIT
  trap 'exit 143' TERM
  # shellcheck disable=SC2013  # words are wanted
  for word in $(cat "$config"); do
    case $key in
      server:) url=${url:-$word} ;;
      certificate-authority-data: | client-certificate-data: | client-key-data:)
        printf %s "$word" | base64 -d >"$files/${key%-data:}" ;;
      certificate-authority: | client-certificate: | client-key:) ln -s "$word" "$files/${key%:}" ;;
    esac
    key=$word
  done
  url=$url$3
  set --
  [ "$method" = GET ] || set -- -X "$method" -H 'Content-Type: application/json' --data-binary "@$body"
  curl -sf "$@" --http1.1 --noproxy '*' --connect-timeout 3 -o "$files/answer" --cacert "$files/certificate-authority" \
    --cert "$files/client-certificate" --key "$files/client-key" "$url" && cat "$files/answer"
}
# What a request sends is read here, once, for both.
body='' answered=''
case "$* " in *" --raw "*" -f - ")
  body=$(umask 077; mktemp) && cat >"$body" && exec <"$body" || exit 1 ;;
esac
case ${0##*/}:$1 in
  kubectl:*) (ask "$@") && answered=yes ;;
  k3s:kubectl) (shift; ask "$@") && answered=yes ;;
esac
[ -z "$body" ] || rm -f "$body"
[ -z "$answered" ] || exit 0

# Below the data directory where K3s is installed; elsewhere, as for a person who is not root, at home.
data=$K3S_DATA_DIR previous=
for word in "$@"; do
  case $previous in --data-dir|-d) data=$word ;; esac
  case $word in --data-dir=*|-d=*) data=${word#*=} ;; esac
  previous=$word
done
if [ -z "$data" ] && [ "$(id -u)" = 0 ]; then
  for unit in /etc/systemd/system/k3s*.service; do
    [ -e "$unit" ] || continue
    data=$(sed -n "s/^data-dir: *[\"']\{0,1\}\([^\"' ]*\).*/\1/p" "${K3S_CONFIG_FILE:-/etc/rancher/k3s/config.yaml}" 2>/dev/null)
    data=${data:-/var/lib/rancher/k3s}
    break
  done
fi
[ -n "$data" ] || data=${HOME:-/tmp}/.rancher/k3s
base=$data/data home=$data/data/$sum

if [ ! -x "$home/bin/k3s" ]; then
  say() { printf 'time="%s" level=info msg="%s"\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$1" >&2; }
  say "Acquiring lock file $base/.lock"
  say "Preparing data dir $home"
  mkdir -p "$base" && : >>"$base/.lock" || exit 1
  draft=$(mktemp -d "$base/.$sum-XXXXXX") || exit 1
  tail -n "+$lines" "$0" | tar -xzf - -C "$draft" || { rm -rf "$draft"; exit 1; }
  chmod 755 "$draft"
  mv -T "$draft" "$home" 2>/dev/null || rm -rf "$draft"
  [ ! -e "$base/current" ] || mv -fT "$base/current" "$base/previous" 2>/dev/null
  ln -sfn "$home" "$base/current"
fi
export K3S_STANDIN_VERSION="$version" K3S_STANDIN_CALLED="$0" K3S_STANDIN_HOME="$home"
exec "$home/bin/k3s" "$@"
exit 1
