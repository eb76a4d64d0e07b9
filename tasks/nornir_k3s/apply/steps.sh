# Scripts run with umask 077, for their own files. What others make or read has the mode that it usually has.
usual_modes() ( umask 022; "$@" ) # command...
folder() { # path; those that it makes are noted first
  [ -d "$1" ] || { note_folders "$1"; usual_modes mkdir -p "$1"; }
}
note_folders() { # path
  [ -d "$1" ] || { note "$1" "$STATE/folders"; note_folders "$(dirname "$1")"; }
}
note() { grep -qsxF "$1" "$2" || printf '%s\n' "$1" >>"$2"; } # line file
# The steps of a plan. Each looks again before it acts, and says `did` when it has ended.
# Its own ledger says which files are ours; anything else is kept beside before it is replaced.
keep_foreign() {
  [ -e "$1" ] || [ -L "$1" ] || return 0
  if [ -f "$STATE/files" ] && grep -qxF "$1" "$STATE/files"; then return 0; fi
  if [ ! -e "$1.before-nornir-k3s" ]; then
    cp -a "$1" "$1.before-nornir-k3s"
    say kept "$1" "$1.before-nornir-k3s"
  fi
  # Flags, environment and settings of K3s have its token and the datastore's password: a copy is for root alone.
  case $1 in
    /etc/rancher/* | /etc/systemd/system/k3s* | /etc/default/k3s* | /etc/sysconfig/k3s*)
      [ ! -L "$1" ] || return 0
      note "$1$(printf '\t')$(stat -c %a "$1")" "$STATE/modes"
      chmod go= "$1.before-nornir-k3s" ;;
  esac
}
put() { # path mode owner group unit check; the content comes base64-encoded on stdin
  dir=$(dirname "$1")
  # K3s makes this folder for root alone, if it does not find it.
  case $dir in /var/lib/rancher/k3s/server/*)
    folder /var/lib/rancher/k3s
    [ -d /var/lib/rancher/k3s/server ] || mkdir /var/lib/rancher/k3s/server ;;
  esac
  folder "$dir"
  draft="$dir/.nornir-k3s.$$"
  ( umask 077; base64 -d >"$draft" )
  if [ -f "$1" ] && [ ! -L "$1" ] && cmp -s "$draft" "$1"; then
    rm -f "$draft"
    if [ "$(stat -c '%a %U %G' "$1")" = "$2 $3 $4" ]; then say did "$STEP" same; return 0; fi
    chown "$3:$4" "$1"; chmod "$2" "$1"; settle "$1"
    say did "$STEP" changed; return 0
  fi
  chown "$3:$4" "$draft"; chmod "$2" "$draft"
  if [ -n "$6" ] && ! out=$(eval "$6" 2>&1); then
    rm -f "$draft"; printf 'the new %s is refused:\n%s\n' "$1" "$out" >&2; return 1
  fi
  keep_previous "$1"
  keep_foreign "$1"
  if [ -n "$5" ]; then : >"$STATE/pending/$5"; fi
  sync "$draft" 2>/dev/null || :
  mv -fT "$draft" "$1"
  label "$1"
  grep -qxF "$1" "$STATE/files" 2>/dev/null || printf '%s\n' "$1" >>"$STATE/files"
  say did "$STEP" changed
}
label() { # path: SELinux' policy knows what it is by its name (restorecon(8))
  if command -v restorecon >/dev/null 2>&1; then restorecon "$1" 2>/dev/null || :; fi
}
note_same() { # path sha256 start-of-the-process: it has these settings already, and need not start again for them
  line=$(printf '%s\t%s\t%s' "$1" "$2" "$3")
  { grep -vF "$1$(printf '\t')" "$STATE/same" 2>/dev/null || :; printf '%s\n' "$line"; } >"$STATE/.same"
  mv -f "$STATE/.same" "$STATE/same"
}
settle() { # path: it is newer now than the process that has read it, for its mode alone
  line=$(printf '%s\t%s' "$1" "$(stat -c %Z "$1")")
  { grep -vF "$1$(printf '\t')" "$STATE/settled" 2>/dev/null || :; printf '%s\n' "$line"; } >"$STATE/.settled"
  mv -f "$STATE/.settled" "$STATE/settled"
}
remove() { # path unit
  keep_previous "$1"
  if [ -n "$2" ]; then : >"$STATE/pending/$2"; fi
  rm -f "$1"
  unlist "$1"
  say did "$STEP" changed
}
forget() { # path: of K3s, which makes it anew
  rm -f "$1"
  say did "$STEP" changed
}
# A URL may hold a password: it goes to the client on stdin, and messages have the one without. A draft stays where the
# connection breaks, and is continued.
fetch() { # url url-as-shown path sha256
  dir=$(dirname "$3") draft="$(dirname "$3")/.$(basename "$3").fetched"
  folder "$dir"
  for try in 1 2 3 4; do
    if command -v curl >/dev/null 2>&1; then
      printf 'url=%s\n' "$1" | curl -fsSL --connect-timeout 20 -C - -o "$draft" -K - 2>"$STATE/fetch.log"
    else printf '%s\n' "$1" | wget -q -c -T 20 -O "$draft" -i - 2>"$STATE/fetch.log"; fi && break
    [ "$try" != 4 ] || { cat "$STATE/fetch.log" >&2; echo "cannot fetch $2" >&2; return 1; }
    sleep 1
  done
  have=$(sha256sum <"$draft")
  if [ "${have%% *}" != "$4" ]; then
    rm -f "$draft"
    echo "$2 has the SHA-256 ${have%% *}, published is $4" >&2
    return 1
  fi
  mv -fT "$draft" "$3"
}
receipt() { # path sha256
  line=$(printf '%s\t%s\t%s' "$1" "$(stat -c '%s %Y %Z %i' "$1")" "$2")
  { grep -vF "$1$(printf '\t')" "$STATE/receipts" 2>/dev/null || :; printf '%s\n' "$line"; } >"$STATE/.receipts"
  mv -f "$STATE/.receipts" "$STATE/receipts"
}
journal() { say journal "$(journalctl -u "$1" -n 20 -o cat --no-pager 2>/dev/null | without_keys | base64 -w0)"; }
# K3s logs the keys of secrets that it adds and removes (k3s: pkg/server/handlers/secrets-encrypt.go).
without_keys() { sed 's/\(secrets-encryption key: \|Removing [a-z]* key: \).*/\1(not shown)/'; }
act() { # unit action blocking proof reload
  # shellcheck disable=SC2034  # proofs use it
  begin=$(date +%s)
  systemctl is-enabled -q "$1" 2>/dev/null || systemctl enable -q "$1" # which makes systemd read all units again
  # A package's own scripts may have started it before its files were written.
  if [ "$2" = start ] && [ -e "$STATE/pending/$1" ] && systemctl is-active -q "$1"; then
    set -- "$1" restart "$3" "$4" "$5"
  fi
  case $2 in
    reload)
      if [ -n "$5" ]; then eval "$5" && mkdir -p "$STATE/reloaded" && : >"$STATE/reloaded/$1"
      else systemctl reload "$1"
      fi ;;
    enable) : ;;
    *) systemctl reset-failed "$1" 2>/dev/null || :
       if [ "$3" = wait ]; then systemctl "$2" "$1"
       else { [ "$2" = start ] || systemctl stop "$1"; } && systemctl start --no-block "$1"
       fi ;;
  esac || { journal "$1"; return 1; }
  n=0 why=''
  until [ -z "$4" ] || eval "$4"; do
    n=$((n+1)); [ "$n" -lt 40 ] || { [ -z "$why" ] || echo "$1: $why" >&2; journal "$1"; return 1; }
    sleep 0.25
  done
  rm -f "$STATE/pending/$1"
  say did "$STEP" changed
}
retire() { # unit
  if [ "$(systemctl show -p LoadState --value "$1")" != not-found ]; then systemctl disable -q --now "$1"; fi
  rm -f "$STATE/pending/$1"
  say did "$STEP" changed
}

quietly() { # into a file: a pipe that breaks when the connection is lost would end dpkg half-way
  usual_modes "$@" >"$STATE/packages.log" 2>&1 || {
    tail -n 20 "$STATE/packages.log" >&2
    return 1
  }
}
install_packages() { # manager name...
  manager=$1
  shift
  # Noted first: a run that is killed here must not take what it has installed for another's.
  for name in "$@"; do
    "has_$manager" "$name" || note "$name" "$STATE/packages"
  done
  "install_with_$manager" "$@"
  say did "$STEP" changed
}
has_apt() { dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null | grep -q '^ii'; } # name
has_dnf() { rpm -q "$1" >/dev/null 2>&1; } # name
apt() { quietly apt-get -qy -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"; }
install_with_apt() { # name...
  # Ubuntu has needrestart, which would restart K3s and databases for a library that came along, whoever is at work.
  export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l NEEDRESTART_SUSPEND=1
  quietly dpkg --configure -a
  apt update
  # Those that come along, too; what is upgraded for them has its old version in brackets.
  apt-get -s -o Debug::NoLocking=true --no-install-recommends install "$@" 2>/dev/null |
    sed -n 's/^Inst \([^ ]*\) (.*/\1/p' | while read -r name; do note "$name" "$STATE/packages"; done
  apt -o Dpkg::Options::=--force-confold --no-install-recommends install "$@"
  dpkg-query -W -f '@package\t${Package}\t${Version}\n' "$@"
}
install_with_dnf() { # name...; it waits by itself while another dnf runs
  quietly dnf -qy --setopt=install_weak_deps=False --setopt=retries=3 install "$@"
  for name in "$@"; do has_dnf "$name" || { echo "dnf has installed another package for $name" >&2; return 1; }; done
  rpm -q --qf '@package\t%{NAME}\t%{VERSION}-%{RELEASE}\n' "$@"
}
allow() { # SELinux boolean, also after a reboot
  note "$1" "$STATE/booleans"
  setsebool -P "$1" on
  say did "$STEP" changed
}
initialize() { # path command: the data of a service, unless they are there
  # shellcheck disable=SC2086  # a command and its arguments
  [ -e "$1" ] || quietly $2
  say did "$STEP" changed
}

run_installer() { # installer role mark unit; with a clean environment: it writes every K3S_* variable into the unit's own
  if [ ! -e "$STATE/installed" ]; then # of another's K3s, with its flags and its token
    for path in "/etc/systemd/system/$4" "/etc/systemd/system/$4.env"; do
      keep_previous "$path"
      keep_foreign "$path"
    done
  fi
  out=$(usual_modes env -i PATH="$PATH" HOME=/root INSTALL_K3S_SKIP_DOWNLOAD=true INSTALL_K3S_SKIP_START=true \
    INSTALL_K3S_SKIP_SELINUX_RPM=true sh "$1" "$2" 2>&1) || {
    printf '%s\n' "$out" >&2
    return 1
  }
  chmod 644 "/etc/systemd/system/$4" # one that is there already keeps its mode
  printf '%s' "$3" >"$STATE/installed"
  say did "$STEP" changed
}
placed() { # path mode sha256: an artefact lies there
  chmod "$2" "$1"
  label "$1"
  receipt "$1" "$3"
  say did "$STEP" changed
}

# Proofs, some seconds after a unit was touched, that it works; $begin is when that was.
haproxy_loaded() { # socket port...; a master that cannot load its new configuration keeps the old one, and the reload succeeds
  # A reload keeps the socket, and its mode.
  [ ! -S "$1" ] || chmod 600 "$1"
  shift
  # From 3.1 on, the reload has ended when the new worker has only begun.
  last=$(journalctl -u haproxy.service --since "@$begin" -o cat --no-pager |
    grep -o 'Initializing new worker\|Loading success\|Loading failure\|Failed to load worker' | tail -n 1)
  case $last in '' | 'Loading success') ;; *) return 1 ;; esac
  for port; do ss -Hlnt "sport = :$port" | grep -q . || return 1; done
}
listens() { # address port
  case $1 in *:*) set -- "[$1]" "$2" ;; esac
  why="it does not listen on $1:$2: look for a setting in another file, or in the datastore itself, that overrides ours"
  ss -Hlnt "src $1 and sport = :$2" | grep -q .
}
postgresql() { runuser -u postgres -- psql -X -v ON_ERROR_STOP=1 -At "$@"; }
postgresql_alive() { postgresql -c 'SELECT 1' >/dev/null 2>&1; }
mysql_alive() { "$1" -e 'SELECT 1' >/dev/null 2>&1; } # client
etcd_ctl() { # URL folder-of-certificates argument...
  endpoint=$1 pems=$2
  shift 2
  ETCDCTL_API=3 etcdctl "--endpoints=$endpoint" "--cacert=$pems/ca.pem" "--cert=$pems/cert.pem" "--key=$pems/key.pem" "$@"
}
etcd_alive() { etcd_ctl "$1" "$2" endpoint health >/dev/null 2>&1; } # URL folder-of-certificates

wait_for() { # command...
  n=0
  until "$@"; do
    n=$((n + 1))
    [ "$n" -lt 120 ]
    sleep 0.5
  done
}
mysql_statements() { # client; SQL comes on stdin
  wait_for mysql_alive "$1" </dev/null
  "$1"
  say did "$STEP" changed
}
postgresql_statements() { # SQL comes on stdin
  wait_for postgresql_alive </dev/null
  postgresql
  say did "$STEP" changed
}
