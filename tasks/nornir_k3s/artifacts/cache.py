"""A cache of K3s releases on the controller: a file gets its name after it was verified, and needs no network again.

pooch was considered: it has no resume, no lock between processes and no stop, and brings a second HTTP client.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import contextmanager, suppress
from functools import partial
from math import inf
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from nornir_k3s import atomic_file
from nornir_k3s.artifacts.download import Absent, download, size_of
from nornir_k3s.artifacts.known_files import sha256_of
from nornir_k3s.artifacts.release import INSTALLER, INSTALLER_HASH, Release, parse_hashes
from nornir_k3s.errors import ArtifactError, Interrupted
from nornir_k3s.model.urls import shown
from nornir_k3s.retry import POLL

Check = Callable[[Path], object]
Progress = Callable[[str, int, int | None], None]  # file, bytes so far, all bytes where known
T = TypeVar("T")
Call = Callable[[threading.Event], T]


class Cache:
    """The files of one release, as `FOLDER/VERSION/NAME`.

    Arguments:
        folder: Created with mode 0700 by the first download.
        release: Which one.
        deadline: Seconds after which a server that sends nothing new is given up.
        sha256: Computes a file's SHA-256.

    Its methods raise an ArtifactError where a file does not exist, is not the published one, or cannot be downloaded
    or saved, and Interrupted where the stop event is set; the next run resumes.
    """

    def __init__(
        self, folder: Path, release: Release, *, deadline: float = 60, sha256: Callable[[Path], str] = sha256_of
    ) -> None:
        self.release = release
        self.folder = folder / release.version
        self.deadline = deadline
        self.sha256 = sha256

    def hashes(self, stop: threading.Event) -> dict[str, str]:
        """Return the published SHA-256 of each file; an empty one of the installer where a mirror has none."""
        found: dict[str, str] = {}
        for name in (self.release.hashes, INSTALLER_HASH):
            found |= together([partial(self._hashes, name)], stop)[0]
        return found

    def files(self, hashes: dict[str, str], *, on_progress: Progress, stop: threading.Event) -> dict[str, str]:
        """Verify files that are in the cache, and download the others at the same time; return their SHA-256.

        Arguments:
            hashes: SHA-256 by name; where the installer's is empty, the first download is what later ones must match.
            on_progress: Called from several threads.
            stop: Stops at once.
        """
        together([partial(self._file, on_progress, name, sha256) for name, sha256 in hashes.items()], stop)
        if hashes.get(INSTALLER) != "":
            return hashes
        with self._explained(INSTALLER_HASH):
            first = self.sha256(self.folder / INSTALLER)
            text = f"# not published: of the first download\n{first}  {INSTALLER}\n"
            atomic_file.write(self.folder / INSTALLER_HASH, text)
        return hashes | {INSTALLER: first}

    def _hashes(self, name: str, stop: threading.Event) -> dict[str, str]:
        def read(path: Path) -> dict[str, str]:
            try:
                return parse_hashes(path.read_text(errors="replace"))
            except ArtifactError as error:
                raise ArtifactError(
                    f"{shown(self.release.url(name))} is not a list of SHA-256: {error.message}",
                    hint="a proxy may have answered in its place",
                ) from None

        try:
            with self._explained(name):
                return read(self._verified(name, read, stop))
        except Absent:
            if name != INSTALLER_HASH or self.release.is_upstream:
                raise
            return {INSTALLER: ""}

    def _file(self, on_progress: Progress, name: str, sha256: str, stop: threading.Event) -> None:
        url = shown(self.release.url(name))

        def check(path: Path) -> None:
            if not sha256:
                with path.open("rb") as file:
                    if file.read(2) != b"#!":
                        raise ArtifactError(f"{url} is not a script", hint="a proxy may have answered in its place")
            elif (found := self.sha256(path)) != sha256:
                raise ArtifactError(
                    f"{name} from {url} is not the published file: its SHA-256 is {found}, published is {sha256}",
                    hint="fetch it again; if that does not help, the mirror or a proxy on the way changes it",
                )

        with self._explained(name):
            size = self._verified(name, check, stop, partial(on_progress, name), bool(sha256)).stat().st_size
        on_progress(name, size, size)

    def _verified(
        self,
        name: str,
        check: Check,
        stop: threading.Event,
        on_progress: Callable[[int, int | None], None] = lambda *_: None,
        resume: bool = False,
    ) -> Path:
        path, part = self.folder / name, self.folder / f"{name}.part"
        if _passes(check, path):
            return path
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        with _locked(path, part, stop, patience=2 * self.deadline):
            while not _passes(check, path):  # another process may have downloaded it meanwhile
                if not resume:
                    part.unlink(missing_ok=True)
                whole = download(
                    self.release.url(name), part, deadline=self.deadline, on_progress=on_progress, stop=stop
                )
                try:
                    check(part)
                except ArtifactError:
                    part.unlink()
                    if whole or not resume:
                        raise
                    resume = False  # halves of different files: once more, from the first byte
                else:
                    part.replace(path)
                    break
        return path

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ArtifactError(
                f"{self.folder / name} cannot be kept: {error.strerror or error}",
                hint="free disk space or grant write permission there, or choose another folder for the cache",
            ) from None


def together(calls: Sequence[Call[T]], stop: threading.Event) -> list[T]:
    """Return the results of calls that run at the same time; the first error, or the stop event, ends them all.

    Reading from a silent connection cannot be interrupted: such a thread is left behind, and ends by its timeout.
    """
    end = threading.Event()
    futures: list[Future[T]] = [Future() for _ in calls]

    def run(call: Call[T], future: Future[T]) -> None:
        try:
            future.set_result(call(end))
        except BaseException as error:
            future.set_exception(error)

    for call, future in zip(calls, futures, strict=True):
        threading.Thread(target=run, args=(call, future), name="nornir-k3s-download", daemon=True).start()
    try:
        while wait(futures, timeout=POLL, return_when=FIRST_EXCEPTION).not_done and not _errors(futures):
            if stop.is_set():
                raise Interrupted("stopped")
    finally:
        end.set()
    for error in _errors(futures):
        raise error
    return [future.result() for future in futures]


def _errors(futures: Sequence[Future[T]]) -> list[BaseException]:
    return [error for future in futures if future.done() and (error := future.exception())]


@contextmanager
def _locked(path: Path, part: Path, stop: threading.Event, *, patience: float) -> Iterator[None]:
    """Lock a file for one process; wait for another one as long as its part grows."""
    size, until = -1, inf

    def give_up() -> bool:
        nonlocal size, until
        silent = size == size_of(part)
        if not silent:
            size, until = size_of(part), time.monotonic() + patience
        return stop.is_set() or (silent and time.monotonic() > until)

    lock = FileLock(path.with_name(f".{path.name}.lock"), mode=0o600, poll_interval=POLL, preserve_lock_file=True)
    try:
        held = lock.acquire(cancel_check=give_up)
    except Timeout:
        if stop.is_set():
            raise Interrupted("stopped") from None
        hint = f"end that process, which holds {lock.lock_file}"
        raise ArtifactError(f"{path} is downloaded by another process that makes no progress", hint=hint) from None
    with held:
        yield


def _passes(check: Check, path: Path) -> bool:
    with suppress(FileNotFoundError, ArtifactError):
        check(path)
        return True
    return False
