"""Break one thing after the other in a healthy cluster, put it back, and measure what that cost."""

from common import run

if __name__ == "__main__":
    run("drill")
