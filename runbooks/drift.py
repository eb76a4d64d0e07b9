"""Report what no longer matches the inventory; no host is changed. Exit 0: no drift, 3: drift, 4: unreachable."""

from common import run

if __name__ == "__main__":
    run("drift")
