#!/usr/bin/env python3
"""Boot the hosts of a lab inventory on this machine, look at them, disturb them, and take them away again."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

try:
    from nornir_k3s.errors import K3sError
    from nornir_k3s_lab import Lab
except ImportError as missing:
    sys.exit(
        f"{missing.name or missing} is not installed. In the project's folder run `make setup` and use"
        " `.venv/bin/python`, or install it: pip install -e ."
    )

PROJECT = Path(__file__).resolve().parent.parent
ONE_HOST = {
    "cut": "pull the host's network cable",
    "heal": "plug the host's network cable in again",
    "poweroff": "shut the host down and keep its disk",
    "poweron": "boot the host from its disk",
    "reset": "throw the host's disk away and boot it as bare Linux",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit code."""
    options = _parser().parse_args(argv)
    try:
        lab = Lab.from_inventory(options.config, options.inventory, say=lambda line: print(line, flush=True))
        return _run(lab, options)
    except K3sError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if error.exit_code == 2 else 1
    except KeyboardInterrupt:
        print("stopped; `status` shows what is up, `up` goes on, `down` takes it away", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab.py", description=__doc__)
    parser.add_argument("--config", type=Path, default=PROJECT / "config.yaml", help="Nornir's config.yaml")
    parser.add_argument("--inventory", type=Path, help="folder of hosts.yaml, instead of the config's own inventory")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="boot every host that does not run")
    commands.add_parser("status", help="show every host; exit code 1 unless all run")
    down = commands.add_parser("down", help="take all hosts away, and leave the machine as it was")
    down.add_argument("--image", action="store_true", help="remove the hosts' image as well")
    for name, text in (("ssh", "log in to a host as its user"), ("exec", "run as root in a host, without its sshd")):
        command = commands.add_parser(name, help=text)
        command.add_argument("host")
        command.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND")
    for name, text in ONE_HOST.items():
        commands.add_parser(name, help=text).add_argument("host")
    return parser


def _run(lab: Lab, options: argparse.Namespace) -> int:
    words = getattr(options, "argv", [])
    words = words[1:] if words[:1] == ["--"] else words
    if options.command == "up":
        booted = lab.up()
        print(f"the lab {lab.name} is up: {len(lab.hosts)} hosts, {len(booted)} booted now")
        print("look at it: `lab.py status`, `lab.py ssh HOST`; take it away: `lab.py down`")
    elif options.command == "down":
        lab.down(image=options.image)
        print(f"nothing is left of the lab {lab.name}" + ("" if options.image else "; its image is kept for the next"))
    elif options.command == "status":
        return _status(lab)
    elif options.command == "ssh":
        return subprocess.call(lab.ssh(options.host, words))
    elif options.command == "exec":
        return subprocess.call(lab.command(options.host, words or ["bash"]))
    else:
        getattr(lab, options.command)(options.host)
        print(f"{options.host}: {options.command} done")
    return 0


def _status(lab: Lab) -> int:
    found = lab.status()
    print(f"lab {lab.name}, network {lab.spec.network}, this machine is {lab.spec.gateway.split('/')[0]}")
    for one in found:
        sudo = "root" if one.host.user == "root" else "sudo asks" if one.host.sudo_password_file else "sudo"
        init = f"init {one.init}" if one.init else ""
        print(
            f"  {one.host.name:<12} {one.host.address:<16} {one.state:<8} {one.host.user:<8} {sudo:<10} {init}".rstrip()
        )
    return 0 if all(one.state == "running" for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
