# Who sends VRRP (RFC 5798) on the interface of this address: to all routers (224.0.0.18, ff02::12), or to this host. It
# listens for a little longer than the usual second between two advertisements.
fact_vrrp() { # address
  dev=$(ip -o addr show to "$1" 2>/dev/null | { read -r _ dev _ && printf %s "$dev"; })
  perl -MSocket=:all -MTime::HiRes=time -e '
    ($dev, $index) = @ARGV;
    for (AF_INET, AF_INET6) {
      socket $s, $_, SOCK_RAW, 112 or next;
      setsockopt $s, SOL_SOCKET, 25, "$dev\0"; # SO_BINDTODEVICE
      $s{$_} = $s;
      undef $s;
    }
    setsockopt $s{&AF_INET}, 0, IP_ADD_MEMBERSHIP, pack "a4 x4 I", inet_pton(AF_INET, "224.0.0.18"), $index if $s{&AF_INET};
    setsockopt $s{&AF_INET6}, IPPROTO_IPV6, IPV6_JOIN_GROUP, pack "a16 I", inet_pton(AF_INET6, "ff02::12"), $index
      if $s{&AF_INET6};
    $end = time + 1.3;
    while (($left = $end - time) > 0) {
      $wait = "";
      vec($wait, fileno $_, 1) = 1 for values %s;
      select $ready = $wait, undef, undef, $left;
      while (($family, $s) = each %s) {
        vec($ready, fileno $s, 1) && defined($from = recv $s, $packet, 2048, 0) or next;
        $begin = $family == AF_INET ? 4 * (15 & ord $packet) : 0; # the header of IP
        ($type, $router) = unpack "C2", substr $packet, $begin;
        $source = inet_ntop $family, ((unpack_sockaddr_in6 $from)[1] // "") if $family == AF_INET6;
        $source = inet_ntoa substr $packet, 12, 4 if $family == AF_INET;
        print "\@vrrp\t$source\t$router\t", $type >> 4, "\n" if ($type & 15) == 1 && ! $seen{$source, $router, $type}++;
      }
    }' "$dev" "$(cat "/sys/class/net/$dev/ifindex" 2>/dev/null)" 2>/dev/null
}
