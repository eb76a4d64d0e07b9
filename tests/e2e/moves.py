"""A cluster of one server on SQLite, as K3s' own script makes it, and what is compared around a move."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import yaml

from nornir_k3s.k3s import SERVER_TAINT
from nornir_k3s.run.kubeconfig_probe import access

from .conftest import Site, eventually

TOKEN = "of-one-server"
# What nobody changes but the tests, and kinds that K3s itself has made.
KINDS = (
    *("/api/v1/configmaps", "/api/v1/secrets", "/api/v1/namespaces", "/api/v1/serviceaccounts"),
    *("/apis/rbac.authorization.k8s.io/v1/clusterroles", "/apis/storage.k8s.io/v1/storageclasses"),
)


def install_single_server(site: Site) -> None:
    """Install K3s on s1 with its own script, without a datastore endpoint, and wait until its API answers."""
    root = f"/proc/{next(one.init for one in site.lab.status() if one.host.name == 's1')}/root"
    for name in ("k3s", "install.sh"):
        shutil.copy(site.folder / "bundle" / name, f"{root}/usr/local/bin/{name}")
    own = yaml.safe_load((site.folder / "inventory" / "defaults.yaml").read_text())["data"]["k3s_cluster"]
    settings = yaml.safe_dump({"token": TOKEN, "node-taint": [SERVER_TAINT], **own["server"]})
    script = (
        "set -e\nchmod 755 /usr/local/bin/k3s /usr/local/bin/install.sh\nmkdir -p /etc/rancher/k3s\n"
        f"(umask 077; cat >/etc/rancher/k3s/config.yaml <<'END'\n{settings}END\n)\n"
        "INSTALL_K3S_SKIP_DOWNLOAD=true INSTALL_K3S_EXEC=server sh /usr/local/bin/install.sh\n"
    )
    site.lab.exec("s1", ["sh", "-s"], input=script)
    eventually(lambda: objects(site))


def objects(site: Site) -> dict[str, dict[str, Any]]:
    """Return every object of some kinds, as s1 lists them: by kind, namespace and name."""
    found = {}
    for path in KINDS:
        answer = site.lab.exec("s1", ["k3s", "kubectl", "get", "--raw", path], check=False)
        assert answer.returncode == 0, answer.stderr
        for item in json.loads(answer.stdout)["items"]:
            if item["metadata"]["name"] != "k3s-serving":  # of the port 6443: it grows with the servers
                found[f"{path}/{item['metadata'].get('namespace', '')}/{item['metadata']['name']}"] = item
    return found


def same(site: Site, before: dict[str, dict[str, Any]], *, raised: bool = False) -> None:
    """Every object that was there before a move is there, with its content and its resourceVersion.

    Arguments:
        raised: To an etcd: each has a higher resourceVersion than any that was seen.
    """
    after = objects(site)
    found = {key: after.get(key) for key in before}
    if raised:
        seen = max(_taken(item) for item in before.values())
        assert all(_taken(item) > seen for item in found.values() if item)
        for item in (*before.values(), *filter(None, found.values())):
            item["metadata"].pop("resourceVersion", None)
    assert found == before


def _taken(item: dict[str, Any]) -> int:
    return int(item["metadata"]["resourceVersion"])


class Informer(threading.Thread):
    """Lists ConfigMaps, then watches them from there, as client-go's reflector does; all through the VIP."""

    PATH = "/api/v1/namespaces/default/configmaps"

    def __init__(self, site: Site) -> None:
        super().__init__(daemon=True)
        self.view, self.cut, self._ended = dict[str, str](), 0, threading.Event()
        self._to, self._version = access(site.kubeconfig), ""

    def __enter__(self) -> Informer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.wait(0.2):
            # The server that was asked may be away, or be stopped meanwhile.
            with suppress(OSError, http.client.HTTPException, json.JSONDecodeError):
                if not self._version:
                    self._list()
                elif self._watched():
                    self.cut += 1

    @contextmanager
    def _ask(self, query: str, timeout: float) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPSConnection(
            self._to.host, self._to.port, timeout=timeout, context=self._to.context
        )
        with closing(connection):
            connection.request("GET", f"{self.PATH}{query}")
            with connection.getresponse() as answer:
                yield answer

    def _list(self) -> None:
        with self._ask("", 30) as answer:
            found = json.loads(answer.read())
        self.view = {item["metadata"]["name"]: item["metadata"]["uid"] for item in found["items"]}
        self._version = found["metadata"]["resourceVersion"]

    def _watched(self) -> bool:
        """Watch; return whether it was cut, or refused, rather than that nothing happened for some seconds."""
        with self._ask(f"?watch=true&resourceVersion={self._version}&timeoutSeconds=600", 5) as answer:
            if answer.status != 200:
                return True
            while not self._ended.is_set():
                try:
                    line = answer.readline()
                except TimeoutError:
                    return False
                except OSError:
                    return True
                if not line:
                    return True
                event = json.loads(line)
                if event["type"] == "ERROR":
                    self._version = ""
                    return True
                meta = event["object"]["metadata"]
                self._version = meta["resourceVersion"]
                self.view.pop(meta["name"], None)
                if event["type"] != "DELETED":
                    self.view[meta["name"]] = meta["uid"]
        return False

    def knows(self, site: Site) -> None:
        """It has what there is, and nothing that is gone."""
        items = json.loads(site.kubectl("get", "--raw", self.PATH).stdout)["items"]
        assert self.view == {item["metadata"]["name"]: item["metadata"]["uid"] for item in items}


def fill(site: Site, count: int = 200) -> None:
    """Make ConfigMaps, some of them with values that escaping may stumble over; change and delete some."""
    odd = ["", "'\"\\%s {} \x7f ?;--", "ü漢\U0001f600", "x" * 100_000]
    texts = [
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": f"moved-{number}", "namespace": "default"},
                "data": {"value": odd[number % len(odd)] or str(number)},
            }
        )
        for number in range(count)
    ]
    site.lab.exec("s1", ["k3s", "kubectl", "create", "-f", "-"], input="---\n".join(texts), timeout=120)
    for number in range(5):
        name = f"moved-{number}"
        site.lab.exec("s1", ["k3s", "kubectl", "-n", "default", "label", "configmap", name, "changed=yes"])
        site.lab.exec("s1", ["k3s", "kubectl", "-n", "default", "delete", "configmap", f"moved-{count - 1 - number}"])


def kill_while_stopped(site: Site, server: str) -> None:
    """Kill a run of `move` when K3s is stopped on a server; as long as the copy is not whole, no deploy starts it."""
    marker = ["test", "-e", "/var/lib/nornir-k3s/moving"]
    killed = site.start("move.py", "--yes")

    def stopped() -> None:
        assert site.lab.exec(server, marker, check=False).returncode == 0 or killed.poll() is not None

    eventually(stopped, deadline=300)
    killed.kill()
    killed.communicate()
    if site.lab.exec(server, marker, check=False).returncode == 0:
        done = site.runbook("deploy.py", "--yes")
        assert done.returncode == 1, done.stdout + done.stderr
        assert "a move of the datastore was interrupted" in done.stderr
