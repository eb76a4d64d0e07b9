"""The stand-in as a process: a server on a local file, an agent that joins it, kubectl that asks it."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from k3s_standin import certs
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from nornir_k3s.run import kubeconfig_probe

STANDIN = Path(__file__).resolve().parents[1] / "standin"
OBSERVED = STANDIN / "observed"
ENDPOINTS = yaml.safe_load((OBSERVED / "endpoints.yaml").read_text())
JOURNAL = yaml.safe_load((OBSERVED / "journal.yaml").read_text())

patiently = retry(
    stop=stop_after_delay(60), wait=wait_fixed(0.1), retry=retry_if_exception_type(AssertionError), reraise=True
)


def free_ports() -> int:
    """Return the first of two free ports that follow each other."""
    for _ in range(100):
        with socket.socket() as one, socket.socket() as two:
            one.bind(("", 0))
            port = int(one.getsockname()[1])
            try:
                two.bind(("", port + 1))
            except OSError:
                continue
            return port
    raise AssertionError("no free ports")


@dataclass
class Node:
    """A server or an agent with a home of its own."""

    home: Path
    name: str
    role: str
    port: int
    process: subprocess.Popen[bytes] | None = None
    settings: list[str] = field(default_factory=list)

    def environment(self, **more: str) -> dict[str, str]:
        quick = {f"K3S_STANDIN_{name}_DELAY": "0.2" for name in ("START", "NODE", "READY", "BOOTSTRAP", "STOP")}
        own = {"K3S_STANDIN_ETC": str(self.home / "etc"), "K3S_STANDIN_ANY_ROUTE": "1", "PYTHONPATH": str(STANDIN)}
        return {**os.environ, **quick, **own, **more}

    def run(self, *argv: str, text: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "k3s_standin.main", *argv]
        return subprocess.run(
            command,
            env=self.environment(**environ),
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def kubectl(self, *argv: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return self.run("kubectl", f"--kubeconfig={self.home}/etc/k3s/k3s.yaml", *argv, text=text)

    def start(self, *more: str, **environ: str) -> None:
        self.home.mkdir(exist_ok=True)
        kubelet = free_ports()
        settings = ["--data-dir", f"{self.home}/data", "--node-name", self.name, "--node-ip", "127.0.0.1"]
        command = [sys.executable, "-m", "k3s_standin.main", self.role, *settings, f"--kubelet-arg=port={kubelet}"]
        with (self.home / "journal").open("ab") as journal:
            self.process = subprocess.Popen(
                [*command, *self.settings, *more], env=self.environment(**environ), stderr=journal
            )

    @property
    def journal(self) -> str:
        return (self.home / "journal").read_text()

    def stop(self) -> int:
        assert self.process
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def ask(self, path: str, *, credentials: str = "") -> tuple[int, str, str]:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=context)
        headers = {"Authorization": "Basic " + base64.b64encode(credentials.encode()).decode()} if credentials else {}
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Content-Type", ""), answer.read().decode()
        finally:
            connection.close()


def new_server(home: Path, *settings: str) -> Node:
    port = free_ports()
    return Node(home, "s1", "server", port, settings=["--https-listen-port", str(port), *settings])


def new_agent(home: Path, server: Node, token: str, name: str = "a1") -> Node:
    port = free_ports()
    settings = ["--server", f"https://127.0.0.1:{server.port}", "--token", token, "--lb-server-port", str(port)]
    return Node(home, name, "agent", port, settings=settings)


@patiently
def says(node: Node, words: str) -> None:
    assert words in node.journal, node.journal[-3000:]


@patiently
def ready(server: Node, name: str) -> None:
    answer = server.kubectl("get", "node", name, "--no-headers")
    assert answer.stdout.split()[1:2] == ["Ready"], answer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = new_server(
        tmp_path_factory.mktemp("s1"), "--token", "secret", "--agent-token", "agents", "--tls-san=vip.lab"
    )
    node.start()
    try:
        ready(node, "s1")
        yield node
    finally:
        node.stop()


@pytest.fixture(scope="module")
def agent(server: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = new_agent(tmp_path_factory.mktemp("a1"), server, "agents")
    node.start()
    try:
        ready(server, "a1")
        yield node
    finally:
        node.stop()


@pytest.mark.parametrize(("who", "path"), [(w, p) for w in ("anonymous", "node", "wrong") for p in ENDPOINTS[w]])
def test_endpoints_answer_as_observed(server: Node, who: str, path: str) -> None:
    status, kind, start = ENDPOINTS[who][path]
    given = {"anonymous": "", "node": "node:agents", "wrong": "node:wrong"}[who]
    answer = server.ask(path, credentials=given)
    assert answer[:2] == (status, kind)
    assert answer[2].startswith(start)


def test_refusals_have_the_bodies_observed(server: Node) -> None:
    wrong = json.loads(server.ask("/v1-k3s/readyz", credentials="node:wrong")[2])
    assert wrong == {
        "kind": "Status",
        "metadata": {},
        "status": "Failure",
        "message": "not authorized",
        "reason": "Unauthorized",
        "code": 401,
    }
    assert "apiVersion" not in json.loads(server.ask("/v1-k3s/config")[2])
    assert json.loads(server.ask("/readyz")[2])["apiVersion"] == "v1"


def test_each_credential_opens_its_own_doors_only(server: Node) -> None:
    assert server.ask("/v1-k3s/config", credentials="node:secret")[0] == 401, "the server token is no agent token"
    assert server.ask("/v1-k3s/config", credentials="server:secret")[0] == 403
    assert server.ask("/v1-k3s/encrypt/status", credentials="server:secret")[0] == 200
    assert server.ask("/v1-k3s/encrypt/status", credentials="node:agents")[0] == 403
    assert server.ask("/v1-k3s/server-bootstrap", credentials="server:secret")[0] == 400


def test_a_server_comes_up_as_observed(server: Node) -> None:
    position = 0
    for words in JOURNAL["first server"]:
        if "database" in words.lower():
            continue  # this one has a local file
        found = server.journal.find(words.replace(":6443:", f":{server.port}:"), position)
        assert found >= 0, words
        position = found


def test_an_agent_comes_up_as_observed(server: Node, agent: Node) -> None:
    position = 0
    for words in JOURNAL["agent"]:
        found = agent.journal.find(words, position)
        assert found >= 0, words
        position = found
    kept = json.loads((agent.home / "data/agent/etc/k3s-agent-load-balancer.json").read_text())
    url = f"https://127.0.0.1:{server.port}"
    assert kept == {"ServerURL": url, "ServerAddresses": [f"127.0.0.1:{server.port}"]}
    says(server, "Handling backend connection request [a1]")


def test_files_have_the_modes_observed(server: Node) -> None:
    found = {
        str(path.relative_to(server.home)): oct(path.lstat().st_mode & 0o777)
        for path in [*server.home.glob("etc/**/*"), *server.home.glob("data/server/**/*")]
        if not path.is_symlink()
    }
    wanted = {
        "etc/node/password": "0o600",
        "etc/k3s/k3s.yaml": "0o600",
        "data/server/token": "0o600",
        "data/server/cred": "0o700",
        "data/server/cred/passwd": "0o600",
        "data/server/tls": "0o700",
        "data/server/tls/client-ca.key": "0o600",
        "data/server/tls/client-admin.crt": "0o644",
        "data/server/tls/dynamic-cert.json": "0o600",
        "data/server/tls/etcd": "0o755",
    }
    assert {name: found[name] for name in wanted} == wanted
    assert re.fullmatch(r"K10[0-9a-f]{64}::server:secret\n", (server.home / "data/server/token").read_text())
    assert re.fullmatch(r"K10[0-9a-f]{64}::node:agents\n", (server.home / "data/server/agent-token").read_text())
    assert (server.home / "data/server/node-token").readlink() == server.home / "data/server/token"


def test_the_certificate_has_the_names_of_tls_san(server: Node) -> None:
    context = ssl.create_default_context(cafile=str(server.home / "data/server/tls/server-ca.crt"))
    for name in ("vip.lab", "127.0.0.1", "kubernetes.default.svc", "s1"):
        with (
            socket.create_connection(("127.0.0.1", server.port)) as raw,
            context.wrap_socket(raw, server_hostname=name),
        ):
            pass
    with (
        socket.create_connection(("127.0.0.1", server.port)) as raw,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        context.wrap_socket(raw, server_hostname="other.lab")


def test_a_health_check_certificate_opens_readyz_alone(server: Node, tmp_path: Path) -> None:
    key = certs.new_key()
    request = base64.b64encode(certs.request(key, "lb-check").encode()).decode()
    spec = {"request": request, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}
    item = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "lb"},
        "spec": spec,
    }
    assert server.kubectl("create", "-f", "-", text=json.dumps(item)).stdout.endswith("/lb created\n")
    assert "AlreadyExists" in server.kubectl("create", "-f", "-", text=json.dumps(item)).stderr
    assert server.kubectl("certificate", "approve", "lb").returncode == 0

    @patiently
    def certificate() -> str:
        text = server.kubectl("get", "csr", "lb", "-o", "jsonpath={.status.certificate}").stdout
        assert text
        return base64.b64decode(text).decode()

    (tmp_path / "lb.pem").write_text(certificate() + key)
    assert server.kubectl("delete", "csr", "lb").returncode == 0
    context = ssl.create_default_context(cafile=str(server.home / "data/server/tls/server-ca.crt"))
    context.load_cert_chain(tmp_path / "lb.pem")
    found = {}
    for path in ("/readyz", "/readyz/etcd", "/api/v1/nodes", "/api/v1/namespaces/kube-system/secrets", "/metrics"):
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context)
        connection.request("GET", path)
        found[path] = connection.getresponse().status
        connection.close()
    assert found.pop("/readyz") == 200
    assert set(found.values()) == {403}


def test_kubectl_fails_in_real_kubectl_s_words(server: Node) -> None:
    missing = server.kubectl("get", "node", "x")
    assert (missing.returncode, missing.stderr) == (1, 'Error from server (NotFound): nodes "x" not found\n')
    assert server.kubectl("get", "node", "x", "--ignore-not-found").returncode == 0
    refused = server.kubectl("--server=https://127.0.0.1:1", "get", "nodes")
    wanted = "The connection to the server 127.0.0.1:1 was refused - did you specify the right host or port?\n"
    assert (refused.returncode, refused.stderr) == (1, wanted)
    other = server.kubectl(f"--server=https://127.0.0.2:{server.port}", "get", "nodes")
    assert "x509: certificate is valid for " in other.stderr
    assert ", not 127.0.0.2" in other.stderr
    assert "--no-headr" in server.kubectl("get", "nodes", "--no-headr").stderr


def test_what_kubectl_gets_raw_needs_no_python(server: Node, agent: Node, tmp_path: Path) -> None:
    """With the kubeconfig of a server and that of a kubelet, whose keys are files; nothing is unpacked here."""
    head = tmp_path / "k3s"
    head.write_text((STANDIN / "head.sh").read_text().replace("@LINES@", "1000"))
    head.chmod(0o755)
    kubelet = [f"--kubeconfig={agent.home}/data/agent/kubelet.kubeconfig", f"--server=https://127.0.0.1:{server.port}"]
    for node, options in ((server, []), (server, kubelet[1:]), (agent, kubelet), (agent, kubelet[::-1])):
        command = [str(head), "kubectl", *options, "get", "--raw", "/readyz"]
        environment = node.environment(HOME=str(tmp_path))
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (0, "ok"), (options, done.stderr)
    home = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
    sent = json.dumps({"metadata": {"name": "sent"}, "spec": {"holderIdentity": "ann"}})
    for verb, path in (("create", home), ("replace", f"{home}/sent")):
        command = [str(head), "kubectl", verb, "--raw", path, "-f", "-"]
        environment = server.environment(HOME=str(tmp_path))
        done = subprocess.run(
            command, env=environment, input=sent, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["spec"]["holderIdentity"] == "ann"
        sent = done.stdout


def test_a_lease_is_replaced_only_by_who_has_read_the_newest_one(server: Node, tmp_path: Path) -> None:
    home, file = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", tmp_path / "lease.json"
    meta: dict[str, str] = {"name": "work", "namespace": "kube-system"}

    def send(verb: str, path: str, holder: str) -> subprocess.CompletedProcess[str]:
        data = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta}
        file.write_text(json.dumps(data | {"spec": {"holderIdentity": holder}}))
        return server.kubectl(verb, "--raw", path, "-f", str(file))

    made = send("create", home, "ann")
    assert made.returncode == 0, made.stderr
    again = send("create", home, "bob")
    said = 'Error from server (AlreadyExists): leases.coordination.k8s.io "work" already exists\n'
    assert (again.returncode, again.stderr) == (1, said)
    meta["resourceVersion"] = json.loads(made.stdout)["metadata"]["resourceVersion"]
    first, second = (send("replace", f"{home}/work", holder) for holder in ("ann", "bob"))
    assert json.loads(first.stdout)["spec"]["holderIdentity"] == "ann"
    assert second.returncode == 1
    assert second.stderr.startswith(
        "Error from server (Conflict): Operation cannot be fulfilled on leases.coordination"
    )
    assert "the object has been modified; please apply your changes to the latest version" in second.stderr
    assert "must specify one of -f and -k" in server.kubectl("create", "--raw", home).stderr


def test_a_node_is_deleted_with_its_secret_and_comes_back_when_it_starts_anew(server: Node, agent: Node) -> None:
    assert server.kubectl("get", "secret", "-n", "kube-system", "a1.node-password.k3s").returncode == 0
    assert server.kubectl("delete", "node", "a1").stdout == 'node "a1" deleted\n'
    assert "NotFound" in server.kubectl("get", "secret", "-n", "kube-system", "a1.node-password.k3s").stderr
    assert agent.stop() == 0
    agent.start()
    ready(server, "a1")


def test_an_agent_with_a_wrong_token_waits_and_says_so(server: Node, tmp_path: Path) -> None:
    node = new_agent(tmp_path / "w", server, "wrong", "w")
    node.start()
    says(
        node,
        "Waiting to retrieve agent configuration; server is not ready: failed to retrieve configuration from server:"
        " not authorized",
    )
    assert node.process
    assert node.process.poll() is None, "it does not exit"
    assert node.stop() == 1
    assert "level=fatal" in node.journal


def test_an_agent_compares_the_ca_with_the_token_s_hash(server: Node, tmp_path: Path) -> None:
    node = new_agent(tmp_path / "h", server, f"K10{'0' * 64}::node:agents", "h")
    node.start()
    says(node, f"token CA hash does not match the Cluster CA certificate hash: {'0' * 64} != ")
    assert node.stop() == 0


def test_an_agent_that_lost_its_node_password_is_refused_until_its_node_is_deleted(server: Node, agent: Node) -> None:
    agent.stop()
    (agent.home / "etc/node/password").unlink()
    (agent.home / "journal").write_text("")
    agent.start()
    says(agent, "serving-kubelet.crt: Node password rejected, duplicate hostname or contents of")
    server.kubectl("delete", "node", "a1")
    says(agent, "k3s agent is up and running")
    ready(server, "a1")


def test_a_server_that_is_asked_to_end_does_so_at_once(tmp_path: Path) -> None:
    node = new_server(tmp_path / "s", "--token", "secret")
    node.start()
    says(node, "k3s is up and running")
    assert node.stop() == 0
    node.settings[node.settings.index("secret")] = "other"
    node.start()
    says(
        node,
        "Error: preparing server: failed to bootstrap cluster data:"
        " bootstrap data already found and encrypted with different token",
    )
    assert node.process
    assert node.process.wait(20) == 1


def test_a_taken_port_is_fatal(server: Node, tmp_path: Path) -> None:
    node = new_server(tmp_path / "t", "--token", "secret")
    node.settings[1] = str(server.port)
    node.start()
    says(
        node,
        f"Error: preparing server: failed to start supervisor listener: listen tcp :{server.port}: bind:"
        " address already in use",
    )
    assert node.process
    assert node.process.wait(20) == 1


def test_tokens_are_made_listed_and_rotated(tmp_path: Path) -> None:
    node = new_server(tmp_path / "r", "--token", "secret")
    node.start()
    ready(node, "s1")
    where = ["--data-dir", f"{node.home}/data", "--kubeconfig", f"{node.home}/etc/k3s/k3s.yaml"]
    made = node.run("token", "create", *where).stdout.strip()
    assert re.fullmatch(r"K10[0-9a-f]{64}::[a-z0-9]{6}\.[a-z0-9]{16}", made)
    assert made.split("::")[1][:6] in node.run("token", "list", *where).stdout
    agent = new_agent(tmp_path / "b", node, made, "b")
    agent.start()
    ready(node, "b")
    agent.stop()
    server = f"https://127.0.0.1:{node.port}"
    done = node.run("token", "rotate", *where, "--server", server, "--token", "secret", "--new-token", "fresh")
    assert "WARNING" in done.stdout
    assert done.stdout.endswith("\nToken rotated, restart k3s nodes with new token\n")
    assert (node.home / "data/server/token").read_text().endswith("::server:fresh\n")
    node.stop()
    node.settings[node.settings.index("secret")] = "fresh"
    (node.home / "journal").write_text("")
    node.start()
    says(node, "k3s is up and running")
    checked = node.run("certificate", "check", "--data-dir", f"{node.home}/data", "--output", "json")
    found = json.loads(checked.stdout)["Certificates"]
    assert {one["Status"] for one in found} == {"OK"}
    assert {"Filename", "Subject", "Issuer", "Usages", "ExpiryTime", "ResidualTime", "Status"} == set(found[0])
    node.stop()


def test_a_rotation_of_the_token_is_refused_as_observed(tmp_path: Path) -> None:
    node = new_server(tmp_path / "r", "--token", "secret")
    node.start()
    ready(node, "s1")
    where = ["--data-dir", f"{node.home}/data", "--server", f"https://127.0.0.1:{node.port}"]
    token = node.home / "data/server/token"
    prefix = token.read_text().split("::")[0]

    def rotate(*options: str, **environ: str) -> str:
        done = node.run("token", "rotate", *where, *options, **environ)
        return "" if done.returncode == 0 else done.stderr

    kept = token.read_text()
    assert "Error: not authorized" in rotate(K3S_TOKEN="wrong")
    assert "token CA hash does not match" in rotate(K3S_TOKEN=f"K10{'a' * 64}::server:secret")
    assert "connection refused" in rotate("--server", "https://127.0.0.1:9")
    assert "no such file" in node.run("token", "rotate", "--data-dir", f"{tmp_path}/agent").stderr
    assert "Internal error occurred: token error ID" in rotate("--new-token", "abcdef.0123456789abcdef")
    says(node, "failed to normalize server token")
    assert token.read_text() == kept
    assert rotate(K3S_TOKEN=f"{prefix}::server:secret") == ""
    made = token.read_text().strip().removeprefix(f"{prefix}::server:")
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert node.ask("/v1-k3s/readyz", credentials="node:secret")[0] == 200, "the process keeps its own"
    assert node.ask("/v1-k3s/readyz", credentials=f"node:{made}")[0] == 401
    # Another server's passwd still has the old token, which no row of the datastore has any more.
    passwd = node.home / "data/server/cred/passwd"
    passwd.write_text(passwd.read_text().replace(made, "secret"))
    assert "Internal error occurred: token error ID" in rotate(K3S_TOKEN="secret")
    says(node, "bootstrap data already found and encrypted with different token")
    assert not token.read_text().endswith(f"{made}\n"), "it is written before the datastore is asked"
    node.stop()
    node.settings[node.settings.index("secret")] = made
    os.utime(passwd, (2**31, 2**31))
    node.start()
    says(node, f"{passwd} newer than datastore and could cause a cluster outage")
    node.stop()
    passwd.unlink()
    node.start()
    says(node, "k3s is up and running")
    node.stop()
    # One with another agent token starts once (pkg/daemons/control/deps: genUsers), and never again.
    node.start("--agent-token", "agents")
    ready(node, "s1")
    node.stop()
    os.utime(passwd, (2**31, 2**31))
    node.start("--agent-token", "agents")
    node_ends(node, "newer than datastore")


@patiently
def node_ends(node: Node, words: str) -> None:
    assert node.process
    assert node.process.poll() == 1
    assert words in node.journal.splitlines()[-1]


def test_readyz_listed_and_ready_are_three_conditions(tmp_path: Path) -> None:
    node = new_server(tmp_path / "s", "--token", "secret")
    node.start(**{f"K3S_STANDIN_{name}_DELAY": "4" for name in ("START", "NODE", "READY")})
    seen: list[tuple[str, str]] = []
    while not seen or seen[-1] != ("ok", "Ready"):
        assert node.process
        assert node.process.poll() is None
        answer = node.kubectl("get", "--raw", "/readyz")
        listed = node.kubectl("get", "node", "s1", "--no-headers").stdout.split()[1:2]
        now = (answer.stdout or answer.stderr.strip(), listed[0] if listed else "")
        if not seen or seen[-1] != now:
            seen.append(now)
    node.stop()
    assert seen[-3:] == [("ok", ""), ("ok", "NotReady"), ("ok", "Ready")]
    assert ("Error from server (ServiceUnavailable): apiserver not ready", "") in seen


def test_certificates_are_rotated_with_a_copy_of_the_old_ones(tmp_path: Path) -> None:
    node = new_server(tmp_path / "s", "--token", "secret")
    node.start()
    says(node, "k3s is up and running")
    node.stop()
    tls = node.home / "data/server/tls"
    before = {path.name: path.read_bytes() for path in tls.glob("*.crt")}
    assert node.run("certificate", "rotate", "--data-dir", f"{node.home}/data").returncode == 0
    assert not (tls / "client-admin.crt").exists()
    assert len(list(tls.parent.glob("tls-*/client-admin.crt"))) == 1
    (node.home / "journal").write_text("")
    node.start()
    ready(node, "s1")
    assert (tls / "client-admin.crt").read_bytes() != before["client-admin.crt"]
    assert (tls / "server-ca.crt").read_bytes() == before["server-ca.crt"]
    assert "service x is not recognized" in node.run("certificate", "rotate", "--service", "x").stderr
    node.stop()


def test_a_kubelet_that_refuses_its_labels_ends_the_server(tmp_path: Path) -> None:
    node = new_server(tmp_path / "s", "--token", "secret", "--node-label=node-role.kubernetes.io/worker=true")
    node.start()
    says(node, "k3s is up and running")
    says(node, "Shutdown request received: kubelet exited: failed to validate kubelet flags")
    says(
        node,
        "unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [node-role.kubernetes.io/worker]",
    )
    assert node.process
    assert node.process.wait(20) == 0


def test_cluster_init_without_an_endpoint_leaves_etcd_files(tmp_path: Path) -> None:
    node = new_server(tmp_path / "s", "--token", "secret", "--cluster-init")
    node.start()
    says(node, "k3s is up and running")
    assert (node.home / "data/server/db/etcd/member/wal").is_dir()
    assert node.stop() == 0


def test_objects_are_watched_listed_and_deleted_together(server: Node) -> None:
    context = kubeconfig_probe.access(server.home / "etc" / "k3s" / "k3s.yaml").context

    def call(method: str, path: str, body: object = None) -> dict[str, Any]:
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=20, context=context)
        connection.request(method, path, json.dumps(body) if body else None)
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    call("POST", "/api/v1/namespaces", {"metadata": {"name": "watched"}})
    path = "/api/v1/namespaces/watched/configmaps"
    since = call("GET", path)["metadata"]["resourceVersion"]
    watching = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=20, context=context)
    watching.request("GET", f"{path}?watch=true&labelSelector=of%3Dtest&timeoutSeconds=20&resourceVersion={since}")
    events = watching.getresponse()
    for name, labels in (("other", {}), ("one", {"of": "test"})):
        assert call("POST", path, {"metadata": {"name": name, "labels": labels}})["kind"] == "ConfigMap"
    added = json.loads(events.readline())
    assert (added["type"], added["object"]["metadata"]["name"]) == ("ADDED", "one")
    assert call("DELETE", f"{path}?labelSelector=of%3Dtest")["kind"] == "ConfigMapList"
    assert json.loads(events.readline())["type"] == "DELETED"
    watching.close()
    assert [one["metadata"]["name"] for one in call("GET", path)["items"]] == ["other"]
    call("DELETE", "/api/v1/namespaces/watched")
    call("POST", "/api/v1/namespaces", {"metadata": {"name": "watched"}})
    assert call("GET", path)["items"] == []
