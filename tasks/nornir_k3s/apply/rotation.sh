# A server leaves the rotation of this load balancer before it restarts, and comes back after that (HAProxy's management
# guide, `set server`; a reload forgets such states). A timer brings it back if nobody else does. Nothing to do without
# HAProxy. STATE is this tool's folder, SOCKET is HAProxy's.
# shellcheck disable=SC2016  # perl expands them
ORDERS='use IO::Socket::UNIX; my ($note, $socket, @orders) = @ARGV;
  for my $order (@orders) {
    my $s = IO::Socket::UNIX->new(Peer => $socket) or next;
    print $s "$order\n"; print while <$s>;
  }
  unlink $note if $note ne ""'
entries() { # server: its entries, one a backend: backend, sessions, state
  perl -e "$ORDERS" '' "$SOCKET" 'show stat' 2>/dev/null | awk -F, -v s="$1" '$2 == s { print $1, $5, $18 }'
}
look() { listed=$(entries "$1"); } # server: what the next two functions go by
each_entry() { # server state program argument...: the program gets an order for each entry of the server as well
  server=$1 state=$2
  shift 2
  for backend in $(printf '%s\n' "$listed" | cut -d' ' -f1); do
    set -- "$@" "set server $backend/$server state $state"
  done
  "$@" >/dev/null 2>&1
}
is_away() { printf '%s\n' "$listed" | awk '$1 == "servers" && $3 ~ /^(DRAIN|MAINT)/ { found = 1 } END { exit !found }'; }
timer() { printf 'nornir-k3s-rotation-%s' "$1" | tr -c 'A-Za-z0-9_.-' _; } # server
cancelled() { systemctl stop -q "$(timer "$1").timer" 2>/dev/null || :; } # server
back() { # server, that was looked at
  # shellcheck disable=SC2153  # STATE is set by the script around this
  each_entry "$1" ready perl -e "$ORDERS" "$STATE/drained/$1" "$SOCKET" || :
  cancelled "$1"
}

# How many of a server's sessions began at most 10 seconds before it left (the guide, `show sess`): a request may be
# under way there, which a busy server has not answered yet. Those that are older are watches, or idle.
requests() { # server seconds-since-it-left
  perl -e "$ORDERS" '' "$SOCKET" 'show sess' 2>/dev/null |
    sed -n "s/.* srv=$1 .* age=\([0-9]*\)s .*/\1/p" | awk -v most="$(($2 + 10))" '$1 <= most { n++ } END { print n + 0 }'
}
leave() { # server seconds-for-sessions seconds-until-it-comes-back servers-that-stay-out seconds-for-requests
  mkdir -p "$STATE/drained"
  for other in "$STATE"/drained/*; do
    case " $4 " in *" ${other##*/} "*) continue ;; esac
    [ ! -e "$other" ] || { look "${other##*/}" && back "${other##*/}"; }
  done
  look "$1"
  [ -n "$listed" ] || { say rotation "$1" absent 0; return 0; }
  if is_away; then say rotation "$1" away 0; return 0; fi # somebody else has taken it out, and it stays so
  : >"$STATE/drained/$1"
  each_entry "$1" ready systemd-run -q --collect --unit "$(timer "$1")" --on-active="$3" \
    perl -e "$ORDERS" "$STATE/drained/$1" "$SOCKET" || :
  each_entry "$1" drain perl -e "$ORDERS" '' "$SOCKET" || :
  begin=$(date +%s)
  while :; do
    left=$(entries "$1" | awk '{ sum += $2 } END { print sum + 0 }') took=$(($(date +%s) - begin))
    [ "$left" -gt 0 ] || break
    [ "$took" -lt "$2" ] || { [ "$took" -lt "$5" ] && [ "$(requests "$1" "$took")" -gt 0 ]; } || break
    sleep 0.2
  done
  say rotation "$1" drained "$left"
}
come_back() { # server seconds
  look "$1"
  if [ -e "$STATE/drained/$1" ]; then back "$1"; elif is_away; then say rotation "$1" away 0; return 0; fi
  begin=$(date +%s)
  while :; do
    missing=$(entries "$1" | awk '$3 !~ /^(UP|no)/ { print $1 " says " $3; exit }')
    [ -n "$missing" ] && [ $(($(date +%s) - begin)) -lt "$2" ] || break
    sleep 0.2
  done
  say rotation "$1" "${missing:-up}" 0
}
