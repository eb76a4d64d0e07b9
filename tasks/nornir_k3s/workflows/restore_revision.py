"""Which revisions a restored datastore goes on with: above all that clients have seen, so no watch misses a change.

Kubernetes (`apiserver/pkg/storage/cacher`): who watches from a revision that is yet to come gets no event until it is
reached, and no error; who comes with one that was compacted lists again. etcd-io/etcd#16028 has the same for etcd.
"""

from __future__ import annotations

from pathlib import Path

from nornir_k3s.datastore_copy.keys import Keys
from nornir_k3s.errors import Interrupted, K3sError
from nornir_k3s.phases import rows
from nornir_k3s.phases.rows import Reach
from nornir_k3s.roles import datastore
from nornir_k3s.run.context import Run
from nornir_k3s.state import revision
from nornir_k3s.workflows import restore_fits as fits
from nornir_k3s.workflows.restore_file import Opened

_ON = "revisions go on after the highest one that was seen: whoever watches the API lists again, by itself"
_UNKNOWN = "nothing here knows which revision was the newest"
_AGAIN = (
    "revisions since the backup are given again, and who watched then misses changes until they are reached; "
    "afterwards restart k3s-agent on all agents, and pods that watch the API"
)
_SKIPPED = 300_000  # revisions of an etcd that are skipped while K3s is stopped: some minutes


def note(run: Run, backup: Opened) -> str:
    """Return what whoever watches the API notices, for the plan."""
    seen, first = _seen(run, backup), backup.manifest.revision
    goes_on = fits.has_rows(backup.manifest) and datastore.spoken(run.cluster) == "etcd"  # its own revision
    if goes_on or limited(run, backup, seen):
        return _ON
    return f"{f'an etcd takes too long to skip those from {first} to {seen}' if seen else _UNKNOWN}: {_AGAIN}"


def limited(run: Run, backup: Opened, seen: int) -> int:
    """Return which revision those of the restored data come after; 0 where they are given again.

    Arguments:
        seen: The highest one that clients have seen.
    """
    far = datastore.spoken(run.cluster) == "etcd" and seen - backup.manifest.revision > _SKIPPED
    return 0 if far else seen


def above(run: Run, backup: Opened, folder: Path) -> int:
    """Return the same as `limited` when K3s is stopped: nobody writes any more."""
    seen = _seen(run, backup)
    try:
        seen = max(seen, newest(run, folder))
    except Interrupted:
        raise
    except K3sError as error:  # a database that was dropped, for example
        run.report.notes.append(f"the newest revision could not be read ({error.message}): they go on after {seen}")
    return limited(run, backup, seen)


def _seen(run: Run, backup: Opened) -> int:
    """Return the highest revision that is known to have been given; 0 if nothing is known."""
    found = (one.database.newest for one in run.facts.values())
    return max(backup.begun.above, revision.highest(run.store), *found)


def newest(run: Run, folder: Path) -> int:
    """Return the newest revision of the datastore; 0 if it has no data.

    Raises:
        K3sError: It cannot be read.
    """

    def work(reach: Reach) -> int:
        return reach.table.newest() if isinstance(reach.table, Keys) or reach.table.exists() else 0

    return rows.on_table(run, folder, "read the revision", work, "reading the newest revision")


def go_on_after(run: Run, folder: Path, last: int) -> None:
    """Let revisions go on after this one; K3s is stopped.

    Raises:
        K3sError: It failed; the same call finishes it.
    """

    def work(reach: Reach) -> None:
        reach.table.go_on_after(last)

    rows.on_table(run, folder, "raise the revision", work, "raising the revision")
