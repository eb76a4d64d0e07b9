"""A whole K3s release brought to the controller: what `artifacts.folder` is for those who have the files already."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nornir_k3s.artifacts.cache import Cache
from nornir_k3s.artifacts.download import Progress
from nornir_k3s.artifacts.receipts import sha256_of
from nornir_k3s.artifacts.release import RELEASES, layout, shown
from nornir_k3s.errors import ArtifactError, Interrupted
from nornir_k3s.retry import POLL

__all__ = ["Cache", "Fetched", "Progress", "fetch_release"]


@dataclass(frozen=True)
class Fetched:
    """A release in the cache, verified.

    Arguments:
        binary: K3s itself, named as upstream names it: `k3s`, `k3s-arm64`, `k3s-armhf`.
        installer: `install.sh`.
        images: Image archives, none where they were not asked for.
        hashes: The SHA-256 of each, by file name.
    """

    binary: Path
    installer: Path
    images: tuple[Path, ...]
    hashes: Mapping[str, str]


def fetch_release(
    cache: Cache,
    *,
    url: str = RELEASES,
    version: str,
    arch: str,
    images: bool,
    on_progress: Progress,
    stop: threading.Event,
) -> Fetched:
    """Return a release's files, verified against its published hashes, fetched at the same time where not cached.

    Arguments:
        url: What is in front of the version; default is where K3s is released.
        version: As `v1.34.9+k3s1`.
        arch: As `uname -m` says.
        images: Also the air-gap images.
        on_progress: As for `Cache.bring`; several files report at the same time.
        stop: Ends it at once; the next run goes on from there.

    Raises:
        ArtifactError: There is no such release, it is not what was published, or it can be neither reached nor kept.
        Interrupted: The stop event was set.
    """
    release = layout(version, arch, url=url)
    hashes = cache.hashes(release.hashes, stop=stop)
    installer = cache.hashes(release.installer_hash, required=release.installer_hash_required, stop=stop)
    known = hashes | (installer or {release.installer.name: ""})
    files = [release.binary, release.installer] + [release.images] * images
    if missing := [file.name for file in files if file.name not in known]:
        raise ArtifactError(f"no hash is published for {', '.join(missing)} beside {shown(release.hashes.url)}")
    paths = _together(
        [partial(cache.bring, file, sha256=known[file.name], on_progress=on_progress) for file in files], stop
    )
    found = {path.name: known[path.name] or sha256_of(path) for path in paths}
    if not installer:
        cache.pin(release.installer_hash, {release.installer.name: found[release.installer.name]})
    return Fetched(paths[0], paths[1], tuple(paths[2:]), found)


def _together(calls: Sequence[Callable[..., Path]], stop: threading.Event) -> list[Path]:
    """Run calls at the same time; the first error, or the stop event, ends them all."""
    ended = threading.Event()
    with ThreadPoolExecutor(len(calls)) as pool:
        try:
            futures = [pool.submit(call, stop=ended) for call in calls]
            while not stop.is_set():
                done, pending = wait(futures, timeout=POLL, return_when=FIRST_EXCEPTION)
                if not pending or any(future.exception() for future in done):
                    break
        finally:
            ended.set()
    for error in [future.exception() for future in futures]:
        # The others were interrupted because of this one.
        if error and not isinstance(error, Interrupted):
            raise error
    return [future.result() for future in futures]
