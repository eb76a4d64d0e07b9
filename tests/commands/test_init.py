"""`nornir-k3s init`: what it writes is a cluster that our own loader accepts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from nornir import InitNornir
from ruamel.yaml import YAML

from nornir_k3s.cli.init import FILES
from nornir_k3s.cli.options_of_setup import K3S_VERSION
from nornir_k3s.inventory import cluster, config
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.state.store import Store
from tests.commands.conftest import PROJECT


def command(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nornir_k3s.cli", *words]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def loaded(folder: Path) -> Cluster:
    """Load it as a run does; every problem of the files is an error."""
    settings = config.load(folder / "config.yaml")
    assert not settings.sources.problems
    nr = InitNornir(**settings.nornir)
    store = Store(settings.state, base=settings.base, keep=False)
    return cluster.load(nr.inventory, store=store, base=settings.base, sources=settings.problems())


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ("", {"servers": 3, "agents": 2, "lb": 2, "datastore": 1}),
        ("--servers 1 --agents 0 --load-balancers 1", {"servers": 1, "agents": 0, "lb": 1, "datastore": 1}),
        ("--datastore etcd --servers 5", {"servers": 5, "agents": 2, "lb": 2, "datastore": 3}),
        ("--datastore postgresql --load-balancers 0", {"servers": 3, "agents": 2, "lb": 0, "datastore": 1}),
        ("--datastore mysql --address 192.0.2.12", {"servers": 3, "agents": 2, "lb": 2, "datastore": 1}),
        ("--address fd00::1 --user 123 --name 1", {"servers": 3, "agents": 2, "lb": 2, "datastore": 1}),
        ("--servers 100 --agents 100 --load-balancers 100", {"servers": 100, "agents": 100, "lb": 100, "datastore": 1}),
    ],
)
def test_our_own_loader_accepts_it(tmp_path: Path, options: str, counts: dict[str, int]) -> None:
    done = command("init", "new/site", *options.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "next: edit what is marked FILL IN in new/site/inventory" in done.stdout
    found = loaded(tmp_path / "new" / "site")
    assert {role: len(found.of(role)) for role in counts} == counts
    given = dict(zip(options.split()[::2], options.split()[1::2], strict=True))
    assert str(found.registration.address) == given.get("--address", "192.0.2.10")
    assert found.name == given.get("--name", "prod")
    assert found.version == given.get("--k3s-version", K3S_VERSION)
    assert getattr(found.datastore, "kind", "") == given.get("--datastore", "mariadb")
    assert found.registration.managed == (counts["lb"] > 0)


def test_what_must_be_filled_in_is_marked_and_belongs_to_nobody(tmp_path: Path) -> None:
    assert command("init", cwd=tmp_path).returncode == 0
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == set(FILES)
    text = (tmp_path / "inventory" / "hosts.yaml").read_text()
    hosts = [line for line in text.splitlines() if re.match(r"\w+: ", line)]
    assert len(hosts) == 8
    assert all(re.search(r"hostname: 192\.0\.2\.\d+,.*# FILL IN$", line) for line in hosts)
    assert "# FILL IN" in (tmp_path / "inventory" / "defaults.yaml").read_text()


def test_every_commented_line_would_be_accepted_too(tmp_path: Path) -> None:
    """Examples in the comments are settings that exist."""
    assert command("init", cwd=tmp_path).returncode == 0
    for path in (tmp_path / "config.yaml", *(tmp_path / "inventory").glob("*.yaml")):
        text = re.sub(r"^( +)# (?=(use_keys|deadlines|widths|name|server|agent|k3s_ssh): ?\S)", r"\1", path.read_text(),
                      flags=re.M)  # fmt: skip
        path.write_text(text.replace("{file: …}", "").replace("{env: SUDO_PASSWORD}", "{command: [echo, x]}"))
    found = loaded(tmp_path)
    assert found.server == {"disable": ["traefik"]}
    assert found.registration.name == "k3s.example.org"


@pytest.mark.parametrize("name", FILES)
def test_it_never_overwrites_a_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine\n")
    done = command("init", str(tmp_path), cwd=Path("/"))
    assert (done.returncode, f"already there: {path}" in done.stderr) == (2, True), done.stderr
    assert path.read_text() == "mine\n"
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [path]


def test_other_files_do_not_matter_and_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("mine\n")
    assert command("init", cwd=tmp_path).returncode == 0
    done = command("init", "README", cwd=tmp_path)
    assert (done.returncode, "already there: README" in done.stderr) == (2, True), done.stderr


def test_all_wrong_values_are_told_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    words = ["--name", "A b", "--address", "1.2", "--k3s-version", "1.34", "--user", "a: b"]
    done = command("init", *words, cwd=tmp_path)
    assert done.returncode == 2
    for said in ("--name: 'A b' is not", "--address: ", "--k3s-version: '1.34' is not", "--user: 'a: b' cannot"):
        assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_address_inside_the_cluster_s_own_networks_is_refused(tmp_path: Path) -> None:
    done = command("init", "--address", "10.42.0.5", cwd=tmp_path)
    assert (done.returncode, "--address: 10.42.0.5 lies inside cluster-cidr" in done.stderr) == (2, True), done.stderr


def test_the_default_version_is_that_of_the_project_s_own_inventory() -> None:
    data = YAML(typ="safe").load(PROJECT / "inventory" / "defaults.yaml")
    assert data["data"]["k3s_cluster"]["version"] == K3S_VERSION


def test_the_deploy_takes_it_as_far_as_the_hosts(tmp_path: Path) -> None:
    assert command("init", cwd=tmp_path).returncode == 0
    done = command("deploy", "--list-phases", cwd=tmp_path)
    assert (done.returncode, "load-balancers" in done.stdout) == (0, True)
    for file in (tmp_path / "inventory").glob("*.yaml"):
        file.write_text(file.read_text().replace("192.0.2.", "127.77.0."))
    path = tmp_path / "config.yaml"
    path.write_text(path.read_text() + "    deadlines: {connect: 1}\n")
    done = command("plan", cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    for name in ("db1", "s1", "s2", "s3", "a1", "a2", "lb1", "lb2"):
        assert f"{name}: " in done.stderr


@pytest.mark.parametrize("name", ["hostkeys", "plan", "deploy", "drift", "status"])
def test_what_was_not_filled_in_is_refused_by_name_before_a_host_is_contacted(tmp_path: Path, name: str) -> None:
    assert command("init", cwd=tmp_path).returncode == 0
    done = command(name, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    for host in ("db1", "s1", "s2", "s3", "a1", "a2", "lb1", "lb2"):
        assert re.search(rf"hosts\.yaml:\d+: {host}: 192\.0\.2\.\d+ is a placeholder", done.stderr), done.stderr
    assert re.search(r"defaults\.yaml:\d+: k3s_cluster.registration.address: 192.0.2.10 is a placeholder", done.stderr)
    hosts = tmp_path / "inventory" / "hosts.yaml"
    hosts.write_text(re.sub(r"192\.0\.2\.(?!15\b)", "127.77.0.", hosts.read_text()))
    done = command(name, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("is a placeholder")) == (2, 2), done.stderr
