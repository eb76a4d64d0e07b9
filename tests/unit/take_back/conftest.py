"""A cluster that another controller has deployed, for tests of what is taken back from its hosts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from nornir_k3s import k3s
from nornir_k3s.facts import held
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.datastore_facts import Database
from nornir_k3s.model.host_facts import FileState, HostFacts
from nornir_k3s.model.k3s_facts import Api, ServerFiles
from nornir_k3s.model.paths import DATASTORE_KEYS
from nornir_k3s.model.secret import Secret
from nornir_k3s.roles import datastore, haproxy
from nornir_k3s.roles.datastore_login import login
from nornir_k3s.run import gather, take_back
from nornir_k3s.run.context import Run
from nornir_k3s.state import certificates

from ..conftest import HOSTS
from ..test_left import nr

PREFIX = "K10" + "a" * 64
ACTIVE = {k3s.UNITS["server"]: "active\n"}
NOW = datetime.now(UTC)
KUBECONFIG = yaml.safe_dump(
    {
        "clusters": [{"name": "default", "cluster": {"server": "https://127.0.0.1:6443"}}],
        "users": [{"name": "default", "user": {}}],
        "contexts": [{"name": "default", "context": {}}],
    }
)
Hosts = dict[str, dict[str, str]]


def client_ca() -> certificates.PemPair:
    return certificates.create_ca("k3s-client", NOW)


def check_pem(ca: certificates.PemPair, at: datetime = NOW) -> str:
    pair = certificates.issue("lb-check", (), ca, at)
    return pair["certificate"] + pair["key"]


class Living:
    """A cluster that another controller has deployed; `hosts` is what its hosts hold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[list[str]] = []
        self.down: set[str] = set()
        self.data = ""  # the fingerprint of the token of the datastore's data, where nothing else says it
        run = self.controller("first")
        run.store.commit()
        self.cluster = run.cluster
        assert run.cluster.keys
        self.keys = run.cluster.keys.text.reveal()
        self.ca, self.client_ca = certificates.create_ca("k3s-server", NOW)["certificate"], client_ca()
        self.hosts: Hosts = {name: {} for name in HOSTS}
        self.hosts["db1"][DATASTORE_KEYS] = self.keys
        for name in ("lb1", "lb2"):
            self.hosts[name][haproxy.CHECK_CERT] = "" if name == "lb2" else check_pem(self.client_ca)
        self.hosts["lb2"] = dict(self.hosts["lb1"])
        self.set_servers(run.cluster)

    def controller(self, name: str, **options: Any) -> Run:
        folder = self.folder / name
        return gather.prepare(nr(HOSTS), base=folder, state=folder / "state", options={"whole": True, **options})

    def set_servers(self, cluster: Cluster, *names: str) -> None:
        """Give servers the token and the password of this cluster."""
        for name in names or ("s1", "s2"):
            self.hosts[name] = {
                **ACTIVE,
                k3s.CONFIG: self.config(cluster),
                held.TOKEN: f"{PREFIX}::server:{cluster.token.reveal()}\n",
                held.SERVER_CA: self.ca,
                held.CLIENT_CA: self.client_ca["certificate"],
                held.DATASTORE_CA: json.loads(self.keys)["ca"]["certificate"],
            }

    @staticmethod
    def config(cluster: Cluster) -> str:
        endpoint = datastore.endpoint(cluster).reveal()
        return yaml.safe_dump({"token": cluster.token.reveal(), "datastore-endpoint": endpoint, "tls-san": ["a"]})

    def read(self, _: Run, names: Sequence[str]) -> tuple[Mapping[str, Mapping[str, str]], Sequence[str]]:
        self.asked.append(list(names))
        return {name: self.hosts[name] for name in names if name not in self.down}, sorted(self.down & set(names))

    def with_password(self, password: str) -> Cluster:
        return replace(self.cluster, datastore_password=Secret(password))

    def facts(self, run: Run, *users: Cluster) -> None:
        """Let a run have read all hosts; the datastore has the users of these clusters."""
        for name, texts in self.hosts.items():
            files = {path: self._state(run, path, text) for path, text in texts.items() if path.startswith("/")}
            run.facts[name] = HostFacts(name, files=files)
        accounts = {f"{login(one)}@{address}": True for one in users for address in ("10.0.0.12", "10.0.0.13")}
        token = Secret(self.hosts["s1"][held.TOKEN].strip().rpartition(":")[2])
        database = Database(users=accounts, bootstrap={f"/bootstrap/{token.fingerprint()}": 9})
        run.facts["db1"] = replace(run.facts["db1"], database=database)
        for name in ("s1", "s2"):
            own = Secret(self.hosts[name][held.TOKEN].strip().rpartition(":")[2])
            server = ServerFiles(PREFIX, own.fingerprint(), self.ca)
            run.facts[name] = replace(run.facts[name], server=server, api=Api(ready=True), kubeconfig=KUBECONFIG)

    @staticmethod
    def _state(run: Run, path: str, text: str) -> FileState:
        same = path == k3s.CONFIG and text == Living.config(run.cluster)
        shown = text if path == k3s.CONFIG and not same else None
        return FileState("file", sha256=hashlib.sha256(text.encode()).hexdigest(), text=shown)


@pytest.fixture
def living(tmp_path: Path) -> Living:
    return Living(tmp_path)


def second(living: Living, **options: Any) -> Run:
    run = living.controller("second", **options)
    run.first = None
    return run


def known(living: Living, name: str = "second") -> Run:
    """Return a run of a controller that has taken everything back."""
    run = living.controller(name)
    run.first = None
    take_back.begin(run, living.read)
    living.facts(run, living.cluster)
    take_back.renew(run, living.read)
    living.asked.clear()
    run.report.notes.clear()
    return run
