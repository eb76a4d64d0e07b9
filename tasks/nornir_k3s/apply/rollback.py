"""A server's files as they were before a change, so that a change it does not survive can be taken back.

They are kept on the host itself by the same script that changes them, before it does, until the server was seen ready
with the new ones (rollback.sh).
"""

from __future__ import annotations

from nornir_k3s.model.host_facts import HostFacts
from nornir_k3s.model.host_spec import HostSpec
from nornir_k3s.model.paths import PREVIOUS
from nornir_k3s.planner import renewed


def possible(spec: HostSpec, facts: HostFacts) -> bool:
    """Say whether a change of this server can be taken back.

    It was ready before the change, or before the change of an earlier run that ended too soon; and its K3s stays the
    same, since an older K3s does not start on what a newer one has written.
    """
    return (facts.ready or PREVIOUS in facts.present) and not renewed(spec, facts)


def begin(spec: HostSpec, facts: HostFacts) -> str:
    """Return the lines with which the script of a change begins; a record that is there already is gone on with."""
    return f"mkdir -p -m 700 {PREVIOUS}\n: >>{PREVIOUS}/list\n" if possible(spec, facts) else "drop_previous\n"
