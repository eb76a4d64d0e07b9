# What is inside a managed datastore, and how it is doing. SQL comes as an argument and prints records itself.

fact_latency() { # address port: of the connections that K3s has; one made for this would count as an error there
  ss -Htni "dst $1 and dport = :$2" 2>/dev/null | sed -n 's/.* rtt:\([0-9.]*\)\/.*/\1/p' | sort -n | {
    if read -r best; then say latency "$1:$2" "$best"; fi
  }
}

mysql_sql() { "$client" -N -B -r "$@" 2>/dev/null; }
fact_database_mysql() { # client database SQL-of-accounts SQL-of-the-table
  client=$1
  if ! command -v "$client" >/dev/null 2>&1 || ! mysql_sql -e 'SELECT 1' >/dev/null; then return 0; fi
  say database alive yes ''
  printf '%s\n' "$3" | mysql_sql
  printf '%s\n' "$4" | mysql_sql "$2"
}
shared_mysql() { # client variable...
  client=$1
  command -v "$client" >/dev/null 2>&1 || return 0
  shift
  for name; do
    mysql_sql -e "SHOW GLOBAL VARIABLES LIKE '$name'" | while read -r name value; do say database setting "$name" "$value"; done
  done
}
fact_datastore_health_mysql() { # client database SQL-of-the-server SQL-of-the-table
  client=$1
  command -v "$client" >/dev/null 2>&1 || return 0
  printf '%s\n' "$3" | mysql_sql
  printf '%s\n' "$4" | mysql_sql "$2"
}

postgresql_sql() { runuser -u postgres -- psql -XqAt -v ON_ERROR_STOP=1 -F "$TAB" "$@" 2>/dev/null; }
fact_database_postgresql() { # database SQL-of-accounts SQL-of-the-table
  command -v psql >/dev/null 2>&1 || return 0
  if postgresql_sql -c 'SELECT 1' >/dev/null; then say database alive yes ''; fi
  printf '%s\n' "$2" | postgresql_sql
  printf '%s\n' "$3" | postgresql_sql -d "$1"
}
shared_postgresql() { # SQL-of-the-server begin end: what is between these lines of pg_hba.conf is ours
  command -v psql >/dev/null 2>&1 || return 0
  printf '%s\n' "$1" | postgresql_sql
  file=$(postgresql_sql -c 'SHOW hba_file')
  [ -r "$file" ] || return 0
  say database hba "$(sed -n "\|^$2\$|,\|^$3\$|p" "$file" | base64 -w0)" ''
}
fact_datastore_health_postgresql() { # database SQL-of-the-server SQL-of-the-table
  command -v psql >/dev/null 2>&1 || return 0
  printf '%s\n' "$2" | postgresql_sql
  printf '%s\n' "$3" | postgresql_sql -d "$1"
}

etcd_ctl() { ETCDCTL_API=3 etcdctl "--endpoints=$endpoint" "--cacert=$pems/ca.pem" "--cert=$pems/cert.pem" \
  "--key=$pems/key.pem" "$@" 2>/dev/null; }
fact_database_etcd() { # URL folder-of-certificates data-folder
  endpoint=$1 pems=$2
  if command -v etcdctl >/dev/null 2>&1 && systemctl is-active -q etcd.service; then
    say database alive yes ''
    etcd_ctl member list -w simple | while IFS=, read -r _ _ name _; do say database member "${name# }" ''; done
    etcd_ctl get --prefix /bootstrap/ --keys-only | while read -r key; do
      [ -z "$key" ] ||
        say database bootstrap "$key" "$(etcd_ctl get "$key" --print-value-only | tr -d '\n' | wc -c)"
    done
    newest=$(etcd_ctl get compact_rev_key -w fields | sed -n 's/^"Revision" : *//p')
    [ -z "$newest" ] || say database revision "$newest" ''
  fi
  if [ -d "$3/member" ]; then say database data yes ''; else say database data no ''; fi
  for folder in "$3".old_*; do
    if [ -d "$folder" ]; then say database aside "$folder" folder; fi
  done
}
fact_datastore_health_etcd() { # URL folder-of-certificates
  endpoint=$1 pems=$2
  if ! command -v etcdctl >/dev/null 2>&1 || ! systemctl is-active -q etcd.service; then return 0; fi
  say datastore_health status "$(etcd_ctl endpoint status -w json | base64 -w0)" ''
  etcd_ctl alarm list | while read -r line; do say datastore_health alarm "$line" ''; done
  etcd_ctl get compact_rev_key -w fields | {
    newest='' compacted=''
    while read -r name _ value; do
      case $name in
        '"Revision"') newest=$value ;;
        '"Value"') compacted=${value#?} compacted=${compacted%?} ;;
      esac
    done
    [ -z "$compacted" ] || say datastore_health revisions "$newest" "$compacted"
  }
}
