# Packages of Debian (apt) and of the RHEL family (dnf). Nothing is downloaded, and no cache is renewed.

fact_packages() { # manager name...
  "installed_by_$1" "$@"
}
installed_by_apt() { # manager name...
  shift
  dpkg-query -W -f '${Package}\t${db:Status-Abbrev}\t${Version}\n' "$@" 2>/dev/null |
    while read -r name status version; do [ "$status" != ii ] || say packages "$name" "$version"; done
}
# Of a missing one rpm says so, on its output.
installed_by_dnf() { # manager name...
  shift
  rpm -q --qf '@installed %{NAME} %{VERSION}-%{RELEASE}\n' "$@" 2>/dev/null |
    while read -r mark name version; do [ "$mark" != @installed ] || say packages "$name" "$version"; done
}

fact_repositories() { # manager name...
  "repositories_of_$1" "$@"
}
repositories_of_apt() { # manager name...
  shift
  say repositories sources \
    "$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -cE '^(deb |Types:|URIs:)')"
  dpkg --audit 2>/dev/null | sed -n 's/^ \([^ ]*\) .*/\1/p' | while read -r name; do say repositories broken "$name"; done
  # Where there are no lists yet, apt itself says so later.
  ls /var/lib/apt/lists/*Packages* >/dev/null 2>&1 || return 0
  for name in "$@"; do
    if apt-cache show "$name" >/dev/null 2>&1; then
      say repositories candidate "$name" "$(apt-cache policy "$name" 2>/dev/null | sed -n 's/^ *Candidate: //p')"
    else say repositories unavailable "$name"; fi
  done
}
repositories_of_dnf() { # manager name...
  shift
  say repositories sources "$(enabled_repositories /etc/yum.repos.d)"
  # An interrupted dnf leaves the old version of a package beside the new one.
  rpm -q --qf '@installed %{NAME}.%{ARCH}\n' "$@" 2>/dev/null | sed -n 's/^@installed //p' | sort | uniq -d |
    while read -r name; do say repositories broken "${name%.*}"; done
  for name in "$@"; do rpm -q "$name" >/dev/null 2>&1 || echo "$name"; done | {
    missing=$(cat)
    [ -z "$missing" ] || candidates_of_dnf "$missing"
  }
}
enabled_repositories() { # folder; one is enabled unless its section says otherwise (dnf.conf(5))
  cat "$1"/*.repo 2>/dev/null | awk -F'[ \t]*=[ \t]*' '
    /^\[/ { sections++ }
    $1 == "enabled" && tolower($2) ~ /^(0|no|false|off)/ { off[sections] = 1 }
    END { for (one in off) count++; print sections - count }'
}
# Where there is no cache yet, dnf itself says so later. Plugins could ask the network. Long names are wrapped: three
# words a package, however many lines.
candidates_of_dnf() { # names, one a line
  # shellcheck disable=SC2086  # several
  if ! found=$(LC_ALL=C dnf -q -C --noplugins list --available $1 2>&1); then
    case $found in *'No matching '[Pp]ackages*) found='' ;; *) return 0 ;; esac
  fi
  words=$(printf '%s\n' "$found" | sed -n '/^Available [Pp]ackages/,$p' | sed 1d | tr -s '[:space:]' '\n')
  for name in $1; do
    version=$(printf '%s\n' "$words" | awk -v name="$name" '
      index($0, name ".") == 1 && $0 !~ /\.i686$/ && substr($0, length(name) + 2) !~ /\./ { take = 1; next }
      take { sub(/^[0-9]+:/, ""); print; exit }')
    if [ -n "$version" ]; then say repositories candidate "$name" "$version"; else say repositories unavailable "$name"; fi
  done
}
