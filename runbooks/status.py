"""The cluster at a glance: nodes, servers behind the VIP, who holds it, datastore, versions, certificates."""

from __future__ import annotations

import sys
from pathlib import Path

from common import Context, main, parser, writable, write_text
from nornir_k3s.errors import HostUnreachable
from nornir_k3s.report import terminal
from nornir_k3s.workflows.status import status


def work(ctx: Context, json: Path | None) -> int:
    """Show the state; 1 when something is not as it should be, 4 when a host cannot be reached."""
    found = status(ctx.nr, **ctx.arguments)
    if json:
        write_text(json, found.model_dump_json(indent=2))
    terminal.show_status(found, ctx.err if str(json) == "-" else ctx.out)
    return HostUnreachable.exit_code if found.unreachable else 1 if found.problems else 0


if __name__ == "__main__":
    cli = parser("Show the cluster at a glance; nothing is changed.")
    cli.add_argument("--json", type=Path, metavar="FILE", help="also write it as data (- = stdout)")
    args = cli.parse_args()
    if not writable(args.json):
        cli.error(f"--json: {args.json} cannot be written")
    sys.exit(main(args, lambda ctx: work(ctx, args.json)))
