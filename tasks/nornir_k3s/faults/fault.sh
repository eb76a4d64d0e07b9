# A fault, and what undoes it: `make` lasts $SECONDS_OF_IT seconds; `undo` may run at any time, and twice. It runs as
# nornir-k3s-drill.service, which undoes it however it ends.
TABLE=nornir_k3s_drill

devices() { # those with this host's own addresses, without those of containers
  ip -o addr show scope global |
    awk '$2 !~ /^(lo|cni|flannel|veth|docker|kube-|nodelocaldns|cali|cilium)/ { print $2 }' | sort -u
}

device_rules() { # all that these devices send and receive, packet sockets included (nft(8): egress, since Linux 5.16)
  echo "table netdev $TABLE {"
  number=0
  for device in $(devices); do
    number=$((number + 1))
    for hook in ingress egress; do
      echo "chain $hook$number { type filter hook $hook device \"$device\" priority -300; policy drop; }"
    done
  done
  echo '}'
}

ip_rules() {
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

way_to_cut() { # devices, nft, iptables, or nothing
  if [ -n "$(devices)" ] && device_rules | nft -c -f - >/dev/null 2>&1; then
    echo devices
  elif systemctl -q is-active keepalived; then
    : # it sends its ARP from a packet socket, past the other rules: a host that is cut would take the VIP from the others
  elif ip_rules | nft -c -f - >/dev/null 2>&1; then
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
      case $(way_to_cut) in
        devices) device_rules | nft -f - ;;
        nft) ip_rules | nft -f - ;;
        iptables) tables -I ;;
      esac
      ;;
  esac
  sleep "$SECONDS_OF_IT"
}

undo() {
  case $KIND in
    cut)
      for family in netdev inet arp; do nft delete table "$family" "$TABLE" 2>/dev/null; done
      tables -D 2>/dev/null
      ! nft list tables 2>/dev/null | grep -q " $TABLE\$"
      ;;
    *)
      systemctl reset-failed "$UNIT" 2>/dev/null
      # K3s says that it is ready long after it is started: this is waited for elsewhere.
      case $UNIT in k3s*) systemctl start --no-block "$UNIT" ;; *) systemctl start "$UNIT" ;; esac
      ;;
  esac
}
