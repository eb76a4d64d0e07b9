"""What a host of the lab has beyond plain Debian: the files that let it boot in a container and carry K3s."""

from __future__ import annotations

import shlex

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
REPOSITORY = "/srv/lab-packages"
NETWORK_FILE = "etc/lab/network"

# These would change the machine's own kernel or clock, or wait for what a container does not have.
MASKED = (
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-networkd-wait-online.service",
    "systemd-sysctl.service",
    "systemd-timesyncd.service",
    "console-getty.service",
    "getty.target",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
)

_BOOT = """\
#!/bin/sh
# Makes a container what K3s expects of a machine; runs at each boot, so it also clears what the last boot left in the
# network namespace, which outlives a reboot.
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
"""

_UNIT = """\
[Unit]
Description=What the lab prepares at each boot
DefaultDependencies=no
Before=sysinit.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/lab/boot

[Install]
WantedBy=sysinit.target
"""

FILES: dict[str, tuple[int, str]] = {
    "usr/lib/lab/boot": (0o755, _BOOT),
    "etc/systemd/system/lab-boot.service": (0o644, _UNIT),
    # /dev/kmsg is the whole machine's: without this each host's journal repeats the machine's.
    "etc/systemd/journald.conf.d/lab.conf": (0o644, "[Journal]\nReadKMsg=no\n"),
    "etc/ssh/sshd_config.d/lab.conf": (
        0o644,
        "HostKey /etc/ssh/ssh_host_ed25519_key\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "PermitRootLogin prohibit-password\nUseDNS no\nMaxStartups 100\n",
    ),
    "etc/apt/sources.list": (0o644, f"deb [trusted=yes] file:{REPOSITORY} ./\n"),
}

# Run in the host's root before its first boot. LOGIN, KEY and PASSWORD (may be empty) come as assignments before it.
PREPARE = """\
set -eu
if [ "$LOGIN" != root ]; then
    id -u "$LOGIN" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$LOGIN"
    if [ -n "$PASSWORD" ]; then
        printf '%s:%s\\n' "$LOGIN" "$PASSWORD" | chpasswd
        rule='ALL=(ALL:ALL) ALL'
    else
        usermod --password '*' "$LOGIN"
        rule='ALL=(ALL:ALL) NOPASSWD: ALL'
    fi
    (umask 0337; printf '%s %s\\n' "$LOGIN" "$rule" > /etc/sudoers.d/lab)
fi
home=$(getent passwd "$LOGIN" | cut -d: -f6)
mkdir -p "$home/.ssh"
printf '%s\\n' "$KEY" > "$home/.ssh/authorized_keys"
chmod 700 "$home/.ssh"
chmod 600 "$home/.ssh/authorized_keys"
chown -R "$LOGIN:" "$home/.ssh"
"""


def prepare_script(login: str, key: str, password: str) -> str:
    """The script that gives a host its user, for `sh -s`."""
    values = {"LOGIN": login, "KEY": key, "PASSWORD": password}
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items()) + PREPARE


def identity_files(name: str, address: str, gateway: str, machine_id: str) -> dict[str, str]:
    """The files that make a host this host and no other."""
    machine, _, length = gateway.partition("/")
    return {
        "etc/hostname": f"{name}\n",
        "etc/hosts": f"127.0.0.1 localhost\n::1 localhost ip6-localhost\n{address} {name}\n",
        "etc/machine-id": f"{machine_id}\n",
        NETWORK_FILE: f"ADDRESS={address}/{length}\nGATEWAY={machine}\n",
    }
