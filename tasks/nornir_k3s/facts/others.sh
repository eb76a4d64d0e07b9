# What a datastore host or a load balancer serves for others: nothing is ours before this tool has noted it.

fact_others() { # state-folder kind own-database
  state=$1
  case $2 in
    lb)
      ours haproxy /etc/haproxy/haproxy.cfg || sections haproxy 'frontend|listen' /etc/haproxy/*.cfg /etc/haproxy/conf.d/*.cfg
      ours keepalived /etc/keepalived/keepalived.conf ||
        sections keepalived 'vrrp_instance|virtual_server' /etc/keepalived/*.conf
      ;;
    mariadb) ours mariadb-server '' || mysql_databases "$3" mariadb ;;
    mysql) ours mysql-server '' || mysql_databases "$3" mysql ;;
    postgresql) ours postgresql '' || postgresql_databases "$3" ;;
    etcd) ours etcd-server '' || etcd_keys ;;
  esac
}
ours() { # package file, empty for any: of ours is what we wrote, and a package that we were about to install
  if grep -qsxF "$1" "$state/packages"; then return 0; fi
  if [ -n "$2" ]; then grep -qsxF "$2" "$state/files"; else [ -s "$state/files" ]; fi
}
sections() { # service words file...
  service=$1 words=$2
  shift 2
  cat "$@" 2>/dev/null | sed -nE "s/^[[:space:]]*($words)[[:space:]]+([^[:space:]{]+).*/\\1 \\2/p" |
    while read -r line; do say others "$service" "$line"; done
}
named() { while read -r name; do say others "$1" "database $name"; done; } # service
mysql_databases() { # own-database client
  command -v "$2" >/dev/null 2>&1 || return 0
  "$2" -N -B -e 'SHOW DATABASES' 2>/dev/null |
    grep -vxF -e mysql -e information_schema -e performance_schema -e sys -e test -e "$1" | named "$2"
}
postgresql_databases() { # own-database
  command -v psql >/dev/null 2>&1 || return 0
  runuser -u postgres -- psql -XqAtc 'SELECT datname FROM pg_database WHERE NOT datistemplate' 2>/dev/null |
    grep -vxF -e postgres -e "$1" | named postgresql
}
etcd_keys() {
  systemctl is-active -q etcd.service 2>/dev/null && command -v etcdctl >/dev/null 2>&1 || return 0
  if keys=$(ETCDCTL_API=3 timeout 5 etcdctl get '' --prefix --keys-only --limit 5 2>/dev/null); then
    printf '%s\n' "$keys" | while read -r key; do [ -z "$key" ] || say others etcd "key $key"; done
  else say others etcd 'data that only its own clients may list'; fi
}
