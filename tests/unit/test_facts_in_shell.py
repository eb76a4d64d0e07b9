"""Functions of facts in a real shell, on files that this machine does not have."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nornir_k3s import facts, shell
from nornir_k3s.records import SAY


def lines(source: str, call: str, *arguments: object, path: str = os.environ["PATH"]) -> list[str]:
    script = SAY + shell.source(f"facts/{source}.sh") + shell.call(call, *arguments)
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env={"PATH": path})
    return done.stdout.splitlines()


def test_name_servers_stand_at_the_beginning_of_a_line(tmp_path: Path) -> None:
    etc, empty = tmp_path / "etc", tmp_path / "empty"
    etc.write_text("# nameserver 1.1.1.1\n nameserver 2.2.2.2\nnameserver\t10.0.0.2 # own\nnameserver fe80::1%eth0\n")
    empty.write_text("search example.org\n")
    assert lines("network", "fact_nameservers", etc, empty, tmp_path / "none") == [
        f"@nameservers\t{etc}\t10.0.0.2",
        f"@nameservers\t{etc}\tfe80::1%eth0",
        f"@nameservers\t{empty}\t",
        f"@nameservers\t{tmp_path}/none\t",
    ]


@pytest.mark.parametrize(
    ("module", "files", "modprobe", "state"),
    [
        ("overlay", {"proc/filesystems": "nodev\toverlay\n"}, "exit 1", "yes"),
        ("overlay", {}, "exit 1", "unknown"),  # a container: its machine's kernel loads file systems by itself
        ("br_netfilter", {}, "exit 0", "no"),  # nothing can be loaded from there
        ("br_netfilter", {"proc/sys/net/bridge/bridge-nf-call-iptables": "1\n"}, "exit 1", "yes"),
        ("br_netfilter", {"sys/module/br_netfilter/x": ""}, "exit 1", "yes"),
        ("br_netfilter", {"MODULES/x": ""}, "echo insmod /lib/modules/6.1/br_netfilter.ko", "yes"),
        ("br_netfilter", {"MODULES/x": ""}, "exit 1", "no"),
        ("br_netfilter", {"MODULES/x": ""}, "echo install /bin/false", "disabled"),
        ("br_netfilter", {"MODULES/x": "", "proc/sys/kernel/modules_disabled": "1\n"}, "echo insmod x", "no"),
    ],
)
def test_whether_a_module_is_there_or_can_be_loaded(
    tmp_path: Path, module: str, files: dict[str, str], modprobe: str, state: str
) -> None:
    program = tmp_path / "bin/modprobe"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{modprobe}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    for name, text in files.items():
        path = tmp_path / "root" / name.replace("MODULES", f"lib/modules/{os.uname().release}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    search = f"{program.parent}:{os.environ['PATH']}"
    assert lines("kernel", "module_state", module, tmp_path / "root", path=search) == [state]


def test_units_of_other_installations_are_found_wherever_they_are(tmp_path: Path) -> None:
    etc, usr = tmp_path / "etc", tmp_path / "usr"
    for folder in (etc, usr):
        folder.mkdir()
    (etc / "k3s.service").write_text("")
    (etc / "k3s-lab.service").write_text("[Service]\nExecStart=/usr/local/bin/k3s \\\n    server \\\n")
    (etc / "k3s-own.service").write_text("[Service]\nExecStart=/bin/sh -c 'exec k3s server --debug'\n")
    (etc / "k3s-backup.service").write_text("[Service]\nExecStart=/usr/bin/k3s-backup.sh\n")
    (usr / "rke2-server.service").write_text("")
    found = [f"@foreign_units\t{name}.service" for name in ("k3s-lab", "k3s-own", "rke2-server")]
    assert lines("units", "fact_foreign_units", tmp_path, etc, usr) == ["@foreign_units\tk3s.service", *found]
    (tmp_path / "installed").write_text("server 0")
    assert lines("units", "fact_foreign_units", tmp_path, etc, usr) == found


def test_names_are_resolved_as_the_host_does() -> None:
    found = lines("network", "fact_names", "localhost", "no-such-name.invalid")
    assert found[0].split("\t")[:2] == ["@names", "localhost"]
    assert {"127.0.0.1", "::1"} & set(found[0].split("\t")[2].split())
    assert found[1] == "@names\tno-such-name.invalid\t"


def test_frontends_and_vips_of_others_are_named_and_ours_are_not(tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text("global\n  log x\nfrontend www # people\n  bind :80\nlisten stats\n#frontend old\nbackend b\n")
    keepalived = tmp_path / "keepalived.conf"
    keepalived.write_text("vrrp_instance VI_1 {\n virtual_ipaddress {\n }\n}\n")
    want = ["@others\thaproxy\tfrontend www", "@others\thaproxy\tlisten stats"]
    assert lines("others", "sections", "haproxy", "frontend|listen", config, tmp_path / "no") == want
    found = lines("others", "sections", "keepalived", "vrrp_instance", keepalived)
    assert found == ["@others\tkeepalived\tvrrp_instance VI_1"]


def test_databases_of_others_are_named_unless_we_installed_the_service(tmp_path: Path) -> None:
    program = tmp_path / "bin/mariadb"
    program.parent.mkdir()
    program.write_text("""#!/bin/sh
case $* in
  *DATABASES*) printf '%s\\n' information_schema mysql performance_schema sys k3s shop ;;
  *) printf '%s\\n' root@localhost mariadb.sys@localhost mysql@localhost k3s_0a1b2c3d@10.0.0.1 k3s_x@10.0.0.1 shop@% ;;
esac
""")
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    call = (
        "others",
        "fact_others",
        tmp_path,
        "mariadb",
        "k3s",
        "mariadb-server",
        "mariadb.service",
        "k3s",
        "/etc/mysql",
    )
    others = [f"@others\tmariadb\t{one}" for one in ("database shop", "user k3s_x@10.0.0.1", "user shop@%")]
    assert lines(*call, path=path) == others
    (tmp_path / "files").write_text("/etc/rancher/k3s/config.yaml\n")  # of another role of this host
    assert lines(*call, path=path) == others
    (tmp_path / "packages").write_text("mariadb-server\n")  # a run was killed after it had installed it
    assert lines(*call, path=path) == []
    (tmp_path / "packages").unlink()
    (tmp_path / "files").write_text("/etc/mysql/mariadb.conf.d/90-nornir-k3s.cnf\n")
    assert lines(*call, path=path) == []


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str, str], str]:
    """Put a program into a folder, and return a PATH that begins with it."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def put(name: str, text: str) -> str:
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
        return f"{folder}:{os.environ['PATH']}"

    return put


@pytest.mark.parametrize(
    ("kind", "client"), [("mariadb", "mariadb"), ("mysql", "mysql"), ("postgresql", "psql"), ("postgresql", "runuser")]
)
@pytest.mark.parametrize("running", [True, False])
def test_a_database_that_lets_nobody_look_is_not_taken_for_an_empty_one(
    program: Callable[[str, str], str], tmp_path: Path, kind: str, client: str, running: bool
) -> None:
    program("systemctl", "exit 0" if running else "exit 3")
    program("psql", "exit 2")
    path = program(client, "echo 'ERROR 1045 (28000): Access denied' >&2; exit 1")
    found = lines("others", "fact_others", tmp_path, kind, "k3s", "", "", "k3s", "/etc/x", path=path)
    assert found == ([f"@others\t{kind}\tdatabases that only its own users may list"] if running else [])


def test_databases_of_mysql_count_where_mariadb_is_wanted(program: Callable[[str, str], str], tmp_path: Path) -> None:
    path = program("mysql", "case $* in *DATABASES*) printf '%s\\n' information_schema mysql shop ;; esac")
    call = ("others", "fact_others", tmp_path, "mariadb", "k3s", "", "", "k3s", "/etc/mysql")
    assert lines(*call, path=path) == ["@others\tmysql\tdatabase shop"]


def test_what_a_restore_has_kept_of_an_etcd_is_named(program: Callable[[str, str], str], tmp_path: Path) -> None:
    path = program("systemctl", "exit 3")
    folder = tmp_path / "etcd"
    call = ("database", "fact_database_etcd", "https://10.0.0.1:2379", "/etc/x", folder)
    assert lines(*call, path=path) == ["@database\tdata\tno\t"]
    for name in ("etcd", "etcd.old_0a1b2c3d", "etcd.old_4e5f6071", "etcd.verify"):
        (tmp_path / name / "member").mkdir(parents=True)
    kept = [f"@database\taside\t{folder}.old_{number}\tfolder" for number in ("0a1b2c3d", "4e5f6071")]
    assert lines(*call, path=path) == ["@database\tdata\tyes\t", *kept]


@pytest.mark.parametrize("separator", [":", ": "])
def test_the_certificate_of_k3s_port_is_read_and_its_key_is_not(tmp_path: Path, separator: str) -> None:
    secret = tmp_path / "dynamic-cert.json"
    secret.write_text(f'{{"kind":"Secret","data"{separator}{{"tls.crt"{separator}"UEVN","tls.key"{separator}"S0VZ"}}}}')
    (found,) = lines("k3s_node", "fact_certificates", secret, tmp_path / "none.json")
    assert found == f"@certificates\t{secret}\tUEVN\t{int(secret.stat().st_mtime)}"


@pytest.mark.parametrize("how", ["'--token-file' \\\n\t'/PATH'", "--token-file=/PATH", "K3S_TOKEN_FILE=/PATH"])
def test_a_token_file_is_read_whatever_names_it(tmp_path: Path, how: str) -> None:
    token = tmp_path / "token"
    token.write_text("hush\n")
    named = tmp_path / "unit"
    named.write_text(f"ExecStart=k3s server {how.replace('/PATH', str(token))} --debug\n")
    kind, path, text = lines("k3s_installed", "installation_tokens", "held", named)[0].split("\t")[1:]
    assert (kind, path, text) == ("token", str(token), "aHVzaAo=")


def test_a_k3s_of_ours_is_read_where_others_have_added_settings(
    program: Callable[[str, str], str], tmp_path: Path
) -> None:
    etc = tmp_path / "etc"
    unit = etc / "systemd/system/k3s.service"
    unit.parent.mkdir(parents=True)
    ours = "[Service]\nExecStart=/usr/local/bin/k3s \\\n    server \\\n\n"
    unit.write_text(ours)
    (etc / "rancher/k3s/config.yaml.d").mkdir(parents=True)
    cat = f'echo "# {unit}"; cat {unit}'
    show = f"case $1 in list-unit-files) echo k3s.service enabled ;; cat) {cat} ;; show) ;; *) echo active ;; esac"
    path = program("systemctl", show)
    (tmp_path / "installed").write_text("server x")

    def read() -> list[str]:
        text = SAY + shell.source("facts/k3s_installed.sh").replace("/etc/", f"{etc}/")
        call = shell.call("fact_installations", tmp_path, "others", "server")
        done = subprocess.run(["sh", "-c", text + call], capture_output=True, text=True, check=True, env={"PATH": path})
        return done.stdout.splitlines()

    assert read() == [], "its settings are known"
    unit.write_text(ours.replace("    server", "    server \\\n\t'--debug'"))
    assert read()[0].startswith("@installations\tunit\tk3s.service\tactive\tactive\tyes\t")
    assert f"@installations\tchanged\t{int(unit.stat().st_ctime)}\t" in read()
    unit.write_text(ours)
    (etc / "rancher/k3s/config.yaml.d/x.yaml").write_text("debug: true\n")
    assert f"@installations\tsettings\t{etc}/rancher/k3s/config.yaml.d/x.yaml\tZGVidWc6IHRydWUK" in read()
    (tmp_path / "installed").unlink()
    unit.unlink()  # uninstalled by hand: drop-ins stay
    (etc / "systemd/system/k3s.service.d").mkdir()
    (etc / "systemd/system/k3s.service.d/a.conf").write_text("[Service]\nEnvironment=K3S_TOKEN=x\n")
    program("systemctl", "exit 0")
    (found,) = facts.parse("s1", "\n".join(read()).replace(str(tmp_path), "") + "\n", whole=False).installations
    origins = {key: one.origin for key, one in found.settings.items()}
    assert origins == {
        "debug": "/etc/rancher/k3s/config.yaml.d/x.yaml",
        "token": f"Environment= of {etc}/systemd/system/k3s.service.d/a.conf",
    }
