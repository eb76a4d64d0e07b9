"""Show nodes, servers behind the VIP, who holds it, datastore, versions and certificates."""

from common import run

if __name__ == "__main__":
    run("status")
