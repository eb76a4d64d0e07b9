"""How old the last backup is, and the last one that was verified."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from nornir_k3s.model.backup import LastBackups
from nornir_k3s.model.drift_limits import Limits
from nornir_k3s.model.finding import CLUSTER, Finding

_DAY = 86400


def differences(last: LastBackups, limits: Limits, now: datetime) -> Iterator[Finding]:
    """Yield a backup that is too old; nothing where this tool has made none from this machine."""
    if last.made is None:
        return
    days = (now - last.made).total_seconds() / _DAY
    if days > limits.backup_days:
        yield Finding(
            host=CLUSTER, kind="backup", subject="last", found=f"the last backup is {days:.0f} days old",
            expected=f"at most {limits.backup_days} days (limit backup_days)", since=last.made,
            remedy="check `nornir-k3s schedule status --job backup`, or run `nornir-k3s backup`",
        )  # fmt: skip
