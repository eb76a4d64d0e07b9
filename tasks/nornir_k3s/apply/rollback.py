"""Rollback copies: the files of a server or agent before a change, to restore them if it does not get ready.

The script that changes the files copies them first, on the host; the copies are removed when it is ready with
the new files (rollback.sh).
"""

from __future__ import annotations

import base64

from nornir_k3s import k3s, shell
from nornir_k3s.apply import script
from nornir_k3s.host_steps import replaces_binary
from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.model.paths import PREVIOUS


def possible(spec: HostSpec, facts: HostFacts, *, returns: bool = False) -> bool:
    """Return whether a change of this server or agent can be rolled back.

    It worked before the change, or before the change of an interrupted run; and its K3s stays the same, or within its
    minor version, because an older K3s may not start with data that a newer one has written.

    Arguments:
        returns: K3s' binary may be put back.
    """
    return (facts.in_service or PREVIOUS in facts.present) and (returns or not replaces_binary(spec, facts))


def begin(spec: HostSpec, facts: HostFacts, *, returns: bool = False, trial: int = 0) -> str:
    """Return the first lines of a script that changes a server or agent; they keep the copies of an interrupted run.

    Arguments:
        trial: Seconds after which the host itself takes the change back, unless that is cancelled; 0 for never.
    """
    if not possible(spec, facts, returns=returns):
        return "drop_previous\n"
    binary = shell.call("list_binary", k3s.BINARY) + "\n" if replaces_binary(spec, facts) else ""
    later = "cancel_undo\n"
    if trial and spec.install:
        undo = script.restore(spec.install.unit, always=False)
        later = shell.call("undo_later", trial, spec.install.unit, base64.b64encode(undo.encode()).decode()) + "\n"
    return f"mkdir -p -m 700 {PREVIOUS}\n: >>{PREVIOUS}/list\n{binary}{later}"


def keep_binary(*, running: bool) -> str:
    """Return the script that keeps K3s' binary before another one is put in its place.

    Arguments:
        running: It is the one that runs; else a copy of that may be there already, from an interrupted run.
    """
    return script.wrapped("keeping the binary", shell.call("keep_binary", k3s.BINARY, "yes" if running else "no"))
