"""Parts of the stand-in by themselves: bootstrap data, the log table, nodes, kubectl's output."""

from __future__ import annotations

import http.server
import io
import json
import os
import re
import subprocess
import tarfile
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
from k3s_standin import bootstrap, certs, control, credentials, host, images, jsonpath, nodes, printers, watch
from k3s_standin.datastore_etcd import EtcdStore
from k3s_standin.datastore_sql import sqlite_store
from k3s_standin.kinds import KINDS
from k3s_standin.kubeargs import split
from k3s_standin.kubeclient import KubectlError, failure
from k3s_standin.log import Fatal
from k3s_standin.resources import Target, target
from k3s_standin.store import Change, Compared, Store, StoreError

STANDIN = Path(__file__).resolve().parents[1] / "standin"

OBSERVED = json.loads((STANDIN / "observed" / "nodes.json").read_text())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return sqlite_store(tmp_path / "kine.db")


@pytest.fixture
def server(tmp_path: Path) -> Path:
    credentials.folders(tmp_path / "server")
    return tmp_path / "server"


def test_the_table_is_a_log_of_insertions(store: Store) -> None:
    assert store.create("/a", b"")
    assert not store.create("/a", b"again")
    store.put("/a", b"one")
    entry = store.get("/a")
    assert entry
    assert store.swap("/a", b"two", entry.revision)
    assert not store.swap("/a", b"three", entry.revision), "another writer was faster"
    assert store.delete("/a")
    assert store.get("/a") is None
    assert store.create("/a", b"new")
    rows = store.run("SELECT name, created, deleted, create_revision, prev_revision, value FROM kine ORDER BY id")  # type: ignore[attr-defined]  # SQL only
    assert rows == [
        ("/a", 1, 0, 0, 0, None),
        ("/a", 0, 0, 1, 1, b"one"),
        ("/a", 0, 0, 1, 2, b"two"),
        ("/a", 0, 1, 1, 3, b"two"),
        ("/a", 1, 0, 0, 4, b"new"),
    ]
    store.put("/b/x", b"1")
    assert [(key, found.value) for key, found in store.list("/b/")] == [("/b/x", b"1")]


def test_the_bootstrap_row_is_locked_filled_and_read_back(store: Store, server: Path, tmp_path: Path) -> None:
    assert bootstrap.key_of("secret") == "/bootstrap/2bb80d537b1d"
    assert bootstrap.prepare(store, server, "secret")
    entry = store.get(bootstrap.key_of("secret"))
    assert entry
    assert entry.value == b"", "the lock"
    bootstrap.make_files(server, "secret", "secret")
    bootstrap.save(store, server, "secret")
    entry = store.get(bootstrap.key_of("secret"))
    assert entry
    salt, _, data = entry.value.decode().partition(":")
    assert len(salt) == 16
    assert data
    kept = json.loads(bootstrap.unseal("secret", entry.value))
    assert {"ServerCA", "ServerCAKey", "ClientCA", "ServiceKey", "PasswdFile", "IPSECKey"} <= set(kept)
    other = tmp_path / "other"
    credentials.folders(other)
    assert not bootstrap.prepare(store, other, "secret")
    for name in bootstrap.FILES.values():
        if (server / name).exists():
            assert (other / name).read_bytes() == (server / name).read_bytes()
            assert abs((other / name).stat().st_mtime - (server / name).stat().st_mtime) < 0.01


def test_another_token_and_newer_files_are_fatal_in_k3s_words(store: Store, server: Path) -> None:
    bootstrap.prepare(store, server, "secret")
    bootstrap.make_files(server, "secret", "secret")
    bootstrap.save(store, server, "secret")
    with pytest.raises(Fatal, match=r"^bootstrap data already found and encrypted with different token$"):
        bootstrap.prepare(store, server, "other")
    path = server / "tls" / "server-ca.key"
    path.write_text("another")
    os.utime(path, (time.time() + 1, time.time() + 1))
    assert not bootstrap.prepare(store, server, "secret"), "not newer by three seconds: taken from the datastore"
    path.write_text("another")
    os.utime(path, (time.time() + 60, time.time() + 60))
    with pytest.raises(Fatal, match=f"^{re.escape(str(path))} newer than datastore and could cause a cluster outage"):
        bootstrap.prepare(store, server, "secret")


def test_a_lock_that_is_never_filled_is_taken_over(
    store: Store, server: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    store.create(bootstrap.key_of("secret"), b"")
    assert bootstrap.prepare(store, server, "secret")
    said = capsys.readouterr().err
    assert said.count("Bootstrap key is locked - waiting") == 4
    assert "Bootstrap key lock timed out - deleting lock and retrying" in said


def test_an_authority_has_number_0_and_signs_what_openssl_verifies(tmp_path: Path) -> None:
    ca = certs.authority("k3s-server-ca")
    leaf = certs.signed(ca, "k3s", usages=(certs.SERVER,))[0]
    (tmp_path / "ca").write_text(ca[0])
    (tmp_path / "leaf").write_text(leaf)

    def openssl(*words: str) -> str:
        return subprocess.run(["openssl", *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    assert openssl("x509", "-in", "ca", "-noout", "-serial") == "serial=00\n"
    assert openssl("verify", "-x509_strict", "-check_ss_sig", "-CAfile", "ca", "ca", "leaf") == "ca: OK\nleaf: OK\n"
    assert certs.fits(tmp_path / "leaf", ca)
    assert not certs.fits(tmp_path / "leaf", certs.authority("k3s-server-ca"))
    assert len(certs.load(leaf)) == 2


class _Etcd(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    clients: ClassVar[list[object]] = []
    close = False

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        self.clients.append(self.client_address)
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
        self.close_connection = self.close


def test_connections_to_etcd_are_kept_and_made_anew_where_they_were_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Etcd) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        store = EtcdStore([f"http://127.0.0.1:{server.server_port}"], None)
        try:
            for _ in range(3):
                assert store.get("/a") is None
            assert len(set(_Etcd.clients)) == 1
            monkeypatch.setattr(_Etcd, "close", True)
            for _ in range(3):
                store.probe()
            assert len(set(_Etcd.clients)) == 3
        finally:
            server.shutdown()
            thread.join()
    with pytest.raises(StoreError, match="connect: connection refused"):
        store.probe()


def test_who_leads_ends_when_it_can_no_longer_renew(
    store: Store, server: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ends(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(os, "_exit", ends)
    one, two = (control.Control(store, server, name, "10.0.0.1", 6443, None) for name in ("s1", "s2"))  # type: ignore[arg-type]  # no balancer
    for tick in (1, 3):
        one._work(tick)
        two._work(tick)
    assert (one.leads, two.leads) == (True, False)
    one.trying = time.monotonic() - control.RENEW_DEADLINE
    with pytest.raises(SystemExit, match="1"):
        one._watch()
    two.leads = True
    with pytest.raises(SystemExit, match="1"):
        two._work(3)  # the lease is another's
    assert capsys.readouterr().err.count('level=fatal msg="leaderelection lost for k3s"') == 2


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items() if key not in ("images", "runtimeHandlers")}
    return [shape(item) for item in value if isinstance(item, dict)] if isinstance(value, list) else type(value)


@pytest.mark.parametrize(("index", "role"), [(0, "server"), (1, "agent")])
def test_a_node_has_the_shape_observed(index: int, role: str) -> None:
    observed = OBSERVED["items"][index]
    name, address = observed["metadata"]["name"], observed["status"]["addresses"][0]["address"]
    settings = {"flannel-backend": "host-gw"}
    node = nodes.describe(name, role, settings, [], "v1.34.9+k3s1", [address])
    # What the server adds when it takes the node.
    node["metadata"] |= {"creationTimestamp": nodes.stamp(), "uid": "u", "resourceVersion": "1"}
    node["spec"] |= {"podCIDR": "10.42.0.0/24", "podCIDRs": ["10.42.0.0/24"]}
    node["status"]["conditions"] = nodes.conditions(ready=True)
    assert shape(nodes.as_seen(node, time.time())) == shape(observed)
    assert node["metadata"]["labels"] == observed["metadata"]["labels"]
    for mine, theirs in zip(node["status"]["conditions"], observed["status"]["conditions"], strict=True):
        keys = ("type", "status", "reason", "message")
        assert [mine[key] for key in keys] == [theirs[key] for key in keys]


def test_a_node_without_heartbeats_is_unknown_and_tainted() -> None:
    node = nodes.describe("n", "agent", {"node-taint": ["a=b:NoSchedule"]}, [], "v1.34.9+k3s1", ["10.0.0.1"])
    node["metadata"]["creationTimestamp"] = nodes.stamp(time.time() - 100)
    node["status"]["conditions"] = nodes.conditions(ready=True)
    assert nodes.as_seen(json.loads(json.dumps(node)), time.time() - 30)["status"]["conditions"][3]["status"] == "True"
    seen = nodes.as_seen(json.loads(json.dumps(node)), time.time() - 60)
    assert {c["status"] for c in seen["status"]["conditions"]} == {"Unknown"}
    assert {t["key"] for t in seen["spec"]["taints"]} == {"a", nodes.UNREACHABLE}
    assert printers.node_status(seen) == "NotReady"
    assert [t["key"] for t in nodes.own_taints(seen)["spec"]["taints"]] == ["a"]


def test_the_master_role_is_there_in_1_33_only() -> None:
    for version, roles in (("v1.33.5+k3s1", "control-plane,master"), ("v1.34.9+k3s1", "control-plane")):
        node = nodes.describe("n", "server", {}, [], version, ["10.0.0.1"])
        assert printers.roles(node) == roles


def test_the_images_of_archives_are_told(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    manifest = json.dumps([{"RepoTags": ["rancher/mirrored-pause:3.6", "hello:1", "reg.lab:5000/a:2"]}]).encode()
    for name, mode in (("one.tar", "w"), ("two.tar.gz", "w:gz")):
        with tarfile.open(tmp_path / "images" / name, mode) as archive:  # type: ignore[call-overload]  # a literal
            member = tarfile.TarInfo("manifest.json")
            member.size = len(manifest)
            archive.addfile(member, io.BytesIO(manifest))
    (tmp_path / "images" / "broken.tar").write_text("no archive")
    (tmp_path / "images" / "list.txt").write_text("docker.io/library/x:1")
    names = [image["names"] for image in images.load(tmp_path)]
    assert names == [["docker.io/library/hello:1"], ["docker.io/rancher/mirrored-pause:3.6"], ["reg.lab:5000/a:2"]]
    assert "docker.io/library/hello " in images.table(tmp_path)


@pytest.mark.parametrize(
    ("settings", "version", "why"),
    [
        ({"node-label": ["tier=web", "node.kubernetes.io/x=y"]}, "v1.34.9+k3s1", None),
        ({"node-label": ["node-role.kubernetes.io/worker=true"]}, "v1.34.9+k3s1", "unknown 'kubernetes.io'"),
        ({"kubelet-arg": ["fail-cgroupv1=false"]}, "v1.35.1+k3s1", None),
    ],
)
def test_what_the_kubelet_refuses(settings: dict[str, Any], version: str, why: str | None) -> None:
    problem = host.kubelet_problem(settings, version)
    assert (why in problem) if why and problem else problem is None


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{.items[*].metadata.name}", "s1 a1"),
        ("{.items[0].status.nodeInfo.kubeletVersion}", "v1.34.9+k3s1"),
        ("{.items[-1].metadata.name}", "a1"),
        ('{range .items[*]}{.metadata.name}={.spec.podCIDR}{"\\n"}{end}', "s1=10.42.0.0/24\na1=10.42.3.0/24\n"),
        ('{.items[*].status.conditions[?(@.type=="Ready")].status}', "True True"),
        ("{.items[0].metadata.labels.kubernetes\\.io/hostname}", "s1"),
        ("{.items[0].metadata.labels['kubernetes.io/os']}", "linux"),
        ("{.items[?(@.metadata.name=='a1')].spec.providerID}", "k3s://a1"),
        ("{.items[0].spec.podCIDRs}", '["10.42.0.0/24"]'),
        ("{.items[0].spec.nothing}", ""),
        ("{..podCIDR}", "10.42.0.0/24 10.42.3.0/24"),
        ("plain {.kind}", "plain List"),
    ],
)
def test_jsonpath(template: str, text: str) -> None:
    assert jsonpath.render(template, OBSERVED) == text


def test_jsonpath_out_of_bounds() -> None:
    with pytest.raises(jsonpath.TemplateError, match="array index out of bounds: index 5, length 2"):
        jsonpath.render("{.items[5]}", OBSERVED)


def test_the_table_of_nodes_as_observed() -> None:
    text = printers.table(KINDS["nodes"], OBSERVED["items"], wide=True, headers=True, labels=False, spaces=False)
    heads = [line.split() for line in text.splitlines()]
    wanted = "NAME STATUS ROLES AGE VERSION INTERNAL-IP EXTERNAL-IP OS-IMAGE KERNEL-VERSION CONTAINER-RUNTIME"
    assert " ".join(heads[0]) == wanted
    assert heads[1][:3] == ["s1", "Ready", "control-plane"]
    assert heads[2][:3] == ["a1", "Ready", "<none>"]
    assert "10.77.0.15    <none>        Debian GNU/Linux 12 (bookworm)" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(9, "9s"), (119, "119s"), (120, "2m"), (392, "6m32s"), (1020, "17m"), (10800, "3h"), (100000, "27h"),
     (700000, "8d")],
)  # fmt: skip
def test_ages(seconds: int, text: str) -> None:
    assert printers.duration(seconds) == text


def test_kubectl_knows_its_options() -> None:
    words, options = split(["get", "-o", "json", "nodes", "-n=x", "--no-headers", "--raw=/readyz", "-ojson"])
    assert words == ["get", "nodes"]
    assert options == {"--output": "json", "--namespace": "x", "--no-headers": "true", "--raw": "/readyz"}
    with pytest.raises(KubectlError, match="unknown flag: --ignore-daemonset\n"):
        split(["drain", "--ignore-daemonset"])


def test_kubectl_says_failures_as_observed() -> None:
    body = b"[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n"
    assert str(failure(500, body)) == (
        'Error from server (InternalError): an error on the server ("[+]ping ok\\n[-]etcd failed: reason withheld\\n'
        'readyz check failed") has prevented the request from succeeding'
    )
    assert str(failure(401, b"{}")) == "error: You must be logged in to the server (Unauthorized)"
    missing = b'{"kind":"Status","message":"nodes \\"x\\" not found","reason":"NotFound","code":404}'
    assert str(failure(404, missing)) == 'Error from server (NotFound): nodes "x" not found'


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/api/v1/nodes", Target(KINDS["nodes"])),
        ("/api/v1/nodes/s1/status", Target(KINDS["nodes"], "", "s1", "status")),
        ("/api/v1/namespaces/kube-system/secrets/x", Target(KINDS["secrets"], "kube-system", "x")),
        ("/api/v1/namespaces/x", Target(KINDS["namespaces"], "", "x")),
        ("/apis/certificates.k8s.io/v1/certificatesigningrequests/a/approval",
         Target(KINDS["certificatesigningrequests"], "", "a", "approval")),
        ("/api/v1/unknown", None),
        ("/readyz", None),
    ],
)  # fmt: skip
def test_paths(path: str, wanted: Target | None) -> None:
    assert target(path) == wanted


def test_a_feed_has_each_change_once_and_those_that_come_late(store: Store) -> None:
    store.put("/registry/configmaps/x/before", b"{}")
    feed = store.feed("/registry/configmaps/x/", store.revision())
    everything = store.feed("/registry/configmaps/x/", 0)
    assert [(kind, key) for kind, key, _ in everything.poll()] == [("ADDED", "/registry/configmaps/x/before")]
    store.put("/registry/configmaps/x/a", b"1")
    store.put("/registry/configmaps/other/a", b"1")
    store.put("/registry/configmaps/x/a", b"2")
    store.delete("/registry/configmaps/x/before")
    found = [(kind, key.rpartition("/")[2], entry.value) for kind, key, entry in feed.poll()]
    assert found == [("ADDED", "a", b"1"), ("MODIFIED", "a", b"2"), ("DELETED", "before", b"{}")]
    late = store.revision() + 2
    insert = "INSERT INTO kine(id, name, created, deleted, value) VALUES(?, ?, 1, 0, ?)"
    store.run(insert, late, "/registry/configmaps/x/late", b"3")  # type: ignore[attr-defined]  # SQL only
    assert [key for _, key, _ in feed.poll()] == ["/registry/configmaps/x/late"]
    store.run(insert, late - 1, "/registry/configmaps/x/later", b"4")  # type: ignore[attr-defined]  # SQL only
    assert [key for _, key, _ in feed.poll()] == ["/registry/configmaps/x/later"]
    assert feed.poll() == []
    assert [(kind, key.rpartition("/")[2]) for kind, key, _ in everything.poll()] == [
        ("ADDED", "a"),
        ("ADDED", "later"),
        ("ADDED", "late"),
        ("DELETED", "before"),
    ]


def test_a_watch_lasts_until_its_client_goes_also_without_a_datastore(store: Store) -> None:
    sent: list[bytes] = []
    rounds = iter((False, False, False, True))

    class Away(Compared):
        def poll(self) -> list[Change]:
            if not sent:
                store.put("/registry/configmaps/x/a", b'{"metadata": {"name": "a", "labels": {"of": "drill"}}}')
                sent.append(b"away")
                raise StoreError("away")
            return super().poll()

    feed = Away(store, "/registry/configmaps/x/", 0)
    watch.serve(feed, lambda item: item["metadata"]["labels"] == {"of": "drill"}, sent.append, lambda: next(rounds), 9)
    (event,) = [json.loads(line) for line in sent[1:]]
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "a")
    assert event["object"]["metadata"]["resourceVersion"] == "1"


def test_members_of_etcd_are_asked_in_turn_and_one_that_is_lost_last() -> None:
    asked: list[str] = []

    class Members(EtcdStore):
        def _ask(self, url: str, *_: Any) -> dict[str, Any]:
            asked.append(url[-1])
            if url.endswith("2"):
                raise OSError("lost")
            return {"kvs": []}

    store = Members(["https://1", "https://2", "https://3"], None)
    for _ in range(6):
        store.get("/a")
    assert asked == [*"1", *"23", *"3", *"1", *"3", *"3"]
    store._lost["https://2"] -= store.LOST
    store.get("/a")
    store.get("/a")
    assert asked[7:] == [*"1", *"23"]
