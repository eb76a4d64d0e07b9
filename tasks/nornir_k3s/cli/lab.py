"""`nornir-k3s lab`: boot the hosts of an inventory on this machine, look at them, disturb them, and remove them."""

from __future__ import annotations

import argparse
import subprocess
import sys

from nornir_k3s.errors import Interrupted, K3sError, UsageError
from nornir_k3s_lab import Lab, LabConfigError, LabError


def run(args: argparse.Namespace) -> int:
    """Run one action; return the exit code."""
    try:
        lab = Lab.from_inventory(args.config, args.inventory, say=_say)
        return _act(lab, args)
    except LabError as error:
        sys.stderr.write(f"error: {error}\n")
        return UsageError.exit_code if isinstance(error, LabConfigError) else K3sError.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; `status` shows what is up, `up` continues, `down` removes it\n")
        return Interrupted.exit_code


def _act(lab: Lab, args: argparse.Namespace) -> int:
    words = getattr(args, "argv", [])
    words = words[1:] if words[:1] == ["--"] else words
    command = args.parser.prog
    if args.action == "up":
        booted = lab.up()
        _say(f"the lab {lab.name} is up: {len(lab.hosts)} hosts, {len(booted)} booted now")
        _say(f"look at it: `{command} status`, `{command} ssh HOST`; remove it: `{command} down`")
    elif args.action == "down":
        lab.down(image=args.image)
        _say(f"the lab {lab.name} is removed" + ("" if args.image else "; its image is kept for the next one"))
    elif args.action == "status":
        return _status(lab)
    elif args.action == "ssh":
        return subprocess.call(lab.ssh(args.host, words))
    elif args.action == "exec":
        return subprocess.call(lab.command(args.host, words or ["bash"]))
    else:
        getattr(lab, args.action)(args.host)
        _say(f"{args.host}: {args.action} done")
    return 0


def _status(lab: Lab) -> int:
    found = lab.status()
    _say(f"lab {lab.name}, network {lab.spec.network}, this machine is {lab.spec.gateway.split('/')[0]}")
    for one in found:
        sudo = "root" if one.host.user == "root" else "sudo asks" if one.host.sudo_password_file else "sudo"
        init = f"init {one.init}" if one.init else ""
        line = f"  {one.host.name:<12} {one.host.address:<16} {one.state:<8} {one.host.user:<8} {sudo:<10} {init}"
        _say(line.rstrip())
    return 0 if all(one.state == "running" for one in found) else 1


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
