# A fault, and what undoes it: `make` lasts $SECONDS_OF_IT seconds; `undo` may run at any time, and twice. It runs as
# nornir-k3s-drill.service, which undoes it however it ends.
TABLE=nornir_k3s_drill

nft_rules() {
  cat <<END
table inet $TABLE {
  chain in { type filter hook input priority -300; policy drop; iif "lo" accept; }
  chain out { type filter hook output priority -300; policy drop; oif "lo" accept; }
  chain through { type filter hook forward priority -300; policy drop; }
}
table arp $TABLE {
  chain in { type filter hook input priority 0; policy drop; }
  chain out { type filter hook output priority 0; policy drop; }
}
END
}

tables() { # -I or -D
  for program in iptables ip6tables; do
    command -v "$program" >/dev/null 2>&1 || continue
    "$program" -w 5 -t raw "$1" PREROUTING ! -i lo -m comment --comment "$TABLE" -j DROP
    "$program" -w 5 -t raw "$1" OUTPUT ! -o lo -m comment --comment "$TABLE" -j DROP
  done
}

way_to_cut() { # nft, iptables, or nothing
  if command -v nft >/dev/null 2>&1 && nft_rules | nft -c -f - >/dev/null 2>&1; then
    echo nft
  elif command -v iptables >/dev/null 2>&1 && iptables -w 5 -t raw -S >/dev/null 2>&1; then
    echo iptables
  fi
}

make() {
  case $KIND in
    stop) systemctl stop "$UNIT" ;;
    kill) systemctl kill --kill-who="$WHO" -s KILL "$UNIT" ;;
    cut) # a moment later: the answer to who began it must get out
      sleep 0.5
      if [ "$(way_to_cut)" = nft ]; then nft_rules | nft -f -; else tables -I; fi
      ;;
  esac
  sleep "$SECONDS_OF_IT"
}

undo() {
  case $KIND in
    cut)
      for family in inet arp; do nft delete table "$family" "$TABLE" 2>/dev/null; done
      tables -D 2>/dev/null
      ! nft list table inet "$TABLE" >/dev/null 2>&1
      ;;
    *)
      systemctl reset-failed "$UNIT" 2>/dev/null
      # K3s says that it is ready long after it is started: this is waited for elsewhere.
      case $UNIT in k3s*) systemctl start --no-block "$UNIT" ;; *) systemctl start "$UNIT" ;; esac
      ;;
  esac
}
