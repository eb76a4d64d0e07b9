"""All expected errors, with their exit codes and the next step.

K3sError                 exit 1
 ├ UsageError            exit 2   the command line or config.yaml is wrong
 │  └ InventoryError     exit 2   problems of the inventory, all of them
 ├ ArtifactError         exit 2   the K3s binary, installer or images are missing or not as published
 ├ HostError                      has the host's name
 │  ├ HostUnreachable    exit 4   no connection to the host
 │  │  ├ AuthenticationFailed    exit 4   user, key, password or sudo password refused
 │  │  └ HostKeyError            exit 4   the host's key is unknown or has changed
 │  ├ CommandFailed      exit 1   a script on the host failed
 │  ├ UnreadableAnswer   exit 1   the output of a script on the host cannot be parsed
 │  ├ OutcomeUnknown     exit 1   connection lost or timeout before the script's result was known
 │  └ NotReady           exit 1   timeout while waiting for a condition
 ├ PreflightFailed       exit 1   problems found before the first change
 ├ HostsDisagree         exit 1   hosts have different values of one secret of the cluster
 ├ PlanMoved            exit 1   what a saved plan stands on is not as it was
 ├ Declined              exit 6   the operator did not confirm
 ├ OutsideWindow         exit 7   K3s may not restart now: outside the maintenance window
 ├ Busy                  exit 5   another run is in progress on the cluster
 ├ HostsFailed                    several hosts' errors; the exit code of the first, 4 where one is unreachable
 └ Interrupted           exit 130 stopped by the operator
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar


class K3sError(Exception):
    """The base class of all expected errors.

    Arguments:
        message: What happened, without secrets.
        hint: What to do next.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.report: Any = None  # the `Report` of the run that it ended; Any, because this module imports nothing

    def __str__(self) -> str:
        """Return the message, and the next step below it."""
        return f"{self.message}\n  next: {self.hint}" if self.hint else self.message


class UsageError(K3sError):
    """The command line or config.yaml is wrong."""

    exit_code = 2


class InventoryError(UsageError):
    """Problems of the inventory, all of them at once.

    Arguments:
        problems: One line each, with file and line where known.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        count = len(self.problems)
        super().__init__(
            "\n".join(
                [f"the inventory has {count} problem{'s' if count != 1 else ''}:"] + [f"  - {p}" for p in problems]
            ),
            hint="fix these lines; no host was contacted",
        )


class ArtifactError(K3sError):
    """The K3s binary, installer or images are missing or not as published."""

    exit_code = 2


class HostError(K3sError):
    """An error on one host.

    Arguments:
        host: The host's name in the inventory.
    """

    def __init__(self, host: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{host}: {message}", hint=hint)
        self.host = host


class HostUnreachable(HostError):
    """The host cannot be reached."""

    exit_code = 4


class AuthenticationFailed(HostUnreachable):
    """The host refused user, key, password or sudo password."""


class HostKeyError(HostUnreachable):
    """The host's key is unknown or has changed."""


class CommandFailed(HostError):
    """A script on the host failed.

    Arguments:
        what: What failed.
        status: The exit status, other than 0.
        stderr: What the script wrote to standard error, without secrets; its end is shown.
    """

    def __init__(self, host: str, what: str, *, status: int, stderr: str = "", hint: str = "") -> None:
        tail = "\n".join("    " + line for line in stderr.strip().splitlines()[-15:])
        super().__init__(host, f"{what} failed with status {status}" + (f"\n{tail}" if tail else ""), hint=hint)
        self.status = status
        self.stderr = stderr


class OutcomeUnknown(HostError):
    """Connection lost or timeout before the script's result was known: read the state again, never repeat blindly."""


class UnreadableAnswer(HostError):
    """The output of a script on the host cannot be parsed."""

    def __init__(self, host: str, what: str) -> None:
        super().__init__(
            host,
            f"unreadable output: {what}",
            hint="run again; see the debug log for what the host's shell and programs print",
        )


class NotReady(HostError):
    """Timeout while waiting for a condition, or a unit that failed.

    Arguments:
        what: What is not ready.
        journal: The failing unit's last journal lines.
    """

    def __init__(self, host: str, what: str, *, journal: str = "", hint: str = "") -> None:
        lines = "\n".join("    " + line for line in journal.strip().splitlines())
        super().__init__(host, what + (f"\n  last journal lines:\n{lines}" if lines else ""), hint=hint)
        self.journal = journal


class PreflightFailed(K3sError):
    """Problems of all hosts at once, found before the first change.

    Arguments:
        problems: The findings; each is one line as text.
        shown: The lines of the message, where findings of several hosts are one line.
    """

    def __init__(self, problems: Sequence[object], shown: Sequence[object] = ()) -> None:
        self.problems = [str(problem) for problem in problems]
        super().__init__(
            "\n".join(
                [f"preflight found {len(self.problems)} problem(s):"] + [f"  - {p}" for p in shown or self.problems]
            ),
            hint="fix these; nothing was changed on any host",
        )


class PlanMoved(K3sError):
    """What a saved plan stands on is not as it was: it is not carried out.

    Arguments:
        problems: What is not, host by host.
    """

    def __init__(self, problems: Sequence[str], *, hint: str = "") -> None:
        self.problems = list(problems)
        lines = "\n".join(f"  - {one}" for one in self.problems)
        super().__init__(f"the saved plan does not hold any more:\n{lines}", hint=hint)


class Declined(K3sError):
    """The operator did not confirm the change of a running cluster: nothing was changed, and nothing is wrong."""

    exit_code = 6


class OutsideWindow(K3sError):
    """K3s may not restart on nodes that run now: it is outside the window; what was begun is complete."""

    exit_code = 7


class HostsDisagree(K3sError):
    """Hosts have different values of one secret of the cluster: a rotation is in progress, or was interrupted."""


class Busy(K3sError):
    """Another run is in progress on the cluster: a deploy or, for a drift check, another drift check."""

    exit_code = 5


class HostsFailed(K3sError):
    """The errors of several hosts at once; what holds for several of them is shown once.

    Arguments:
        errors: One for each host that failed.
    """

    def __init__(self, errors: Sequence[K3sError]) -> None:
        self.errors: list[K3sError] = []
        for error in errors:
            self.errors += error.errors if isinstance(error, HostsFailed) else [error]

        super().__init__("\n".join(_together(self.errors)))
        codes = [error.exit_code for error in errors]
        self.exit_code = 4 if 4 in codes else codes[0]  # type: ignore[misc]  # a class variable for all others


def _together(errors: Sequence[K3sError]) -> Iterator[str]:
    """Yield each message once, with its hosts, and each next step once, after the last message that it is for."""
    hints: dict[str, dict[str, list[str]]] = {}
    for error in errors:
        host = error.host if isinstance(error, HostError) else ""
        texts = hints.setdefault(error.hint, {})
        texts.setdefault(error.message.removeprefix(f"{host}: "), []).append(host)
    for hint, texts in hints.items():
        for text, hosts in texts.items():
            names = ", ".join(dict.fromkeys(filter(None, hosts)))
            yield f"{names}: {text}" if names else text
        if hint:
            yield f"  next: {hint}"


class Interrupted(K3sError):
    """Stopped by the operator."""

    exit_code = 130
