"""A cache of K3s releases on the controller: each file verified before it gets its name, and never there by half."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from math import inf
from pathlib import Path

import httpx

from nornir_k3s.artifacts.download import Download, Part, Progress, explain, is_absent
from nornir_k3s.artifacts.receipts import sha256_of
from nornir_k3s.artifacts.release import RemoteFile, parse_hashes, shown
from nornir_k3s.errors import ArtifactError, Interrupted
from nornir_k3s.retry import POLL, watched

Check = Callable[[Path], object]


class Cache:
    """Files of K3s releases, as `FOLDER/VERSION/NAME`; what is there is verified and needs no network.

    Arguments:
        folder: Made with mode 0700 when something is first kept.
        deadline: Seconds after which a server that gives nothing new is given up.
        timeout: Seconds a connection may be silent before it counts as cut.
        digest: Gives a file's SHA-256.
    """

    def __init__(
        self,
        folder: Path,
        *,
        deadline: float = 60,
        timeout: float = 20,
        digest: Callable[[Path], str] = sha256_of,
    ) -> None:
        self.folder = folder
        self.deadline = deadline
        self.timeout = timeout
        self.digest = digest

    def bring(self, file: RemoteFile, *, sha256: str, on_progress: Progress, stop: threading.Event) -> Path:
        """Return the path of a file that has this SHA-256, fetched where it is not there yet.

        Arguments:
            sha256: The published one; empty where none is published: then it must be a script.
            on_progress: Called with name, bytes so far and, where known, all bytes; from other threads than the caller.
            stop: Ends it at once; the next run goes on from there.

        Raises:
            ArtifactError: There is no such file, it is another one, or it can be neither reached nor kept.
            Interrupted: The stop event was set.
        """
        with self._in_words(file, stop):
            path = self._get(file, lambda path: self._verify(path, file, sha256), on_progress, stop)
            size = path.stat().st_size
        on_progress(file.name, size, size)
        return path

    def hashes(self, file: RemoteFile, *, required: bool = True, stop: threading.Event) -> dict[str, str]:
        """Return the published SHA-256 of each file by name; none where the list is not there and not required.

        Raises:
            ArtifactError: It is required and not there, is no such list, or can be neither reached nor kept.
            Interrupted: The stop event was set.
        """
        with self._in_words(file, stop):
            try:
                return _list(self._get(file, lambda path: _list(path, file), lambda *_: None, stop), file)
            except httpx.HTTPStatusError as error:
                if required or not is_absent(error):
                    raise
                return {}

    def pin(self, file: RemoteFile, hashes: Mapping[str, str]) -> None:
        """Keep hashes nobody published as if they were: what came first is what later runs verify against, offline.

        Raises:
            ArtifactError: They cannot be kept.
        """
        lines = ["# not published: the hash of what was fetched first", *(f"{h}  {n}" for n, h in hashes.items())]
        with self._in_words(file, threading.Event()):
            draft = self._path(file).with_name(f".{file.name}.{os.getpid()}")
            draft.write_text("\n".join(lines) + "\n")
            draft.replace(self._path(file))

    def _path(self, file: RemoteFile) -> Path:
        return self.folder / file.version / file.name

    def _get(self, file: RemoteFile, check: Check, on_progress: Progress, stop: threading.Event) -> Path:
        # A read of a silent connection cannot be ended; it is left behind, and ends by its timeout.
        return watched(partial(self._work, file, check, on_progress, stop), limit=inf, stop=stop)

    def _work(self, file: RemoteFile, check: Check, on_progress: Progress, stop: threading.Event) -> Path:
        path = self._path(file)
        if _fits(path, check):
            return path
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        part = Part(path.with_name(f"{path.name}.part"))
        with _locked(path, part, stop, patience=2 * self.deadline):
            # Another process may have brought it while this one waited.
            if not _fits(path, check):
                Download(file, part, self.deadline, self.timeout, on_progress, stop).run()
                try:
                    check(part.path)
                except ArtifactError:
                    part.discard()
                    raise
                part.path.replace(path)
                part.discard()
        return path

    def _verify(self, path: Path, file: RemoteFile, sha256: str) -> None:
        if not sha256:
            with path.open("rb") as opened:
                if opened.read(2) != b"#!":
                    raise ArtifactError(
                        f"{shown(file.url)} is not a script", hint="a proxy may have answered in its place"
                    )
        elif (found := self.digest(path)) != sha256:
            raise ArtifactError(
                f"{file.name} from {shown(file.url)} is not the published file: its SHA-256 is {found}, "
                f"published is {sha256}",
                hint="fetch it again; if that does not help, the mirror or a proxy on the way changes it",
            )

    @contextmanager
    def _in_words(self, file: RemoteFile, stop: threading.Event) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            if stop.is_set():
                raise Interrupted("stopped") from None
            raise explain(error, file) from None
        except OSError as error:
            raise ArtifactError(
                f"{self._path(file)} cannot be kept: {error.strerror or error}",
                hint="make room or give it rights there, or choose another folder for the cache",
            ) from None


@contextmanager
def _locked(path: Path, part: Part, stop: threading.Event, *, patience: float) -> Iterator[None]:
    """Hold the file's lock; wait for another process as long as its part grows."""
    size, until = -1, inf
    with path.with_name(f".{path.name}.lock").open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if part.size() != size:
                    size, until = part.size(), time.monotonic() + patience
                elif time.monotonic() > until:
                    raise ArtifactError(
                        f"{path} is being fetched by another process that gets nothing", hint="end that one"
                    ) from None
            if stop.wait(POLL):
                raise Interrupted("stopped")
        yield


def _fits(path: Path, check: Check) -> bool:
    try:
        check(path)
    except (FileNotFoundError, ArtifactError):
        return False
    return True


def _list(path: Path, file: RemoteFile) -> dict[str, str]:
    try:
        return parse_hashes(path.read_text(errors="replace"))
    except ArtifactError as error:
        raise ArtifactError(
            f"{shown(file.url)} is not a list of SHA-256: {error.message}",
            hint="a proxy may have answered in its place",
        ) from None
