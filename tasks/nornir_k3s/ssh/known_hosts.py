"""known_hosts files: looking up keys, and changing a file without losing anything else in it.

A host's keys are found as OpenSSH finds them: by its name, the hash of it, or patterns. paramiko, which checks the
connection, knows no patterns: it is given a file with the host's own name. Lines with patterns or markers always stay.

Source: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT; `match_pattern_list` in OpenSSH's match.c.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from paramiko.hostkeys import HostKeyEntry, HostKeys

from nornir_k3s import atomic_file
from nornir_k3s.errors import UsageError

LOCK_DEADLINE = 10.0


@dataclass(frozen=True)
class HostKey:
    """A host's public key, and the name of the host in known_hosts."""

    name: str
    kind: str
    blob: bytes

    @property
    def line(self) -> bytes:
        """The line in known_hosts."""
        return f"{self.name} {self.kind} {base64.b64encode(self.blob).decode()}\n".encode()


class KnownHosts:
    """The content of a known_hosts file, line by line.

    Arguments:
        content: The file's bytes.
    """

    def __init__(self, content: bytes = b"") -> None:
        self._lines = content.splitlines(keepends=True)
        self._parsed = [_parse(line) for line in self._lines]

    @classmethod
    def read(cls, path: Path) -> KnownHosts:
        """Read a file; a missing one counts as empty.

        Raises:
            UsageError: It cannot be read.
        """
        with _usage_errors(path):
            try:
                return cls(path.read_bytes())
            except FileNotFoundError:
                return cls()

    def keys(self, name: str, presented: Collection[bytes] = ()) -> dict[str, bytes]:
        """Return the keys on record for a name, by type and in the file's order.

        Of several of one type, the one that the host presents counts, as with OpenSSH; else the first one. A revoked
        one is the last. A line with the name itself comes before one with a pattern: a host's own line can replace it.

        Arguments:
            presented: Keys that the host presented.
        """
        plain = [line for line in self._parsed if line and not line.marker]
        lines = [line for matches in (_names, _covers) for line in plain if matches(line.names, name)]
        found: dict[str, bytes] = {}
        for line in sorted(lines, key=lambda line: (self.revoked(line.blob, name), line.blob not in presented)):
            found.setdefault(line.kind, line.blob)
        return found

    def revoked(self, blob: bytes, name: str) -> bool:
        """Say whether a key is revoked for a name."""
        return any(line.blob == blob for line in self._marked("@revoked", name))

    def certified(self, name: str) -> bool:
        """Say whether a certificate authority may sign the keys of a name."""
        return any(self._marked("@cert-authority", name))

    def _marked(self, marker: str, name: str) -> Iterator[_Line]:
        return (line for line in self._parsed if line and line.marker == marker and _covers(line.names, name))

    def changed(self, add: Iterable[HostKey], forget: Collection[str] = ()) -> bytes:
        """Return the content without the keys of some names, and with these keys appended unless they are there."""
        content = b"".join(self._without(index, forget) for index in range(len(self._lines)))
        rest = KnownHosts(content)
        if content and not content.endswith(b"\n"):
            content += b"\n"
        lines = dict.fromkeys(key.line for key in add if rest.keys(key.name).get(key.kind) != key.blob)
        return content + b"".join(lines)

    def for_paramiko(self, name: str, presented: Collection[bytes] = ()) -> bytes:
        """Return the keys of a name in lines that paramiko can read: an unreadable one makes it fail."""
        found = self.keys(name, presented).items()
        keys = (HostKey(name, kind, blob) for kind, blob in found if not self.revoked(blob, name))
        return b"".join(key.line for key in keys if _paramiko_reads(key.line))

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
def for_paramiko(path: Path, name: str, presented: Collection[bytes] = ()) -> Iterator[Path]:
    """Yield a file with the keys of a name, for paramiko, which knows one of each type; it is removed afterwards."""
    try:
        content = KnownHosts(path.read_bytes()).for_paramiko(name, presented)
    except OSError:
        content = b""
    with tempfile.NamedTemporaryFile(prefix="known_hosts-") as file:
        file.write(content)
        file.flush()
        yield Path(file.name)


def change(path: Path, add: Collection[HostKey], forget: Collection[str] = ()) -> None:
    """Add keys to a file after removing those of some names, atomically.

    Arguments:
        path: Created with its folder if missing, with mode 0600.
        add: A key that is in the file already is not added again.
        forget: Names of hosts whose keys are replaced.

    Raises:
        UsageError: It cannot be written, or another run has added a different key for such a host.
    """
    with _usage_errors(path):
        real = path.resolve()  # a symbolic link stays one; its target is changed
        real.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(real):
            now = KnownHosts(real.read_bytes())
            for key in add:
                if key.name not in forget and now.keys(key.name).get(key.kind, key.blob) != key.blob:
                    raise UsageError(f"{path}: another run added a different key for {key.name}", hint="run it again")
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


def _names(names: Sequence[str], name: str) -> bool:
    return any(_is(name, known) for known in names)


def _covers(names: Sequence[str], name: str) -> bool:
    """Say whether a line counts for a name: one of its names or patterns matches, and none with `!` does."""
    plain = name.lower()
    found = False
    for known in names:
        pattern = known.removeprefix("!").lower()
        if _is(name, known) or re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), plain):
            if known.startswith("!"):
                return False
            found = True
    return found


def _paramiko_reads(line: bytes) -> bool:
    try:
        HostKeyEntry.from_line(line.decode().strip())
    except Exception:  # each key type fails with exceptions of its own
        return False
    return True


@contextlib.contextmanager
def _usage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"the known_hosts file {path} cannot be used: {error.strerror or error}",
            hint="check alt_key_file in the inventory, and the permissions of the file and its folder",
        ) from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock the file for one writer; create it if missing."""
    made = not path.exists()
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # filelock would wait where it cannot
    # The file itself: it is read again, and locked again, where another writer has replaced it meanwhile.
    lock = FileLock(path, mode=0o600, timeout=LOCK_DEADLINE, poll_interval=0.1, preserve_lock_file=True)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"{path} is locked by another process", hint="run it again when that process has ended"
        ) from None
    try:
        yield
    except BaseException:
        if made and path.stat().st_size == 0:
            path.unlink()
        raise
    finally:
        lock.release()
