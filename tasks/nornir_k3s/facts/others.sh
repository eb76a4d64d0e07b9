# What a datastore host or a load balancer serves for others: nothing is ours before this tool has noted it.

fact_others() { # state-folder kind own-database package unit
  state=$1
  case $2 in
    lb)
      # Folders, too: keepalived's `include`, and HAProxy's -f, may name any.
      ours haproxy /etc/haproxy/haproxy.cfg || unchanged haproxy /etc/haproxy/haproxy.cfg ||
        sections haproxy 'frontend|listen' /etc/haproxy/*.cfg /etc/haproxy/*/*.cfg
      ours keepalived /etc/keepalived/keepalived.conf || unchanged keepalived /etc/keepalived/keepalived.conf ||
        sections keepalived 'vrrp_instance|virtual_server' /etc/keepalived/*.conf /etc/keepalived/*/*.conf
      ;;
    mariadb | mysql) ours "$4" '' || mysql_databases "$3" ;;
    postgresql) ours "$4" '' || postgresql_databases "$3" "$5" ;;
    etcd) ours "$4" '' || etcd_keys ;;
  esac
}
ours() { # package file, empty for any: of ours is what we wrote, and a package that we were about to install
  if grep -qsxF "$1" "$state/packages"; then return 0; fi
  if [ -n "$2" ]; then grep -qsxF "$2" "$state/files"; else [ -s "$state/files" ]; fi
}
# Packages of the RHEL family come with a configuration that is an example.
unchanged() { # package file
  rpm -q "$1" >/dev/null 2>&1 && ! rpm -V "$1" 2>/dev/null | grep -q " $2\$" && ! systemctl is-active -q "$1"
}
sections() { # service words file...
  service=$1 words=$2
  shift 2
  cat "$@" 2>/dev/null | sed -nE "s/^[[:space:]]*($words)[[:space:]]+([^[:space:]{]+).*/\\1 \\2/p" |
    while read -r line; do say others "$service" "$line"; done
}
named() { while read -r name; do [ -z "$name" ] || say others "$1" "database $name"; done; } # service
hidden() { # service unit...: where it runs, and lets nobody look, it may have anything
  service=$1
  shift
  for unit in "$@"; do
    if systemctl is-active -q "$unit" 2>/dev/null; then
      say others "$service" 'databases that only its own users may list'
      return 0
    fi
  done
}
# Packages of MariaDB and MySQL remove each other: databases of the one count where the other is wanted.
mysql_databases() { # own-database
  client=mariadb service=mariadb
  if ! command -v mariadb >/dev/null 2>&1; then client=mysql service=mysql; fi
  command -v "$client" >/dev/null 2>&1 || return 0
  if names=$(timeout 10 "$client" -N -B -e 'SHOW DATABASES' 2>/dev/null </dev/null); then
    printf '%s\n' "$names" |
      grep -vxF -e mysql -e information_schema -e performance_schema -e sys -e test -e "$1" | named "$service"
  else hidden "$service" mariadb.service mysql.service mysqld.service; fi
}
postgresql_databases() { # own-database unit
  command -v psql >/dev/null 2>&1 || return 0
  if names=$(timeout 10 runuser -u postgres -- \
    psql -wXqAtc 'SELECT datname FROM pg_database WHERE NOT datistemplate' 2>/dev/null </dev/null); then
    printf '%s\n' "$names" | grep -vxF -e postgres -e "$1" | named postgresql
  else hidden postgresql "$2"; fi
}
etcd_keys() {
  systemctl is-active -q etcd.service 2>/dev/null && command -v etcdctl >/dev/null 2>&1 || return 0
  if keys=$(ETCDCTL_API=3 timeout 5 etcdctl get '' --prefix --keys-only --limit 5 2>/dev/null); then
    printf '%s\n' "$keys" | while read -r key; do [ -z "$key" ] || say others etcd "key $key"; done
  else say others etcd 'data that only its own clients may list'; fi
}
