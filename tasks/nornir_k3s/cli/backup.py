"""`nornir-k3s backup`: the datastore's dump, tokens and settings in one file."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from typing import Any

from nornir_k3s.cli import session
from nornir_k3s.cli.output import write_text
from nornir_k3s.cli.session import Session
from nornir_k3s.errors import K3sError, UsageError
from nornir_k3s.model.backup import Backup, BackupOptions
from nornir_k3s.report import terminal
from nornir_k3s.workflows.backup import backup, plan_backup


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return session.run(args, _work)


def _work(ctx: Session, args: argparse.Namespace) -> int:
    work = plan_backup if args.plan else backup
    try:
        report = work(ctx.nr, **with_options(ctx, args))
    except K3sError as error:
        if isinstance(error.report, Backup) and args.json:
            write_text(args.json, error.report.model_dump_json(indent=2))
        raise
    if args.json:
        write_text(args.json, report.model_dump_json(indent=2))
    terminal.show_backup(report, ctx.report_console(args.json))
    return 0


def with_options(ctx: Session, args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of the workflow: those of the command line win over config.yaml.

    Raises:
        UsageError: The command cannot be split into words.
    """
    given: Mapping[str, Any] = ctx.arguments["options"]
    own: BackupOptions = given["backup"]
    changed: dict[str, Any] = {"keep": args.keep} if args.keep else {}
    if args.verify:
        changed["verify"] = True
    if args.certificate:
        changed["certificate"] = args.certificate.absolute()
    if args.to:
        changed |= {"folder": args.to.absolute(), "command": None}
    if args.command:
        try:
            words = shlex.split(args.command)
        except ValueError as error:
            raise UsageError(f"--command: {error}") from None
        if not words:
            raise UsageError("--command: it is empty")
        changed["command"] = words
    return {**ctx.arguments, "options": {**given, "backup": own.model_copy(update=changed)}}
