"""Collect the hosts' SSH keys, and add those to known_hosts that a person has looked at."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from common import Context, main, parser
from nornir_k3s.errors import UsageError
from nornir_k3s.report import terminal
from nornir_k3s.ssh.hostkeys import HostKeyReport, HostKeyStatus, KeyState, collect
from nornir_k3s.ssh.known_hosts import change


def work(args: argparse.Namespace, ctx: Context) -> int:
    """Show the keys, add what is agreed to, and look again where that opens the way to hosts behind a jump host."""
    names = {*ctx.nr.inventory.hosts}
    while True:
        found = collect(ctx.nr)
        terminal.show_host_keys(found, ctx.out)
        names |= {one.host for one in found.keys}  # jump hosts show up by and by
        if wrong := sorted({*args.replace} - names):
            raise UsageError(f"--replace {wrong[0]}: there is no such host", hint="give a name of the inventory")
        added = settle(found, args)
        if not (added and found.untrusted_jump_host):
            break
    missing = [one for one in found.keys if one.state is not KeyState.KNOWN and one not in added]
    advise(missing, ctx)
    return 4 if found.unreachable else 1 if missing else 0


def settle(found: HostKeyReport, args: argparse.Namespace) -> list[HostKeyStatus]:
    """Write the keys that are agreed to; return them."""
    new = found.in_state(KeyState.NEW)
    if not (new and agreed(f"add {len(new)} new key{'s' * (len(new) > 1)}?", args)):
        new = []
    revoked = {one.host for one in found.in_state(KeyState.REVOKED)}
    hosts = {one.host for one in found.in_state(KeyState.CHANGED)} & {*args.replace} - revoked
    if hosts and not agreed(f"replace what is on record for {', '.join(sorted(hosts))}?", args):
        hosts = set()
    other = [one for one in found.keys if one.host in hosts]
    for file in sorted({one.file for one in [*new, *other]}):
        keys = [one.key for one in [*new, *other] if one.file == file]
        change(file, keys, forget={one.key.name for one in other if one.file == file})
    return [*new, *other]


def agreed(question: str, args: argparse.Namespace) -> bool:
    """Ask, on a terminal only."""
    if args.yes or not sys.stdin.isatty():
        return bool(args.yes)
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def advise(missing: Sequence[HostKeyStatus], ctx: Context) -> None:
    """Say what is next, where something is left."""
    for host, file in sorted({(one.host, one.file) for one in missing if one.state is KeyState.REVOKED}):
        ctx.out.print(f"{host}: a key it shows is revoked in {file}: do not go on", soft_wrap=True, markup=False)
    for host, file in sorted({(one.host, one.file) for one in missing if one.state is KeyState.CHANGED}):
        words = f"{host}: its key is not the one on record in {file}. If the host was installed anew: --replace {host}."
        ctx.out.print(f"{words} Otherwise this may be a man-in-the-middle attack", soft_wrap=True, markup=False)
    if any(one.state is KeyState.NEW for one in missing):
        ctx.out.print("next: compare the fingerprints with the hosts' own; --yes adds the new keys", soft_wrap=True)


if __name__ == "__main__":
    options = parser("Collect the hosts' SSH keys, and add the new ones to the inventory's known_hosts.")
    options.add_argument("--yes", action="store_true", help="ask nothing, and add what is new")
    options.add_argument(
        "--replace", action="append", default=[], metavar="HOST", help="put a host's changed keys in place of the old"
    )
    args = options.parse_args()
    sys.exit(main(args, partial(work, args)))
