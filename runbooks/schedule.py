"""Check for drift on a schedule: a systemd timer on this machine, for root or for the user who calls this."""

from __future__ import annotations

import argparse
import os
import pwd
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from common import PROJECT, Context, main, parser
from nornir_k3s import atomic_file
from nornir_k3s.cli.timer_units import DRIFT, HEADER, Schedule
from nornir_k3s.errors import K3sError, UsageError

OTHERWISE = "use cron or a CI job, as docs/drift.md shows"


def arguments() -> argparse.Namespace:
    """Return what the operator asked for."""
    cli = parser("Check for drift on a schedule, with a systemd timer on this machine.")
    cli.add_argument("action", choices=("install", "status", "remove", "print"), help="print writes nothing")
    cli.add_argument(
        "--calendar", default="hourly", metavar="WHEN", help="as systemd.time(7) has it (default: %(default)s)"
    )
    cli.add_argument("--jitter", type=int, default=300, metavar="SECONDS", help="put each run off by up to this")
    cli.add_argument("--deadline", type=int, default=300, metavar="SECONDS", help="end a run that takes longer")
    cli.add_argument("--user", action="store_true", help="for your own systemd, also as root")
    cli.add_argument(
        "--run-as", default="", metavar="USER", help="as root: who runs the checks (default: whose state it is)"
    )
    cli.add_argument("--on-failure", default="", metavar="UNIT", help="started when a run fails; drift is no failure")
    cli.add_argument("--html", type=Path, metavar="FILE", help="write the page at each run")
    cli.add_argument("--metrics", type=Path, metavar="FILE", help="write the metrics at each run")
    args = cli.parse_args()
    if args.jitter < 0 or args.deadline < 1:
        cli.error("--jitter and --deadline are seconds")
    return args


def schedule(ctx: Context, args: argparse.Namespace) -> Schedule:
    """Return the schedule that was asked for.

    Raises:
        UsageError: A text cannot stand in a unit.
    """
    settings = ctx.nr.inventory.defaults.data.get("k3s_cluster") or {}
    cluster = str(settings.get("name", "cluster")) if isinstance(settings, dict) else "cluster"
    command = [sys.executable, str(PROJECT / "runbooks" / "drift.py"), "--config", str(ctx.config.path)]
    if args.inventory:
        command += ["--inventory", str(args.inventory.resolve())]
    writes = [ctx.config.state.resolve(), ctx.config.cache.resolve()]
    for name in ("html", "metrics"):
        if path := getattr(args, name):
            if not path.resolve().parent.is_dir():
                raise UsageError(f"--{name}: {path.resolve().parent} is no folder")
            command += [f"--{name}", str(path.resolve())]
            writes.append(path.resolve().parent)
    words = [*command, args.calendar, args.run_as, args.on_failure]
    if any(character in word for word in words for character in '\n\r"'):
        raise UsageError("a path or an option has a line break or a quote in it, which no unit can hold")
    system = os.geteuid() == 0 and not args.user
    if args.run_as and not system:
        raise UsageError("--run-as is for the system's timer, as root", hint="without it, the timer is yours alone")
    return Schedule(
        name=f"nornir-k3s-drift-{cluster}",
        command=command,
        writes=list(dict.fromkeys(writes)),
        calendar=args.calendar,
        jitter=args.jitter,
        deadline=args.deadline,
        user=args.run_as or owner(ctx.config.state),
        on_failure=args.on_failure,
        system=system,
    )


def owner(state: Path) -> str:
    """Return who owns the state; a check by root would leave files in it that this user cannot read."""
    number = state.stat().st_uid
    try:
        return pwd.getpwuid(number).pw_name if number else ""
    except KeyError:
        return str(number)


def folder(wanted: Schedule) -> Path:
    """Return where the units lie."""
    if wanted.system:
        return Path("/etc/systemd/system")
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "systemd" / "user"


def systemctl(wanted: Schedule, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run systemctl for the right manager.

    Raises:
        K3sError: It failed, or there is none.
    """
    command = ["systemctl", *([] if wanted.system else ["--user"]), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        raise K3sError("systemctl cannot be run here", hint=OTHERWISE) from None
    if check and done.returncode:
        reason = (done.stderr or done.stdout).strip()
        reached = wanted.system or os.environ.get("XDG_RUNTIME_DIR")  # who came by su or sudo has none
        hint = OTHERWISE if reached else f"log in as this user, or {OTHERWISE}"
        raise K3sError(f"{' '.join(command)} failed: {reason}", hint=hint)
    return done


def install(wanted: Schedule, ctx: Context) -> int:
    """Write the units, and start the timer; what is not ours is not replaced."""
    where = folder(wanted)
    _foreign(where, wanted.units())
    _calendar(wanted.calendar)
    systemctl(wanted, "daemon-reload")  # nothing is written where it does not answer
    try:
        where.mkdir(parents=True, exist_ok=True)
        for name, text in wanted.units().items():
            atomic_file.write(where / name, text, mode=None)
    except OSError as error:
        raise UsageError(f"{where} cannot be written: {error.strerror}") from None
    systemctl(wanted, "daemon-reload")
    systemctl(wanted, "enable", f"{wanted.name}.timer")
    systemctl(wanted, "restart", f"{wanted.name}.timer")
    user = f"; the checks run as {wanted.user}" if wanted.user and wanted.system else ""
    ctx.out.print(f"installed: {where / wanted.name}.timer and .service{user}", soft_wrap=True)
    if not wanted.system:
        ctx.out.print("next: `loginctl enable-linger` lets it run while you are not logged in", soft_wrap=True)
    return 0


def status(wanted: Schedule, ctx: Context) -> int:
    """Say when it ran last, how that ended, and when it runs next; 1 where it is not installed."""
    if not (folder(wanted) / f"{wanted.name}.timer").exists():
        ctx.out.print(f"{wanted.name}.timer is not installed", soft_wrap=True)
        return 1
    shown = systemctl(
        wanted, "show", f"{wanted.name}.timer", "-p", "ActiveState,LastTriggerUSec,NextElapseUSecRealtime"
    )
    ran = systemctl(
        wanted, "show", f"{wanted.name}.service", "-p", "ActiveState,Result,ExecMainStatus,ExecMainExitTimestamp"
    )
    timer, service = (
        dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line) for done in (shown, ran)
    )
    ctx.out.print(
        f"timer: {timer.get('ActiveState')}; next: {timer.get('NextElapseUSecRealtime') or '-'}", soft_wrap=True
    )
    ended = service.get("ExecMainExitTimestamp")
    code = service.get("ExecMainStatus", "")
    words = {"0": "no drift", str(DRIFT): "drift", "4": "a host could not be read", "5": "a deploy was at work"}
    said = f"{words.get(code, 'failed')} (exit {code}), {ended}" if ended else "it has not run yet"
    if service.get("ActiveState") == "activating":  # systemd has forgotten the one before
        said = "it runs just now"
    ctx.out.print(f"last run: {said}", soft_wrap=True)
    return 0


def remove(wanted: Schedule, ctx: Context) -> int:
    """Stop the timer, and remove the units."""
    where = folder(wanted)
    _foreign(where, wanted.units())
    have = [name for name in wanted.units() if (where / name).exists()]
    if not have:
        ctx.out.print("nothing is installed")
        return 0
    systemctl(wanted, "disable", "--now", f"{wanted.name}.timer", check=False)
    for name in have:
        (where / name).unlink(missing_ok=True)
    systemctl(wanted, "daemon-reload")
    ctx.out.print(f"removed: {', '.join(have)}", soft_wrap=True)
    return 0


def _foreign(where: Path, names: Iterable[str]) -> None:
    for name in names:
        path = where / name
        if path.exists() and not path.read_text().startswith(HEADER):
            raise UsageError(f"{path} was not written by this tool", hint="move it away first")


def _calendar(text: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "calendar", text], capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode:
        raise UsageError(f"--calendar: systemd does not understand {text!r}", hint="see systemd.time(7), as `*:0/15`")


def work(ctx: Context, args: argparse.Namespace) -> int:
    """Do what was asked for."""
    wanted = schedule(ctx, args)
    if args.action == "print":
        for name, text in wanted.units().items():
            ctx.out.print(f"# {folder(wanted) / name}\n{text}", soft_wrap=True, markup=False)
        return 0
    return {"install": install, "status": status, "remove": remove}[args.action](wanted, ctx)


if __name__ == "__main__":
    args = arguments()
    sys.exit(main(args, lambda ctx: work(ctx, args)))
