"""What the runbooks share: `python runbooks/NAME.py` is `nornir-k3s NAME` with the checkout's config.yaml."""

import sys
from pathlib import Path


def run(name: str) -> None:
    """Run a subcommand and exit with its code."""
    try:
        from nornir_k3s.cli.main import runbook  # noqa: PLC0415 - it may not be installed

        sys.exit(runbook(name, Path(__file__).resolve().parent))
    except ImportError as error:
        sys.exit(
            f"{error.name or error} is not installed. In the project's folder run `make setup` and use"
            " `.venv/bin/python`, or install it: pip install -e ."
        )
