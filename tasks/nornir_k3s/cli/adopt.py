"""`nornir-k3s adopt`: write the inventory of a cluster that exists."""

from __future__ import annotations

import argparse
import re
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from nornir_k3s.adoption.write import Places
from nornir_k3s.cli import session
from nornir_k3s.cli.output import write_text
from nornir_k3s.cli.session import Session
from nornir_k3s.errors import K3sError, UsageError
from nornir_k3s.inventory import cluster, config
from nornir_k3s.inventory.file_models import Options
from nornir_k3s.inventory.problems import Sources
from nornir_k3s.model.adoption import Adoption
from nornir_k3s.plugins import loaded_inventory
from nornir_k3s.report import adoption_terminal
from nornir_k3s.state.store import Store
from nornir_k3s.workflows.adopt import Wanted, carry_out
from nornir_k3s.workflows.plan import plan

_HOST = re.compile(
    r"(?:([^@\s:/]+)@)?(\[[0-9A-Fa-f:.]+\]|[^:@/\s\[\]]+|[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)(?::(\d+))?"
)
_KINDS = {"hosts": "host_file", "groups": "group_file", "defaults": "defaults_file"}


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    args.rename = bool(args.hosts) and not _of_inventory(args)
    return session.run(args, _work, partial(_from_arguments, args) if args.rename else None)


def _of_inventory(args: argparse.Namespace) -> bool:
    """Return whether the hosts are names of the inventory."""
    if not args.config.exists():
        return False
    known = config.load(args.config.resolve(), args.inventory).sources.data.get("hosts")
    return isinstance(known, dict) and set(args.hosts) <= set(known)


def _work(ctx: Session, args: argparse.Namespace) -> int:
    """Read, write and show."""
    nr = ctx.nr
    if args.hosts and not args.rename:
        nr = nr.filter(filter_func=lambda host: host.name in args.hosts)
    if not nr.inventory.hosts:
        raise UsageError("no host was given, and the inventory has none", hint="nornir-k3s adopt HOST…")
    own = nr.inventory.defaults.data.get("k3s_cluster")
    known = own.get("name") if isinstance(own, dict) else None
    places, state = _places(args)
    wanted = Wanted(
        places,
        state,
        name=args.name or str(known or "k3s"),
        artifacts=args.artifacts.expanduser().resolve() if args.artifacts else None,
        force=args.force,
        rename=args.rename,
        write=not args.plan,
    )
    found = carry_out(nr, wanted)
    if wanted.write:
        _add_plan(found, places.config, state, ctx.log)
    if args.json:
        write_text(args.json, found.model_dump_json(indent=2))
    adoption_terminal.show(found, ctx.report_console(args.json), written=wanted.write)
    return 0


def _places(args: argparse.Namespace) -> tuple[Places, Path]:
    """Return where the inventory and the secrets go: as config.yaml of the folder says, if it has one."""
    folder = (args.out or args.config.parent).expanduser().resolve()
    path = folder / "config.yaml" if args.out else args.config.resolve()
    files = {kind: folder / "inventory" / f"{kind}.yaml" for kind in _KINDS}
    if not path.exists():
        return Places(path, files), folder / ".state"
    there = config.load(path)
    options = there.nornir["inventory"].get("options") or {}
    files |= {kind: Path(options[key]) for kind, key in _KINDS.items() if key in options}
    return Places(path, files), there.state


def _from_arguments(args: argparse.Namespace) -> config.Config:
    """Return the settings of a run whose hosts are arguments.

    Raises:
        UsageError: One of them is no host.
    """
    hosts: dict[str, dict[str, Any]] = {}
    for text in args.hosts:
        found = _HOST.fullmatch(text)
        if found is None or (found[3] and not 0 < int(found[3]) < 65536):
            raise UsageError(
                f"{text!r} is not a host", hint="give [USER@]HOST[:PORT]; an IPv6 address with a port in []"
            )
        name = found[2].strip("[]")
        if name in hosts:
            raise UsageError(f"{name} is given twice", hint="give each host once")
        hosts[name] = {"hostname": name, "port": int(found[3]) if found[3] else None, "username": found[1]}
    extras: dict[str, Any] = {"allow_agent": True, "ssh_strict": True, "auto_connect": False}
    if args.key_file:
        extras |= {"use_keys": True, "key_file": str(args.key_file.expanduser().resolve())}
    if args.known_hosts:
        extras |= {"alt_host_keys": True, "alt_key_file": str(args.known_hosts.expanduser().resolve())}
    defaults: dict[str, Any] = {
        "username": args.user,
        "connection_options": {"netmiko": {"platform": "linux", "extras": extras}},
        "data": {"k3s_ssh": {"sudo_password": {"env": args.sudo_password_env}}} if args.sudo_password_env else {},
    }
    places, state = _places(args)
    if args.plan:
        state = Path(mkdtemp(prefix="nornir-k3s-"))  # for the debug log: nothing is written beside it
    logins: list[tuple[str, str, str]] = []
    section = {
        "plugin": loaded_inventory.register(),
        "options": {"data": {"hosts": hosts, "groups": {}, "defaults": defaults}},
        "transform_function": "k3s_credentials",
        "transform_function_options": {"base": str(Path.cwd()), "problems": logins},
    }
    return config.Config(
        path=places.config,
        nornir={"inventory": section, "runner": {"plugin": "k3s_runner"}, "logging": {"enabled": False}},
        options=Options.model_validate({}),
        base=places.base,
        state=state,
        cache=state / "cache",
        sources=Sources({}),
        logins=logins,
    )


def _add_plan(found: Adoption, path: Path, state: Path, log: Path) -> None:
    """Add what is wrong with the inventory, and what a deploy would change if its release need not be downloaded."""
    command = found.next
    try:
        ctx = session.opened(config.load(path), log)
        with ctx.nr as nr:
            sources = ctx.arguments["options"]["sources"]
            store = Store(state / found.cluster, base=ctx.config.base, keep=False)
            loaded = cluster.load(nr.inventory, store=store, base=ctx.config.base, sources=sources)
            if loaded.artifacts.folder and command == "nornir-k3s plan":
                found.plan = plan(nr, **ctx.arguments)
    except K3sError as error:
        found.notes.append(f"`{command}` ends with: {error.message}")
