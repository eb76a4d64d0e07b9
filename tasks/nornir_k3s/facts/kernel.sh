# What containers need of the kernel, and what may stand in their way.

fact_kernel() { # module...
  say kernel controllers "$(cat /sys/fs/cgroup/cgroup.controllers 2>/dev/null ||
    sed -n 's/^\([a-z]*\)\t.*\t1$/\1/p' /proc/cgroups | tr '\n' ' ')"
  say kernel keys "$(cat /proc/sys/kernel/keys/root_maxkeys 2>/dev/null)"
  if command -v iptables >/dev/null 2>&1; then say kernel iptables "$(iptables --version 2>/dev/null)"; fi
  for module in "$@"; do
    if [ -d "/sys/module/$module" ] || grep -qw "$module" /proc/filesystems; then there=yes
    elif ! command -v modprobe >/dev/null 2>&1 || [ ! -d "/lib/modules/$(uname -r)" ]; then there=unknown
    elif modprobe -nq "$module" 2>/dev/null; then there=yes
    else there=no; fi
    say kernel module "$module $there"
  done
}

fact_firewalls() {
  for unit in firewalld nftables; do
    if systemctl is-active -q $unit 2>/dev/null; then say firewalls $unit; fi
  done
  if [ -r /etc/ufw/ufw.conf ] && grep -qi '^ENABLED=yes' /etc/ufw/ufw.conf; then say firewalls ufw; fi
}

fact_selinux() {
  command -v getenforce >/dev/null 2>&1 || return 0
  if rpm -q k3s-selinux >/dev/null 2>&1; then policy=yes; else policy=no; fi
  say selinux "$(getenforce)" "$policy"
}
