"""Files, large files, and this tool's own notes on a host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nornir_k3s import k3s, shell
from nornir_k3s.facts.fact import Fact, Query
from nornir_k3s.model.host_facts import ArtifactState, FileState, Ledger
from nornir_k3s.model.paths import IMAGES, STATE, WORK
from nornir_k3s.model.work import Work, owner
from nornir_k3s.records import Record, RecordError, decoded, integer


def _mode(word: str) -> int:
    try:
        return int(word, 8)
    except ValueError:
        raise RecordError(f"{word[:40]!r} is not a mode") from None


def _same(words: str) -> tuple[str, int]:
    digest, _, started = words.partition(" ")
    return digest, integer(started)


class Files(Fact[Mapping[str, FileState]]):
    """The files of the host's spec: kind, mode, owner, size in bytes, times, SHA-256 (stat(1), sha256sum(1))."""

    name, source = "files", "files"

    def calls(self, query: Query) -> Iterable[str]:
        """Ask for each file of the spec; the text of a secret one stays on the host."""
        return [
            shell.call("fact_files", file.path, file.sha256, "hide" if file.masking == "all" else "show")
            for file in query.spec.files
        ]

    def parse(self, records: Sequence[Record]) -> Mapping[str, FileState]:
        """Return each file by its path."""
        return dict(self._one(record) for record in records)

    def _one(self, record: Record) -> tuple[str, FileState]:
        path, kind, mode, owner, group, size, changed, written, last, *text = (
            record.take(9) if len(record) < 10 else record.take(10)
        )
        state = FileState(
            kind,
            _mode(mode),
            owner,
            group,
            integer(size),
            integer(changed),
            last,
            text=decoded(text[0]) if text else None,
            written=integer(written),
        )
        return path, state


class Artifacts(Fact[Mapping[str, ArtifactState]]):
    """K3s' large files: SHA-256, mode, and when they were written.

    More are read than the spec has: its artefacts may not be known before the host's architecture is.
    """

    name, source = "artifacts", "files"

    def calls(self, query: Query) -> Iterable[str]:
        """Ask for the spec's artefacts, and on a node for its binary, installer and images."""
        how = "deep" if query.deep else "quick"
        paths = [artifact.path for artifact in query.spec.artifacts if not artifact.path.startswith(IMAGES)]
        install = query.spec.install
        paths += [k3s.BINARY, install.script] if install else []
        if paths:
            yield shell.call("fact_artifacts", STATE, how, *dict.fromkeys(paths))
        if install:
            yield f"fact_images {STATE} {how} {IMAGES}"

    def parse(self, records: Sequence[Record]) -> Mapping[str, ArtifactState]:
        """Return each file by its path."""
        found = {}
        for record in records:
            path, digest, mode, written = record.take(4)
            found[path] = ArtifactState(digest, _mode(mode), integer(written))
        return found


class Present(Fact[frozenset[str]]):
    """Which of the paths that the spec watches exist."""

    name, source = "present", "files"

    def arguments(self, query: Query) -> Iterable[object] | None:
        """Ask for the watched paths."""
        return query.spec.watch or None

    def parse(self, records: Sequence[Record]) -> frozenset[str]:
        """Return the paths."""
        return frozenset(record.take(1)[0] for record in records)


class AtWork(Fact[Work]):
    """Who holds the lock of runs on the host (flock(1)), and its number; see `apply/hold.sh`."""

    name, source = "work", "files"

    def arguments(self, query: Query) -> Iterable[object]:  # noqa: ARG002 - as every fact
        """Read the lock's folder."""
        return (WORK,)

    def parse(self, records: Sequence[Record]) -> Work:
        """Return what is known of it; the owner counts while it is held."""
        held, number, known, epoch = records[0].take(4)
        text = decoded(known) if held == "yes" and known not in ("", "-") else ""
        return Work(held == "yes", integer(number), owner(text), "" if epoch == "-" else epoch)


class OwnLedger(Fact[Ledger]):
    """What this tool has noted below its state folder on the host; times in seconds since the epoch."""

    name, source = "ledger", "files"

    def arguments(self, query: Query) -> Iterable[object]:  # noqa: ARG002 - as every fact
        """Read its own folder."""
        return (STATE,)

    def parse(self, records: Sequence[Record]) -> Ledger:
        """Return the notes."""
        notes: dict[str, dict[str, str]] = {}
        for record in records:
            kind, subject, value = record.take(3)
            notes.setdefault(kind, {})[subject] = value
        return Ledger(
            files=frozenset(notes.get("file", ())),
            settled={path: integer(value) for path, value in notes.get("settled", {}).items()},
            same={path: _same(value) for path, value in notes.get("same", {}).items()},
            pending=frozenset(notes.get("pending", ())),
            reloaded={unit: integer(value) for unit, value in notes.get("reloaded", {}).items()},
            drained=frozenset(notes.get("drained", ())),
            installed=next(iter(notes.get("installed", ())), ""),
            cordoned="cordoned" in notes,
            locked="locked" in notes,
        )
