"""Take a whole cluster down; every host becomes what it was before."""

from common import run

if __name__ == "__main__":
    run("reset")
