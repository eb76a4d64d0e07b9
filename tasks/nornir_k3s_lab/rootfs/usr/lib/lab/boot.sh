#!/bin/sh
# Prepare a container for K3s at each boot. It also clears what the last boot left in the network namespace, which
# survives a reboot of the host.
# shellcheck source=/dev/null
. /etc/lab/network

mount --make-rshared /
[ -e /dev/kmsg ] || mknod -m 600 /dev/kmsg c 1 11
while read -r _ point type _; do
    case $type in cgroup|cgroup2) mount -o remount,rw,bind "$point" ;; esac
done < /proc/self/mounts

ip link set eth0 down
for link in $(ip -oneline link show | sed 's/^[0-9]*: //; s/[@:].*//'); do
    case $link in lo|eth0) ;; *) ip link delete "$link" 2>/dev/null ;; esac
done
nft flush ruleset
ip link set lo up
ip address flush dev eth0
ip address add "$ADDRESS" dev eth0
ip link set eth0 up
ip route replace default via "$GATEWAY"
exit 0
