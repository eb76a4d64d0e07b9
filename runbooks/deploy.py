"""Deploy the cluster of an inventory: from bare Linux, or just what is not as it should be."""

from __future__ import annotations

import sys

from common import Context, main, parser
from nornir_k3s.report import terminal
from nornir_k3s.workflows.deploy import deploy
from nornir_k3s.workflows.plan import plan


def work(ctx: Context) -> int:
    """Run the chain and show its report."""
    report = deploy(ctx.nr, base=ctx.base, state=ctx.state, options=ctx.options)
    terminal.show(report, ctx.out)
    return 0


def show(ctx: Context) -> int:
    """Show what the chain would do; nothing is changed."""
    terminal.show_plan(plan(ctx.nr, base=ctx.base, state=ctx.state, options=ctx.options), ctx.out)
    return 0


if __name__ == "__main__":
    arguments = parser("Deploy a highly available K3s cluster from the inventory.")
    arguments.add_argument("--plan", action="store_true", help="say what would be done, with diffs, and change nothing")
    args = arguments.parse_args()
    sys.exit(main(args, show if args.plan else work))
