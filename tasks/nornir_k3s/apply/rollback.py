"""Rollback copies: the files of a server or agent before a change, to restore them if it does not get ready.

The script that changes the files copies them first, on the host; the copies are removed when it is ready with
the new files (rollback.sh).
"""

from __future__ import annotations

from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.model.paths import PREVIOUS
from nornir_k3s.planner import replaces_binary


def possible(spec: HostSpec, facts: HostFacts) -> bool:
    """Return whether a change of this server or agent can be rolled back.

    It worked before the change, or before the change of an interrupted run; and its K3s stays the same, because an
    older K3s does not start with data that a newer one has written.
    """
    return (facts.in_service or PREVIOUS in facts.present) and not replaces_binary(spec, facts)


def begin(spec: HostSpec, facts: HostFacts) -> str:
    """Return the first lines of a script that changes a server or agent; they keep the copies of an interrupted run."""
    return f"mkdir -p -m 700 {PREVIOUS}\n: >>{PREVIOUS}/list\n" if possible(spec, facts) else "drop_previous\n"
