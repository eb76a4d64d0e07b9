# What containers need of the kernel, and what may stand in their way.

fact_kernel() { # module...
  controllers=$(cat /sys/fs/cgroup/cgroup.controllers 2>/dev/null ||
    sed -n 's/^\([a-z]*\)\t.*\t1$/\1/p' /proc/cgroups | tr '\n' ' ')
  say kernel controllers "${controllers:-none}" # with v2, a container may have been given none
  say kernel keys "$(cat /proc/sys/kernel/keys/root_maxkeys 2>/dev/null)"
  if command -v iptables >/dev/null 2>&1; then say kernel iptables "$(iptables --version 2>/dev/null)"; fi
  say kernel watches "$(cat /proc/sys/fs/inotify/max_user_watches 2>/dev/null)"
  # The kubelet opens it, and ends where it cannot; in some containers it exists, but opening it is not permitted.
  if timeout 2 sh -c ': </dev/kmsg' 2>/dev/null; then say kernel kmsg yes; else say kernel kmsg no; fi
  for module in "$@"; do say kernel module "$module $(module_state "$module" /)"; done
}
module_state() { # module root; in an empty root in tests
  root=${2%/}
  folder="$root/lib/modules/$(uname -r)"
  if [ -d "$root/sys/module/$1" ] || grep -qsw "$1" "$root/proc/filesystems"; then echo yes
  elif [ "$1" = br_netfilter ] && [ -e "$root/proc/sys/net/bridge/bridge-nf-call-iptables" ]; then echo yes
  elif [ "$(cat "$root/proc/sys/kernel/modules_disabled" 2>/dev/null)" = 1 ]; then echo no
  elif [ ! -d "$folder" ]; then unloadable "$1"
  elif ! command -v modprobe >/dev/null 2>&1; then echo unknown
  else
    case $(modprobe --show-depends "$1" 2>/dev/null) in
      *'install '*/false* | *'install '*/true*) echo disabled ;;
      *insmod* | *builtin*) echo yes ;;
      *) if modprobe -nq "$1" 2>/dev/null; then echo yes; else echo no; fi ;;
    esac
  fi
}
# Nothing can be loaded from here. The kernel of a container's machine loads a file system at its first mount, and many
# modules are built in, which shows only by some of them.
unloadable() { if [ "$1" = br_netfilter ]; then echo no; else echo unknown; fi; }

fact_firewalls() {
  for unit in firewalld nftables; do
    if systemctl is-active -q $unit 2>/dev/null; then say firewalls $unit; fi
  done
  if [ -r /etc/ufw/ufw.conf ] && grep -qi '^ENABLED=yes' /etc/ufw/ufw.conf; then say firewalls ufw; fi
}

fact_booleans() { # name...: of an enforcing SELinux
  [ "$(getenforce 2>/dev/null)" = Enforcing ] || return 0
  for name in "$@"; do
    getsebool "$name" 2>/dev/null | while read -r _ _ value; do say booleans "$name" "$value"; done
  done
}

fact_selinux() {
  command -v getenforce >/dev/null 2>&1 || return 0
  if rpm -q k3s-selinux >/dev/null 2>&1; then policy=yes; else policy=no; fi
  say selinux "$(getenforce)" "$policy"
}
