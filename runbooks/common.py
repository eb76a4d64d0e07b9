"""What the runbooks share: arguments, Nornir from config.yaml, logging, errors to exit codes."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

try:
    from nornir import InitNornir
    from nornir.core import Nornir
    from nornir.core.processor import Processor
    from nornir.core.task import AggregatedResult, Task
    from rich.console import Console
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    from nornir_k3s.errors import Interrupted, K3sError, UsageError
    from nornir_k3s.plugins.progress import Progress
except ImportError as error:
    sys.exit(
        f"{error.name or error} is not installed. In the project's folder run `make setup` and use"
        " `.venv/bin/python`, or install it: pip install -e ."
    )

PROJECT = Path(__file__).resolve().parent.parent


@dataclass
class Context:
    """What a runbook works with."""

    nr: Nornir
    base: Path
    state: Path
    options: dict[str, Any]
    out: Console
    log: Path


class Verbose(Progress):
    """Prints every phase's results and diffs as people who know Nornir expect them."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))

    def task_completed(self, task: Task, result: AggregatedResult) -> None:
        """Print what each host gave."""
        # Imported here: it takes hold of standard output for its colours.
        from nornir_utils.plugins.functions import print_result  # noqa: PLC0415

        if task.name != "close_connections_task":
            print_result(result)


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options every runbook has."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument(
        "--config", type=Path, default=PROJECT / "config.yaml", help="Nornir's configuration (default: %(default)s)"
    )
    result.add_argument(
        "--inventory",
        type=Path,
        help="folder with hosts.yaml, groups.yaml, defaults.yaml (default: as the config says)",
    )
    result.add_argument(
        "-v", "--verbose", action="store_true", help="also print each host's result and diff, as Nornir does"
    )
    return result


def context(args: argparse.Namespace) -> Context:
    """Return Nornir and the tool's own settings for these arguments.

    Raises:
        UsageError: The config or the inventory cannot be read.
    """
    config = args.config.resolve()
    settings = _read(config)
    folder = config.parent
    options = ((settings.pop("user_defined", None) or {}).get("k3s")) or {}
    inventory = dict(settings.get("inventory") or {})
    inventory["options"] = files = _inventory_files(dict(inventory.get("options") or {}), folder, args.inventory)
    base = Path(files["host_file"]).parent if "host_file" in files else folder
    if inventory.get("transform_function") == "k3s_credentials":
        inventory["transform_function_options"] = {"base": str(base)}
    settings["inventory"] = inventory
    settings["logging"] = {"enabled": False}
    state = folder / options.get("state", ".state")
    log = _log(state)
    try:
        nr = InitNornir(**settings)
    except K3sError:
        raise
    except Exception as error:
        logging.getLogger("nornir_k3s").debug("InitNornir failed", exc_info=True)
        raise UsageError(f"{config}: {_first_line(error)}", hint=f"correct the file; details are in {log}") from None
    return Context(nr, base, state, options, Console(highlight=False), log)


def _inventory_files(options: dict[str, Any], folder: Path, chosen: Path | None) -> dict[str, Any]:
    if chosen is not None:
        for key, name in (
            ("host_file", "hosts.yaml"),
            ("group_file", "groups.yaml"),
            ("defaults_file", "defaults.yaml"),
        ):
            options[key] = str(chosen.resolve() / name)
    for key in ("host_file", "group_file", "defaults_file"):
        if key in options:
            options[key] = str((folder / options[key]).resolve())
            if key == "host_file" and not Path(options[key]).is_file():
                raise UsageError(f"{options[key]} does not exist", hint="give the inventory's folder with --inventory")
    return options


def _read(config: Path) -> dict[str, Any]:
    try:
        data = YAML(typ="safe").load(config)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{config} cannot be read: {_first_line(error)}", hint="give another file with --config"
        ) from None
    except YAMLError as error:
        raise UsageError(f"{config} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise UsageError(f"{config} is not a mapping of settings")
    return data


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _log(state: Path) -> Path:
    """Keep a debug log of this run, 0600, beside the generated secrets; nothing of it reaches the terminal."""
    folder = state / "log"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    handler = logging.StreamHandler(os.fdopen(descriptor, "w"))
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.DEBUG, handlers=[handler], force=True)
    logging.getLogger("paramiko").setLevel(logging.WARNING)
    logging.getLogger("netmiko").setLevel(logging.WARNING)
    for old in sorted(folder.glob("*.log"))[:-20]:
        old.unlink(missing_ok=True)
    return path


def main(arguments: argparse.Namespace, work: Callable[[Context], int]) -> int:
    """Run a runbook's work and return its exit code; an expected error is told in words, never as a traceback."""
    err = Console(stderr=True, highlight=False, soft_wrap=True)
    ctx: Context | None = None
    try:
        ctx = context(arguments)
        with ctx.nr as nr:
            shown: list[Processor] = [Progress(Console(stderr=True, highlight=False))]
            ctx.nr = nr.with_processors([*shown, Verbose()] if arguments.verbose else shown)
            return work(ctx)
    except KeyboardInterrupt:
        err.print("interrupted")
        return Interrupted.exit_code
    except K3sError as error:
        err.print(f"error: {error}", markup=False)
        return error.exit_code
    except Exception as error:
        logging.getLogger("nornir_k3s").exception("unexpected")
        where = f"; the traceback is in {ctx.log}" if ctx else ""
        err.print(f"error: unexpected {type(error).__name__}: {_first_line(error)}{where}", markup=False)
        return 1
