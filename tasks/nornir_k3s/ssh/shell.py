"""The constant command lines that run a script, or take a file, as root on a host: no secret and no script in argv."""

from __future__ import annotations

import math
import shlex

from nornir_k3s.model.secret import Secret

SUDO_REFUSED = 77
SUDO_SAID = "nornir-k3s: sudo: "
DAMAGED = 76
# Printed on both streams when the shell has read the whole script: what comes before is a login's or sudo's own noise.
BEGIN = "nornir-k3s: begin"
_LAST_LINE_FOR_SUDO = "nornir-k3s: end of the password"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The first line of stdin is the sudo password, maybe empty; `read` takes it byte by byte and leaves the rest.
# - A password is tried out first: with a wrong one, sudo would take lines of the script for further tries.
# - Whether sudo reads the password is not known (NOPASSWD, tickets): root's side skips all up to the marker line.
# - sudo's relay may read ahead: the tries get a stdin of their own.
_AS_ROOT = "; ".join(
    [
        f'PATH="$PATH:{_PATH}" LC_ALL=C',
        "export PATH LC_ALL",
        "skip=$1",
        "shift",
        "IFS= read -r pw",
        'if [ "$(id -u)" = 0 ]',
        'then exec "$@"',
        'elif [ -z "$pw" ]',
        'then said=$(sudo -n true </dev/null 2>&1) && exec sudo -n -- "$@"',
        'else said=$(printf "%s\\n" "$pw" | sudo -k -S -p "" -- true 2>&1) && {'
        f' {{ printf "%s\\n%s\\n" "$pw" "{_LAST_LINE_FOR_SUDO}"; exec cat; }} |'
        ' sudo -k -S -p "" -- /bin/sh -c "$skip" skip "$@"',
        "exit; }",
        "fi",
        f'printf "%s%s\\n" "{SUDO_SAID}" "$said" >&2',
        f"exit {SUDO_REFUSED}",
    ]
)
_SKIP = f'while IFS= read -r line && [ "$line" != "{_LAST_LINE_FOR_SUDO}" ]; do :; done; exec "$@"'

# The draft has its mode before it has content, and its name only when it is whole.
_PUT = "; ".join(
    [
        "set -eu",
        "umask 077",
        "target=$1 sum=$2 mode=$3",
        'folder=$(dirname "$target") name=$(basename "$target")',
        '[ -d "$folder" ] || mkdir -p -m 755 "$folder"',
        # A host that lost its power kept the draft of that transfer.
        'find "$folder" -maxdepth 1 -name ".$name.draft-*" -mmin +1440 -exec rm -f {} + 2>/dev/null || true',
        'draft=$(mktemp "$folder/.$name.draft-XXXXXX")',
        "trap 'rm -f \"$draft\"' EXIT",
        "trap 'exit 143' HUP INT PIPE TERM",
        'chmod "$mode" "$draft"',
        'cat >"$draft"',
        # OpenSSL uses what the processor has for it, which is five times as fast.
        'have=$( { command -v openssl >/dev/null && openssl dgst -sha256 -r; } <"$draft" 2>/dev/null ||'
        ' sha256sum <"$draft")',
        'if [ "${have%% *}" != "$sum" ]',
        f'then echo "$(wc -c <"$draft") bytes arrived, with the SHA-256 ${{have%% *}}" >&2; exit {DAMAGED}',
        "fi",
        'mv -fT "$draft" "$target"',
    ]
)


def run_command(deadline: float) -> str:
    """Return the command line that runs a script from stdin; the host itself ends it at the deadline."""
    return _as_root([*_timeout(deadline), "/bin/sh", "-s"])


def put_command(target: str, *, sha256: str, mode: int, deadline: float) -> str:
    """Return the command line that takes a file from stdin: verified before it gets its name."""
    return _as_root([*_timeout(deadline), "/bin/sh", "-c", _PUT, "put", target, sha256, f"{mode:04o}"])


def _timeout(deadline: float) -> list[str]:
    return ["timeout", "-k", "5", str(max(1, math.ceil(deadline)))]


def _as_root(argv: list[str]) -> str:
    return shlex.join(["/bin/sh", "-c", _AS_ROOT, "nornir-k3s", _SKIP, *argv])


def password_line(password: Secret) -> bytes:
    """Return the first line of stdin."""
    return password.reveal().encode() + b"\n"


def wrap(script: str) -> str:
    """Return a script that the shell has read to its end before the first command runs; commands get no stdin."""
    settings = f"export LC_ALL=C PATH={_PATH}; umask 077"
    begin = f'printf "{BEGIN}\\n"; printf "{BEGIN}\\n" >&2'
    return f"{settings}\nmain() {{\n{begin}\n{script}\n}}\nmain </dev/null\n"


def why_sudo_refused(stderr: str) -> str:
    """Return sudo's reason, in words."""
    said = stderr.rpartition(SUDO_SAID)[2].strip()
    for words, reason in (
        ("a password is required", "it asks for a password, and none is given"),
        ("incorrect password", "the password is wrong"),
        ("not found", "there is no sudo on the host"),
        ("must have a tty", "it wants a terminal (`requiretty` in sudoers)"),
        ("not in the sudoers", "it is not in sudoers"),
        ("may not run sudo", "sudoers does not allow it"),
        ("not allowed to", "sudoers does not allow it everything"),
        ("account validation failure", "its account is locked or has expired"),
    ):
        if words in said:
            return reason
    return said.splitlines()[-1].strip() if said else "no reason given"
