"""The constant command lines that run a script, or take a file, as root on a host: no secret and no script in argv."""

from __future__ import annotations

import shlex

SUDO_REFUSED = 77
# Reads the sudo password (maybe empty) from the first line of stdin, byte by byte, and leaves the rest to the command.
# `sudo -k` ignores cached tickets, so that the password line never becomes a line of the script; a wrong password is
# found out first, so that sudo never takes lines of the script for further tries.
_AS_ROOT = f"""IFS= read -r pw
if [ "$(id -u)" = 0 ]; then exec "$@"
elif sudo -n true 2>/dev/null; then exec sudo -n -- "$@"
elif [ -n "$pw" ] && printf "%s\\n" "$pw" | sudo -k -S -p "" -- true 2>/dev/null; then
  {{ printf "%s\\n" "$pw"; exec cat; }} | sudo -k -S -p "" -- "$@"
else exit {SUDO_REFUSED}
fi"""

_PUT = """set -eu
umask 077
target=$1 sum=$2 mode=$3
folder=$(dirname "$target")
[ -d "$folder" ] || mkdir -p -m 755 "$folder"
draft="$folder/.nornir-k3s.$$"
trap 'rm -f "$draft"' EXIT
cat >"$draft"
have=$(sha256sum <"$draft")
[ "${have%% *}" = "$sum" ] || { echo "what arrived has the SHA-256 ${have%% *}" >&2; exit 76; }
chmod "$mode" "$draft"
mv -fT "$draft" "$target"
"""
DAMAGED = 76


def run_command(deadline: float) -> str:
    """Return the command line that runs a script from stdin; the far side ends it after the deadline, too."""
    return _as_root(["timeout", "-k", "5", str(int(deadline) + 1), "/bin/sh", "-s"])


def put_command(target: str, *, sha256: str, mode: int, deadline: float) -> str:
    """Return the command line that takes a file from stdin: verified before it gets its name."""
    script = ["timeout", "-k", "5", str(int(deadline) + 1), "/bin/sh", "-c", _PUT, "put", target, sha256, f"{mode:o}"]
    return _as_root(script)


def _as_root(argv: list[str]) -> str:
    return shlex.join(["/bin/sh", "-c", _AS_ROOT, "nornir-k3s", *argv])


def wrap(script: str) -> str:
    """Return a script that the shell has read to its end before the first command runs; commands get no stdin."""
    settings = "export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; umask 077"
    return f"{settings}\nmain() {{\n{script}\n}}\nmain </dev/null\n"
