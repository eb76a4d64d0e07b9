"""The command line: `k3s server | agent | kubectl | token | certificate | check-config | secrets-encrypt`."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

from k3s_standin.log import Fatal, log


def main() -> int:
    """Run one command and return its exit status."""
    version = os.environ.get("K3S_STANDIN_VERSION", "v1.34.9+k3s1")
    called = Path(os.environ.get("K3S_STANDIN_CALLED", "k3s")).name
    argv = sys.argv[1:]
    if called == "kubectl":
        argv = ["kubectl", *argv]
    elif called in ("crictl", "ctr"):
        sys.stderr.write(f"{called}: there are no containers in this stand-in\n")
        return 1
    command = argv[0] if argv else "help"
    try:
        return _run(command, argv[1:], version)
    except Fatal as error:
        log("fatal", str(error))
        return 1


def _run(command: str, argv: list[str], version: str) -> int:
    if command in ("server", "agent") and any(word in ("--help", "-h") for word in argv):
        from k3s_standin import config

        print(
            "\n".join(
                f"   --{flag}" for flag in sorted(config.SERVER_FLAGS if command == "server" else config.AGENT_FLAGS)
            )
        )
    elif command == "server":
        from k3s_standin import server

        server.run(argv, version)
    elif command == "agent":
        from k3s_standin import agent

        agent.run(argv, version)
    elif command == "kubectl":
        from k3s_standin import kubectl

        return kubectl.run(argv)
    elif command == "certificate":
        from k3s_standin import certificate

        return certificate.run(argv)
    elif command == "token":
        if argv[:1] == ["list"]:
            print("TOKEN     TTL       EXPIRES   USAGES    DESCRIPTION   EXTRA GROUPS")
        elif argv[:1] == ["generate"]:
            print(f"{secrets.token_hex(3)}.{secrets.token_hex(8)}")
        else:
            sys.stderr.write("only list and generate are known here\n")
            return 1
    elif command == "check-config":
        print("\nVerifying binaries in /var/lib/rancher/k3s/data/current/bin:\n- sha256sum: good\n\nSTATUS: pass")
    elif command == "secrets-encrypt":
        print("Encryption Status: Disabled, no configuration file found")
    else:
        sys.stderr.write(f'No help topic for "{command}"\n')
        return 1 if command != "help" else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
