from __future__ import annotations

import hashlib
import logging
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from filelock import FileLock
from tenacity import wait_none

from nornir_k3s.artifacts import cache as cache_module
from nornir_k3s.artifacts import download
from nornir_k3s.artifacts.cache import Cache
from nornir_k3s.artifacts.release import Release
from nornir_k3s.artifacts.source import fetch_release
from nornir_k3s.errors import ArtifactError, Interrupted
from nornir_k3s.model.bundle import Bundle
from nornir_k3s.retry import POLL

from .mirror import FOLDER, VERSION, Mirror, Reply

BINARY, OTHER, IMAGES = os.urandom(300_000), os.urandom(310_000), os.urandom(200_000)
SCRIPT = b"#!/bin/sh\nexit 0\n"
LISTS = ["sha256sum-amd64.txt", "install.sh.sha256sum"]
ARCHIVE = "k3s-airgap-images-amd64.tar.zst"


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry at once, and forget the tester's proxies and certificates."""
    monkeypatch.setattr("nornir_k3s.retry.backoff", lambda **_: wait_none())
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    server = Mirror()
    server.publish(k3s=BINARY, images=IMAGES, installer=SCRIPT)
    yield server
    server.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def bring(mirror: Mirror, folder: Path) -> Callable[..., Path]:
    """Bring the binary from the mirror: `bring(sha256=…, url=…, deadline=…)`."""

    def run(
        body: bytes = BINARY,
        *,
        url: str = "",
        deadline: float = 30,
        stop: threading.Event | None = None,
        on_progress: Callable[[str, int, int | None], None] = lambda *_: None,
    ) -> Path:
        cache = Cache(folder, Release(VERSION, "x86_64", url or mirror.url), deadline=deadline)
        cache.files({"k3s": digest(body)}, on_progress=on_progress, stop=stop or threading.Event())
        return folder / VERSION / "k3s"

    return run


@pytest.fixture
def fetch(mirror: Mirror, folder: Path) -> Callable[..., Bundle]:
    def run(*, url: str = "", version: str = VERSION, **changes: Any) -> Bundle:
        options: dict[str, Any] = {"images": True, "on_progress": lambda *_: None, "stop": threading.Event()}
        release = Release(version, "x86_64", url or mirror.url)
        return fetch_release(Cache(folder, release, deadline=0), **options | changes)

    return run


# The release


def test_a_release_is_fetched_whole(fetch: Callable[..., Bundle], folder: Path) -> None:
    told: dict[str, list[tuple[int, int | None]]] = {}
    fetched = fetch(on_progress=lambda name, done, total: told.setdefault(name, []).append((done, total)))
    assert [file.source.read_bytes() for file in fetched.artifacts()] == [BINARY, SCRIPT, IMAGES]
    assert [file.source.name for file in fetched.artifacts()] == ["k3s", "install.sh", ARCHIVE]
    assert [file.sha256 for file in fetched.artifacts()] == [digest(BINARY), digest(SCRIPT), digest(IMAGES)]
    assert [file.mode for file in fetched.artifacts()] == [0o755, 0o755, 0o644]
    assert {file.url for file in fetched.artifacts()} == {""}
    assert folder.stat().st_mode & 0o777 == 0o700
    names = {path.name for path in (folder / VERSION).iterdir() if not path.name.startswith(".")}
    assert names == {"k3s", "install.sh", ARCHIVE, *LISTS}
    assert told.keys() == {"k3s", "install.sh", ARCHIVE}
    assert told["k3s"][0][0] < len(BINARY)
    assert told["k3s"] == sorted(told["k3s"])
    assert told["k3s"][-1] == (len(BINARY), len(BINARY))
    assert {total for _, total in told["k3s"]} == {len(BINARY)}


def test_images_are_fetched_only_when_asked_for(fetch: Callable[..., Bundle], mirror: Mirror) -> None:
    assert fetch(images=False).images == ()
    assert ARCHIVE not in mirror.names()


def test_a_second_run_needs_no_network(fetch: Callable[..., Bundle], mirror: Mirror) -> None:
    first = fetch()
    mirror.requests.clear()
    told: list[tuple[str, int, int | None]] = []
    assert fetch(on_progress=lambda *progress: told.append(progress)) == first
    assert mirror.requests == []
    sizes = (("k3s", len(BINARY)), ("install.sh", len(SCRIPT)), (ARCHIVE, len(IMAGES)))
    assert sorted(told) == sorted((name, size, size) for name, size in sizes)


def test_a_mirror_without_the_installer_s_hash_is_good_enough(fetch: Callable[..., Bundle], mirror: Mirror) -> None:
    del mirror.replies["install.sh.sha256sum"]
    first = fetch()
    assert first.installer.sha256 == digest(SCRIPT)
    mirror.requests.clear()
    assert fetch() == first
    assert mirror.requests == []
    # What was fetched once is what later runs are held against.
    first.installer.source.write_bytes(b"#!/bin/sh\nrm\n")
    assert fetch().installer.source.read_bytes() == SCRIPT
    assert mirror.names() == ["install.sh"]


def test_an_installer_without_hash_must_be_a_script(fetch: Callable[..., Bundle], mirror: Mirror) -> None:
    del mirror.replies["install.sh.sha256sum"]
    mirror.replies["install.sh"] = [Reply(b"<html>log in</html>")]
    with pytest.raises(ArtifactError, match=r"install\.sh is not a script"):
        fetch()


def test_a_refusal_is_not_taken_for_a_missing_hash(fetch: Callable[..., Bundle], mirror: Mirror) -> None:
    mirror.replies["install.sh.sha256sum"] = [Reply(status=403)]
    with pytest.raises(ArtifactError, match=r"install\.sh\.sha256sum was refused with HTTP 403"):
        fetch()


def test_the_installer_s_published_hash_counts(fetch: Callable[..., Bundle], mirror: Mirror) -> None:
    mirror.replies["install.sh"] = [Reply(b"#!/bin/sh\nrm\n")]
    with pytest.raises(ArtifactError, match=r"install\.sh from .* is not the published file"):
        fetch()


def test_a_file_without_published_hash_is_refused(fetch: Callable[..., Bundle], mirror: Mirror) -> None:
    mirror.publish(k3s=BINARY, installer=SCRIPT)
    with pytest.raises(ArtifactError, match=f"no hash is published for {ARCHIVE}"):
        fetch()
    assert sorted(mirror.names()) == sorted(LISTS)


def test_a_page_in_place_of_the_hashes_is_refused_and_not_kept(fetch: Callable[..., Bundle], mirror: Mirror) -> None:
    mirror.replies[LISTS[0]].insert(0, Reply(b"<html>log in</html>"))
    with pytest.raises(ArtifactError, match=r"sha256sum-amd64\.txt is not a list of SHA-256: .*log in"):
        fetch()
    assert fetch().binary.source.read_bytes() == BINARY


def test_a_version_that_does_not_exist_is_named(fetch: Callable[..., Bundle], mirror: Mirror) -> None:
    with pytest.raises(ArtifactError) as caught:
        fetch(version="v1.99.0+k3s1")
    assert f"{mirror.url}/v1.99.0%2Bk3s1/sha256sum-amd64.txt does not exist (HTTP 404)" in caught.value.message
    assert "there is no K3s v1.99.0+k3s1" in caught.value.message
    assert "`version`" in caught.value.hint
    assert len(mirror.requests) == 1


def test_one_file_s_failure_ends_the_others(fetch: Callable[..., Bundle], mirror: Mirror) -> None:
    mirror.replies["k3s"] = [Reply(BINARY, gate=threading.Event())]
    mirror.replies[ARCHIVE] = [Reply(status=404)]
    with pytest.raises(ArtifactError, match=f"{ARCHIVE} does not exist"):
        fetch()


def test_a_stop_ends_all_files_at_once(fetch: Callable[..., Bundle], mirror: Mirror) -> None:
    stop = threading.Event()
    for name, body in (("k3s", BINARY), (ARCHIVE, IMAGES)):
        mirror.replies[name] = [Reply(body, gate=threading.Event())]
    with ThreadPoolExecutor() as pool:
        future = pool.submit(fetch, stop=stop)
        assert mirror.reached.wait(10)
        stop.set()
        with pytest.raises(Interrupted):
            future.result(10)


# A file: cut, resumed, restarted


def test_a_cut_file_is_continued(bring: Callable[..., Path], mirror: Mirror) -> None:
    mirror.replies["k3s"].insert(0, Reply(BINARY, cut=100_000))
    told: list[tuple[int, int | None]] = []
    path = bring(on_progress=lambda _, done, total: told.append((done, total)))
    assert path.read_bytes() == BINARY
    assert mirror.asked("k3s") == [None, "bytes=100000-"]
    assert mirror.asked("k3s", "Accept-Encoding") == ["identity", "identity"]
    assert told == sorted(told)
    assert {total for _, total in told} == {len(BINARY)}


def test_a_cut_file_is_continued_by_a_later_run(bring: Callable[..., Path], mirror: Mirror, folder: Path) -> None:
    mirror.replies["k3s"].insert(0, Reply(BINARY, cut=100_000))
    with pytest.raises(ArtifactError, match="k3s cannot be fetched: peer closed connection"):
        bring(deadline=0)
    assert (folder / VERSION / "k3s.part").stat().st_size == 100_000
    assert not (folder / VERSION / "k3s").exists()
    assert bring(deadline=0).read_bytes() == BINARY
    assert mirror.asked("k3s") == [None, "bytes=100000-"]


def test_a_connection_that_brought_much_earns_a_new_deadline(
    bring: Callable[..., Path], mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "STEP", 50_000)
    mirror.replies["k3s"] = [Reply(BINARY, cut=60_000)]
    assert bring(deadline=0).read_bytes() == BINARY
    assert len(mirror.requests) == 5


def test_a_server_that_cuts_and_cannot_continue_is_given_up(
    bring: Callable[..., Path], mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "STEP", 50_000)
    mirror.replies["k3s"] = [Reply(BINARY, cut=60_000, ranges=False)]
    with pytest.raises(ArtifactError, match="peer closed connection"):
        bring(deadline=0)
    assert len(mirror.requests) == 2


@pytest.mark.parametrize(
    "second",
    [
        Reply(BINARY, ranges=False),
        Reply(b"out of range", 416),
        Reply(BINARY[50_000:], 206, headers={"Content-Range": "bytes 50000-299999/300000"}),
        Reply(BINARY[100_000:], 206),
    ],
    ids=["ignores ranges", "416", "another range", "no range"],
)
def test_a_server_that_cannot_continue_begins_anew(bring: Callable[..., Path], mirror: Mirror, second: Reply) -> None:
    mirror.replies["k3s"] = [Reply(BINARY, cut=100_000), second, Reply(BINARY)]
    told: list[tuple[str, int, int | None]] = []
    assert bring(on_progress=lambda *progress: told.append(progress)).read_bytes() == BINARY
    assert {total for _, _, total in told} == {len(BINARY)}
    assert mirror.asked("k3s")[:2] == [None, "bytes=100000-"]
    assert mirror.asked("k3s")[2:] == ([] if second.status == 200 else [None])


def test_halves_of_different_files_are_never_glued(bring: Callable[..., Path], mirror: Mirror, folder: Path) -> None:
    mirror.replies["k3s"] = [Reply(BINARY, cut=100_000), Reply(OTHER)]
    assert bring(OTHER).read_bytes() == OTHER
    assert mirror.asked("k3s") == [None, "bytes=100000-", None]
    assert {path.name for path in (folder / VERSION).iterdir()} == {"k3s", ".k3s.lock"}


def test_a_mirror_whose_files_never_fit_is_given_up(bring: Callable[..., Path], mirror: Mirror, folder: Path) -> None:
    halves = [Reply(BINARY, cut=100_000), Reply(OTHER)]
    mirror.replies["k3s"] = [*halves, *halves, Reply(BINARY)]
    with pytest.raises(ArtifactError, match="is not the published file"):
        bring()
    assert mirror.asked("k3s") == [None, "bytes=100000-", None, "bytes=100000-"]
    assert {path.name for path in (folder / VERSION).iterdir()} == {".k3s.lock"}


def test_a_file_without_hash_is_never_continued(fetch: Callable[..., Bundle], mirror: Mirror, folder: Path) -> None:
    del mirror.replies["install.sh.sha256sum"]
    mirror.replies["install.sh"].insert(0, Reply(SCRIPT, cut=5))
    mirror.replies[LISTS[0]].insert(0, Reply(mirror.replies[LISTS[0]][0].body, cut=70))
    with pytest.raises(ArtifactError, match=r"sha256sum-amd64\.txt cannot be fetched"):
        fetch()
    with pytest.raises(ArtifactError, match=r"install\.sh cannot be fetched"):
        fetch()
    assert fetch().installer.source.read_bytes() == SCRIPT
    assert mirror.asked("install.sh") == [None, None]
    assert mirror.asked(LISTS[0]) == [None, None]


def test_a_part_from_another_mirror_does_no_harm(bring: Callable[..., Path], mirror: Mirror) -> None:
    mirror.replies["k3s"] = [Reply(OTHER, cut=100_000), Reply(BINARY)]
    with pytest.raises(ArtifactError):
        bring(deadline=0)
    assert bring(url=mirror.url.replace("127.0.0.1", "localhost")).read_bytes() == BINARY
    assert mirror.asked("k3s") == [None, "bytes=100000-", None]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_an_error_that_may_pass_is_tried_again(bring: Callable[..., Path], mirror: Mirror, status: int) -> None:
    mirror.replies["k3s"].insert(0, Reply(b"later", status))
    assert bring().read_bytes() == BINARY


@pytest.mark.parametrize("status", [401, 403, 304])
def test_another_refusal_is_told_at_once(bring: Callable[..., Path], mirror: Mirror, status: int) -> None:
    mirror.replies["k3s"] = [Reply(b"", status)]
    with pytest.raises(ArtifactError, match=rf"/k3s was refused with HTTP {status}\n.*artifacts\.folder"):
        bring()
    assert len(mirror.requests) == 1


def test_a_server_that_stays_broken_is_told_at_the_deadline(bring: Callable[..., Path], mirror: Mirror) -> None:
    mirror.replies["k3s"] = [Reply(b"later", 503)]
    with pytest.raises(ArtifactError, match=r"refused with HTTP 503\n.*mirror"):
        bring(deadline=0)


def test_no_network_is_told_with_what_helps(bring: Callable[..., Path], mirror: Mirror) -> None:
    gone = Mirror()
    gone.close()
    with pytest.raises(ArtifactError, match=r"cannot be fetched: .*refused\n.*`artifacts\.folder`.*mirror"):
        bring(url=gone.url, deadline=0)


# A file: verified


def test_a_wrong_file_is_named_and_removed(bring: Callable[..., Path], mirror: Mirror, folder: Path) -> None:
    mirror.replies["k3s"] = [Reply(OTHER)]
    with pytest.raises(ArtifactError) as caught:
        bring()
    for word in ("k3s from", mirror.url, f"SHA-256 is {digest(OTHER)}", f"published is {digest(BINARY)}"):
        assert word in caught.value.message
    assert [path.name for path in (folder / VERSION).iterdir()] == [".k3s.lock"]


def test_a_damaged_file_in_the_cache_is_fetched_again(bring: Callable[..., Path], mirror: Mirror) -> None:
    bring().write_bytes(BINARY[:-1])
    assert bring().read_bytes() == BINARY
    assert len(mirror.requests) == 2


# Several at the same time


Meet = Callable[[Callable[[], object]], None]


@pytest.fixture
def on_wait(monkeypatch: pytest.MonkeyPatch) -> Meet:
    """Have something called each time somebody meets a lock that another holds."""

    def install(call: Callable[[], object]) -> None:
        class Lock(FileLock):
            def acquire(self, *, cancel_check: Callable[[], bool]) -> Any:  # type: ignore[override]  # fewer
                return super().acquire(cancel_check=lambda: bool(call() and False) or cancel_check())

        monkeypatch.setattr(cache_module, "FileLock", Lock)

    return install


@pytest.fixture
def waiting(on_wait: Meet) -> threading.Event:
    """Is set when somebody meets a lock that another holds."""
    event = threading.Event()
    on_wait(event.set)
    return event


def test_two_runs_fetch_a_file_once(bring: Callable[..., Path], mirror: Mirror, waiting: threading.Event) -> None:
    gate = threading.Event()
    mirror.replies["k3s"] = [Reply(BINARY, gate=gate)]
    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(bring), pool.submit(bring)]
        assert waiting.wait(10)
        gate.set()
        assert [future.result(10).read_bytes() for future in futures] == [BINARY, BINARY]
    assert len(mirror.requests) == 1


def test_two_processes_fetch_a_file_once(mirror: Mirror, folder: Path) -> None:
    code = f"""
import sys, threading
from pathlib import Path
from nornir_k3s.artifacts.cache import Cache
from nornir_k3s.artifacts.release import Release
cache = Cache(Path({str(folder)!r}), Release({VERSION!r}, "x86_64", {mirror.url!r}))
print("started", flush=True)
cache.files({{"k3s": {digest(BINARY)!r}}}, on_progress=lambda *_: None, stop=threading.Event())
"""
    gate = threading.Event()
    mirror.replies["k3s"] = [Reply(BINARY, gate=gate)]
    command = [sys.executable, "-c", code]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as first,
        subprocess.Popen(command, stdout=subprocess.PIPE) as second,
    ):
        assert mirror.reached.wait(30)
        for process in (first, second):
            assert process.stdout
            process.stdout.readline()
        time.sleep(POLL)
        gate.set()
        assert [first.wait(30), second.wait(30)] == [0, 0]
    assert (folder / VERSION / "k3s").read_bytes() == BINARY
    assert len(mirror.requests) == 1
    modes = {path.name: path.stat().st_mode & 0o777 for path in (folder / VERSION).iterdir()}
    assert modes.keys() == {"k3s", ".k3s.lock"}
    assert modes[".k3s.lock"] == 0o600


@pytest.fixture
def holder(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the lock until it is killed."""
    (folder / VERSION).mkdir(parents=True)
    code = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, 2); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-ISc", code, folder / VERSION / ".k3s.lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        yield process
        process.kill()


def test_the_lock_of_a_killed_process_is_free(
    bring: Callable[..., Path], mirror: Mirror, holder: subprocess.Popen[bytes], waiting: threading.Event
) -> None:
    with ThreadPoolExecutor() as pool:
        future = pool.submit(bring)
        assert waiting.wait(10)
        assert mirror.requests == []
        holder.kill()
        assert future.result(10).read_bytes() == BINARY


def test_a_process_is_waited_for_while_it_gets_something(
    bring: Callable[..., Path], folder: Path, holder: subprocess.Popen[bytes], on_wait: Meet
) -> None:
    met: list[int] = []

    def meet() -> None:
        met.append(1)
        (folder / VERSION / "k3s.part").write_bytes(b"x" * len(met))
        if len(met) == 3:
            holder.kill()
            holder.wait()

    on_wait(meet)
    assert bring(deadline=0).read_bytes() == BINARY
    assert len(met) == 3


@pytest.mark.usefixtures("holder")
def test_a_process_that_gets_nothing_is_not_waited_for(bring: Callable[..., Path]) -> None:
    with pytest.raises(ArtifactError, match=r"k3s is downloaded by another process that makes no progress"):
        bring(deadline=0)


@pytest.mark.usefixtures("holder")
def test_a_stop_ends_the_wait_for_another_process(bring: Callable[..., Path], waiting: threading.Event) -> None:
    stop = threading.Event()
    with ThreadPoolExecutor() as pool:
        future = pool.submit(bring, stop=stop)
        assert waiting.wait(10)
        stop.set()
        with pytest.raises(Interrupted):
            future.result(10)
    for thread in threading.enumerate():
        if thread.name == "nornir-k3s-download":
            thread.join(10)
            assert not thread.is_alive()


def test_a_stop_ends_the_retries(bring: Callable[..., Path], mirror: Mirror) -> None:
    stop = threading.Event()

    class Stopper(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            stop.set()
            return super().wait(timeout and 0)

    mirror.replies["k3s"] = [Reply(status=503, gate=Stopper())]
    with pytest.raises(Interrupted):
        bring(stop=stop, deadline=3600)


def test_a_stopped_file_is_continued_by_the_next_run(bring: Callable[..., Path], mirror: Mirror) -> None:
    stop = threading.Event()

    def stopping(*_: object) -> None:
        stop.set()
        time.sleep(2 * POLL)

    with pytest.raises(Interrupted):
        bring(stop=stop, on_progress=stopping)
    assert bring().read_bytes() == BINARY
    assert mirror.asked("k3s")[0] is None
    assert str(mirror.asked("k3s")[1]).startswith("bytes=")


# The folder


def test_a_full_disk_is_told_in_words(bring: Callable[..., Path], folder: Path) -> None:
    (folder / VERSION).mkdir(parents=True)
    (folder / VERSION / "k3s.part").symlink_to("/dev/full")
    with pytest.raises(ArtifactError, match=r"k3s cannot be kept: No space left on device\n.*free disk space"):
        bring()


def test_a_folder_that_cannot_be_made_is_told_in_words(bring: Callable[..., Path], folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(ArtifactError, match=r"cannot be kept: (Not a directory|File exists)"):
        bring()


def test_a_complete_cache_may_be_read_only(fetch: Callable[..., Bundle], folder: Path) -> None:
    fetch()
    for lock in folder.rglob(".*.lock"):
        lock.unlink()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    fetch()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


# The way: proxies, redirects, TLS, credentials


def test_a_proxy_of_the_environment_is_used(
    bring: Callable[..., Path], mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://mirror.invalid{FOLDER}/k3s"
    mirror.replies[url] = [Reply(BINARY)]
    monkeypatch.setenv("HTTP_PROXY", mirror.url)
    assert bring(url="http://mirror.invalid").read_bytes() == BINARY
    assert mirror.names() == [url]


def test_no_proxy_is_heeded(bring: Callable[..., Path], mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert bring(deadline=0).read_bytes() == BINARY


@pytest.mark.parametrize(
    ("name", "value"), [("HTTP_PROXY", "gopher://joe:pa55word@127.0.0.1"), ("SSL_CERT_FILE", "/nowhere")]
)
def test_settings_of_no_use_are_named(
    bring: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ArtifactError, match=f"this machine's settings\n.*{name}") as caught:
        bring()
    assert "pa55word" not in str(caught.value)


def test_a_url_s_credentials_are_used_and_never_shown(
    bring: Callable[..., Path], mirror: Mirror, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    mirror.replies["k3s"].insert(0, Reply(b"", 404))
    url = mirror.url.replace("//", "//joe:pa55%40word@")
    with pytest.raises(ArtifactError) as caught:
        bring(url=url)
    bring(url=url)
    assert mirror.asked("k3s", "Authorization") == ["Basic am9lOnBhNTVAd29yZA=="] * 2
    told = str(caught.value) + caplog.text
    assert mirror.url in told
    assert not [word for word in ("joe", "pa55", "am9l") if word in told]


def test_a_redirect_is_followed_without_the_credentials(bring: Callable[..., Path], mirror: Mirror) -> None:
    other = Mirror()
    try:
        other.replies["k3s"] = [Reply(BINARY, cut=100_000), Reply(BINARY)]
        mirror.replies["k3s"] = [Reply(status=302, headers={"Location": f"{other.url}{FOLDER}/k3s"})]
        assert bring(url=mirror.url.replace("//", "//joe:pa55word@")).read_bytes() == BINARY
        assert other.asked("k3s") == [None, "bytes=100000-"]
        assert other.asked("k3s", "Authorization") == [None, None]
    finally:
        other.close()


def test_only_http_and_https_are_spoken(bring: Callable[..., Path], mirror: Mirror) -> None:
    with pytest.raises(ArtifactError, match="not a URL to fetch K3s from"):
        bring(url="ftp://127.0.0.1")
    mirror.replies["k3s"] = [Reply(status=302, headers={"Location": "ftp://127.0.0.1/k3s"})]
    with pytest.raises(ArtifactError, match="cannot be fetched"):
        bring()
    assert len(mirror.requests) == 1


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Mirror]:
    """A mirror with TLS, its own certificate in `ca.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mirror")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
    server = Mirror(context)
    server.publish(k3s=BINARY, installer=SCRIPT)
    yield server
    server.close()


def test_a_certificate_nobody_vouches_for_is_refused_at_once(bring: Callable[..., Path], secure: Mirror) -> None:
    with pytest.raises(ArtifactError, match=r"certificate this machine does not trust\n.*SSL_CERT_FILE"):
        bring(url=secure.url, deadline=3600)


def test_a_company_s_certificate_is_trusted_when_named(
    bring: Callable[..., Path], secure: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert bring(url=secure.url).read_bytes() == BINARY


def test_the_system_s_certificates_are_trusted_too(
    bring: Callable[..., Path], secure: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(httpx, "create_ssl_context", lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert bring(url=secure.url).read_bytes() == BINARY


def test_a_redirect_from_https_to_http_is_refused(
    bring: Callable[..., Path], secure: Mirror, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    secure.replies["k3s"] = [Reply(status=302, headers={"Location": f"{mirror.url}{FOLDER}/k3s"})]
    with pytest.raises(ArtifactError, match="it redirects from https to http"):
        bring(url=secure.url, deadline=3600)
    assert mirror.requests == []
