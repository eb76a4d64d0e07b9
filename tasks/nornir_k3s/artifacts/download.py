"""One URL into one file: streamed, retried, and resumed where it was cut, also by a later run.

The caller verifies the file by its hash, which also finds halves of two different files: no entity tag is compared.

Source: RFC 9110 14.4 (`Content-Range`), 15.5.17 (416).
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import httpx

from nornir_k3s.errors import ArtifactError, Interrupted
from nornir_k3s.model.urls import shown
from nornir_k3s.retry import retry_transient

TIMEOUT = 20.0  # seconds of silence after which a connection counts as cut
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
# Transport errors that a retry does not change.
FINAL = (httpx.ProxyError, httpx.UnsupportedProtocol, httpx.LocalProtocolError)
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
# An attempt that was cut after so many new bytes has not failed: the next one has a new deadline.
STEP = 1 << 20
ELSEWHERE = "give `artifacts.folder` with the release's files, or the URL of a mirror this machine reaches"


class Absent(ArtifactError):
    """The server has no such file."""


def download(
    url: str,
    part: Path,
    *,
    deadline: float,
    on_progress: Callable[[int, int | None], None] = lambda *_: None,
    stop: threading.Event,
) -> bool:
    """Download a file, beginning where `part` ends; return whether all of it came in one response.

    Arguments:
        deadline: Seconds after which a server that sends nothing new is given up.
        on_progress: Called with the bytes so far, and all bytes where known.
        stop: Stops at the next byte.

    Raises:
        ArtifactError: It cannot be downloaded; user and password of the URL are not shown.
        Interrupted: The stop event was set.
        OSError: The part cannot be written.
    """
    begin = 0

    def attempt() -> bool:
        nonlocal begin
        before = size_of(part)
        try:
            begin = _receive(client, url, part, on_progress, stop)
        except httpx.TransportError as error:
            if not _is_transient(error) or size_of(part) < before + STEP:
                raise
            return False
        return True

    try:
        with _client(url) as client:
            while not retry_transient(attempt, transient=_is_transient, deadline=deadline, stop=stop):
                pass
    except httpx.HTTPError as error:
        if stop.is_set():
            raise Interrupted("stopped") from None
        raise _explain(error, shown(url)) from None
    return begin == 0


def size_of(path: Path) -> int:
    """Return a file's size; 0 where there is none."""
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _receive(
    client: httpx.Client,
    url: str,
    part: Path,
    on_progress: Callable[[int, int | None], None],
    stop: threading.Event,
) -> int:
    done = size_of(part)
    headers = {"Range": f"bytes={done}-"} if done else {}
    # Without user and password: httpx writes the URL into its log.
    with client.stream("GET", httpx.URL(url).copy_with(userinfo=b""), headers=headers) as response:
        partial = response.status_code == httpx.codes.PARTIAL_CONTENT
        continues = response.headers.get("content-range", "").startswith(f"bytes {done}-")
        if (partial and not continues) or response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)
            raise httpx.RemoteProtocolError(f"the server cannot resume at byte {done}")
        response.raise_for_status()
        begin = done = done if partial else 0
        length = response.headers.get("content-length", "")
        total = done + int(length) if length.isdecimal() else None
        with part.open("ab" if begin else "wb") as file:
            for chunk in response.iter_raw():
                if stop.is_set():
                    raise Interrupted("stopped")
                file.write(chunk)
                done += len(chunk)
                on_progress(done, total)
    return begin


def _client(url: str) -> httpx.Client:
    parts = httpx.URL(url)
    try:
        return httpx.Client(
            auth=(parts.username, parts.password) if parts.userinfo else None,
            headers={"User-Agent": "nornir-k3s", "Accept-Encoding": "identity"},
            follow_redirects=True,
            event_hooks={"response": [_refuse_downgrade]},
            timeout=TIMEOUT,
            verify=_trust(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")),
        )
    except (OSError, ValueError, ImportError, httpx.InvalidURL):
        raise ArtifactError(
            f"{shown(url)} cannot be fetched with this machine's settings",
            hint="check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE in the environment, and the URL",
        ) from None


@cache
def _trust(*_environment: str | None) -> ssl.SSLContext:
    trust = httpx.create_ssl_context()
    trust.load_default_certs()  # httpx brings its own CAs; a company's is in the system's store
    return trust


def _refuse_downgrade(response: httpx.Response) -> None:
    if response.url.scheme == "https" and response.headers.get("location", "").lower().startswith("http:"):
        raise httpx.UnsupportedProtocol("it redirects from https to http")


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in TRANSIENT
    return isinstance(error, httpx.TransportError) and not isinstance(error, FINAL) and UNTRUSTED not in str(error)


def _explain(error: httpx.HTTPError, where: str) -> ArtifactError:
    status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else 0
    if status in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
        version, name = unquote(where).split("/")[-2:]
        return Absent(
            f"{where} does not exist (HTTP {status}): there is no K3s {version}, or no {name} of it",
            hint="check `version` and the URL of the releases in the inventory",
        )
    if status:
        return ArtifactError(f"{where} was refused with HTTP {status}", hint=ELSEWHERE)
    if UNTRUSTED in str(error):
        hint = "let SSL_CERT_FILE name the file with the CA's certificate, if that server or proxy is to be trusted"
        return ArtifactError(f"{where} shows a certificate this machine does not trust", hint=hint)
    return ArtifactError(f"{where} cannot be fetched: {error or type(error).__name__}", hint=ELSEWHERE)
