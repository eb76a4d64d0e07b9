# Dump one database below a folder, 0600; a file of that name is always whole. Then keep the newest few of the cluster.
# $database is read by the recipe's lines, which are functions: dump_size prints KiB, dump_write fills $draft.
dump() { # database folder cluster fingerprint suffix kept
  # shellcheck disable=SC2034  # the recipe uses it
  database=$1 folder=$2 draft=$2/.draft name=$3-$(date -u +%Y%m%dT%H%M%SZ)-$4.$5
  mkdir -p "$folder"
  chmod 700 "$folder"
  rm -f "$folder"/.draft*
  need=$(dump_size)
  need=$((need + need / 10 + 1024))
  free=$(df -Pk "$folder" | sed -n '2s/^[^ ]* *[^ ]* *[^ ]* *\([^ ]*\).*/\1/p')
  if [ "$need" -gt "$free" ]; then
    echo "a dump of the datastore needs up to $need KiB in $folder, there are $free: make room" >&2
    exit 1
  fi
  umask 077
  dump_write
  sync "$draft" 2>/dev/null || :
  mv -fT "$draft" "$folder/$name"
  say dump "$folder/$name" "$(stat -c %s "$folder/$name")"
  moment='[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]T[0-9][0-9][0-9][0-9][0-9][0-9]Z'
  # shellcheck disable=SC2231  # the pattern of a moment
  for file in "$folder/$3"-$moment-*."$5"; do printf '%s\n' "$file"; done | sort -r | tail -n "+$(($6 + 1))" |
    while IFS= read -r file; do rm -f "$file"; done
}
