# Debian packages.

fact_packages() { # name...
  dpkg-query -W -f '${Package}\t${db:Status-Abbrev}\t${Version}\n' "$@" 2>/dev/null |
    while read -r name status version; do [ "$status" != ii ] || say packages "$name" "$version"; done
}

fact_apt() { # name...
  say apt sources "$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -cE '^(deb |Types:|URIs:)')"
  dpkg --audit 2>/dev/null | sed -n 's/^ \([^ ]*\) .*/\1/p' | while read -r name; do say apt broken "$name"; done
  # Where there are no lists yet, apt itself says so later.
  ls /var/lib/apt/lists/*Packages* >/dev/null 2>&1 || return 0
  for name in "$@"; do
    if apt-cache show "$name" >/dev/null 2>&1; then
      say apt candidate "$name" "$(apt-cache policy "$name" 2>/dev/null | sed -n 's/^ *Candidate: //p')"
    else say apt unavailable "$name"; fi
  done
}
