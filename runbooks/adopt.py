"""Write the inventory of a cluster that exists."""

from common import run

if __name__ == "__main__":
    run("adopt")
