"""known_hosts files: who is on record in one, and changing one so that nothing in it is lost.

A host's keys are found as paramiko finds them, by its exact name or the hash of it, since that is what decides about a
connection; lines with patterns or markers are for OpenSSH, and stay.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from paramiko.hostkeys import HostKeyEntry, HostKeys
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from nornir_k3s import atomic_file
from nornir_k3s.errors import UsageError

LOCK_DEADLINE = 10.0


@dataclass(frozen=True)
class HostKey:
    """A host's public key under the name it is found by."""

    name: str
    kind: str
    blob: bytes

    @property
    def line(self) -> bytes:
        """The line of known_hosts."""
        return f"{self.name} {self.kind} {base64.b64encode(self.blob).decode()}\n".encode()


class KnownHosts:
    """What a known_hosts file says, line by line.

    Arguments:
        content: Of the file.
    """

    def __init__(self, content: bytes = b"") -> None:
        self._lines = content.splitlines(keepends=True)
        self._parsed = [_parse(line) for line in self._lines]
        self._revoked = {line.blob for line in self._parsed if line and line.marker == "@revoked"}

    @classmethod
    def read(cls, path: Path) -> KnownHosts:
        """Return the file's content; a file that is not there is empty.

        Raises:
            UsageError: It cannot be read.
        """
        with _explained(path):
            try:
                return cls(path.read_bytes())
            except FileNotFoundError:
                return cls()

    def keys(self, name: str) -> dict[str, bytes]:
        """Return the keys on record for a name, by kind and in the file's order; of a kind the first one counts."""
        found: dict[str, bytes] = {}
        for line in self._parsed:
            if line and not line.marker and any(_is(name, known) for known in line.names):
                found.setdefault(line.kind, line.blob)
        return found

    def revoked(self, blob: bytes) -> bool:
        """Say whether a key is revoked, for whatever host."""
        return blob in self._revoked

    def changed(self, add: Iterable[HostKey], forget: Collection[str] = ()) -> bytes:
        """Return the content without the keys of some names, and with these at its end unless they are there."""
        content = b"".join(self._without(index, forget) for index in range(len(self._lines)))
        rest = KnownHosts(content)
        if content and not content.endswith(b"\n"):
            content += b"\n"
        lines = dict.fromkeys(key.line for key in add if rest.keys(key.name).get(key.kind) != key.blob)
        return content + b"".join(lines)

    def for_paramiko(self) -> bytes | None:
        """Return the lines that paramiko can read; None where that is all. One that it cannot read ends its work."""
        readable = [
            line
            for line, parsed in zip(self._lines, self._parsed, strict=True)
            if parsed and not parsed.marker and not self.revoked(parsed.blob) and _paramiko_reads(line)
        ]
        said = [line for line in self._lines if line.strip() and not line.strip().startswith(b"#")]
        return b"".join(readable) if len(readable) < len(said) else None

    def _without(self, index: int, forget: Collection[str]) -> bytes:
        line, parsed = self._lines[index], self._parsed[index]
        if parsed is None or parsed.marker:
            return line
        keep = [known for known in parsed.names if not any(_is(name, known) for name in forget)]
        if len(keep) == len(parsed.names):
            return line
        names = ",".join(parsed.names).encode()
        return line.replace(names, ",".join(keep).encode(), 1) if keep else b""


@contextlib.contextmanager
def for_paramiko(path: Path) -> Iterator[Path]:
    """Yield a file that says the same to paramiko and has no line that it fails on, for as long as it is needed."""
    try:
        content = KnownHosts(path.read_bytes()).for_paramiko()
    except OSError:
        content = None  # it says so itself
    if content is None:
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="known_hosts-") as file:
        file.write(content)
        file.flush()
        yield Path(file.name)


def change(path: Path, add: Collection[HostKey], forget: Collection[str] = ()) -> None:
    """Add keys to a file, and forget those of some names before; either all of it is done, or nothing.

    Arguments:
        path: Made with its folder where it is not there, 0600.
        add: A key that has come into the file since it was read is not added again.
        forget: Names of hosts whose keys are replaced.

    Raises:
        UsageError: It cannot be written, or another key of such a host has come into it since.
    """
    with _explained(path):
        real = path.resolve()  # what a link leads to is changed, not the link
        real.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(real):
            now = KnownHosts(real.read_bytes())
            for key in add:
                if key.name not in forget and now.keys(key.name).get(key.kind, key.blob) != key.blob:
                    raise UsageError(f"{path}: {key.name} has got another key there meanwhile", hint="run it again")
            old = real.stat()  # its owner and mode stay
            atomic_file.write(real, now.changed(add, forget), mode=old.st_mode & 0o7777, owner=(old.st_uid, old.st_gid))


@dataclass(frozen=True)
class _Line:
    marker: str
    names: tuple[str, ...]
    kind: str
    blob: bytes


def _parse(line: bytes) -> _Line | None:
    words = line.decode(errors="replace").split()
    marker = words.pop(0) if words and words[0].startswith("@") else ""
    if len(words) < 3 or words[0].startswith("#"):
        return None
    try:
        blob = base64.b64decode(words[2], validate=True)
    except (binascii.Error, ValueError):
        return None
    return _Line(marker, tuple(words[0].split(",")), words[1], blob)


def _is(name: str, known: str) -> bool:
    if not known.startswith("|1|"):
        return name == known
    try:
        return HostKeys.hash_host(name, known) == known
    except (AssertionError, binascii.Error, IndexError):
        return False


def _paramiko_reads(line: bytes) -> bool:
    try:
        HostKeyEntry.from_line(line.decode().strip())
    except Exception:  # each kind of key fails in a way of its own
        return False
    return True


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"the known_hosts file {path} cannot be used: {error.strerror or error}",
            hint="check alt_key_file in the inventory, and who may write there",
        ) from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the file for one writer; it is made where it is not there."""
    waiting = Retrying(
        retry=retry_if_result(lambda got: got is None),
        stop=stop_after_delay(LOCK_DEADLINE),
        wait=wait_fixed(0.1),
        retry_error_callback=lambda _: None,
    )
    made = not path.exists()
    descriptor = waiting(_try_lock, path)
    if descriptor is None:
        raise UsageError(f"{path} is held by another process", hint="run it again when that one has ended")
    try:
        yield
    except BaseException:
        if made and path.stat().st_size == 0:
            path.unlink()
        raise
    finally:
        os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)  # held by another, or the one before us has put a new file in its place
    return None
