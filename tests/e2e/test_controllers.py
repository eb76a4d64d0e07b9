"""Several controllers for one cluster: each has the inventory, and a state folder of its own, or none yet."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import Site, controller, unchanged

SAVED = ("token", "datastore-password", "ca.json", "lb-check.json", "datastore-keys.json", "kubeconfig")


def state(site: Site, name: str) -> Path:
    return site.folder / ".state" / "lab" / name


@pytest.fixture(scope="module")
def second(cluster: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A controller that lives as long as the tests."""
    return controller(cluster, tmp_path_factory.mktemp("second"))


def test_a_controller_without_a_state_takes_it_back_and_finds_nothing_to_do(cluster: Site, second: Site) -> None:
    done = second.runbook("drift.py", "--no-history")
    assert done.returncode == 0, done.stdout + done.stderr
    (note,) = (line for line in done.stdout.splitlines() if "taken back from the hosts" in line)
    assert "(s1, s2, s3, db1, lb1, lb2): token, database password, keys of the datastore" in note
    for name in SAVED[:2]:
        assert state(second, name).read_text() == state(cluster, name).read_text()
        assert state(second, name).read_text().strip() not in done.stdout + done.stderr
    assert all(state(second, name).stat().st_mode & 0o777 == 0o600 for name in SAVED)
    unchanged(second)
    before = cluster.processes()
    assert "nothing to change" in second.deploy("--yes").stdout
    assert cluster.processes() == before
    second.answers()


def test_what_one_controller_rotates_the_other_takes_over(cluster: Site, second: Site) -> None:
    old = state(cluster, "datastore-password").read_text()
    done = second.runbook("rotate.py", "database-password", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert state(cluster, "datastore-password").read_text() == old != state(second, "datastore-password").read_text()
    before = cluster.processes()
    done = cluster.deploy("--yes")
    assert "taken back from the hosts, where they are newer: database password" in done.stdout, done.stdout
    assert "nothing to change" in done.stdout
    assert state(cluster, "datastore-password").read_text() == state(second, "datastore-password").read_text()
    assert cluster.processes() == before
    unchanged(cluster)


def test_a_job_with_secrets_by_reference_needs_no_state(
    cluster: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = controller(cluster, tmp_path)
    monkeypatch.setenv("K3S_DATABASE_PASSWORD", state(cluster, "datastore-password").read_text().strip())
    secrets = {
        "token": {"command": ["cat", str(state(cluster, "token"))]},
        "datastore": {"kind": "mariadb", "password": {"env": "K3S_DATABASE_PASSWORD"}},
    }
    job.edit(lambda data: data["data"]["k3s_cluster"].update(secrets))
    done = job.runbook("deploy.py", "--plan", "--exit-code")
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(job.folder / ".state")
    done = job.runbook("drift.py", "--no-history")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not state(job, "token").exists()
