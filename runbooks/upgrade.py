"""Upgrade over several minor versions of K3s, one complete and verified upgrade after the other."""

from common import run

if __name__ == "__main__":
    run("upgrade")
