"""One URL into one file: streamed, retried, and continued where it was cut, also by a later run.

Sources: RFC 9110 13.1.5 (`If-Range` takes strong entity tags only), 14.4 (`Content-Range`), 15.5.17 (416).
"""

from __future__ import annotations

import os
import re
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx

from nornir_k3s.artifacts.release import RemoteFile, checked, shown
from nornir_k3s.errors import ArtifactError, Interrupted
from nornir_k3s.model.secret import Secret
from nornir_k3s.retry import retry_transient

Progress = Callable[[str, int, int | None], None]

TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
# Errors of the transport that the next attempt would meet again.
FINAL = (httpx.ProxyError, httpx.UnsupportedProtocol, httpx.LocalProtocolError)
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
# An attempt that brought less than this before it was cut has failed; one that brought more earns a new deadline.
STEP = 1 << 20
ELSEWHERE = "give `artifacts.folder` with the release's files, or the URL of a mirror this machine reaches"


@dataclass(frozen=True)
class Part:
    """What is there of a file so far, and beside it a note: of which URL, and which entity tag.

    Arguments:
        path: The part; the note is `PATH.etag`.
    """

    path: Path

    @property
    def note(self) -> Path:
        """Where the note is."""
        return self.path.with_name(f"{self.path.name}.etag")

    def size(self) -> int:
        """Return how many bytes are there."""
        # Not asked in two steps: another process may give it its name in between.
        with suppress(FileNotFoundError):
            return self.path.stat().st_size
        return 0

    def etag(self, url: str) -> str:
        """Return the strong entity tag of the file this is a part of, or nothing where it cannot be continued."""
        with suppress(FileNotFoundError):
            source, _, etag = self.note.read_text(errors="replace").partition(" ")
            if self.size() and source == Secret(url).fingerprint() and re.fullmatch(r'"[\x21-\x7e]*"', etag):
                return etag
        return ""

    def begin(self, url: str, etag: str) -> None:
        """Empty the part, then note what it is going to be a part of: a note never stands beside older bytes."""
        self.path.write_bytes(b"")
        self.note.write_text(f"{Secret(url).fingerprint()} {etag}")

    def discard(self) -> None:
        """Remove part and note."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


@dataclass
class Download:
    """A file on its way.

    Arguments:
        file: What to fetch.
        part: Where to.
        deadline: Seconds after which a server that gives nothing new is given up.
        timeout: Seconds a connection may be silent before it counts as cut.
        on_progress: Called with name, bytes so far and, where known, all bytes.
        stop: Ends it at the next byte.
    """

    file: RemoteFile
    part: Part
    deadline: float
    timeout: float
    on_progress: Progress
    stop: threading.Event

    def run(self) -> None:
        """Fetch all of it.

        Raises:
            httpx.HTTPError: The server could not be reached or gave something else, also at the deadline.
            ArtifactError: The URL or this machine's proxy and TLS settings are unusable.
            Interrupted: The stop event was set.
            OSError: The part cannot be written.
        """
        with _client(self.file.url, self.timeout) as client:
            while not retry_transient(
                lambda: self._attempt(client), transient=_transient, deadline=self.deadline, stop=self.stop
            ):
                pass

    def _attempt(self, client: httpx.Client) -> bool:
        before = self.part.size()
        try:
            self._pull(client)
        except httpx.TransportError as error:
            if not _transient(error) or self.part.size() < before + STEP:
                raise
            return False
        return True

    def _pull(self, client: httpx.Client) -> None:
        etag = self.part.etag(self.file.url)
        done = self.part.size() if etag else 0
        headers = {"Range": f"bytes={done}-", "If-Range": etag} if etag else {}
        with client.stream("GET", _plain(self.file.url), headers=headers) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE or (
                response.status_code == httpx.codes.PARTIAL_CONTENT and not _continues(response, done, etag)
            ):
                self.part.discard()
                raise httpx.RemoteProtocolError(f"the server cannot go on from byte {done}")
            response.raise_for_status()
            if response.status_code != httpx.codes.PARTIAL_CONTENT:
                done = 0
                self.part.begin(self.file.url, response.headers.get("etag", ""))
            self._write(response, done)

    def _write(self, response: httpx.Response, done: int) -> None:
        length = response.headers.get("content-length", "")
        total = done + int(length) if length.isdecimal() else None
        with self.part.path.open("ab") as file:
            for chunk in response.iter_raw():
                if self.stop.is_set():
                    raise Interrupted(f"stopped while {self.file.name} was fetched")
                file.write(chunk)
                done += len(chunk)
                self.on_progress(self.file.name, done, total)


def explain(error: httpx.HTTPError, file: RemoteFile) -> ArtifactError:
    """Return in words why a file could not be fetched, without user, password or signed address."""
    where = shown(file.url)
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        if is_absent(error):
            return ArtifactError(
                f"{where} does not exist (HTTP {status}): there is no K3s {file.version}, or no {file.name} of it",
                hint="look at `version` and the URL of the releases in the inventory",
            )
        return ArtifactError(f"{where} was refused with HTTP {status}", hint=ELSEWHERE)
    if UNTRUSTED in str(error):
        return ArtifactError(
            f"{where} shows a certificate this machine does not trust",
            hint="let SSL_CERT_FILE name the file with the CA's certificate, if that server or proxy is to be trusted",
        )
    return ArtifactError(f"{where} cannot be fetched: {error or type(error).__name__}", hint=ELSEWHERE)


def is_absent(error: httpx.HTTPStatusError) -> bool:
    """Return whether the server says that there is no such file."""
    return error.response.status_code in (httpx.codes.NOT_FOUND, httpx.codes.GONE)


def _transient(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in TRANSIENT
    return isinstance(error, httpx.TransportError) and not isinstance(error, FINAL) and UNTRUSTED not in str(error)


def _continues(response: httpx.Response, done: int, etag: str) -> bool:
    # Not every server heeds If-Range; the tag and the range of its answer tell.
    span: str = response.headers.get("content-range", "")
    return span.startswith(f"bytes {done}-") and response.headers.get("etag") == etag


def _client(url: str, timeout: float) -> httpx.Client:
    try:
        parts = httpx.URL(checked(url))
        trust = _trust(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        return httpx.Client(
            # Not left in the URL: httpx writes that into its log.
            auth=(parts.username, parts.password) if parts.userinfo else None,
            headers={"User-Agent": "nornir-k3s", "Accept-Encoding": "identity"},
            follow_redirects=True,
            event_hooks={"response": [_refuse_downgrade]},
            timeout=timeout,
            verify=trust,
        )
    except (OSError, ValueError, ImportError, httpx.InvalidURL):
        raise ArtifactError(
            f"{shown(url)} cannot be fetched with this machine's settings",
            hint="look at HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE in the environment, and at the URL",
        ) from None


@cache
def _trust(*_environment: str | None) -> ssl.SSLContext:
    # Reading all CAs takes a while, so once is enough, until the environment names others.
    trust = httpx.create_ssl_context()
    # httpx brings CAs of its own; a company's are in the system's store.
    trust.load_default_certs()
    return trust


def _plain(url: str) -> httpx.URL:
    return httpx.URL(url).copy_with(userinfo=b"")


def _refuse_downgrade(response: httpx.Response) -> None:
    if response.url.scheme == "https" and response.headers.get("location", "").lower().startswith("http:"):
        raise httpx.UnsupportedProtocol("it redirects from https to http")
