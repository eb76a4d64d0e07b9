# A host becomes what it was before this tool came. What it had then is in `before` (see prelude.sh); a host without that
# note keeps what may have been there.
is_new() { [ -s "$STATE/before" ] && ! grep -qxF "$1" "$STATE/before"; } # line
was_there() { grep -qsxF "path $1" "$STATE/before"; } # path
drop_new() { # path...; folders of a file go with it that are new, too, and have nothing else
  for path; do
    is_new "path $path" || continue
    folder=''
    if [ -f "$path" ]; then folder=${path%/*}; fi
    rm -rf "$path" 2>/dev/null || :
    while [ -n "$folder" ] && is_new "path $folder" && rmdir "$folder" 2>/dev/null; do folder=${folder%/*}; done
  done
}

reset_k3s() { # pod-networks node-addresses, each separated by blanks; whether the data stay for which nodes have passwords
  for unit in k3s k3s-agent; do
    if [ -e "/usr/local/bin/$unit-uninstall.sh" ] || [ -e "/etc/systemd/system/$unit.service" ]; then
      uninstall_unit "$unit"
    fi
  done
  if [ -f "$STATE/receipts" ]; then # artefacts, where K3s was never installed
    cut -f1 "$STATE/receipts" | while IFS= read -r path; do rm -f "$path"; done
  fi
  # What K3s' own script leaves: the password of the node, logs of pods, routes of flannel's host-gw, kube-proxy's tables.
  [ "$3" = yes ] || rm -rf /etc/rancher/node
  rm -rf /run/k3s /run/flannel
  for path in /var/log/pods /var/log/containers; do was_there "$path" || rm -rf "$path"; done
  drop_new /var/lib/kubelet /var/lib/cni
  for path in /etc/rancher /var/lib/rancher; do
    [ ! -d "$path" ] || find "$path" -depth -xdev -type d -empty -delete 2>/dev/null || :
  done
  for network in $1; do
    for gateway in $2; do
      ip route show root "$network" 2>/dev/null | grep -F " via $gateway " | while read -r route _; do
        ip route del "$route" via "$gateway" 2>/dev/null || :
      done
    done
  done
  if command -v nft >/dev/null 2>&1; then
    for kind in ip ip6; do nft delete table "$kind" kube-proxy 2>/dev/null || :; done
  fi
  say did "$STEP" changed
}
give_back_file() { # path
  give_back "$1"
  unlist "$1"
  say did "$STEP" changed
}
give_back_copy() { # path
  [ -e "$1" ] || give_back "$1"
  say did "$STEP" changed
}
forget_password() {
  rm -rf /etc/rancher/node
  rmdir /etc/rancher 2>/dev/null || :
  [ -s "$STATE/files" ] || [ -s "$STATE/packages" ] || rm -rf "$STATE" # it came with this script
  say did "$STEP" changed
}
leave_unit() { # unit stop-or-run: it gets its state of before at the end; one that runs has data of others
  note "$1" "$STATE/stopped"
  [ "$2" = stop ] || note "$1" "$STATE/shared"
  if [ "$2" = stop ] && [ "$(systemctl show -p LoadState --value "$1")" != not-found ]; then
    systemctl disable -q --now "$1"
  fi
  rm -f "$STATE/pending/$1"
  say did "$STEP" changed
}
unnote() { # file line...
  notes=$1
  shift
  [ -f "$notes" ] || return 0
  for line; do
    { grep -vxF "$line" "$notes" || :; } >"$notes.draft"
    mv -f "$notes.draft" "$notes"
  done
}

# Packages that others need stay: apt would remove what needs them, too.
purge() { # manager name...
  manager=$1
  shift
  # shellcheck disable=SC2046  # a list
  set -- $(for name; do if "has_$manager" "$name" || rest_of "$name"; then echo "$name"; fi; done)
  [ $# -eq 0 ] || "purge_with_$manager" "$@"
  give_locale_back
  say did "$STEP" changed
}
# Debian's `locales`, which PostgreSQL brings along, deletes these when it is purged, whoever has made them: a person, or
# systemd at each boot.
LOCALE='/etc/locale.conf /etc/default/locale'
keep_locale() {
  mkdir -p "$STATE/locale"
  for path in $LOCALE; do
    if [ -L "$path" ] || { [ -e "$path" ] && was_there "$path"; }; then cp -af "$path" "$STATE/locale/"; fi
  done
}
give_locale_back() {
  for path in $LOCALE; do
    kept=$STATE/locale/${path##*/}
    if [ ! -e "$path" ] && [ ! -L "$path" ] && { [ -e "$kept" ] || [ -L "$kept" ]; }; then cp -a "$kept" "$path"; fi
  done
}
rest_of() { dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null | grep -q '^.[^n]'; } # name
apt_removes() { apt-get -s -o Debug::NoLocking=true purge "$@" | sed -n 's/^\(Purg\|Remv\) \([^ ]*\) .*/\2/p'; } # name...
beyond() { # name...: what else would be removed with $going
  # shellcheck disable=SC2086  # a list
  apt_removes $going | while read -r gone; do
    for name; do [ "$name" != "${gone%:*}" ] || continue 2; done
    printf '%s\n' "$gone"
  done
}
purge_with_apt() { # name...
  export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l NEEDRESTART_SUSPEND=1
  quietly dpkg --configure -a
  going=$* all=''
  if [ -n "$(beyond "$@")" ]; then
    for going; do
      if [ -z "$(beyond "$@")" ]; then all="$all $going"; else say stays "$going"; fi
    done
  else all=$*; fi
  keep_locale
  # shellcheck disable=SC2086  # a list
  [ -z "$all" ] || apt purge $all
}
needed_with_dnf() { # package name...: whether one that is none of these names needs it
  package=$1
  shift
  dnf -qC repoquery --installed --qf '%{name}\n' --whatrequires "$package" 2>/dev/null \
    | grep -v '^$' | grep -qvxF "$(printf '%s\n' "$@")"
}
purge_with_dnf() { # name...; what came along goes with them, unless something else needs it
  all=''
  for name; do
    if needed_with_dnf "$name" "$@"; then say stays "$name"; else all="$all $name"; fi
  done
  # shellcheck disable=SC2086  # a list
  [ -z "$all" ] || quietly dnf -qy remove $all
}
drop_traces() { # manager package paths accounts, each of these separated by blanks: what packages leave
  if "has_$1" "$2"; then # others need it, and what is its
    say did "$STEP" same
    return 0
  fi
  # shellcheck disable=SC2086  # a list
  drop_new $3
  for name in $4; do
    ! "has_$1" "$name" || continue # a package of that name is there, and its account
    if is_new "user $name" && getent passwd "$name" >/dev/null; then userdel "$name" 2>/dev/null || :; fi
    if is_new "group $name" && getent group "$name" >/dev/null; then groupdel "$name" 2>/dev/null || :; fi
  done
  say did "$STEP" changed
}
refuse() { # SELinux boolean
  setsebool -P "$1" off
  unnote "$STATE/booleans" "$1"
  say did "$STEP" changed
}
as_before() { # unit: of a package that was there
  systemctl daemon-reload
  rm -f "$STATE/pending/$1"
  if [ -s "$STATE/before" ] && grep -qxF "enabled $1" "$STATE/before"; then systemctl enable -q "$1"
  elif [ -s "$STATE/before" ]; then systemctl disable -q "$1"; fi
  systemctl reset-failed "$1" 2>/dev/null || :
  if is_new "active $1"; then systemctl stop "$1"; else systemctl restart "$1"; fi
  unnote "$STATE/stopped" "$1"
  say did "$STEP" changed
}
keep_running() { # unit: of a package that this tool has installed, with data of others
  systemctl daemon-reload
  rm -f "$STATE/pending/$1"
  systemctl reset-failed "$1" 2>/dev/null || :
  systemctl restart "$1"
  unnote "$STATE/stopped" "$1"
  say did "$STEP" changed
}
remove_dumps() {
  rm -rf "$STATE/dumps"
  say did "$STEP" changed
}
forget_all() { # manager, `keep` if the datastore stays: with its notes
  forget_trial
  forget_folders
  systemctl daemon-reload
  if [ "$2" = keep ]; then
    { cat "$STATE/packages" 2>/dev/null || :; } >"$STATE/draft"
    while read -r name; do "has_$1" "$name" || unnote "$STATE/packages" "$name"; done <"$STATE/draft"
    for path in "$STATE"/*; do
      case ${path##*/} in
        files | packages | before | folders | dumps | lock | pending | datastore-keys.json) ;;
        *) rm -rf "$path" ;;
      esac
    done
  else rm -rf "$STATE"
  fi
  say did "$STEP" changed
}
