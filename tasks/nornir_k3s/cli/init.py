"""`nornir-k3s init`: a configuration and an inventory to start from."""

from __future__ import annotations

import argparse
import ipaddress
import json
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.resources import files
from itertools import chain
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from pydantic import ValidationError
from ruamel.yaml import YAML

from nornir_k3s.errors import UsageError
from nornir_k3s.inventory import rules
from nornir_k3s.inventory.explain import explain
from nornir_k3s.inventory.schema import ClusterModel

FILES = ("config.yaml", "inventory/hosts.yaml", "inventory/groups.yaml", "inventory/defaults.yaml")
# Addresses for documentation, which no network has (RFC 5737).
NETWORKS = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
_FIRST_HOST = 10  # skipped in each network: gateways, and the default VIP
_OPTIONS = {"name": "--name", "version": "--k3s-version", "registration": "--address"}


def run(args: argparse.Namespace) -> int:
    """Write the files; print the next steps.

    Raises:
        UsageError: An argument cannot be, or the folder has such files.
    """
    _check(args)
    texts = _render(args)
    _refuse_existing(args.folder)
    for name, text in texts.items():
        _write(args.folder / name, text)
    sys.stdout.write("written: " + ", ".join(str(args.folder / name) for name in texts) + "\n")
    commands = "`nornir-k3s hostkeys`, `nornir-k3s plan` and `nornir-k3s deploy`"
    there = "" if args.folder == Path() else f" in {args.folder}"
    sys.stdout.write(f"next: edit what is marked FILL IN in {args.folder / 'inventory'}; then run {commands}{there}\n")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse values that the inventory's own rules would refuse.

    Raises:
        UsageError: With all of them.
    """
    problems: list[str] = []
    try:
        ClusterModel.model_validate(
            {
                "name": args.name,
                "version": args.k3s_version,
                "registration": {"address": args.address},
                "datastore": {"kind": args.datastore},
            }
        )
    except ValidationError as error:
        texts = {str(path[0]): text for path, text in explain(error, ClusterModel)}
        if "name" in texts:  # the words for it would be a regular expression
            texts["name"] = f"{args.name!r} is not a name of 1 to 32 lower-case letters, digits and dashes"
        problems = [f"{_OPTIONS[key]}: {text}" for key, text in texts.items()]
    else:
        if where := rules.inside(args.address, {}):
            problems.append(f"--address: {args.address} lies inside {where}, which is the cluster's own")
    if not re.fullmatch(r"[A-Za-z0-9_][-A-Za-z0-9_.@]*", args.user):
        problems.append(f"--user: {args.user!r} cannot be a user's name")
    if problems:
        raise UsageError("\n".join(problems), hint=f"{args.parser.prog} --help")


def _hosts(args: argparse.Namespace) -> Iterator[dict[str, str]]:
    """Yield the hosts, with an address for documentation each."""
    counts = {
        "datastore": ("e", 3) if args.datastore == "etcd" else ("db", 1),
        "servers": ("s", args.servers),
        "agents": ("a", args.agents),
        "lb": ("lb", args.load_balancers),
    }
    networks = [list(ipaddress.IPv4Network(network).hosts())[_FIRST_HOST:] for network in NETWORKS]
    free = (str(address) for address in chain(*networks) if str(address) != args.address)
    for group, (prefix, count) in counts.items():
        for number in range(1, count + 1):
            yield {"name": f"{prefix}{number}", "group": group, "address": next(free)}


def _render(args: argparse.Namespace) -> Mapping[str, str]:
    environment = Environment(  # noqa: S701 - this is YAML, no HTML
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["yaml"] = _scalar
    templates = files("nornir_k3s.cli") / "templates"
    values = {**vars(args), "hosts": list(_hosts(args))}
    return {
        name: environment.from_string((templates / f"{Path(name).name}.j2").read_text()).render(values)
        for name in FILES
    }


def _scalar(text: str) -> str:
    """Return text as YAML, in quotes only where YAML would read something else without them, as a number."""
    return text if YAML(typ="safe").load(text) == text else json.dumps(text)


def _refuse_existing(folder: Path) -> None:
    there = [str(folder / name) for name in FILES if (folder / name).exists()]
    if folder.exists() and not folder.is_dir():
        there = [str(folder)]
    if there:
        raise UsageError(f"already there: {', '.join(there)}", hint="choose a new or empty folder; nothing was written")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x") as file:  # never over another process' file either
            file.write(text)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", hint="choose another folder") from None
