# Put a dump, $file, in place of the content of a datastore. What was there is kept under another name, with $number in it;
# a run that was killed goes on where it was. K3s is stopped on all servers meanwhile.
file='' number=''
stop_server() { # unit data CA token-fingerprint hash-of-the-encryption-config, or - if unknown
  if [ "$(systemctl show -p LoadState --value "$1")" != not-found ]; then
    systemctl disable -q "$1" # a boot must not start it with half of the data; the deploy that ends a restore enables it
    systemctl stop "$1"
  fi
  # Files that are newer than the datastore's, and others, keep K3s from starting (k3s: pkg/cluster/bootstrap.go): without
  # them it takes its own from the datastore, as a server that joins.
  if [ -d "$2/server" ] && ! { same_ca "$2" "$3" && same_token "$2" "$4" && same_encryption "$2" "$5"; }; then
    aside=$2/server/before-restore-$number
    ( umask 077; mkdir -p "$aside" )
    for name in tls cred token; do
      [ -e "$2/server/$name" ] || continue
      kept=$aside/$name
      if [ -e "$kept" ]; then kept=$kept.$(date +%s%N); fi # K3s was started between two runs
      mv -T "$2/server/$name" "$kept"
    done
  fi
  say did "$STEP" changed
}
same_ca() { [ -z "$2" ] || [ "$(cut -c 1-67 "$1/server/token" 2>/dev/null)" = "$2" ]; }
same_token() {
  text=$(cat "$1/server/token" 2>/dev/null) || return 1
  text=$(printf %s "${text##*:}" | sha256sum | cut -c 1-12)
  [ "$text" = "$2" ]
}
same_encryption() {
  [ "$2" != - ] || return 0
  text=$(sha256sum <"$1/server/cred/encryption-config.json" 2>/dev/null | cut -c 1-64) || text=
  [ "$text" = "$2" ]
}
rows() { # client database
  "$1" -N -B -e "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = '$2' AND table_name = 'kine'"
}
import_mysql() { # client database; a pipe ends as its last command does
  rm -f "$STATE/restore/failed"
  "$1" -e "DROP DATABASE IF EXISTS $2; CREATE DATABASE $2"
  { gzip -dc "$file" || : >"$STATE/restore/failed"; } | "$1" "$2"
  [ ! -e "$STATE/restore/failed" ] && [ "$(rows "$1" "$2")" = 1 ] || { echo 'the dump has no table kine' >&2; return 1; }
}
replace_mysql() { # client database
  new=$2_new_$number old=$2_old_$number
  if [ "$(rows "$1" "$old")" = 0 ]; then
    import_mysql "$1" "$new"
    if [ "$(rows "$1" "$2")" = 1 ]; then
      "$1" -e "CREATE DATABASE IF NOT EXISTS $old; RENAME TABLE $2.kine TO $old.kine, $new.kine TO $2.kine"
    else "$1" -e "CREATE DATABASE IF NOT EXISTS $2; RENAME TABLE $new.kine TO $2.kine"; fi
  fi
  "$1" -e "DROP DATABASE IF EXISTS $new"
}
has_database() { [ "$(postgresql -c "SELECT COUNT(*) FROM pg_database WHERE datname = '$1'")" = 1 ]; }
import_postgresql() { # database owner
  postgresql -c "DROP DATABASE IF EXISTS $1" >/dev/null
  postgresql -c "CREATE DATABASE $1 OWNER $2 TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'" >/dev/null
  runuser -u postgres -- pg_restore --exit-on-error --no-owner --no-privileges --role="$2" -d "$1" <"$file"
  [ -n "$(postgresql -d "$1" -c "SELECT to_regclass('kine')")" ] || { echo 'the dump has no table kine' >&2; return 1; }
}
replace_postgresql() { # database owner
  new=$1_new_$number old=$1_old_$number
  if ! has_database "$old"; then
    import_postgresql "$new" "$2"
    postgresql -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '$1'" >/dev/null
    if has_database "$1"; then postgresql -c "ALTER DATABASE $1 RENAME TO $old" >/dev/null; fi
  fi
  if ! has_database "$1"; then postgresql -c "ALTER DATABASE $new RENAME TO $1" >/dev/null; fi
  postgresql -c "REVOKE ALL ON DATABASE $1 FROM PUBLIC" >/dev/null
}
import_etcd() { # folder option...
  folder=$1
  shift
  rm -rf "$folder"
  if command -v etcdutl >/dev/null 2>&1; then etcdutl snapshot restore "$file" --data-dir "$folder" "$@"
  else ETCDCTL_API=3 etcdctl snapshot restore "$file" --data-dir "$folder" "$@"; fi >"$STATE/restore/log" 2>&1 || {
    tail -n 5 "$STATE/restore/log" >&2
    return 1
  }
}
replace_etcd() { # URL folder-of-certificates data-folder option...
  url=$1 pems=$2 data=$3 new=$3.new_$number old=$3.old_$number
  shift 3
  systemctl stop etcd.service
  if [ ! -e "$old" ]; then
    # As another cluster: members that still run with the old data would mix their log with this one.
    import_etcd "$new" "$@" "--initial-cluster-token=${data##*/}-$number"
    chown -R etcd:etcd "$new"
    if [ -e "$data" ]; then mv -T "$data" "$old"; fi
  fi
  if [ ! -e "$data" ]; then mv -T "$new" "$data"; fi
  systemctl start --no-block etcd.service
  n=0
  until etcd_alive "$url" "$pems"; do # it is when most of its members are back
    n=$((n + 1))
    [ "$n" -lt 600 ] || { echo 'etcd is not healthy with the restored data: see journalctl -u etcd' >&2; return 1; }
    sleep 0.5
  done
}
