"""Collect the hosts' SSH keys, and add those to known_hosts that a person has looked at."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from common import Context, main, parser
from nornir_k3s.errors import UsageError
from nornir_k3s.report import terminal
from nornir_k3s.ssh.hostkeys import Finding, Found, State, collect
from nornir_k3s.ssh.known_hosts import change


def work(args: argparse.Namespace, ctx: Context) -> int:
    """Show the keys, add what is agreed to, and look again where that opens the way to hosts behind a jump host."""
    names = {*ctx.nr.inventory.hosts}
    while True:
        found = collect(ctx.nr)
        terminal.show_host_keys(found, ctx.out)
        names |= {one.host for one in found.findings}  # jump hosts show up by and by
        if wrong := sorted({*args.replace} - names):
            raise UsageError(f"--replace {wrong[0]}: there is no such host", hint="give a name of the inventory")
        added = settle(found, args)
        if not (added and found.behind):
            break
    missing = [one for one in found.findings if one.state is not State.KNOWN and one not in added]
    advise(missing, ctx)
    return 4 if found.unreachable else 1 if missing else 0


def settle(found: Found, args: argparse.Namespace) -> list[Finding]:
    """Write the keys that are agreed to; return them."""
    new = found.of(State.NEW)
    if not (new and agreed(f"add {len(new)} new key{'s' * (len(new) > 1)}?", args)):
        new = []
    revoked = {one.host for one in found.of(State.REVOKED)}
    hosts = {one.host for one in found.of(State.CHANGED)} & {*args.replace} - revoked
    if hosts and not agreed(f"replace what is on record for {', '.join(sorted(hosts))}?", args):
        hosts = set()
    other = [one for one in found.findings if one.host in hosts]
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


def advise(missing: Sequence[Finding], ctx: Context) -> None:
    """Say what is next, where something is left."""
    for host, file in sorted({(one.host, one.file) for one in missing if one.state is State.REVOKED}):
        ctx.out.print(f"{host}: a key it shows is revoked in {file}: do not go on", soft_wrap=True, markup=False)
    for host, file in sorted({(one.host, one.file) for one in missing if one.state is State.CHANGED}):
        words = f"{host}: its key is not the one on record in {file}. If the host was installed anew: --replace {host}."
        ctx.out.print(f"{words} Otherwise someone may be in between", soft_wrap=True, markup=False)
    if any(one.state is State.NEW for one in missing):
        ctx.out.print("next: compare the fingerprints with the hosts' own; --yes adds the new keys", soft_wrap=True)


if __name__ == "__main__":
    options = parser("Collect the hosts' SSH keys, and add the new ones to the inventory's known_hosts.")
    options.add_argument("--yes", action="store_true", help="ask nothing, and add what is new")
    options.add_argument(
        "--replace", action="append", default=[], metavar="HOST", help="put a host's changed keys in place of the old"
    )
    args = options.parse_args()
    sys.exit(main(args, partial(work, args)))
