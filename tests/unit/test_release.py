from __future__ import annotations

import pytest

from nornir_k3s.artifacts.release import RELEASES, Release, parse_hashes
from nornir_k3s.errors import ArtifactError
from nornir_k3s.model.urls import shown

VERSION = "v1.34.9+k3s1"
MIRROR = "https://mirror.example/k3s"


@pytest.mark.parametrize(
    ("arch", "binary", "images", "hashes"),
    [
        ("x86_64", "k3s", "k3s-airgap-images-amd64.tar.zst", "sha256sum-amd64.txt"),
        ("aarch64", "k3s-arm64", "k3s-airgap-images-arm64.tar.zst", "sha256sum-arm64.txt"),
        ("armv7l", "k3s-armhf", "k3s-airgap-images-arm.tar.zst", "sha256sum-arm.txt"),
    ],
)
def test_each_architecture_has_its_names(arch: str, binary: str, images: str, hashes: str) -> None:
    release = Release(VERSION, arch)
    assert (release.binary, release.images, release.hashes) == (binary, images, hashes)
    for name in (binary, images, hashes):
        assert release.url(name) == f"{RELEASES}/v1.34.9%2Bk3s1/{name}"


def test_upstream_s_installer_is_the_one_of_the_tag_and_has_a_hash() -> None:
    release = Release(VERSION, "x86_64", RELEASES + "/")
    source = "https://raw.githubusercontent.com/k3s-io/k3s/v1.34.9%2Bk3s1"
    assert release.url("install.sh") == f"{source}/install.sh"
    assert release.url("install.sh.sha256sum") == f"{source}/install.sh.sha256sum"
    assert release.is_upstream


@pytest.mark.parametrize("url", [MIRROR, MIRROR + "/"])
def test_a_mirror_has_all_in_one_place(url: str) -> None:
    release = Release(VERSION, "aarch64", url)
    names = (release.binary, release.images, release.hashes, "install.sh", "install.sh.sha256sum")
    assert {release.url(name).removesuffix(name) for name in names} == {f"{MIRROR}/v1.34.9%2Bk3s1/"}
    assert not release.is_upstream


@pytest.mark.parametrize("version", ["1.34.9+k3s1", "v1.34.9", "latest", "../../v1.34.9+k3s1", ""])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(ArtifactError, match=r"is not a K3s version.*\n.*change `version`"):
        Release(version, "x86_64")


def test_an_architecture_without_release_is_refused() -> None:
    with pytest.raises(ArtifactError, match=r"not released for riscv64\n.*x86_64, aarch64, armv7l"):
        Release(VERSION, "riscv64")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://joe:pa55word@mirror.example/k3s",
        "file:///srv/k3s",
        "mirror.example/k3s",
        "joe:pa55word@mirror.example",
        "https://",
        "https://joe:pa55word@/k3s",
        "https://joe:pa/55word@mirror.example/k3s",
        "https://joe:pa#55word@mirror.example/k3s",
        "https://[joe:pa55word@mirror.example/k3s",
        "https://mirror.example:port/k3s",
        "https://mirror.example:0/k3s",
        "https://mirror.example/k3s?token=55word",
        "https://mirror.example/k3s#55word",
        "https://mirror.example/k3s\nHost: x",
        "",
    ],
)
def test_a_url_of_no_use_is_refused_and_tells_no_password(url: str) -> None:
    with pytest.raises(ArtifactError, match="is not a URL to fetch K3s from") as caught:
        Release(VERSION, "x86_64", url)
    assert "55word" not in str(caught.value)
    assert "joe" not in str(caught.value)
    assert "pa" not in str(caught.value).split("is not a URL")[0]


def test_a_good_url_stays_as_it_is() -> None:
    release = Release(VERSION, "x86_64", "http://joe:pa55word@127.0.0.1:8080/k3s")
    assert release.url("k3s") == "http://joe:pa55word@127.0.0.1:8080/k3s/v1.34.9%2Bk3s1/k3s"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://mirror.example/k3s", "https://mirror.example/k3s"),
        ("https://joe:secret@mirror.example/k3s", "https://mirror.example/k3s"),
        ("https://joe:sec@ret@mirror.example/k3s", "https://mirror.example/k3s"),
        ("https://joe:sec?ret@mirror.example/k3s", "https://mirror.example/k3s"),
        ("https://mirror.example/k3s?signature=secret", "https://mirror.example/k3s"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, expected: str) -> None:
    assert shown(url) == expected


def test_hashes_are_read_as_sha256sum_writes_them() -> None:
    text = f"# a comment\n{'a' * 64}  k3s\n\n{'B' * 64} *images/k3s-airgap-images-amd64.tar.zst\r\n"
    assert parse_hashes(text) == {"k3s": "a" * 64, "k3s-airgap-images-amd64.tar.zst": "b" * 64}


@pytest.mark.parametrize(
    "text", ["<html>log in</html>", f"{'a' * 63}  k3s", f"{'a' * 64}  k3s\n<html>", f"{'a' * 64}", f"{'g' * 64}  k3s"]
)
def test_what_is_no_list_of_hashes_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError, match="not a line of a sha256sum file"):
        parse_hashes(text)


@pytest.mark.parametrize("text", ["", "\n# nothing\n"])
def test_an_empty_list_of_hashes_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError, match="no hash"):
        parse_hashes(text)
