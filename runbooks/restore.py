"""Bring the whole cluster back from a backup."""

from common import run

if __name__ == "__main__":
    run("restore")
