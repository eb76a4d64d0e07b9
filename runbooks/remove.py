"""Take servers, agents or load balancers out of the cluster."""

from common import run

if __name__ == "__main__":
    run("remove")
