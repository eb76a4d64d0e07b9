# What a datastore host or a load balancer serves for others: nothing is ours before this tool has noted it.

fact_others() { # state-folder kind own-database package unit own-user folder
  state=$1
  case $2 in
    lb)
      # Folders, too: keepalived's `include`, and HAProxy's -f, may name any.
      ours haproxy /etc/haproxy/haproxy.cfg || unchanged haproxy /etc/haproxy/haproxy.cfg ||
        sections haproxy 'frontend|listen' /etc/haproxy/*.cfg /etc/haproxy/*/*.cfg
      ours keepalived /etc/keepalived/keepalived.conf || unchanged keepalived /etc/keepalived/keepalived.conf ||
        sections keepalived 'vrrp_instance|virtual_server' /etc/keepalived/*.conf /etc/keepalived/*/*.conf
      ;;
    mariadb | mysql) ours_below "$4" "$7" || mysql_content "$3" "$6" ;;
    postgresql) ours_below "$4" "$7" || postgresql_content "$3" "$6" "$5" ;;
    etcd) ours_below "$4" "$7" || etcd_keys ;;
  esac
}
ours() { # package file: of ours is what we wrote, and a package that we were about to install
  grep -qsxF "$1" "$state/packages" || grep -qsxF "$2" "$state/files"
}
ours_below() { # package folder
  grep -qsxF "$1" "$state/packages" || grep -qsF "$2/" "$state/files"
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
named() { while read -r name; do [ -z "$name" ] || say others "$1" "$2 $name"; done; } # service what
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
mysql_content() { # own-database own-user
  client=mariadb service=mariadb
  if ! command -v mariadb >/dev/null 2>&1; then client=mysql service=mysql; fi
  command -v "$client" >/dev/null 2>&1 || return 0
  if names=$(timeout 10 "$client" -N -B -e 'SHOW DATABASES' 2>/dev/null </dev/null); then
    printf '%s\n' "$names" |
      grep -vxF -e mysql -e information_schema -e performance_schema -e sys -e test -e "$1" | named "$service" database
    timeout 10 "$client" -N -B -e "SELECT CONCAT(User, '@', Host) FROM mysql.user WHERE User <> '' AND Host <> ''" \
      2>/dev/null </dev/null | grep -vE "^(root|mysql|mariadb\\.sys|mysql\\.[a-z]+|debian-sys-maint|$2_[0-9a-f]{8})@" |
      named "$service" user
  else hidden "$service" mariadb.service mysql.service mysqld.service; fi
}
postgresql_content() { # own-database own-user unit
  command -v psql >/dev/null 2>&1 || return 0
  if names=$(postgresql_names 'SELECT datname FROM pg_database WHERE NOT datistemplate'); then
    printf '%s\n' "$names" | grep -vxF -e postgres -e "$1" | named postgresql database
    postgresql_names 'SELECT rolname FROM pg_roles WHERE rolcanlogin' |
      grep -vE "^(postgres|$2_[0-9a-f]{8})\$" | named postgresql user
  else hidden postgresql "$3"; fi
}
postgresql_names() { timeout 10 runuser -u postgres -- psql -wXqAtc "$1" 2>/dev/null </dev/null; } # SQL
etcd_keys() {
  systemctl is-active -q etcd.service 2>/dev/null && command -v etcdctl >/dev/null 2>&1 || return 0
  if keys=$(ETCDCTL_API=3 timeout 5 etcdctl get '' --prefix --keys-only --limit 5 2>/dev/null); then
    printf '%s\n' "$keys" | while read -r key; do [ -z "$key" ] || say others etcd "key $key"; done
  else say others etcd 'data that only its own clients may list'; fi
}
