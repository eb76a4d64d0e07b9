"""`k3s secrets-encrypt` (pkg/cli/secretsencrypt)."""

from __future__ import annotations

import argparse
import base64
import json
from pathlib import Path
from typing import Any

from k3s_standin import tokens
from k3s_standin.balancer import ask, context
from k3s_standin.log import Fatal
from k3s_standin.places import DATA

_DONE = {
    "prepare": "prepare completed successfully",
    "rotate": "rotate completed successfully",
    "rotate-keys": "keys rotated, reencryption finished",
    "reencrypt": "reencryption started",
    "enable": "secrets-encryption enabled",
    "disable": "secrets-encryption disabled",
}
_STAGES = {"prepare": "prepare", "rotate": "rotate", "rotate-keys": "rotate_keys", "reencrypt": "reencrypt_active"}


def run(argv: list[str]) -> int:
    """Run one command."""
    options = argparse.ArgumentParser(prog="k3s secrets-encrypt", exit_on_error=False)
    options.add_argument("verb", choices=["status", *_DONE])
    options.add_argument("--output", "-o", default="text")
    options.add_argument("--server", "-s", default="https://127.0.0.1:6443")
    options.add_argument("--data-dir", "-d", type=Path, default=Path(DATA))
    options.add_argument("--force", "-f", action="store_true")
    options.add_argument("--skip", action="store_true")
    args = options.parse_args(argv)
    if args.verb == "status":
        _show(json.loads(_ask(args, "GET", "status")), as_json=args.output == "json")
        return 0
    asked: dict[str, Any] = {"force": args.force, "skip": args.skip}
    asked |= {"stage": _STAGES[args.verb]} if args.verb in _STAGES else {"enable": args.verb == "enable"}
    _ask(args, "PUT", "config", json.dumps(asked).encode())
    print(_DONE[args.verb])
    return 0


def _ask(args: argparse.Namespace, method: str, what: str, body: bytes | None = None) -> bytes:
    """Ask the server with its own token."""
    server = args.data_dir / "server"
    try:
        password = tokens.parse((server / "token").read_text().strip()).password
    except FileNotFoundError as error:
        raise Fatal(f"Error: open {error.filename}: no such file or directory") from None
    credential = base64.b64encode(f"server:{password}".encode()).decode()
    tls, headers = context(server / "tls" / "server-ca.crt"), {"Authorization": f"Basic {credential}"}
    address = args.server.removeprefix("https://").rstrip("/")
    try:
        code, data = ask(address, method, f"/v1-k3s/encrypt/{what}", tls=tls, headers=headers, body=body, timeout=60)
    except OSError as error:
        why = f"dial tcp {address}: connect: {str(error.strerror).lower()}"
        raise Fatal(f'Error: failed to get CA certs: Get "https://{address}/cacerts": {why}') from None
    if code != 200:
        raise Fatal(f"Error: {json.loads(data)['message']}")
    return data


def _show(status: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(status, indent="\t"))
        return
    if "enable" not in status:
        print("Encryption Status: Disabled, no configuration file found")
        return
    print(f"Encryption Status: {'Enabled' if status['enable'] else 'Disabled'}")
    print(f"Current Rotation Stage: {status['stage']}")
    print(f"Server Encryption Hashes: {status.get('hasherror') or 'All hashes match'}\n")
    print("Active  Key Type  Name\n------  --------  ----")
    for mark, key in [("*", status["activekey"]), *((" ", key) for key in status.get("inactivekeys", []))]:
        kind, _, name = key.partition(" ")
        if key:
            print(f" {mark}      {kind:8}  {name}")
