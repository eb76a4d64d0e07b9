"""`nornir-k3s hostkeys`: collect the hosts' SSH keys, and add those to known_hosts that a person has compared."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from nornir_k3s.cli import session
from nornir_k3s.cli.console import confirmed
from nornir_k3s.cli.session import Session
from nornir_k3s.errors import HostUnreachable, InventoryError, UsageError
from nornir_k3s.inventory import placeholders
from nornir_k3s.inventory.problems import Sources
from nornir_k3s.report import terminal
from nornir_k3s.ssh.hostkeys import HostKeyReport, HostKeyStatus, KeyState, collect
from nornir_k3s.ssh.known_hosts import change


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return session.run(args, _work)


def _work(ctx: Session, args: argparse.Namespace) -> int:
    """Show the keys, add those that are confirmed, and repeat where that makes hosts behind a jump host reachable."""
    # Nothing else of the inventory has to be right yet.
    if left := placeholders.check(ctx.nr.inventory, Sources(ctx.config.sources.files)).problems:
        raise InventoryError(left)
    names = {*ctx.nr.inventory.hosts}
    while True:
        found = collect(ctx.nr)
        terminal.show_host_keys(found, ctx.out)
        names |= {one.host for one in found.keys}  # jump hosts appear one after the other
        if wrong := sorted({*args.replace} - names):
            raise UsageError(f"--replace {wrong[0]}: there is no such host", hint="give a name of the inventory")
        added = _add(found, args)
        if not (added and found.untrusted_jump_host):
            break
    missing = [one for one in found.keys if one.state is not KeyState.KNOWN and one not in added]
    _advise(missing, ctx)
    return HostUnreachable.exit_code if found.unreachable else 1 if missing else 0


def _add(found: HostKeyReport, args: argparse.Namespace) -> list[HostKeyStatus]:
    """Add the keys that are confirmed to known_hosts; return them."""
    new = found.in_state(KeyState.NEW)
    if not (new and _confirmed(f"add {len(new)} new key{'s' * (len(new) > 1)}?", args)):
        new = []
    revoked = {one.host for one in found.in_state(KeyState.REVOKED)}
    hosts = {one.host for one in found.in_state(KeyState.CHANGED)} & {*args.replace} - revoked
    if hosts and not _confirmed(f"replace what is on record for {', '.join(sorted(hosts))}?", args):
        hosts = set()
    other = [one for one in found.keys if one.host in hosts]
    for file in sorted({one.file for one in [*new, *other]}):
        keys = [one.key for one in [*new, *other] if one.file == file]
        change(file, keys, forget={one.key.name for one in other if one.file == file})
    return [*new, *other]


def _confirmed(question: str, args: argparse.Namespace) -> bool:
    """Ask, on a terminal only."""
    if args.yes or not sys.stdin.isatty():
        return bool(args.yes)
    return confirmed(lambda: input(f"{question} [y/N] "))


def _advise(missing: Sequence[HostKeyStatus], ctx: Session) -> None:
    """Print the next step, where keys are missing."""
    for host, file in sorted({(one.host, one.file) for one in missing if one.state is KeyState.REVOKED}):
        ctx.out.print(f"{host}: a key it shows is revoked in {file}: do not go on", soft_wrap=True, markup=False)
    for host, file in sorted({(one.host, one.file) for one in missing if one.state is KeyState.CHANGED}):
        words = f"{host}: its key is not the one on record in {file}. If the host was reinstalled: --replace {host}."
        ctx.out.print(f"{words} Otherwise this may be a man-in-the-middle attack", soft_wrap=True, markup=False)
    if any(one.state is KeyState.NEW for one in missing):
        ctx.out.print("next: compare the fingerprints with the hosts' own; --yes adds the new keys", soft_wrap=True)
