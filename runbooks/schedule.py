"""Run drift checks from a systemd timer on this machine, of the system or of the user."""

from common import run

if __name__ == "__main__":
    run("schedule")
