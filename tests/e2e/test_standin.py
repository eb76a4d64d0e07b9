"""The stand-in for K3s as a file on hosts: installer, unit, real datastores over TLS, faults on the way.

What real K3s was seen to do on such hosts is held against it elsewhere; these tests are about the stand-in alone, and
are skipped when a real release is given.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from build import build
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from nornir_k3s_lab import Lab

STANDIN = Path(__file__).resolve().parents[1] / "standin"

pytestmark = [
    pytest.mark.skipif("K3S_BUNDLE" in os.environ, reason="a real release is tested"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
    pytest.mark.timeout(900),
]

NAME = f"k{os.getpid()}"
PREFIX = f"10.{185 + os.getpid() % 60}.{os.getpid() // 60 % 250}"
DB, S1, S2, A1 = (f"{PREFIX}.{number}" for number in (11, 12, 13, 14))
MYSQL = f"mysql://k3s:pa:ss@w/rd@tcp({DB}:3306)/k3s"
POSTGRES = f"postgres://k3s:p%40ss%2Fw%3Ard%25%23@{DB}:5432/k3s"
TOKEN = "a-token-for-the-stand-in"
TLS = "/etc/dbtls"

DATASTORES = rf"""set -e
export DEBIAN_FRONTEND=noninteractive
mkdir -p {TLS}; cd {TLS}
key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
for name in ca other; do openssl req -x509 $key -keyout $name.key -out $name.crt -subj /CN=$name; done
sign() {{
  echo "$2" >extension
  openssl req $key -keyout "$1.key" -subj "/CN=$1" -out "$1.csr"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -out "$1.crt" -extfile extension
}}
sign server subjectAltName=IP:{DB}
sign client extendedKeyUsage=clientAuth
chmod 644 *; chmod 755 .
apt-get -q update; apt-get -qy install mariadb-server postgresql etcd-server
printf '[mariadb]\nbind-address=0.0.0.0\nssl_cert={TLS}/server.crt\nssl_key={TLS}/server.key\nssl_ca={TLS}/ca.crt\n' \
  >/etc/mysql/mariadb.conf.d/99-lab.cnf
systemctl restart mariadb
mariadb -e "CREATE DATABASE k3s; CREATE USER k3s IDENTIFIED BY 'pa:ss@w/rd'; GRANT ALL ON k3s.* TO k3s"
install -o postgres -m 600 server.key server.crt /var/lib/postgresql/
cd /etc/postgresql/*/main
echo "listen_addresses = '*'" >>postgresql.conf
echo "ssl_cert_file = '/var/lib/postgresql/server.crt'" >>postgresql.conf
echo "ssl_key_file = '/var/lib/postgresql/server.key'" >>postgresql.conf
echo 'hostssl k3s k3s {PREFIX}.0/24 scram-sha-256' >>pg_hba.conf
systemctl restart postgresql
cd /; su postgres -c psql <<'SQL'
CREATE USER k3s PASSWORD 'p@ss/w:rd%#';
CREATE DATABASE k3s OWNER k3s;
SQL
systemctl stop etcd
cat >/etc/default/etcd <<END
ETCD_LISTEN_CLIENT_URLS=https://0.0.0.0:2379
ETCD_ADVERTISE_CLIENT_URLS=https://{DB}:2379
ETCD_CERT_FILE={TLS}/server.crt
ETCD_KEY_FILE={TLS}/server.key
ETCD_TRUSTED_CA_FILE={TLS}/ca.crt
ETCD_CLIENT_CERT_AUTH=true
END
systemctl start etcd
"""

patiently = retry(
    stop=stop_after_delay(180), wait=wait_fixed(0.3), retry=retry_if_exception_type(AssertionError), reraise=True
)


@dataclass
class Host:
    """One host, and what tests do on it."""

    lab: Lab
    name: str
    since: str = "0"  # what is older counts no more: seconds of the epoch

    def sh(self, script: str, *, check: bool = True, timeout: float = 120) -> str:
        done = self.lab.exec(self.name, ["sh", "-s"], input=script, check=check, timeout=timeout)
        return done.stdout + ("" if check else done.stderr)

    def put(self, path: Path, target: str) -> None:
        script = f"cat >{target}.new && chmod 755 {target}.new && mv {target}.new {target}"
        command = self.lab.command(self.name, ["sh", "-c", script])
        subprocess.run(command, input=path.read_bytes(), check=True, timeout=60)

    def configure(self, settings: dict[str, Any], role: str = "server", **environ: str) -> str:
        text = yaml.safe_dump(settings)
        variables = " ".join(f"{key}={value}" for key, value in environ.items())
        return self.sh(
            "mkdir -p -m 755 /etc/rancher/k3s\n"
            f"(umask 077; cat >/etc/rancher/k3s/config.yaml <<'END'\n{text}END\n)\n"
            f"INSTALL_K3S_SKIP_DOWNLOAD=true INSTALL_K3S_SKIP_START=true INSTALL_K3S_EXEC={role} {variables}"
            " sh /usr/local/bin/install.sh 2>&1"
        )

    def journal(self, unit: str = "k3s") -> str:
        return self.sh(f"journalctl -u {unit} -o cat --no-pager --since @{self.since}").replace('\\"', '"')

    def from_now_on(self) -> None:
        """Take no notice of what the journal says of earlier."""
        self.since = self.sh("date +%s.%N").strip()

    def begin(self, unit: str = "k3s") -> int:
        """Start the unit, which is stopped, and return when: in whole seconds of the epoch, as nodes tell times."""
        return int(self.sh(f"date +%s; systemctl start {unit}").split()[0])

    def forget(self, unit: str = "k3s") -> None:
        """Stop the unit and remove its data and its settings; its journal counts no more."""
        self.sh(
            f"systemctl kill -s KILL {unit} 2>/dev/null; systemctl stop {unit} 2>/dev/null\n"
            f"systemctl reset-failed {unit} 2>/dev/null; rm -rf /etc/rancher /etc/default/k3s\n"
            "rm -rf /var/lib/rancher/k3s/server /var/lib/rancher/k3s/agent\n",
            check=False,
        )
        self.from_now_on()

    @patiently
    def says(self, words: str, unit: str = "k3s") -> None:
        journal = self.journal(unit)
        assert words in journal, journal[-3000:]

    @patiently
    def sees_ready(self, *names: str, since: float = 0) -> None:
        """These nodes are Ready, as their kubelets have said since then: the word of an earlier start stays."""
        text = self.sh("k3s kubectl get nodes -o json 2>/dev/null || echo '{\"items\": []}'")
        said = {
            node["metadata"]["name"]: (one["status"], datetime.fromisoformat(one["lastHeartbeatTime"]).timestamp())
            for node in json.loads(text)["items"]
            for one in node.get("status", {}).get("conditions", [])
            if one["type"] == "Ready"
        }
        assert {name for name, (status, at) in said.items() if status == "True" and at >= since} >= set(names), said


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[dict[str, Host]]:
    folder = tmp_path_factory.mktemp("standin")
    (folder / "inventory").mkdir()
    names = {"host_file": "hosts.yaml", "group_file": "groups.yaml", "defaults_file": "defaults.yaml"}
    options = {option: f"inventory/{name}" for option, name in names.items()}
    settings = {"inventory": {"options": options}, "user_defined": {"lab": {"name": NAME, "network": f"{PREFIX}.0/24"}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    addresses = {"db": DB, "s1": S1, "s2": S2, "a1": A1}
    inventory = {name: {"hostname": address, "username": "root"} for name, address in addresses.items()}
    (folder / "inventory" / "hosts.yaml").write_text(yaml.safe_dump(inventory))
    lab = Lab.from_inventory(folder / "config.yaml")
    try:
        lab.up()
        found = {name: Host(lab, name) for name in inventory}
        for name in ("s1", "s2", "a1"):
            found[name].put(bundle / "k3s", "/usr/local/bin/k3s")
            found[name].put(bundle / "install.sh", "/usr/local/bin/install.sh")
        found["db"].sh(DATASTORES, timeout=300)
        ca = found["db"].sh(f"cd {TLS} && tar cf - ca.crt other.crt client.crt client.key | base64 -w0")
        for name in ("s1", "s2"):
            found[name].sh(f"mkdir -p {TLS} && echo {ca} | base64 -d | tar xf - -C {TLS}")
        yield found
    finally:
        lab.down()


def server(**more: Any) -> dict[str, Any]:
    return {"token": TOKEN, "datastore-endpoint": MYSQL, "tls-san": [f"{PREFIX}.100"], **more}


# -- the file and the installer ------------------------------------------------------------------------------------


def test_another_version_is_another_file_and_takes_no_time(bundle: Path, tmp_path: Path) -> None:
    begin = time.monotonic()
    other = build(tmp_path, version="v1.35.1+k3s1")
    assert time.monotonic() - begin < 5, "the cache was not used"
    sums = {hashlib.sha256((folder / "k3s").read_bytes()).hexdigest() for folder in (bundle, other)}
    assert len(sums) == 2
    said = [subprocess.check_output([folder / "k3s", "--version"], text=True) for folder in (bundle, other)]
    assert [text.split()[2] for text in said] == ["v1.34.9+k3s1", "v1.35.1+k3s1"]


def test_the_installer_says_no_in_the_contract_s_words(hosts: dict[str, Host]) -> None:
    host = hosts["a1"]
    for variables, words in (
        ("", "[ERROR]  Download failed"),
        ("K3S_URL=http://x", "Only https:// URLs are supported for K3S_URL (have http://x)"),
        ("K3S_URL=https://x", "Defaulted k3s exec command to 'agent' because K3S_URL is defined, but K3S_TOKEN"),
        (
            "INSTALL_K3S_SKIP_DOWNLOAD=true INSTALL_K3S_BIN_DIR=/opt",
            "[ERROR]  Executable k3s binary not found at /opt/k3s",
        ),
    ):
        said = host.sh(f"{variables} sh /usr/local/bin/install.sh; echo status $?", check=False)
        assert words in said
        assert "status 1" in said
    assert host.sh("ls /etc/systemd/system/k3s* 2>/dev/null; :") == ""


def test_the_installer_keeps_the_contract(hosts: dict[str, Host]) -> None:
    host = hosts["a1"]
    install = "INSTALL_K3S_SKIP_DOWNLOAD=true {} sh /usr/local/bin/install.sh {} 2>&1"
    said = host.sh(
        install.format("INSTALL_K3S_SKIP_START=true K3S_TOKEN='a b' HTTPS_PROXY=p", "server --node-label 'x=y z'")
    )
    assert "[INFO]  systemd: Enabling k3s unit" in said
    unit = host.sh("cat /etc/systemd/system/k3s.service; systemctl cat k3s >/dev/null && systemctl is-enabled k3s")
    assert "ExecStart=/usr/local/bin/k3s \\\n    server \\\n\t'--node-label' \\\n\t'x=y z' \\\n" in unit
    for line in ("Type=notify", "KillMode=process", "TimeoutStartSec=0", "Restart=always", "RestartSec=5s"):
        assert f"\n{line}\n" in unit
    assert "EnvironmentFile=-/etc/default/%N\nEnvironmentFile=-/etc/sysconfig/%N\n" in unit
    assert unit.endswith("enabled\n")
    environment = host.sh("cat /etc/systemd/system/k3s.service.env; stat -c %a /etc/systemd/system/k3s.service.env")
    assert "K3S_TOKEN='a b'\nHTTPS_PROXY='p'\n600\n" in environment
    host.sh(install.format("INSTALL_K3S_SKIP_START=true", ""))
    assert host.sh("cat /etc/systemd/system/k3s.service.env") == "", "a second run forgets what it is not given again"
    skipped = host.sh(install.format("", ""))
    assert "[INFO]  No change detected so skipping service start" in skipped
    host.sh("cp /usr/local/bin/k3s /root/; echo >>/usr/local/bin/k3s")
    assert "skipping service start" in host.sh(install.format("", "")), "the binary was new before the installer looked"
    disabled = host.sh(
        install.format("INSTALL_K3S_SKIP_ENABLE=true", "") + "; systemctl is-enabled k3s; :", check=False
    )
    assert "disabled" in disabled
    links = host.sh("cd /usr/local/bin && readlink kubectl crictl ctr; ls *.sh")
    assert links.split() == ["k3s", "k3s", "k3s", "install.sh", "k3s-killall.sh", "k3s-uninstall.sh"]
    host.sh("mkdir -p /etc/rancher/k3s /etc/rancher/node; touch /etc/rancher/node/password")
    host.sh("k3s-uninstall.sh 2>&1")
    left = host.sh(
        "ls -d /etc/rancher/* /etc/systemd/system/k3s* /usr/local/bin/k3s* /var/lib/rancher/k3s; :", check=False
    )
    assert [line for line in left.splitlines() if "No such" not in line] == ["/etc/rancher/node"]
    host.sh("mv /root/k3s /usr/local/bin/k3s; rm -rf /etc/rancher")


# -- servers that agree through the datastore alone ------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(hosts: dict[str, Host]) -> dict[str, Host]:
    """Two servers and an agent on MariaDB."""
    for name in ("s1", "s2"):
        hosts[name].forget()
        hosts[name].configure(server())
    since = hosts["s1"].begin()
    hosts["s1"].sees_ready("s1", since=since)
    hosts["s2"].begin()
    hosts["s2"].sees_ready("s1", "s2", since=since)
    hosts["a1"].forget("k3s-agent")
    hosts["a1"].configure({"token": TOKEN, "server": f"https://{S1}:6443"}, "agent")
    hosts["a1"].begin("k3s-agent")
    hosts["s1"].sees_ready("s1", "s2", "a1", since=since)
    return hosts


def test_the_process_is_the_unit_s_and_shows_no_arguments(cluster: dict[str, Host]) -> None:
    said = cluster["s1"].sh("ps -o args= -p $(systemctl show -p MainPID --value k3s); ss -lntpH")
    assert said.splitlines()[0].strip() == "/usr/local/bin/k3s server"
    listening = {line.split()[3] for line in said.splitlines()[1:] if "k3s-server" in line}
    assert listening == {"*:6443", "127.0.0.1:6444", "0.0.0.0:10250"}


def test_all_servers_have_the_same_ca_certificate_and_nodes(cluster: dict[str, Host]) -> None:
    ca = "sha256sum </var/lib/rancher/k3s/server/tls/server-ca.key; cat /var/lib/rancher/k3s/server/token"
    assert cluster["s1"].sh(ca) == cluster["s2"].sh(ca)

    @patiently
    def same() -> None:
        ask = (
            "openssl s_client -connect {}:6443 </dev/null 2>/dev/null | openssl x509 -noout -serial -ext subjectAltName"
        )
        one, two = (cluster["db"].sh(ask.format(address)) for address in (S1, S2))
        assert one == two
        for name in (S1, S2, f"{PREFIX}.100", "127.0.0.1"):
            assert f"IP Address:{name}" in one

    same()
    assert cluster["s1"].sh("cat /var/lib/rancher/k3s/agent/etc/k3s-agent-load-balancer.json; :", check=False)


@patiently
def knows_all_servers(agent: Host) -> None:
    known = agent.sh("cat /var/lib/rancher/k3s/agent/etc/k3s-agent-load-balancer.json")
    assert f"{S1}:6443" in known
    assert f"{S2}:6443" in known


def test_a_server_away_is_dropped_from_the_list_and_its_node_gets_unready(cluster: dict[str, Host]) -> None:
    knows_all_servers(cluster["a1"])  # otherwise there is nothing to drop
    try:
        cluster["s2"].sh("systemctl stop k3s")
        known = "cat /var/lib/rancher/k3s/agent/etc/k3s-agent-load-balancer.json"

        @patiently
        def dropped() -> None:
            assert f"{S2}:6443" not in cluster["a1"].sh(known)

        dropped()
        assert f"{S1}:6443" in cluster["a1"].sh(known)

        @patiently
        def unready() -> None:
            lines = cluster["s1"].sh("k3s kubectl get nodes --no-headers").splitlines()
            assert {line.split()[0]: line.split()[1] for line in lines} == {
                "a1": "Ready",
                "s1": "Ready",
                "s2": "NotReady",
            }

        unready()
        taint = "k3s kubectl get node s2 -o 'jsonpath={.spec.taints[*].key}{\" \"}{.status.conditions[3].status}'"

        @patiently
        def tainted() -> None:
            said = cluster["s1"].sh(taint).split()
            assert said[-1] == "Unknown"
            assert "node.kubernetes.io/unreachable" in said

        tainted()
    finally:
        since = cluster["s2"].begin()
    cluster["s1"].sees_ready("s2", since=since)
    knows_all_servers(cluster["a1"])


def test_an_agent_outlives_its_registration_address(cluster: dict[str, Host]) -> None:
    knows_all_servers(cluster["a1"])  # otherwise it has no server left to ask
    cluster["s1"].sh("systemctl stop k3s")
    try:
        cluster["a1"].sh("systemctl stop k3s-agent")
        cluster["s2"].sees_ready("a1", since=cluster["a1"].begin("k3s-agent"))
    finally:
        since = cluster["s1"].begin()
    cluster["s1"].sees_ready("s1", since=since)
    cluster["s1"].sees_ready("s2", "a1")


def test_an_agent_that_cannot_reach_every_server_directly_stays_unready(cluster: dict[str, Host]) -> None:
    agent = cluster["a1"]
    agent.sh(f"systemctl stop k3s-agent; ip route add unreachable {S2}")
    try:
        agent.from_now_on()
        since = agent.begin("k3s-agent")
        agent.says(f'msg="Remotedialer proxy error; reconnecting..." error="dial tcp {S2}:6443: ', "k3s-agent")

        @patiently
        def unready() -> None:
            message = "k3s kubectl get node a1 -o 'jsonpath={.status.conditions[?(@.type==\"Ready\")].message}'"
            assert f"no tunnel to server {S2}:6443" in cluster["s1"].sh(message)

        unready()
    finally:
        agent.sh(f"ip route del unreachable {S2}")
    cluster["s1"].sees_ready("a1", since=since)


def test_readyz_tells_that_the_datastore_is_away_and_a_short_time_kills_no_one(cluster: dict[str, Host]) -> None:
    restarts = "systemctl show -p NRestarts,MainPID k3s"
    before = [cluster[name].sh(restarts) for name in ("s1", "s2")]
    cluster["db"].sh("systemctl stop mariadb")

    @patiently
    def told() -> None:
        said = cluster["s1"].sh("k3s kubectl get --raw /readyz; curl -sk https://127.0.0.1:6443/ping", check=False)
        assert "[-]etcd failed: reason withheld" in said
        assert "readyz check failed" in said
        assert "pong" in said

    try:
        told()
    finally:
        cluster["db"].sh("systemctl start mariadb")

    @patiently
    def ready() -> None:
        assert cluster["s1"].sh("k3s kubectl get --raw /readyz", check=False) == "ok"

    ready()
    assert [cluster[name].sh(restarts) for name in ("s1", "s2")] == before


def test_the_server_that_leads_ends_when_the_datastore_does_not_answer(cluster: dict[str, Host]) -> None:
    for name in ("s1", "s2"):
        cluster[name].from_now_on()
    cluster["db"].sh("systemctl kill -s STOP mariadb")

    @patiently
    def lost() -> None:
        said = [cluster[name].journal() for name in ("s1", "s2")]
        assert any('level=fatal msg="leaderelection lost for k3s"' in one for one in said)
        assert any("Main process exited, code=exited, status=1/FAILURE" in one for one in said)

    try:
        lost()
        said = [cluster[name].journal().count("leaderelection lost") for name in ("s1", "s2")]
        assert sorted(said) == [0, 1], "a server that holds no lease lives on"
    finally:
        cluster["db"].sh("systemctl kill -s CONT mariadb")
    for name in ("s1", "s2"):
        cluster[name].sees_ready("s1", "s2", "a1")


def test_with_etcd_files_on_disk_the_endpoint_counts_for_nothing(cluster: dict[str, Host]) -> None:
    wal = "/var/lib/rancher/k3s/server/db/etcd/member/wal"
    cluster["s2"].sh(f"systemctl stop k3s; mkdir -p {wal}; rm -rf /var/lib/rancher/k3s/server/tls; systemctl start k3s")
    try:
        cluster["s2"].sees_ready("s2")
        listed = cluster["s2"].sh("k3s kubectl get nodes --no-headers").splitlines()
        assert [line.split()[0] for line in listed] == ["s2"], "it is in a cluster of its own"
    finally:
        cluster["s2"].sh("systemctl stop k3s; rm -rf /var/lib/rancher/k3s/server")
        since = cluster["s2"].begin()
    cluster["s2"].sees_ready("s2", since=since)
    cluster["s2"].sees_ready("s1")


def test_with_log_the_unit_is_up_at_once_and_the_journal_is_empty(cluster: dict[str, Host]) -> None:
    cluster["s2"].configure(server(log="/run/k3s.log"))
    try:
        cluster["s2"].sh("systemctl stop k3s; echo K3S_STANDIN_START_DELAY=60 >/etc/default/k3s")
        cluster["s2"].from_now_on()
        cluster["s2"].sh("timeout 50 systemctl start k3s")
        assert "level=" not in cluster["s2"].journal()

        @patiently
        def logged() -> None:
            assert "Starting k3s v1.34.9+k3s1" in cluster["s2"].sh("cat /run/k3s.log")

        logged()
    finally:
        cluster["s2"].sh("systemctl stop k3s; rm -f /etc/default/k3s /run/k3s.log")
        cluster["s2"].configure(server())
        since = cluster["s2"].begin()
    cluster["s2"].sees_ready("s2", since=since)
    cluster["s2"].sees_ready("s1")


def test_ready_listed_and_ready_node_are_three_conditions(cluster: dict[str, Host]) -> None:
    host = cluster["s2"]
    host.sh("systemctl stop k3s; k3s kubectl --server https://" + S1 + ":6443 delete node s2")
    seen: list[tuple[str, str, str]] = []
    begin = time.monotonic()
    try:
        host.sh("for w in START NODE READY; do echo K3S_STANDIN_${w}_DELAY=5; done >/etc/default/k3s")
        host.sh("systemctl start --no-block k3s")
        while (not seen or seen[-1] != ("active", "ok", "Ready")) and time.monotonic() - begin < 180:
            state = host.sh(
                "systemctl is-active k3s; echo .$(k3s kubectl get --raw /readyz 2>/dev/null)\n"
                "echo .$(k3s kubectl get node s2 --no-headers 2>/dev/null | tr -s ' ' | cut -d' ' -f2)",
                check=False,
            ).split()
            now = (state[0], state[1][1:], state[2][1:])
            if not seen or seen[-1] != now:
                seen.append(now)
    finally:
        host.sh("rm -f /etc/default/k3s")
    wanted = [("active", "ok", ""), ("active", "ok", "NotReady"), ("active", "ok", "Ready")]
    assert seen[-3:] == wanted
    assert seen[0][0] == "activating"


# -- datastores ----------------------------------------------------------------------------------------------------


FILES = {"datastore-cafile": f"{TLS}/ca.crt"}
CLIENT = {**FILES, "datastore-certfile": f"{TLS}/client.crt", "datastore-keyfile": f"{TLS}/client.key"}
GOOD = {
    "mysql, verified": {"datastore-endpoint": MYSQL, **FILES},
    "postgres, preferred": {"datastore-endpoint": POSTGRES},
    "postgres, verified": {"datastore-endpoint": POSTGRES, **FILES},
    "etcd, client certificate": {"datastore-endpoint": f"https://{DB}:2379", **CLIENT},
}
WRONG = {
    "mysql, other authority": (
        {"datastore-endpoint": MYSQL, "datastore-cafile": f"{TLS}/other.crt"},
        "auto-restart",
        "tls: failed to verify certificate: x509: certificate signed by unknown authority",
    ),
    "mysql, no database and no right to make one": (
        {"datastore-endpoint": MYSQL.removesuffix("k3s") + "other"},
        "auto-restart",
        "Error 1044 (42000): Access denied for user 'k3s'@'%' to database 'other'",
    ),
    "mysql, nobody there": (
        {"datastore-endpoint": f"mysql://k3s:x@tcp({PREFIX}.199:3306)/k3s"},
        "auto-restart",
        f"dial tcp {PREFIX}.199:3306: connect: no route to host",
    ),
    "postgres, wrong password": (
        {"datastore-endpoint": f"postgres://k3s:bad@{DB}:5432/k3s"},
        "start",
        'FATAL: password authentication failed for user "k3s" (SQLSTATE 28P01)',
    ),
    "postgres, raw password": (
        {"datastore-endpoint": f"postgres://k3s:p@ss/w:rd%#@{DB}:5432/k3s"},
        "auto-restart",
        "error parsing URL. Ensure that any embedded values such as username & password have been URL encoded",
    ),
    "postgres, no TLS where it is demanded": (
        {"datastore-endpoint": POSTGRES + "?sslmode=disable"},
        "start",
        "(SQLSTATE 28000)",
    ),
    "etcd, no certificate": (
        {"datastore-endpoint": f"https://{DB}:2379", **FILES},
        "start",
        "Failed to test etcd connection",
    ),
}


@pytest.fixture
def lone(hosts: dict[str, Host]) -> Iterator[Host]:
    """The second server, without anything of an earlier start."""
    hosts["s2"].forget()
    yield hosts["s2"]
    hosts["s2"].forget()


@pytest.mark.parametrize("case", GOOD)
def test_a_server_runs_on_each_datastore(lone: Host, case: str) -> None:
    lone.configure({"token": TOKEN, **GOOD[case]})
    lone.sees_ready("s2", since=lone.begin())


@pytest.mark.parametrize("case", WRONG)
def test_a_datastore_that_cannot_be_used_fails_as_its_driver_does(lone: Host, case: str) -> None:
    settings, state, words = WRONG[case]
    lone.configure({"token": TOKEN, **settings})
    lone.sh("systemctl start --no-block k3s")
    lone.says(words)
    check_state(lone, state)


@patiently
def check_state(host: Host, state: str) -> None:
    assert host.sh("systemctl show -p SubState --value k3s").strip() == state


def test_a_server_that_waits_for_postgres_does_not_hear_that_it_shall_end(lone: Host) -> None:
    lone.configure({"token": TOKEN, "datastore-endpoint": f"postgres://k3s:bad@{DB}:5432/k3s"})
    lone.sh("systemctl start --no-block k3s")
    lone.says("Failed to ping database connection")
    lone.from_now_on()
    lone.sh("systemctl stop --no-block k3s")
    # One that hears it is gone after three seconds.
    later = float(lone.since) + 6

    @patiently
    def goes_on() -> None:
        said = lone.sh(f"journalctl -u k3s -o cat --no-pager --since @{later:f}")
        assert "Failed to ping database connection" in said
        assert "deactivating" in lone.sh("systemctl is-active k3s", check=False)

    goes_on()


def test_a_lock_left_by_a_first_start_that_failed_is_taken_over(hosts: dict[str, Host], lone: Host) -> None:
    port = f"postgres://k3s:p%40ss%2Fw%3Ard%25%23@{DB}:5432/k3s"
    hosts["db"].sh("systemctl restart postgresql; su postgres -c \"psql k3s -c 'DROP TABLE IF EXISTS kine'\"")
    lone.configure({"token": TOKEN, "datastore-endpoint": port})
    lone.sh("systemd-run -q --unit=taker /usr/sbin/sshd -D -p 6443; systemctl start --no-block k3s")
    lone.says("failed to start supervisor listener: listen tcp :6443: bind: address already in use")
    lone.sh("systemctl stop taker")
    lone.says("Bootstrap key is locked - waiting for data to be populated by another server")
    lone.says("Bootstrap key lock timed out - deleting lock and retrying")
    lone.sees_ready("s2")
