"""Encrypt the file of a backup for the key of a certificate, so that the controller itself cannot read it.

CMS with AES-256-GCM (RFC 5652, 5083): OpenSSL is on nearly every controller, makes the keys, and reads the file without
this tool: `openssl cms -decrypt -binary -inform DER -inkey KEY -in FILE -out FILE.tar`. Sources: openssl-cms(1).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from nornir_k3s.errors import K3sError, UsageError

SUFFIX = ".cms"
_DEADLINE = 3600
_LARGEST = (
    1_400_000_000  # bytes; openssl decrypts none above 1.5 GiB (`crypto/buffer/buffer.c`), though it encrypts them
)


def encrypt(source: Path, target: Path, certificate: Path) -> None:
    """Encrypt a file.

    Arguments:
        target: Exists, 0600.
        certificate: PEM, with a key of kind RSA or EC.

    Raises:
        UsageError: openssl is missing, refuses the certificate, or could not decrypt a file of this size.
    """
    if (size := source.stat().st_size) > _LARGEST:
        text = f"the backup has {size >> 20} MiB, and openssl cannot decrypt what is larger than {_LARGEST >> 20} MiB"
        raise UsageError(text, hint="encrypt it with another tool by `backup.command`, as docs/day2.md shows with age")
    words = ["-encrypt", "-stream", "-aes-256-gcm", "-outform", "DER", "-recip", str(certificate)]
    if said := _openssl(words, source, target):
        raise UsageError(
            f"cannot encrypt for {certificate}: {said}", hint="give a certificate, PEM, with an RSA or EC key"
        )


def decrypt(source: Path, target: Path, key: Path) -> None:
    """Decrypt a file; where that fails, nothing of it may be used.

    Arguments:
        target: Exists, 0600.
        key: The private key, PEM without a passphrase.

    Raises:
        UsageError: openssl is missing, the key is another one, or the file is damaged.
    """
    if said := _openssl(["-decrypt", "-inform", "DER", "-inkey", str(key)], source, target):
        target.write_bytes(b"")
        raise UsageError(f"{source} cannot be decrypted with {key}: {said}", hint="it is damaged, or for another key")


def is_encrypted(path: Path) -> bool:
    """Return whether a file is encrypted: CMS begins with a SEQUENCE (X.690), a tar with a name.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(1) == b"\x30"
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def _openssl(words: list[str], source: Path, target: Path) -> str:
    """Run openssl cms; return what it says of a failure."""
    command = ["openssl", "cms", *words, "-binary", "-in", str(source), "-out", str(target)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_DEADLINE, check=False
        )
    except FileNotFoundError:
        raise UsageError(
            "openssl is not installed on this machine", hint="install it, or remove the encryption"
        ) from None
    except subprocess.TimeoutExpired:
        raise K3sError(f"openssl took longer than {_DEADLINE} s") from None
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return "" if done.returncode == 0 else (lines[-1] if lines else f"status {done.returncode}")
