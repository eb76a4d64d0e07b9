"""Deploy the cluster of an inventory: from bare Linux, or just what is not as it should be."""

from __future__ import annotations

import sys

from common import Context, main, parser
from nornir_k3s.report import terminal
from nornir_k3s.workflows.deploy import deploy


def work(ctx: Context) -> int:
    """Run the chain and show its report."""
    report = deploy(ctx.nr, base=ctx.base, state=ctx.state, options=ctx.options)
    terminal.show(report, ctx.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(parser("Deploy a highly available K3s cluster from the inventory.").parse_args(), work))
