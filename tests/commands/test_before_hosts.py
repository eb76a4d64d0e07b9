"""What is refused before any host is contacted: here there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Place


@pytest.mark.parametrize("text", ["", "a: [", "- list\n", "inventory: {plugin: Nonsense}\n"])
def test_a_config_that_is_none_is_told_in_words(place: Place, tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    done = place.run("deploy.py", "--config", str(tmp_path / "config.yaml"))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_artefact_is_refused_before_any_host_is_contacted(place: Place) -> None:
    (place.folder / "bundle" / "sha256sum-amd64.txt").write_text(f"{'0' * 64}  k3s\n")
    done = place.run("deploy.py")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "is not the published file" in done.stderr


def test_another_version_than_the_binary_s_is_refused(place: Place) -> None:
    place.edit(lambda data: data["data"]["k3s_cluster"].update(version="v1.30.1+k3s1"))
    done = place.run("deploy.py")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "v1.30.1+k3s1" in done.stderr


def test_problems_of_the_inventory_come_all_at_once(place: Place) -> None:
    place.edit(lambda data: data["data"]["k3s_cluster"].update(colour="blue", name="Not Valid"))
    place.edit(lambda data: data["a1"].update(data={"k3s": {"node-lable": "x=y"}}), "inventory/hosts.yaml")
    done = place.run("deploy.py")
    assert done.returncode == 2, done.stdout + done.stderr
    for words in ("colour", "name", "did you mean `node-label`"):
        assert words in done.stderr
