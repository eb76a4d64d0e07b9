"""`nornir-k3s schedule`: drift checks from a systemd timer on this machine, of the system or of the user."""

from __future__ import annotations

import argparse
import os
import pwd
import subprocess
from collections.abc import Iterable
from pathlib import Path

from nornir_k3s import atomic_file
from nornir_k3s.cli import session
from nornir_k3s.cli.session import Session
from nornir_k3s.cli.timer_units import BUSY, DRIFT, OURS, Schedule
from nornir_k3s.errors import HostUnreachable, K3sError, UsageError

OTHERWISE = "use cron or a CI job, as docs/drift.md shows"


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return session.run(args, _work)


def _work(ctx: Session, args: argparse.Namespace) -> int:
    wanted = schedule(ctx, args)
    if args.action == "print":
        for name, text in wanted.units().items():
            ctx.out.print(f"# {folder(wanted) / name}\n{text}", soft_wrap=True, markup=False)
        return 0
    return {"install": install, "status": status, "remove": remove}[args.action](wanted, ctx)


def schedule(ctx: Session, args: argparse.Namespace) -> Schedule:
    """Return the schedule that was asked for.

    Raises:
        UsageError: A text cannot stand in a unit.
    """
    settings = ctx.nr.inventory.defaults.data.get("k3s_cluster") or {}
    cluster = str(settings.get("name", "cluster")) if isinstance(settings, dict) else "cluster"
    command = [*args.jobs[args.job], "--config", str(ctx.config.path)]
    if args.inventory:
        command += ["--inventory", str(args.inventory.resolve())]
    writes = [ctx.config.state.resolve(), ctx.config.cache.resolve()]
    own = ctx.arguments["options"]["backup"]
    system = os.geteuid() == 0 and not args.user
    if args.job == "backup" and own.folder and not own.command:
        writes.append(own.folder.resolve())
        if system and args.action == "install" and not own.folder.is_dir():
            hint = "make it, for the user that the backups run as: their service may write below it alone"
            raise UsageError(f"backup.folder: {own.folder} is not a folder", hint=hint)
    calendar = args.calendar or ("hourly" if args.job == "drift" else "daily")
    for name in ("html", "metrics"):
        if path := getattr(args, name):
            if not path.resolve().parent.is_dir():
                raise UsageError(f"--{name}: {path.resolve().parent} is not a folder")
            command += [f"--{name}", str(path.resolve())]
            writes.append(path.resolve().parent)
    words = [*command, calendar, args.run_as, args.on_failure]
    if any(character in word for word in words for character in '\n\r"'):
        raise UsageError("a path or an option has a line break or a quote in it: a systemd unit cannot hold it")
    if args.run_as and not system:
        raise UsageError("--run-as needs root and the system's systemd", hint="without it the checks run as you")
    return Schedule(
        name=f"nornir-k3s-{args.job}-{cluster}",
        job=args.job,
        command=command,
        writes=list(dict.fromkeys(writes)),
        calendar=calendar,
        jitter=args.jitter,
        deadline=args.deadline or (300 if args.job == "drift" else 7200),
        user=args.run_as or owner(ctx.config.state),
        on_failure=args.on_failure,
        system=system,
    )


def owner(state: Path) -> str:
    """Return the owner of the state; a check run by root would leave files in it that this user cannot read."""
    number = state.stat().st_uid
    try:
        return pwd.getpwuid(number).pw_name if number else ""
    except KeyError:
        return str(number)


def folder(wanted: Schedule) -> Path:
    """Return the folder of the units."""
    if wanted.system:
        return Path("/etc/systemd/system")
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "systemd" / "user"


def systemctl(wanted: Schedule, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run systemctl for the system's or the user's manager.

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
        reached = wanted.system or os.environ.get("XDG_RUNTIME_DIR")  # a session by su or sudo has none
        hint = OTHERWISE if reached else f"log in as this user, or {OTHERWISE}"
        raise K3sError(f"{' '.join(command)} failed: {reason}", hint=hint)
    return done


def install(wanted: Schedule, ctx: Session) -> int:
    """Write the units and start the timer; a unit that this tool did not write is not replaced."""
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
    user = f"; it runs as {wanted.user}" if wanted.user and wanted.system else ""
    ctx.out.print(f"installed: {where / wanted.name}.timer and .service{user}", soft_wrap=True)
    if not wanted.system:
        ctx.out.print("next: `loginctl enable-linger` lets it run while you are not logged in", soft_wrap=True)
    return 0


def status(wanted: Schedule, ctx: Session) -> int:
    """Show how and when the last run ended, and when the next one starts; 1 where the timer is not installed."""
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
    words = {
        "0": "no drift" if wanted.job == "drift" else "a backup was made",
        str(DRIFT): "drift",
        str(HostUnreachable.exit_code): "a host could not be read",
        str(BUSY): "a deploy was in progress",
    }
    said = f"{words.get(code, 'failed')} (exit {code}), {ended}" if ended else "none yet"
    if service.get("ActiveState") == "activating":  # systemd no longer knows the previous one
        said = "it is running now"
    ctx.out.print(f"last run: {said}", soft_wrap=True)
    return 0


def remove(wanted: Schedule, ctx: Session) -> int:
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
        if path.exists() and not path.read_text().startswith(OURS):
            raise UsageError(f"{path} was not written by this tool", hint="remove or rename it first")


def _calendar(text: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "calendar", text], capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode:
        raise UsageError(f"--calendar: systemd does not understand {text!r}", hint="see systemd.time(7), as `*:0/15`")
