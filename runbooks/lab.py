#!/usr/bin/env python3
"""Boot the hosts of a lab inventory on this machine, and remove them again."""

from common import run

if __name__ == "__main__":
    run("lab")
