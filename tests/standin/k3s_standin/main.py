"""The command line: `k3s server | agent | kubectl | token | certificate | check-config | secrets-encrypt`."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

from k3s_standin.log import Fatal, log

VERSION = os.environ.get("K3S_STANDIN_VERSION", "v1.34.9+k3s1")


def main() -> int:
    """Run one command and return its exit status."""
    called = Path(os.environ.get("K3S_STANDIN_CALLED", "k3s")).name
    argv = sys.argv[1:]
    if called in ("kubectl", "crictl", "ctr"):
        argv = [called, *argv]
    try:
        return _run(argv[0] if argv else "help", argv[1:])
    except Fatal as error:
        log("fatal", str(error))
        return 1
    except BrokenPipeError:
        return 1


def _run(command: str, argv: list[str]) -> int:
    if command in ("server", "agent"):
        return _node(command, argv)
    if command == "kubectl":
        from k3s_standin import kubectl

        return kubectl.run(argv, VERSION)
    if command == "certificate":
        from k3s_standin import certificate

        return certificate.run(argv)
    if command == "token":
        from k3s_standin import tokencmd

        return tokencmd.run(argv)
    if command == "secrets-encrypt":
        from k3s_standin import encryptcmd

        return encryptcmd.run(argv)
    if command == "check-config":
        print(f"\nVerifying binaries in {os.environ.get('K3S_STANDIN_HOME', '.')}/bin:\n- sha256sum: good\n")
        print("STATUS: pass")
        return 0
    if command == "etcd-snapshot":
        raise Fatal("Error: etcd datastore disabled")
    if command in ("crictl", "ctr"):
        return _containers(command, argv)
    return _help(command)


def _containers(command: str, argv: list[str]) -> int:
    from k3s_standin import images, places

    words = [word for word in argv if not word.startswith("-")]
    if words[:1] in (["images"], ["image"], ["img"]):
        sys.stdout.write(images.table(places.data_dir({}) / "agent"))
        return 0
    sys.stderr.write(f"{command}: there are no containers in this stand-in\n")
    return 1


def _node(command: str, argv: list[str]) -> int:
    gc.enable()
    if "--help" in argv or "-h" in argv:
        from k3s_standin import flags

        known = flags.SERVER if command == "server" else flags.AGENT
        print(f"NAME:\n   k3s {command} - Run {command} node\n\nUSAGE:\n   k3s {command} [OPTIONS]\n\nOPTIONS:")
        for name in sorted(known):
            print(f"   --{name}" + ("" if name in flags.BOOLS else " value"))
    elif command == "server":
        from k3s_standin import server

        server.run(argv, VERSION)
    else:
        from k3s_standin import agent

        agent.run(argv, VERSION)
    return 0


def _help(command: str) -> int:
    commands = [
        "server",
        "agent",
        "kubectl",
        "crictl",
        "ctr",
        "check-config",
        "token",
        "etcd-snapshot",
        "secrets-encrypt",
        "certificate",
    ]
    if command not in ("help", "h", "--help", "-h"):
        sys.stderr.write(f"No help topic for '{command}'\n")
        return 3
    print(
        "NAME:\n   k3s - Kubernetes, but small and simple\n\nUSAGE:\n   k3s [global options] command [command options]\n"
    )
    print("COMMANDS:\n" + "\n".join(f"   {name}" for name in commands))
    return 0


if __name__ == "__main__":
    sys.exit(main())
