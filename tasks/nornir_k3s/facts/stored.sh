# Databases whose data lie on this host: product, version, folder, whether they are this cluster's, whether the
# installed server uses them.

fact_stored() { # kind own-database
  if [ "$1" = postgresql ]; then stored_postgresql /etc/postgresql /usr/lib/postgresql /var/lib/pgsql/data
  else stored_mysql "$2" /var/lib/mysql /var/lib/mysql-*
  fi
}
stored_postgresql() { # folder-of-configurations folder-of-programs folder-of-data; RHEL has the latter only
  for folder in "$1"/*/main; do
    [ -e "$folder/postgresql.conf" ] || continue
    version=${folder%/main} version=${version##*/} ours=no served=no
    # pg_upgradecluster leaves the old cluster behind, which is then started by hand only.
    if [ -e "$folder/conf.d/90-nornir-k3s.conf" ] && ! grep -qsx manual "$folder/start.conf"; then ours=yes; fi
    [ ! -x "$2/$version/bin/postgres" ] || served=yes
    say stored postgresql "$version" "$folder" "$ours" "$served"
  done
  [ -e "$3/PG_VERSION" ] || return 0
  ours=no
  ! grep -qs nornir-k3s "$3/postgresql.conf" || ours=yes
  say stored postgresql "$(cat "$3/PG_VERSION")" "$3" "$ours" yes
}
stored_mysql() { # own-database folder...; the first one is in use
  database=$1 used=$2
  shift
  for folder; do
    # Aria is MariaDB's; MySQL's data dictionary is mysql.ibd, before 8.0 it was in files.
    if [ -e "$folder/aria_log_control" ]; then
      product=mariadb
      version=$(stored_newest "$folder/mysql_upgrade_info" "$folder/mariadb_upgrade_info")
    elif [ -e "$folder/mysql.ibd" ] || [ -e "$folder/mysql/user.frm" ]; then
      product=mysql
      version=$(stored_mysql_version "$folder")
    else continue
    fi
    ours=no served=no
    [ ! -e "$folder/$database/kine.ibd" ] || ours=yes
    [ "$folder" != "$used" ] || served=yes
    say stored "$product" "$version" "$folder" "$ours" "$served"
  done
}
stored_mysql_version() { # folder; before 8.4 only the dictionary's first page is sure to have it
  {
    # shellcheck disable=SC2046  # four bytes
    if [ -e "$1/mysql.ibd" ]; then stored_number $(od -An -tu1 -j8 -N4 "$1/mysql.ibd" 2>/dev/null); else echo 5.7; fi
    stored_newest "$1/mysql_upgrade_info" "$1/mysql_upgrade_history"
  } | sort -V | tail -n 1
}
stored_number() { # byte...: 80046 is 8.0.46
  [ $# = 4 ] || return 0
  number=$((($1 << 24) + ($2 << 16) + ($3 << 8) + $4))
  echo "$((number / 10000)).$((number / 100 % 100)).$((number % 100))"
}
stored_newest() { # file...: each has versions, with other words
  for file; do
    { cat "$file" 2>/dev/null && echo; } | grep -oE '(^|"version": *")[0-9]+(\.[0-9]+)+' | grep -oE '[0-9.]+$' || true
  done | sort -V | tail -n 1
}
