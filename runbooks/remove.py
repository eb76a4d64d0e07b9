"""Take servers or agents out of the cluster, and K3s off them."""

from common import run

if __name__ == "__main__":
    run("remove")
