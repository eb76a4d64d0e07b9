"""The file of a backup: a tar with the manifest, the parts, and the hash of the manifest at its end."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from nornir_k3s.errors import UsageError
from nornir_k3s.model.backup import FORMAT, Manifest, Part
from nornir_k3s.model.secret import Secret

MANIFEST, SEAL = "manifest.json", "manifest.sha256"
_BLOCK, _LARGEST = 1 << 20, 16 << 20  # of a part that is a text


def write(path: Path, manifest: Manifest, parts: Mapping[str, Path | Secret]) -> Manifest:
    """Write a backup's file, and return its manifest with the hashes of the parts.

    Arguments:
        path: Exists and is empty, 0600: the parts are secret.
        manifest: What is known of the backup.
        parts: Files or texts by name; the order stays.

    Raises:
        OSError: It cannot be written.
    """
    whole = manifest.model_copy(update={"parts": [_part(name, content) for name, content in parts.items()]})
    text = whole.model_dump_json(indent=2).encode()
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, MANIFEST, io.BytesIO(text), len(text))
        for part in whole.parts:
            with _opened(parts[part.name]) as stream:
                _add(archive, part.name, stream, part.bytes)
        seal = hashlib.sha256(text).hexdigest().encode() + b"\n"
        _add(archive, SEAL, io.BytesIO(seal), len(seal))
    return whole


def _part(name: str, content: Path | Secret) -> Part:
    with _opened(content) as stream:
        digest = hashlib.file_digest(stream, "sha256")  # type: ignore[arg-type]  # typeshed wants readinto as a protocol
        return Part(name=name, bytes=stream.seek(0, os.SEEK_END), sha256=digest.hexdigest())


def _opened(content: Path | Secret) -> IO[bytes]:
    return content.open("rb") if isinstance(content, Path) else io.BytesIO(content.reveal().encode())


def _add(archive: tarfile.TarFile, name: str, stream: IO[bytes], size: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o600
    archive.addfile(entry, stream)


def check(path: Path) -> Manifest:
    """Return the manifest of a backup's file after every part was compared with its hash.

    Raises:
        UsageError: It is no backup, of a newer format, or damaged.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            return _checked(path, archive)
    except (tarfile.TarError, EOFError) as error:
        raise _damaged(path, str(error)) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def _checked(path: Path, archive: tarfile.TarFile) -> Manifest:
    entries = iter(archive)
    first = next(entries, None)
    if first is None or first.name != MANIFEST or first.size > _LARGEST:
        raise UsageError(f"{path} is not a backup: it does not begin with {MANIFEST}")
    text = _content(archive, first).read()
    found: dict[str, tuple[int, str]] = {}
    seal = ""
    for entry in entries:
        digest = hashlib.sha256()
        stream = _content(archive, entry)
        if entry.name == SEAL:
            seal = stream.read(64).decode(errors="replace")
            continue
        while block := stream.read(_BLOCK):
            digest.update(block)
        found[entry.name] = entry.size, digest.hexdigest()
    if seal != hashlib.sha256(text).hexdigest():
        raise _damaged(path, f"{MANIFEST} has another hash than {SEAL} says" if seal else "its end is missing")
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError:
        raise UsageError(
            f"{path} has a manifest that this version cannot read", hint="use a newer nornir-k3s"
        ) from None
    if manifest.format != FORMAT:
        text_of = f"{path} has format {manifest.format}, this version reads {FORMAT}"
        raise UsageError(text_of, hint="use the version of nornir-k3s that wrote it, or a newer one")
    for part in manifest.parts:
        if found.get(part.name) != (part.bytes, part.sha256):
            what = "another hash than the manifest says" if part.name in found else "no content"
            raise _damaged(path, f"{part.name} has {what}")
    return manifest


def _damaged(path: Path, why: str) -> UsageError:
    return UsageError(f"{path} is damaged: {why}", hint="take another copy of it, or an earlier backup")


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    stream = archive.extractfile(entry) if entry.isreg() else None
    if stream is None:
        raise tarfile.TarError(f"{entry.name[:80]} is not a file")
    return stream


def text(path: Path, name: str) -> Secret | None:
    """Return a part that is a text, or None if there is none of this name; the file was checked."""
    with tarfile.open(path, "r:") as archive:
        if name not in archive.getnames():
            return None
        return Secret(_content(archive, archive.getmember(name)).read(_LARGEST).decode())


def extract(path: Path, name: str, target: Path) -> None:
    """Write a part to a file that exists; the backup's file was checked.

    Raises:
        OSError: The target cannot be written.
    """
    with tarfile.open(path, "r:") as archive, target.open("wb") as file:
        stream = _content(archive, archive.getmember(name))
        while block := stream.read(_BLOCK):
            file.write(block)
