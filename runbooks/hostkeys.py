"""Collect the hosts' SSH keys, and add those to known_hosts that a person has compared."""

from common import run

if __name__ == "__main__":
    run("hostkeys")
