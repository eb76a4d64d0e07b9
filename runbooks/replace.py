"""Let a reinstalled machine take the place of its node."""

from common import run

if __name__ == "__main__":
    run("replace")
