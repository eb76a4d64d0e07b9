# Databases whose data lie on this host: product, version, folder, whether they are this cluster's, whether the
# installed server uses them.

fact_stored() { # kind own-database
  if [ "$1" = postgresql ]; then stored_postgresql /etc/postgresql /usr/lib/postgresql
  else stored_mysql "$2" /var/lib/mysql /var/lib/mysql-*
  fi
}
stored_postgresql() { # folder-of-configurations folder-of-programs
  for folder in "$1"/*/main; do
    [ -e "$folder/postgresql.conf" ] || continue
    version=${folder%/main} version=${version##*/} ours=no served=no
    # pg_upgradecluster leaves the old cluster behind, which is then started by hand only.
    if [ -e "$folder/conf.d/90-nornir-k3s.conf" ] && ! grep -qsx manual "$folder/start.conf"; then ours=yes; fi
    [ ! -x "$2/$version/bin/postgres" ] || served=yes
    say stored postgresql "$version" "$folder" "$ours" "$served"
  done
}
stored_mysql() { # own-database folder...; the first one is in use
  database=$1 used=$2
  shift
  for folder; do
    # Aria is MariaDB's; MySQL's data dictionary is mysql.ibd.
    if [ -e "$folder/aria_log_control" ]; then
      product=mariadb
      version=$(stored_newest "$folder/mysql_upgrade_info" "$folder/mariadb_upgrade_info")
    elif [ -e "$folder/mysql.ibd" ]; then
      product=mysql
      version=$(stored_newest "$folder/mysql_upgrade_history")
    else continue
    fi
    ours=no served=no
    [ ! -e "$folder/$database/kine.ibd" ] || ours=yes
    [ "$folder" != "$used" ] || served=yes
    say stored "$product" "$version" "$folder" "$ours" "$served"
  done
}
stored_newest() { # file...: each has versions, with other words
  for file; do { cat "$file" 2>/dev/null && echo; } | grep -oE '(^|"version": *")[0-9]+(\.[0-9]+)+' | grep -oE '[0-9.]+$'; done |
    sort -V | tail -n 1
}
