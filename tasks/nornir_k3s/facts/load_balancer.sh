# HAProxy's own view, from its socket; a load balancer has no socat.
fact_backends() { # socket...; of the first that is there
  perl -MIO::Socket::UNIX -e '$s ||= IO::Socket::UNIX->new(Peer => $_) for @ARGV;
    $s or exit;
    print $s "show stat\n";
    while (<$s>) { @w = split /,/; print "\@backends\t$w[1]\t$w[17]\t$w[23]\n" if $w[0] eq "servers" }' "$@" 2>/dev/null
}

# The round trips to the servers in milliseconds: of what HAProxy has open, if its configuration says what round trips it
# is for; otherwise of five connections, as all servers are asked at the same time. A refused one is a round trip, too.
fact_round_trips() { # haproxy.cfg; name address port, as often as wanted
  kept=$(sed -n 's/^# Timeouts for round trips up to \([0-9]*\) ms$/\1/p' "$1" 2>/dev/null)
  shift
  if [ -n "$kept" ]; then say round_trips '' "$kept"; fi
  while [ $# -ge 3 ]; do
    if [ -n "$kept" ]; then open_round_trip "$1" "$2" "$3"; else new_round_trip "$1" "$2" "$3" & fi
    shift 3
  done
  wait
}
open_round_trip() {
  case $2 in *:*) to="[$2]" ;; *) to=$2 ;; esac
  ss -Htni "dst $to and dport = :$3" 2>/dev/null | sed -n 's/.* minrtt:\([0-9.]*\).*/\1/p' | sort -n | {
    if read -r best; then say round_trips "$1" "$best"; fi
  }
}
new_round_trip() {
  # shellcheck disable=SC2016  # bash expands them
  timeout 8 bash -c '
    for _ in 1 2 3 4 5; do
      begin=${EPOCHREALTIME/[.,]/}
      out=$( { exec 3<>"/dev/tcp/$0/$1"; } 2>&1) || [[ $out == *refused* ]] || exit 0
      took=$((${EPOCHREALTIME/[.,]/} - begin))
      printf "%d.%03d\n" $((took / 1000)) $((took % 1000))
    done' "$2" "$3" 2>/dev/null | sort -n | sed -n 3p | {
    if read -r median; then say round_trips "$1" "$median"; fi
  }
}
