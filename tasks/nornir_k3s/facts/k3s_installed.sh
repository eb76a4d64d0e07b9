# Every K3s that is installed on this host, with its unit, environment and files of settings: values, so secrets, too.

fact_installations() { # state-folder everything-or-others role
  ours=no
  [ ! -e "$1/installed" ] || ours=yes
  [ "$2" = everything ] || [ "$ours" = no ] || added_by_others || return 0
  for name in $(systemctl list-unit-files --no-legend --no-pager --type=service 2>/dev/null | sed 's/[[:space:]].*//'); do
    case $name in *k3s*) installation installations "$name" "$ours" ;; esac
  done
  [ "$2" = everything ] || leftovers "${3:-server}"
}
# Drop-ins stay where K3s was uninstalled: the next one would read them.
leftovers() { # role
  unit=k3s
  [ "$1" = server ] || unit=k3s-agent
  [ ! -e "/etc/systemd/system/$unit.service" ] && added_by_others || return 0
  text=$(printf '[Service]\nExecStart=/usr/local/bin/k3s %s\n' "$1"
    for path in "/etc/systemd/system/$unit.service.d"/*.conf; do
      [ ! -f "$path" ] || { printf '# %s\n' "$path"; cat "$path"; }
    done)
  say installations unit "$unit.service" inactive disabled no "$(printf '%s\n' "$text" | base64 -w0)"
  for path in "/etc/default/$unit" "/etc/sysconfig/$unit"; do
    [ ! -r "$path" ] || installation_file installations environment "$path"
  done
  for path in /etc/rancher/k3s/config.yaml.d/*.yaml /etc/rancher/k3s/config.yaml.d/*.yml; do
    [ ! -f "$path" ] || installation_file installations settings "$path"
  done
  installation_tokens installations /etc/rancher/k3s/config.yaml.d/*.y*ml
}
added_by_others() {
  for path in /etc/rancher/k3s/config.yaml.d/*.y*ml /etc/systemd/system/k3s.service.d/*.conf \
    /etc/systemd/system/k3s-agent.service.d/*.conf; do
    [ ! -e "$path" ] || return 0
  done
  grep -qsE "^[[:space:]]+[\"']?--?[a-z]|^ExecStart=.* [\"']?--?[a-z]" /etc/systemd/system/k3s.service \
    /etc/systemd/system/k3s-agent.service
}
# What a host holds of its cluster's secrets, for a controller that does not have them. SSH encrypts it, nothing logs it.
fact_held() { # unit, empty for none; path...
  if [ -n "$1" ]; then
    ! systemctl is-active -q "$1" 2>/dev/null || say held "$1" "$(echo active | base64 -w0)"
    installation held "$1" no
  fi
  shift
  for path in "$@"; do
    [ ! -f "$path" ] || say held "$path" "$(base64 -w0 <"$path")"
  done
}
installation() { # record unit ours
  text=$(systemctl cat --no-pager "$2" 2>/dev/null) || return 0
  case $2 in
    k3s.service | k3s-agent.service) ours=$3 ;; # whatever starts it
    *)
      case $text in *k3s*server* | *k3s*agent*) ours=no ;; *) return 0 ;; esac
      ;;
  esac
  say "$1" unit "$2" "$(systemctl is-active "$2" 2>/dev/null)" \
    "$(systemctl is-enabled "$2" 2>/dev/null)" "$ours" "$(printf '%s\n' "$text" | base64 -w0)"
  for path in $(printf '%s\n' "$text" | sed -n 's/^# \(\/.*\)/\1/p'); do
    [ ! -e "$path" ] || say "$1" changed "$(stat -Lc %Z "$path")" ''
  done
  configs=$(printf '%s\n' "$text" | installation_configs)
  printf '%s\n' "$text" | installation_tokens "$1"
  for path in $(systemctl show -p EnvironmentFiles "$2" | sed -n 's/^EnvironmentFiles=\(.*\) (.*/\1/p'); do
    [ -r "$path" ] || continue
    installation_file "$1" environment "$path"
    installation_tokens "$1" "$path"
    configs="$configs$NEWLINE$(installation_configs <"$path")"
  done
  for config in $(printf '%s\n' /etc/rancher/k3s/config.yaml "$configs" | sort -u); do
    for path in "$config" "$config".d/*.yaml "$config".d/*.yml; do
      [ ! -f "$path" ] || installation_file "$1" settings "$path"
      [ ! -f "$path" ] || installation_tokens "$1" "$path"
    done
  done
}
installation_file() { # record kind path
  [ "$(stat -Lc %s "$3")" -gt 262144 ] || say "$1" "$2" "$3" "$(base64 -w0 <"$3")"
  [ "$3" = /etc/rancher/k3s/config.yaml ] || say "$1" changed "$(stat -Lc %Z "$3")" ''
}
# The files that token-file, agent-token-file and their variables name.
installation_tokens() { # record file..., or standard input
  record=$1
  shift
  for path in $(cat "$@" 2>/dev/null | sed "s/[\"'\\\\]//g" | tr -s '[:space:]' ' ' |
    grep -oE '(token-file|TOKEN_FILE)( *[=:] *| +)/[^ ]+' | sed 's/^[^/]*//'); do
    [ ! -f "$path" ] || installation_file "$record" token "$path"
  done
}
# Where another file of settings is named: by a flag, or by K3S_CONFIG_FILE.
installation_configs() {
  sed "s/[\"'\\\\]//g" | tr -s '[:space:]' '\n' | sed '/^$/d' | {
    word=''
    while IFS= read -r next; do
      case $word in --config | -c | -config) printf '%s\n' "$next" ;; esac
      case $next in --config=/* | -c=/* | K3S_CONFIG_FILE=/*) printf '%s\n' "${next#*=}" ;; esac
      word=$next
    done
  } | grep '^/' || true
}
