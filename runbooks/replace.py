"""Let a machine that was installed anew take the place of its node."""

from common import run

if __name__ == "__main__":
    run("replace")
