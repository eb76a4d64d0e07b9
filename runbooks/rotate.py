"""Give a running cluster a new secret in place of an old one."""

from common import run

if __name__ == "__main__":
    run("rotate")
