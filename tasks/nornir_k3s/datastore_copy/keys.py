"""Keys: K3s' keys in an etcd, read as rows of kine's table, and written from what is alive in another datastore.

etcd counts revisions by itself, one for each put. Before anything is copied its revision is raised above all that
clients have seen, with puts of one key: a watch from a revision that is yet to come gets no event and no error.
Then it is compacted there: who comes with an older revision is told to read everything again.

Sources: kine v0.16.4 `pkg/server/{lease,compact}.go` (a row's lease is its seconds; `compact_rev_key_apiserver`),
`pkg/logstructured/sqllog` (the row `compact_rev_key`; gaps between ids after it would be filled one by one);
Kubernetes `apiserver/pkg/storage/cacher` (watches from the future), `apiserver/pkg/storage/etcd3` (leases,
`compact_rev_key`); k3s `pkg/cluster/storage.go` (a bootstrap key of another token: K3s does not start).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from nornir_k3s.datastore_copy.content import COMPACTION, Content, Digest, Live, LiveContent, lasting
from nornir_k3s.datastore_copy.etcd import Etcd, Key, Put, too_large
from nornir_k3s.datastore_copy.table import Row, Table, compacted
from nornir_k3s.errors import K3sError, UsageError
from nornir_k3s.model.datastore_facts import BOOTSTRAP, UNFINISHED

_STEP = 20_000  # revisions between two compactions: dummies take no space
_CONNECTIONS = 8  # that raise the revision: etcd writes what several have sent to disk at once
_SHARE = 1000  # keys of one lease, as Kubernetes has it
_TRIAL, _SECONDS = "nornir-k3s-trial", 60  # no key of K3s; it ends by itself where a run was killed


class Keys:
    """K3s' keys in an etcd that is K3s' own.

    Arguments:
        connect: Returns a new connection.
    """

    ignores_case = False

    def __init__(self, connect: Callable[[], Etcd]) -> None:
        self._connect, self.etcd, self._more = connect, connect(), list[Etcd]()
        self._at, self._kept, self._leases = 0, list[Put](), dict[int, tuple[int, int]]()
        self.on_rows: Callable[[int], None] = lambda _: None  # as that of a table

    @property
    def name(self) -> str:
        """How errors call it."""
        return self.etcd.name

    @name.setter
    def name(self, name: str) -> None:
        self.etcd.name = name

    def close(self) -> None:
        """Close the connections."""
        for one in (self.etcd, *self._more):
            one.close()

    def exists(self) -> bool:
        """Return whether it has data, of K3s or others; a copy that is not whole is none."""
        names = {one.name for one in self.etcd.read(BOOTSTRAP, values=False)}
        if UNFINISHED in names:
            return len(names) > 1
        return any(one.name not in COMPACTION for one in self.etcd.read(values=False))

    def summary(self) -> str:
        """Return how much it has, in words."""
        return f"{sum(1 for _ in self.etcd.read(values=False))} keys at revision {self.etcd.revision()}"

    def mark(self) -> tuple[int, int]:
        """Return what differs after somebody has written; keys that end by themselves do not count.

        What is read afterwards is read as it was at the first call.
        """
        self._at = self._at or self.etcd.revision()
        return self._at, sum(1 for _ in self.etcd.read(since=self._at + 1, values=False))

    def newest(self) -> int:
        """Return the revision of the newest change."""
        return self._at or self.etcd.revision()

    def largest(self) -> tuple[str, int]:
        """Return the key with the largest value, and its size in bytes."""
        return max(((one.name, len(one.value)) for one in self._read()), key=lambda one: one[1], default=("", 0))

    def alike(self) -> list[str]:
        """Return names that differ from another one in their case only: MySQL's column cannot hold both."""
        names: dict[str, list[str]] = {}
        for one in self.etcd.read(values=False):
            names.setdefault(one.name.lower(), []).append(one.name)
        return sorted(some[0] for some in names.values() if len(some) > 1)[:3]

    def _read(self) -> Iterator[Key]:
        left_out = (*COMPACTION, UNFINISHED)
        return (one for one in self.etcd.read(at=self._at) if one.name not in left_out)

    def _seconds(self, lease: int, known: dict[int, int]) -> int:
        if lease and lease not in known:
            known[lease] = max(1, self.etcd.remaining(lease))  # one that has ended ends there, too
        return known[lease] if lease else 0

    def live(self) -> Iterator[Live]:
        """Yield all keys by their names."""
        known: dict[int, int] = {}
        return (Live(one.name, one.value, self._seconds(one.lease, known)) for one in self._read())

    def rows(self) -> Iterator[Row]:
        """Yield all keys as kine's rows, by their names: a row's id is the revision of a key's last put.

        The last row says that all is compacted up to etcd's revision; ids go on after it.
        """
        newest, taken, known = self.newest(), set[int](), dict[int, int]()
        last = newest
        for one in self._read():
            number = one.changed
            if number in taken:  # put with another key in one transaction, which Kubernetes does not do
                number = last = last + 1
            taken.add(number)
            first = one.created == one.changed
            created = (1, 0, 0) if first else (0, 0, one.created)
            yield (number, one.name, *created, 0, self._seconds(one.lease, known), one.value, None)
        yield compacted(last + 1, newest)

    def require_room(self, source: Table | Keys) -> None:
        """Check that it takes the largest value; K3s may run, and what is there stays.

        Raises:
            UsageError: Its limit is lower.
        """
        name, size = source.largest()
        try:
            self._put(Put(_TRIAL, bytes(size + len(name)), self.etcd.grant(_SECONDS)))
        except K3sError as error:
            if not too_large(error.message):
                raise
            hint = "raise --max-request-bytes of etcd, or make this object smaller"
            raise UsageError(f"{name} has {size} bytes, more than {self.name} takes", hint=hint) from None
        self.etcd.delete(_TRIAL)

    def _put(self, put: Put) -> None:
        list(self.etcd.write([put]))

    def raise_to(self, revision: int, tell: Callable[[int], None] = lambda _: None) -> None:
        """Raise its revision, if it is lower; it takes no more space afterwards.

        Arguments:
            tell: Called with the revision so far.
        """
        while (now := self.etcd.revision()) < revision:
            tell(now)
            self._dummies(min(revision - now, _STEP))
            self.etcd.compact(now)

    def go_on_after(self, revision: int) -> None:
        """Let revisions go on after this one; K3s is stopped, and starts only when that is done."""
        self.raise_to(revision, lambda _: self.on_rows(0))
        self.etcd.delete(UNFINISHED)

    def _dummies(self, count: int) -> None:
        if count < _CONNECTIONS * _SHARE:
            self._write_dummies(self.etcd, count)
            return
        while len(self._more) < _CONNECTIONS - 1:
            self._more.append(self._connect())
        some = [self.etcd, *self._more]
        with ThreadPoolExecutor(len(some)) as pool:
            list(pool.map(self._write_dummies, some, [count // len(some)] * len(some)))

    @staticmethod
    def _write_dummies(etcd: Etcd, count: int) -> None:
        for _ in etcd.write(itertools.repeat(Put(UNFINISHED, b""), count)):
            pass

    def begin(self) -> None:
        """Note that a copy is not whole, so that no K3s starts with it; what an interrupted run has left goes."""
        self._put(Put(UNFINISHED, b""))
        self.etcd.delete("/registry/", prefix=True)

    def empty(self) -> None:
        """Remove all keys, first those without which no K3s starts: a server may be booted meanwhile."""
        self._put(Put(UNFINISHED, b""))
        for one in list(self.etcd.read(BOOTSTRAP, values=False)):
            if one.name != UNFINISHED:
                self.etcd.delete(one.name)
        self.begin()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read what is there now inside, whatever K3s writes meanwhile."""
        before, self._at = self._at, self.etcd.revision()
        try:
            yield
        finally:
            self._at = before

    def drop(self) -> None:
        """Remove a copy that is not whole."""
        self.begin()
        self.etcd.delete(UNFINISHED)

    def try_out(self) -> None:
        """Check that it can be written."""
        self.begin()

    def take(self, source: Table | Keys) -> Content:
        """Write everything that is alive in another datastore, but K3s' bootstrap data; return what was read.

        Keys with a lease get one of the same time, and are not compared: they end by themselves.
        """
        self.begin()
        self.raise_to(source.newest(), lambda _: self.on_rows(0))  # it may take minutes, and be stopped
        digest, last = Digest(), self.etcd.revision()
        for revision in self.etcd.write(self._puts(source, digest)):
            last = revision
        self.etcd.compact(last)
        return LiveContent(digest.rows, digest.newest, digest.sha256)

    def _puts(self, source: Table | Keys, digest: Digest) -> Iterator[Put]:
        self._kept = []
        for one in source.live():
            if one.name.startswith(BOOTSTRAP):
                self._kept.append(Put(one.name, one.value))
                continue
            if not one.seconds:
                digest.add(0, one.name, one.value)
            yield Put(one.name, one.value, self._lease(one.seconds))

    def _lease(self, seconds: int) -> int:
        if not seconds:
            return 0
        lease, used = self._leases.get(seconds, (0, _SHARE))
        if used == _SHARE:
            lease, used = self.etcd.grant(seconds), 0
        self._leases[seconds] = (lease, used + 1)
        return lease

    def draft(self) -> Content:
        """Return what was written, as `take` returns it."""
        return lasting(one for one in self.live() if not one.name.startswith(BOOTSTRAP))

    def publish(self, newest: int) -> None:  # noqa: ARG002 - as a table
        """Write K3s' bootstrap data; from then on a server can start with it.

        Raises:
            K3sError: Another one has written to it.
        """
        if not self.etcd.swap(UNFINISHED, self._kept):
            raise K3sError(f"{self.name}: somebody else has changed it", hint="run it again, with an etcd of its own")
