"""Back the cluster up: the datastore's dump, tokens and settings in one file."""

from common import run

if __name__ == "__main__":
    run("backup")
