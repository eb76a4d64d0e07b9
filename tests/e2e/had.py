"""What a host has: files, accounts, units, packages, addresses and routes; to compare it with what it had before."""

from __future__ import annotations

from collections.abc import Iterable

from .conftest import Site

# Not what package managers and systemd write down for themselves, nor what is gone after a boot, nor manual pages: dpkg
# leaves them out in the lab, so that their folder is empty, and goes with the first package that has some.
SCRIPT = r"""
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/tmp -o -path /srv \
  -o -path /var/cache -o -path /var/log -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/lib/ucf \
  -o -path /var/lib/systemd -o -path /root -o -path /usr/share/man -o -path '/etc/*shadow-' \) -prune \
  -o -printf 'file %y %m %u %g %p\n' 2>/dev/null
find /etc -xdev -type f ! -name '*-' ! -name ld.so.cache -exec sha256sum {} + | sed 's/^/content /'
find /var/log -mindepth 1 -maxdepth 1 -type d -printf 'file %p\n'
getent passwd | sed 's/^/account /'; getent group | sed 's/^/group /'
systemctl list-unit-files --no-legend --plain | sed 's/ *$//; s/^/unit /'
systemctl list-units --all --no-legend --plain 'k3s*' 'haproxy*' 'keepalived*' 'etcd*' 'nornir*' \
  'mariadb*' 'mysql*' 'postgresql*' | sed 's/^/loaded /'
dpkg-query -W -f 'package ${Package} ${db:Status-Abbrev}\n'
ip -o addr | awk '{ print "address", $2, $4 }'; ip route | sed 's/^/route /'
iptables-save 2>/dev/null | grep '^-' | sed 's/^/rule /'
"""


def had(site: Site, names: Iterable[str]) -> dict[str, set[str]]:
    """Return a line for each thing, by host."""
    return {name: set(site.lab.exec(name, ["sh", "-s"], input=SCRIPT).stdout.splitlines()) for name in names}
