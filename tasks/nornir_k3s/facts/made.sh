# What this tool has put on a host, as far as it has noted that there: what a reset takes away.

fact_made() { # state-folder dumps-folder
  # K3s leaves it, and a deploy needs it that finds the cluster's data.
  if [ -e /etc/rancher/node/password ] && [ ! -e /usr/local/bin/k3s ]; then say made password '' ''; fi
  [ -d "$1" ] || return 0
  say made state "$1" ''
  if [ -s "$1/installed" ] || cut -f1 "$1/receipts" 2>/dev/null | grep -qx /usr/local/bin/k3s; then say made k3s '' ''; fi
  if [ -r "$1/files" ]; then
    while IFS= read -r path; do
      if [ -e "$path.before-nornir-k3s" ]; then say made file "$path" before; else say made file "$path" ''; fi
    done <"$1/files"
  fi
  # Copies of what was replaced by files that have gone again.
  find /etc /usr/local /opt /var/lib/pgsql -xdev -name '*.before-nornir-k3s' 2>/dev/null | while IFS= read -r path; do
    path=${path%.before-nornir-k3s}
    case $path in /etc/systemd/system/k3s*) say made copy "$path" ''; continue ;; esac # K3s' own script removes ours
    grep -qsxF "$path" "$1/files" || [ -e "$path" ] || say made copy "$path" ''
  done
  for kind in package boolean stopped shared; do
    case $kind in stopped | shared) notes=$1/$kind ;; *) notes=$1/${kind}s ;; esac
    if [ -r "$notes" ]; then while IFS= read -r name; do say made "$kind" "$name" ''; done <"$notes"; fi
  done
  for path in "$2"/*; do [ ! -f "$path" ] || say made dump "$path" ''; done
}
other_clusters() { # of PostgreSQL on Debian: all that do not have this tool's settings
  command -v pg_lsclusters >/dev/null 2>&1 || return 0
  pg_lsclusters -h | while read -r version name _; do
    [ -e "/etc/postgresql/$version/$name/conf.d/90-nornir-k3s.conf" ] || say others postgresql "cluster $version/$name"
  done
}
