# Addresses, routes, sockets, and who reaches whom.

fact_addresses() {
  ip -o addr show 2>/dev/null | while read -r _ dev family address _; do
    case $family in inet | inet6) say addresses "$dev" "$address" ;; esac
  done
}

fact_default_routes() {
  { ip route show default; ip -6 route show default; } 2>/dev/null | while read -r line; do
    say default_routes "$line"
  done
}

fact_routes() {
  { ip -o -4 route show; ip -o -6 route show; } 2>/dev/null | while read -r to rest; do
    case $to in default | unreachable | blackhole) ;; *) say routes "$to" "$rest" ;; esac
  done
}

fact_sockets() {
  ss -Hlntp 2>/dev/null | while read -r _ _ _ local _ processes; do say sockets "$local" "${processes:-}"; done
}

# As K3s reads them: a line that begins with a blank is none. A file without a name server, and one that is not there or
# a link to nowhere, has one record, without address.
fact_nameservers() { # file...
  for file in "$@"; do
    found=$(sed -n 's/^nameserver[[:space:]]\{1,\}\([^[:space:]]*\).*/\1/p' "$file" 2>/dev/null)
    [ -n "$found" ] || say nameservers "$file" ''
    printf '%s\n' "$found" | while read -r address; do [ -z "$address" ] || say nameservers "$file" "$address"; done
  done
}

# As programs of the host resolve them: /etc/hosts, then DNS (getent(1)). A name that is not resolved has no address.
fact_names() { # name...
  command -v getent >/dev/null 2>&1 || return 0
  for name in "$@"; do
    say names "$name" "$(timeout 10 getent ahosts "$name" 2>/dev/null | sed 's/[[:space:]].*//' | sort -u | tr '\n' ' ')"
  done
}

# All at the same time: a closed port answers at once, a firewall that drops takes the whole deadline.
fact_reach() { # name address port, as often as wanted
  command -v bash >/dev/null 2>&1 || return 0
  while [ $# -ge 3 ]; do
    reach "$1" "$2" "$3" &
    shift 3
  done
  wait
}
reach() {
  # shellcheck disable=SC2016  # bash expands them
  out=$(timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$2" "$3" 2>&1)
  case $?:$out in
    0:*) outcome=open ;; *refused*) outcome=closed ;; 124:*) outcome=silent ;;
    *route* | *unreachable*) outcome=unroutable ;; *) outcome=failed ;;
  esac
  say reach "$1" "$2:$3" "$outcome"
}

fact_unreachable() { # address port, as often as wanted
  while [ $# -ge 2 ]; do
    # shellcheck disable=SC2016  # bash expands them
    why=$(timeout 5 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>&1) || {
      why=${why%%"$NEWLINE"*}
      say unreachable "$1:$2" "${why##*: }"
    }
    shift 2
  done
}

# Another machine that has a VIP already: a packet to it makes the kernel ask for its address, by ARP or NDP.
fact_neighbours() { # port address...
  port=$1
  shift
  command -v bash >/dev/null 2>&1 || return 0
  for vip; do neighbour "$vip" "$port" & done
  wait
}
neighbour() {
  if ip -o addr show | grep -qF " $1/"; then return 0; fi
  # shellcheck disable=SC2016  # bash expands them
  out=$(timeout 0.7 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>&1)
  # The kernel remembers machines that are gone, too: one that does not answer the packet was confirmed just now.
  case $?:$out in 0:* | *refused*) age='[0-9]*' ;; *) age='[01]' ;; esac
  ip -s neigh show "$1" 2>/dev/null |
    sed -n "s|^\\(.*lladdr [^ ]*\\).* used [0-9]*/$age/.* \\([A-Z][A-Z]*\\) *$|\\1 \\2|p" |
    while read -r line; do say neighbours "$1" "$line"; done
}
