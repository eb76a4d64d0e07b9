"""Large files on the controller: hashed once while they are unchanged, and not downloaded to be compared."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nornir_k3s.artifacts.known_files import KnownFiles
from nornir_k3s.artifacts.source import Source
from nornir_k3s.errors import ArtifactError
from nornir_k3s.model.cluster import Cluster

from .mirror import Mirror

Load = Callable[..., Cluster]


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_text("content")
    return path


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def ask(asked: list[str]) -> Callable[[Path], str]:
    def answer(path: Path) -> str:
        asked.append(path.name)
        return path.read_text()

    return answer


def once(kept: Path, path: Path, what: str, ask: Callable[[Path], str]) -> str | None:
    """What a run of its own says."""
    known = KnownFiles(kept)
    answer = known.get(path, what, ask)
    known.save()
    return answer


def test_an_unchanged_file_is_not_asked_again(
    tmp_path: Path, large: Path, ask: Callable[[Path], str], asked: list[str]
) -> None:
    kept = tmp_path / "kept" / "known-files.json"
    for _ in range(2):
        assert once(kept, large, "sum", ask) == "content"
    assert asked == ["large"]
    assert once(kept, large, "version", ask) == "content"
    assert once(kept, large, "sum", ask) == "content"
    assert len(asked) == 2
    KnownFiles(kept, fresh=True).get(large, "sum", ask)
    assert len(asked) == 3


def test_a_file_with_its_size_and_time_put_back_is_asked_again(
    tmp_path: Path, large: Path, ask: Callable[[Path], str]
) -> None:
    kept, seen = tmp_path / "known-files.json", large.stat()
    once(kept, large, "sum", ask)
    large.write_text("CONTENT")
    os.utime(large, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert once(kept, large, "sum", ask) == "CONTENT"
    assert len(json.loads(kept.read_text())) == 1


def test_what_changed_while_it_was_asked_is_not_kept(tmp_path: Path, large: Path) -> None:
    def meanwhile(path: Path) -> str:
        text = path.read_text()
        path.write_text("another content")
        return text

    known = KnownFiles(tmp_path / "known-files.json")
    assert known.get(large, "sum", meanwhile) == "content"
    assert known.get(large, "sum", Path.read_text) == "another content"


def test_no_answer_is_not_kept(tmp_path: Path, large: Path) -> None:
    known = KnownFiles(tmp_path / "known-files.json")
    assert known.get(large, "version", lambda _: None) is None
    assert known.get(large, "version", lambda _: "v1") == "v1"


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '[["sum X"]]', '{"sum X": 1}', '{"sum X": [[1, 2, 3, 4], 5]}', '{"sum X": ["content"]}']
)
def test_a_damaged_file_of_them_is_ignored(
    tmp_path: Path, large: Path, ask: Callable[[Path], str], damage: str
) -> None:
    kept = tmp_path / "known-files.json"
    kept.write_text(damage.replace("X", str(large)))
    for _ in range(2):
        assert once(kept, large, "sum", ask) == "content"


def test_a_file_of_them_that_cannot_be_written_is_ignored(
    tmp_path: Path, large: Path, ask: Callable[[Path], str]
) -> None:
    (tmp_path / "file").touch()
    assert once(tmp_path / "file" / "known-files.json", large, "sum", ask) == "content"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder with a release whose binary counts how often it was run."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "install.sh").write_text("#!/bin/sh\n")
    (folder / "k3s").write_text(f"#!/bin/sh\necho run >>{tmp_path}/runs\necho k3s version v1.34.9+k3s1 '(x)'\n")
    return folder


def test_a_folder_s_binary_is_run_and_hashed_once(load: Load, bundle: Path, tmp_path: Path) -> None:
    for _ in range(2):
        found = Source(load({"artifacts": {"folder": str(bundle)}}), tmp_path / "cache").find("x86_64")
        assert found.binary.sha256 == hashlib.sha256((bundle / "k3s").read_bytes()).hexdigest()
    assert (tmp_path / "runs").read_text() == "run\n"
    with (bundle / "k3s").open("a") as file:
        file.write("# another\n")
    (bundle / "sha256sum-amd64.txt").write_text(f"{found.binary.sha256}  k3s\n")
    with pytest.raises(ArtifactError, match="is not the published file"):
        Source(load({"artifacts": {"folder": str(bundle)}}), tmp_path / "cache")


def test_a_folder_s_list_of_hashes_that_cannot_be_read_is_refused(load: Load, bundle: Path, tmp_path: Path) -> None:
    (bundle / "sha256sum-amd64.txt").write_text("<html>log in</html>\n")
    with pytest.raises(ArtifactError, match=r"sha256sum-amd64\.txt is not a list of SHA-256: .*log in"):
        Source(load({"artifacts": {"folder": str(bundle)}}), tmp_path / "cache")


@pytest.mark.parametrize(("arch", "name"), [("x86_64", "k3s"), ("aarch64", "k3s-arm64"), ("armv7l", "k3s")])
def test_a_folder_may_have_binaries_of_several_architectures(
    load: Load, bundle: Path, tmp_path: Path, arch: str, name: str
) -> None:
    (bundle / "k3s-arm64").write_text((bundle / "k3s").read_text() + "# arm64\n")
    source = Source(load({"artifacts": {"folder": str(bundle)}}), tmp_path / "cache")
    assert source.find(arch).binary.source == bundle / name


def test_hosts_that_fetch_it_themselves_get_urls_and_hashes(load: Load, tmp_path: Path) -> None:
    mirror = Mirror()
    mirror.publish(k3s=b"binary", installer=b"#!/bin/sh\n")
    del mirror.replies["install.sh.sha256sum"]
    try:
        cluster = load({"artifacts": {"url": mirror.url, "push": False}})
        first = Source(cluster, tmp_path / "cache").find("x86_64")
        mirror.requests.clear()
        assert Source(cluster, tmp_path / "cache").find("x86_64") == first
        assert mirror.requests == []
    finally:
        mirror.close()
    base = f"{mirror.url}/v1.34.9%2Bk3s1"
    assert [file.url for file in first.artifacts()] == [f"{base}/k3s", f"{base}/install.sh"]
    assert first.installer.sha256 == hashlib.sha256(b"#!/bin/sh\n").hexdigest()


def test_who_only_compares_fetches_no_more_than_hashes(load: Load, tmp_path: Path) -> None:
    mirror = Mirror()
    mirror.publish(k3s=b"binary", images=b"images", installer=b"#!/bin/sh\n")
    try:
        wanted = load({"artifacts": {"url": mirror.url, "images": True}})
        found = Source(wanted, tmp_path / "cache", compare=True).find("x86_64")
        names = mirror.names()
    finally:
        mirror.close()
    assert [a.sha256 for a in found.artifacts()] == [
        hashlib.sha256(body).hexdigest() for body in (b"binary", b"#!/bin/sh\n", b"images")
    ]
    assert [a.path for a in found.images] == ["/var/lib/rancher/k3s/agent/images/k3s-airgap-images-amd64.tar.zst"]
    assert not {"k3s", "k3s-airgap-images-amd64.tar.zst"} & set(names)
