# Put a dump, $file, into a scratch database of the same kind, dump that, and compare both; dumps differ in comments only.
file=''
room() { # size-in-KiB, a call; a copy of the data needs it beside them
  need=$(eval "$1")
  free=$(df -Pk /var/lib | sed -n '2s/^[^ ]* *[^ ]* *[^ ]* *\([^ ]*\).*/\1/p')
  [ $((need + need / 10 + 1024)) -le "$free" ] || {
    echo "a copy of the data needs up to $need KiB in /var/lib, there are $free: make room" >&2
    return 1
  }
}
compared() { # of-the-dump of-the-scratch-database
  [ -n "$1" ] && [ "$1" = "$2" ] || { echo 'the dump was restored into a scratch database, and that differs from it' >&2; return 1; }
}
text_of() { grep -v -e '^--' -e '^.restrict ' -e '^.unrestrict ' | sha256sum | cut -c 1-64; }
verify_mysql() { # client database dumper...
  client=$1 new=$2_verify
  shift 2
  import_mysql "$client" "$new"
  kept=$(gzip -dc "$file" | text_of)
  again=$("$@" --single-transaction --routines=false --hex-blob "$new" | text_of)
  "$client" -e "DROP DATABASE $new"
  compared "$kept" "$again"
}
plain() { runuser -u postgres -- pg_restore --no-owner --no-privileges -f - | text_of; }
verify_postgresql() { # database owner
  new=$1_verify
  import_postgresql "$new" "$2"
  kept=$(plain <"$file")
  again=$(runuser -u postgres -- pg_dump -Fc "$new" | plain)
  postgresql -c "DROP DATABASE $new" >/dev/null
  compared "$kept" "$again"
}
# The hash of a snapshot is in it, and compared when it is restored; that of a restored one is another.
verify_etcd() { # data-folder
  import_etcd "$1.verify"
  kept=$(newest "$file")
  again=$(newest "$1.verify/member/snap/db")
  rm -rf "$1.verify"
  compared "$kept" "$again"
}
newest() { # snapshot: hash, revision, keys, size
  if command -v etcdutl >/dev/null 2>&1; then etcdutl snapshot status "$1" -w simple
  else ETCDCTL_API=3 etcdctl snapshot status "$1" -w simple; fi 2>/dev/null | cut -d , -f 2
}
