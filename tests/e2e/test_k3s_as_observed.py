"""What the deployed K3s answers, and how it fails, held against what real K3s did on such hosts."""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import DB, PREFIX, Site, eventually

OBSERVED = Path(__file__).resolve().parents[1] / "standin" / "observed"
ENDPOINTS = yaml.safe_load((OBSERVED / "endpoints.yaml").read_text())
FAILURES = yaml.safe_load((OBSERVED / "failures.yaml").read_text())
DROP_IN = "/etc/rancher/k3s/config.yaml.d/99-observed.yaml"
NOBODY = f"{PREFIX}.199"


def ask(path: str, *, credentials: str = "", host: str = f"{PREFIX}.12") -> tuple[int, str, str]:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(host, 6443, timeout=20, context=context)
    headers = {"Authorization": "Basic " + base64.b64encode(credentials.encode()).decode()} if credentials else {}
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Content-Type", ""), answer.read().decode()
    finally:
        connection.close()


def credentials(site: Site, who: str) -> str:
    token = (site.folder / ".state" / "lab" / "token").read_text().strip()
    return {"anonymous": "", "node": f"node:{token}", "wrong": "node:wrong"}[who]


@pytest.mark.parametrize(("who", "path"), [(w, p) for w in ("anonymous", "node", "wrong") for p in ENDPOINTS[w]])
def test_endpoints_answer_as_observed(cluster: Site, who: str, path: str) -> None:
    status, kind, start = ENDPOINTS[who][path]
    answer = ask(path, credentials=credentials(cluster, who))
    assert answer[:2] == (status, kind)
    assert answer[2].startswith(start)


def test_the_live_settings_are_told(cluster: Site) -> None:
    told = json.loads(ask("/v1-k3s/config", credentials=credentials(cluster, "node"))[2])
    assert set(ENDPOINTS["config"]) <= set(told)
    assert told["FlannelBackend"] == "host-gw"
    assert set(told["Disables"]) == {"traefik", "metrics-server", "servicelb", "local-storage", "coredns"}
    assert told["ClusterIPRange"] == {"IP": "10.42.0.0", "Mask": "//8AAA=="}


def test_all_servers_are_known_to_the_cluster(cluster: Site) -> None:
    told = json.loads(ask("/v1-k3s/apiservers", credentials=credentials(cluster, "node"))[2])
    assert set(told) == {f"{PREFIX}.{n}:6443" for n in (12, 13, 14)}


def shape(value: Any, skip: tuple[str, ...]) -> Any:
    """Return what kind of thing stands where, without the things."""
    if isinstance(value, dict):
        return {key: shape(item, skip) for key, item in value.items() if key not in skip}
    if isinstance(value, list):
        return [shape(item, skip) for item in value if isinstance(item, (dict, list))]
    return type(value).__name__


@pytest.mark.parametrize(("name", "index"), [("s1", 0), ("a1", 1)])
def test_nodes_have_the_shape_observed(cluster: Site, name: str, index: int) -> None:
    skip = ("images", "runtimeHandlers", "features", "taints", "resourceVersion", "swap", "declaredFeatures")
    observed = json.loads((OBSERVED / "nodes.json").read_text())["items"][index]
    answer = cluster.kubectl("get", "nodes", "-o", "json")
    node = next(item for item in json.loads(answer.stdout)["items"] if item["metadata"]["name"] == name)
    # Other tests have given nodes labels of their own, which have no domain.
    labels = node["metadata"]["labels"]
    node["metadata"]["labels"] = {key: value for key, value in labels.items() if "/" in key}
    assert shape(node, skip) == shape(observed, skip)
    conditions = {c["type"]: c["status"] for c in node["status"]["conditions"]}
    assert conditions == {c["type"]: c["status"] for c in observed["status"]["conditions"]}
    roles = {key for key in node["metadata"]["labels"] if "node-role" in key}
    assert roles == {key for key in observed["metadata"]["labels"] if "node-role" in key}
    arguments = node["metadata"]["annotations"]["k3s.io/node-args"]
    assert '"--token","********"' in arguments


def test_the_datastore_holds_the_table_and_the_bootstrap_row(cluster: Site) -> None:
    def sql(text: str) -> str:
        return cluster.lab.exec("db1", ["mariadb", "-N", "-B", "k3s", "-e", text]).stdout

    table = sql("SHOW CREATE TABLE kine")
    for words in (
        "`name` varchar(630) CHARACTER SET ascii", "`value` mediumblob", "PRIMARY KEY (`id`)",
        "UNIQUE KEY `kine_name_prev_revision_uindex` (`name`,`prev_revision`)",
        "KEY `kine_name_id_index` (`name`,`id`)",
        "KEY `kine_id_deleted_index` (`id`,`deleted`)", "KEY `kine_prev_revision_index` (`prev_revision`)",
    ):  # fmt: skip
        assert words in table
    rows = sql(
        "SELECT name, created, prev_revision > 0, value IS NULL FROM kine WHERE name LIKE '/bootstrap/%' ORDER BY id"
    )
    names = {line.split("\t")[0] for line in rows.splitlines()}
    assert names, "more than one after a rotation of the token"
    assert all(re.fullmatch(r"/bootstrap/[0-9a-f]{12}", name) for name in names)
    flags = [line.split("\t")[1:] for line in rows.splitlines()]
    assert flags[:2] == [["1", "0", "1"], ["0", "1", "0"]], "first an empty lock, then the data"
    value = sql("SELECT LEFT(value, 17) FROM kine WHERE name LIKE '/bootstrap/%' ORDER BY id DESC LIMIT 1").strip()
    assert re.fullmatch(r"[0-9a-f]{16}:", value)


@pytest.fixture(scope="class", params=["server", "agent"])
def role(request: pytest.FixtureRequest, cluster: Site) -> Iterator[str]:
    """One server and one agent are spoilt, and put right at the end."""
    yield request.param
    host, unit = spoilt(request.param)
    since = now(cluster, host)
    cluster.lab.exec(host, ["sh", "-c", f"rm -f {DROP_IN}; systemctl restart --no-block {unit}"])
    cluster.deploy()
    eventually(lambda: _all_ready(cluster, host, since))


def spoilt(role: str) -> tuple[str, str]:
    return ("s3", "k3s") if role == "server" else ("a2", "k3s-agent")


class TestFailures:
    """A class, so that what was spoilt is put right before the next test."""

    @pytest.mark.parametrize("number", range(max(len(cases) for cases in FAILURES.values())))
    def test_it_fails_as_observed(self, cluster: Site, role: str, number: int) -> None:
        names = list(FAILURES[role])
        if number >= len(names):
            return
        case = FAILURES[role][names[number]]
        host, unit = spoilt(role)
        # Of a user that it does not know, MariaDB says something else.
        query = "SELECT User FROM mysql.user WHERE User LIKE 'k3s%' LIMIT 1"
        user = cluster.lab.exec("db1", ["mariadb", "-N", "-B", "-e", query]).stdout.strip()
        text = yaml.safe_dump(case["settings"]).replace("k3s:wrong", f"{user}:wrong")
        text = text.replace("DB", DB).replace("NOBODY", NOBODY)
        said = case["says"].replace("user 'k3s'", f"user '{user}'").replace("DB", DB).replace("NOBODY", NOBODY)
        script = (
            f"systemctl kill -s KILL {unit}; systemctl stop {unit}; systemctl reset-failed {unit}\n"
            f"mkdir -p $(dirname {DROP_IN}); {'rm -rf /var/lib/rancher/k3s/agent' if case.get('new') else ':'}\n"
            f"cat >{DROP_IN} <<'END'\n{text}END\ndate +%s.%N; systemctl start --no-block {unit}\n"
        )
        begin = cluster.lab.exec(host, ["sh", "-s"], input=script).stdout.split()[-1]

        def failed() -> None:
            journal = cluster.lab.exec(
                host, ["journalctl", "-u", unit, "-o", "cat", "--no-pager", "--since", f"@{begin}"]
            ).stdout.replace('\\"', '"')
            assert said in journal, journal[-3000:]
            state = cluster.lab.exec(host, ["systemctl", "show", "-p", "SubState", "--value", unit], check=False).stdout
            assert state.strip() == case["state"]

        eventually(failed)


def now(cluster: Site, host: str) -> int:
    """Return a host's time in whole seconds, as nodes tell times."""
    return int(cluster.lab.exec(host, ["date", "+%s"]).stdout)


def says(cluster: Site, host: str, unit: str, words: str, since: int) -> None:
    """The unit has said this since then."""
    command = ["journalctl", "-u", unit, "--since", f"@{since}", "-o", "cat", "--no-pager"]
    journal = cluster.lab.exec(host, command).stdout
    assert words in journal, journal[-3000:]


def _all_ready(cluster: Site, host: str, since: int) -> None:
    assert all(cluster.nodes().values())
    assert cluster.nodes(since)[host], f"{host} has not reported since its start"


def _not_ready(cluster: Site, host: str) -> None:
    assert not cluster.nodes()[host]


def test_a_host_that_was_installed_anew_is_told_from_the_node_it_replaces(cluster: Site) -> None:
    """Its node password is lost: the cluster refuses it until the old node is deleted."""
    since = now(cluster, "a2")
    cluster.lab.exec("a2", ["sh", "-c", "rm /etc/rancher/node/password; systemctl restart --no-block k3s-agent"])
    words = "Node password rejected, duplicate hostname or contents of"
    eventually(lambda: says(cluster, "a2", "k3s-agent", words, since))
    done = cluster.runbook("deploy.py")
    assert done.returncode == 1
    assert "kubectl delete node" in done.stderr
    eventually(lambda: _not_ready(cluster, "a2"))
    done = cluster.runbook("replace.py", "a2", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    eventually(lambda: _all_ready(cluster, "a2", since))


def test_a_wiped_server_starts_and_drift_tells_of_its_node_password(cluster: Site) -> None:
    script = "systemctl stop k3s; rm -rf /var/lib/rancher/k3s/server /var/lib/rancher/k3s/agent /etc/rancher/node\n"
    cluster.lab.exec("s3", ["sh", "-s"], input=script)
    since = now(cluster, "s3")
    cluster.lab.exec("s3", ["systemctl", "start", "k3s"])
    eventually(lambda: _all_ready(cluster, "s3", since))
    path = cluster.folder / "drift.json"

    def told() -> list[str]:
        done = cluster.runbook("drift.py", "--no-history", "--json", str(path))
        assert done.returncode in (0, 3), done.stdout + done.stderr
        return [one["id"] for one in json.loads(path.read_text())["differences"]]

    def found() -> None:
        assert told() == ["s3/node:password"]

    eventually(found)
    gone = cluster.kubectl("-n", "kube-system", "delete", "secret", "s3.node-password.k3s")
    assert gone.returncode == 0, gone.stderr
    cluster.lab.exec("s3", ["systemctl", "restart", "k3s"])

    def nothing() -> None:
        assert told() == []

    eventually(nothing)


def test_leftovers_of_a_false_start_are_found_and_named(cluster: Site) -> None:
    """A server that was once started without a token against a used datastore refuses the right token, too."""
    config, server = "/etc/rancher/k3s/config.yaml", "/var/lib/rancher/k3s/server"
    start = (
        f"systemctl stop k3s; rm -rf {server}; cp -p {config} /run/kept; grep -v '^token:' /run/kept >{config}\n"
        "systemctl reset-failed k3s; systemctl start --no-block k3s\n"
    )
    since = now(cluster, "s3")
    cluster.lab.exec("s3", ["sh", "-s"], input=start)
    words = "failed to start cluster: bootstrap data already found and encrypted with different token"
    eventually(lambda: says(cluster, "s3", "k3s", words, since))
    again = (
        f"systemctl stop k3s; cp -p /run/kept {config}; systemctl reset-failed k3s; systemctl start --no-block k3s\n"
    )
    cluster.lab.exec("s3", ["sh", "-s"], input=again)
    eventually(lambda: says(cluster, "s3", "k3s", "newer than datastore and could cause a cluster outage", since))
    done = cluster.runbook("deploy.py")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "[leftovers]" in done.stderr
    cluster.lab.exec("s3", ["sh", "-c", f"systemctl stop k3s; rm -rf {server}/tls {server}/cred; rm /run/kept"])
    since = now(cluster, "s3")
    cluster.deploy()
    eventually(lambda: _all_ready(cluster, "s3", since))


def test_a_taken_port_is_found_before_anything_is_changed(cluster: Site) -> None:
    cluster.lab.exec("s3", ["sh", "-c", "systemctl stop k3s; systemd-run -q --unit=taker /usr/sbin/sshd -D -p 6443"])
    since = now(cluster, "s3")
    try:
        done = cluster.runbook("deploy.py")
        cluster.lab.exec("s3", ["systemctl", "start", "--no-block", "k3s"])
        words = "failed to start supervisor listener: listen tcp :6443: bind: address already in use"
        eventually(lambda: says(cluster, "s3", "k3s", words, since))
    finally:
        cluster.lab.exec("s3", ["systemctl", "stop", "taker"])
    assert done.returncode == 1, done.stdout + done.stderr
    assert "port 6443 is in use by sshd" in done.stderr
    cluster.deploy()
    eventually(lambda: _all_ready(cluster, "s3", since))
