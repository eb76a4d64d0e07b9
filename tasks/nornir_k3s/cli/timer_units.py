"""The systemd units that run drift checks on the controller, as text.

Sources: systemd.timer(5) (RandomizedDelaySec, Persistent), systemd.service(5) (SuccessExitStatus, OnFailure in
systemd.unit(5)), systemd.exec(5) (sandboxing; some of it needs privileges that a user's manager lacks).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

OURS = "# Managed by nornir-k3s"  # every unit of ours begins with it
HEADER = f"{OURS}: its `schedule` command writes and removes this file."
DRIFT, BUSY = 3, 5

# For a check that reads files, opens connections, and writes below two or three folders.
_HARDENED = """\
NoNewPrivileges=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectSystem=strict
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
CapabilityBoundingSet=
UMask=0077
"""
_HARDENED_USER = "NoNewPrivileges=yes\nRestrictRealtime=yes\nLockPersonality=yes\nUMask=0077\n"


@dataclass(frozen=True)
class Schedule:
    """When and how the checks of one cluster run.

    Arguments:
        name: Of the units: nornir-k3s-, the job and the cluster's name.
        command: What is run: `nornir-k3s drift` or the runbook, with its arguments.
        writes: Folders that it writes to; one that is missing is left out.
        calendar: As systemd.time(7) reads it.
        jitter: Seconds by which each run is delayed at random, at most.
        deadline: Seconds after which a run is stopped.
        user: Who runs it; the system's manager only, root where empty.
        on_failure: The unit that is started when a run fails; drift is no failure.
        system: Units of the system's manager; otherwise of the user's own.
        job: drift or backup.
    """

    name: str
    command: Sequence[str]
    writes: Sequence[Path]
    calendar: str = "hourly"
    jitter: int = 300
    deadline: int = 300
    user: str = ""
    on_failure: str = ""
    system: bool = True
    job: str = "drift"

    def units(self) -> Mapping[str, str]:
        """Return the texts of the service and the timer, by file name."""
        return {f"{self.name}.service": self._service(), f"{self.name}.timer": self._timer()}

    def _service(self) -> str:
        what = "Drift check" if self.job == "drift" else "Backup"
        lines = [HEADER, "[Unit]", f"Description={what} of a K3s cluster (nornir-k3s)"]
        lines += ["Wants=network-online.target", "After=network-online.target"] if self.system else []
        lines += [f"OnFailure={self.on_failure}"] if self.on_failure else []
        lines += ["", "[Service]", "Type=oneshot", f"ExecStart={' '.join(map(_quoted, self.command))}"]
        # Drift is the result of a check, and a check gives way to a deploy: neither is a failure.
        lines += [f"SuccessExitStatus={DRIFT} {BUSY}"] if self.job == "drift" else []
        lines += [f"TimeoutStartSec={self.deadline}", "TimeoutStopSec=10"]
        lines.append("Environment=NO_COLOR=1")
        lines += [f"User={self.user}"] if self.user and self.system else []
        lines.append((_HARDENED if self.system else _HARDENED_USER).rstrip())
        if self.system:
            lines += [f"ReadWritePaths={_quoted(f'-{path}')}" for path in self.writes]
        return "\n".join(lines) + "\n"

    def _timer(self) -> str:
        what = "checked for drift" if self.job == "drift" else "backed up"
        return "\n".join(
            [
                HEADER,
                "[Unit]",
                f"Description=When the K3s cluster is {what} (nornir-k3s)",
                "",
                "[Timer]",
                f"OnCalendar={self.calendar}",
                f"RandomizedDelaySec={self.jitter}",
                "Persistent=yes",
                "",
                "[Install]",
                "WantedBy=timers.target",
                "",
            ]
        )


def _quoted(word: str) -> str:
    """Return a word as systemd reads it in a command: % and $ are its own, quotes and blanks as a shell's."""
    text = word.replace("%", "%%").replace("$", "$$").replace("\\", "\\\\")
    return f'"{text}"' if shlex.quote(word) != word and " " in word else text
