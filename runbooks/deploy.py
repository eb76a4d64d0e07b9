"""Deploy the cluster of an inventory: from bare Linux, or only what differs."""

from common import run

if __name__ == "__main__":
    run("deploy")
