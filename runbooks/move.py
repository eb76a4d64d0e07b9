"""Take the cluster's data to the datastore that the inventory describes."""

from common import run

if __name__ == "__main__":
    run("move")
