"""The keys with which a server encrypts secrets in the datastore, as its files tell."""

from __future__ import annotations

from dataclasses import dataclass

START, PREPARE, ROTATE, FINISHED = "start", "prepare", "rotate", "reencrypt_finished"
# What a run of this tool is at; noted on the server where it asks for new keys.
ENABLING, ENABLING_AGAIN, DISABLING, DISABLED, ROTATING = "enable", "enable-again", "disable", "disabled", "rotate"


@dataclass(frozen=True)
class Encryption:
    """The keys on a server's disk (k3s: pkg/secretsencrypt/config.go).

    Arguments:
        sha256: Of the file with the keys; empty without one. The same on all servers, except while keys change.
        stage: Of their rotation: start, prepare, rotate or reencrypt_finished.
        writes: New secrets are encrypted with the first key; else they are stored as they are.
        written: When the file was last written, in seconds since the epoch (mtime).
        goal: What an interrupted run was at: enable, enable-again, disable, disabled, or rotate with the hash of the
            old file.
        provider: What the keys are for: aescbc or secretbox.
    """

    sha256: str = ""
    stage: str = ""
    writes: bool = False
    written: int = 0
    goal: str = ""
    provider: str = ""

    @property
    def disabled(self) -> bool:
        """Whether there are keys, and new secrets are stored as they are."""
        return bool(self.sha256) and not self.writes

    @property
    def restarts(self) -> bool:
        """Whether the server that was asked for this change reads it only when it starts."""
        return bool(self.goal) and (self.stage in (PREPARE, ROTATE) or self.goal == DISABLING)

    @property
    def begins(self) -> bool:
        """Whether a rotation was to begin, and has not."""
        return self.stage == START or self.goal == f"{ROTATING} {self.sha256}"
