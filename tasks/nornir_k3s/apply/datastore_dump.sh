# Dump one database below a folder, 0600; a file of that name is always whole. Then keep the newest few of the cluster.
# What prints the size in KiB, and what fills $draft from $database, are calls of the functions below.
dump() { # database folder cluster fingerprint suffix kept size write
  database=$1 folder=$2 draft=$2/.draft name=$3-$(date -u +%Y%m%dT%H%M%SZ)-$4.$5
  mkdir -p "$folder"
  chmod 700 "$folder"
  rm -f "$folder"/.draft*
  need=$(eval "$7")
  need=$((need + need / 10 + 1024))
  free=$(df -Pk "$folder" | sed -n '2s/^[^ ]* *[^ ]* *[^ ]* *\([^ ]*\).*/\1/p')
  if [ "$need" -gt "$free" ]; then
    echo "a dump of the datastore needs up to $need KiB in $folder, there are $free: make room" >&2
    exit 1
  fi
  umask 077
  eval "$8"
  sync "$draft" 2>/dev/null || :
  mv -fT "$draft" "$folder/$name"
  say dump "$folder/$name" "$(stat -c %s "$folder/$name")"
  moment='[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]T[0-9][0-9][0-9][0-9][0-9][0-9]Z'
  # shellcheck disable=SC2231  # the pattern of a moment
  for file in "$folder/$3"-$moment-*."$5"; do printf '%s\n' "$file"; done | sort -r | tail -n "+$(($6 + 1))" |
    while IFS= read -r file; do rm -f "$file"; done
}

size_mysql() { # client
  "$1" -N -B -e "SELECT CEIL(COALESCE(SUM(data_length + index_length), 0) / 1024) FROM information_schema.tables
    WHERE table_schema = '$database'"
}
write_mysql() { # dumper...; a pipe ends as its last command does: whether the first one ended well is noted beside
  { "$@" --single-transaction --routines=false --hex-blob "$database" || : >"$draft.failed"; } | gzip >"$draft"
  [ ! -e "$draft.failed" ]
}
size_postgresql() { postgresql -c "SELECT COALESCE(SUM(pg_database_size(oid)), 0)::bigint / 1024 FROM pg_database WHERE datname = '$database'"; }
write_postgresql() { runuser -u postgres -- pg_dump -Fc "$database" >"$draft"; }
size_etcd() { du -sk "$1/member/snap" | cut -f1; } # data-folder
write_etcd() { etcd_ctl "$1" "$2" snapshot save "$draft" >/dev/null; } # URL folder-of-certificates
