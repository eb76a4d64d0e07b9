"""`nornir-k3s adopt` from its arguments to the files, with hosts that answer from here."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from nornir import InitNornir

from nornir_k3s import adopt
from nornir_k3s.cli import adopt as command
from nornir_k3s.cli import debug_log
from nornir_k3s.cli.main import main
from nornir_k3s.errors import HostsFailed, HostUnreachable, K3sError
from nornir_k3s.model.plan import Change, HostPlan, Plan
from nornir_k3s.plugins import loaded_inventory
from nornir_k3s.workflows import adopt as workflow

ENDPOINT = "mysql://k3s:s3cret@tcp(10.0.0.9:3306)/k3s"
ADDRESSES = {"n1": "10.0.0.1", "n2": "10.0.0.2", "n3": "10.0.0.3"}


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def answer(name: str, flags: str, *more: tuple[str, ...]) -> str:
    unit = "k3s.service" if flags.startswith("server") else "k3s-agent.service"
    system = ("system", "x86_64", "6", name, "m", "Debian", "systemd", "apt", "cgroup2fs", "1", "1", "1")
    text = encoded(f"[Service]\nExecStart=/usr/local/bin/k3s {flags}\n")
    records = [
        system,
        ("addresses", "eth0", f"{ADDRESSES[name]}/24"),
        ("installations", "unit", unit, "active", "enabled", "no", text),
        ("adoption", "version", "v1.34.9+k3s1"),
        *more,
    ]
    return "".join("\t".join(["@" + record[0], *record[1:]]) + "\n" for record in records) + "@end\n"


def answers() -> dict[str, str]:
    node = {"metadata": {"name": "n9", "labels": {"node-role.kubernetes.io/control-plane": "true"}}}
    listed = ("adoption", "nodes", encoded(json.dumps({"items": [node]})))
    token = ("adoption", "token", encoded(f"K10{'c' * 64}::server:hush"))
    flags = f"server --datastore-endpoint={ENDPOINT} --disable=traefik"
    return {
        "n1": answer("n1", flags, token, listed),
        "n2": answer("n2", f"{flags} --disable=servicelb", token),
        "n3": answer("n3", "agent --server https://10.0.0.100:6443"),
    }


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | K3sError]:
    """What hosts answer to the first script, by their names or addresses; files are not on them."""
    found: dict[str, str | K3sError] = dict(answers())
    names = {address: name for name, address in ADDRESSES.items()}

    def session(task: SimpleNamespace, *, deadline: float) -> SimpleNamespace:
        assert deadline

        def run(script: str, *, what: str, timeout: float) -> SimpleNamespace:
            assert what
            assert timeout
            one = found[names.get(task.host.name, task.host.name)]
            if isinstance(one, K3sError):
                raise one
            return SimpleNamespace(stdout="@end\n" if "adoption_host /" not in script else one)

        return SimpleNamespace(run=run)

    monkeypatch.setattr(workflow, "session", session)
    monkeypatch.setattr(debug_log, "start", lambda _: Path("log"))
    return found


def test_hosts_that_are_given_by_their_addresses(
    hosts: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hosts
    out = tmp_path / "new"
    words = [
        "adopt",
        "ops@10.0.0.1",
        "10.0.0.2:2222",
        "10.0.0.3",
        "--out",
        str(out),
        "--known-hosts",
        "kh",
        "--key-file",
        "k",
    ]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "hush" not in printed
    assert "s3cret" not in printed
    for line in (
        "  datastore: MariaDB or MySQL at 10.0.0.9:3306, database k3s",
        "  registration address: 10.0.0.100:6443: a load balancer or an address of others",
        "  n9: servers, no address, ",
        "  disable: n1: traefik; n2: traefik, servicelb. The inventory has traefik",
        "note: servers are missing: give them before you deploy, or their K3s keeps settings of its own",
        f"  {out / '.state/k3s/token'} (secret, 0600)",
        "next: nornir-k3s plan",
    ):
        assert line in printed, line
    written = yaml.safe_load((out / "inventory/hosts.yaml").read_text())
    assert written["n1"] == {"hostname": "10.0.0.1", "username": "ops", "groups": ["servers"]}
    assert written["n2"] == {"hostname": "10.0.0.2", "port": 2222, "groups": ["servers"]}
    defaults = yaml.safe_load((out / "inventory/defaults.yaml").read_text())
    assert defaults["username"] == "root"
    assert defaults["connection_options"]["netmiko"]["extras"]["alt_key_file"] == str(Path("kh").resolve())
    assert main(words) == 2
    assert "already there: " in capsys.readouterr().err
    assert main([*words, "--force"]) == 0
    capsys.readouterr()
    assert main([*words[:-6], "--out", str(tmp_path / "other"), "--plan"]) == 0
    assert "would be written:" in capsys.readouterr().out
    assert not (tmp_path / "other").exists()


def test_names_of_an_inventory_with_hosts_only(
    hosts: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hosts
    monkeypatch.setenv("SUDO", "pw")
    (tmp_path / "config.yaml").write_text(
        "inventory:\n  options: {host_file: hosts.yaml, group_file: groups.yaml, defaults_file: defaults.yaml}\n"
        "  transform_function: k3s_credentials\n"
    )
    (tmp_path / "hosts.yaml").write_text(
        "n1: {hostname: 10.0.0.1, groups: [g], data: {k3s_ssh: {sudo_password: {file: pw}}, k3s: {debug: true}}}\n"
        "n2: {hostname: 10.0.0.2, data: {rack: 7}}\nn3: {hostname: 10.0.0.3}\n"
    )
    (tmp_path / "pw").write_text("x")
    (tmp_path / "groups.yaml").write_text("g: {data: {zone: a, k3s: {debug: true}}}\n")
    (tmp_path / "defaults.yaml").write_text("username: ops\n")
    target = ["--config", str(tmp_path / "config.yaml"), "--name", "prod"]
    assert main(["adopt", *target]) == 2
    assert f"already there: {tmp_path / 'hosts.yaml'}" in capsys.readouterr().err
    assert main(["adopt", "n1", "n2", "n3", *target, "--force", "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cluster"] == "prod"
    assert told["hosts"]["n3"]["roles"] == ["agents"]
    written = yaml.safe_load((tmp_path / "hosts.yaml").read_text())
    assert written["n1"]["data"] == {"k3s_ssh": {"sudo_password": {"file": str(tmp_path / "pw")}}}
    assert written["n2"]["data"] == {"rack": 7}
    assert yaml.safe_load((tmp_path / "groups.yaml").read_text())["g"] == {"data": {"zone": "a"}}
    assert yaml.safe_load((tmp_path / "defaults.yaml").read_text())["username"] == "ops"
    assert (tmp_path / ".state/prod/endpoint").read_text().strip() == ENDPOINT
    assert (tmp_path / "hosts.yaml.before").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a@b@c"], "'a@b@c' is not a host"),
        (["10.0.0.1:0"], "'10.0.0.1:0' is not a host"),
        (["10.0.0.1", "root@10.0.0.1"], "10.0.0.1 is given twice"),
        ([], "there is no config.yaml"),
    ],
)
def test_what_is_no_host_is_refused(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["adopt", *words]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_hosts_that_cannot_be_read_are_told_at_once_and_nothing_is_written(
    hosts: dict[str, str | K3sError], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts["n1"] = HostUnreachable("n1", "no route")
    hosts["n3"] = HostUnreachable("n3", "timeout")
    assert main(["adopt", *ADDRESSES.values(), "--out", str(tmp_path / "new")]) == 4
    printed = capsys.readouterr().err
    assert "no route" in printed
    assert "timeout" in printed
    assert not (tmp_path / "new/inventory").exists()


def test_the_function_takes_any_nornir(hosts: dict[str, str | K3sError], tmp_path: Path) -> None:
    data = {"hosts": {name: {"hostname": address} for name, address in ADDRESSES.items()}}
    with InitNornir(
        inventory={"plugin": loaded_inventory.register(), "options": {"data": data}}, logging={"enabled": False}
    ) as nr:
        found = adopt(nr, tmp_path / "a", write=False, artifacts=tmp_path, state=tmp_path / "s")
        assert found.version == "v1.34.9+k3s1"
        assert not (tmp_path / "a").exists()
        hosts["n1"] = HostUnreachable("n1", "no route")
        with pytest.raises(HostUnreachable):
            adopt(nr, tmp_path / "a")
        with pytest.raises(HostsFailed if len(nr.data.failed_hosts) > 1 else K3sError):
            adopt(nr, tmp_path / "a")
        nr.data.reset_failed_hosts()
        assert adopt(nr.filter(name="n2"), tmp_path / "a", name="b").cluster == "b"


def test_the_plan_of_a_deploy_is_shown_where_the_release_is_at_hand(
    hosts: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hosts
    change = Change(id="n1/file:x", phase="servers", kind="file", target="x", summary="write x")
    made = Plan(
        cluster="k3s", version="v", hosts={"n1": HostPlan(role="servers", changes=[change])}, phases=["servers"]
    )
    monkeypatch.setattr(command, "plan", lambda *_, **__: made)
    words = ["adopt", *ADDRESSES.values(), "--artifacts", str(tmp_path)]
    assert main([*words, "--out", str(tmp_path / "a")]) == 0
    assert "a deploy would change:" in capsys.readouterr().out

    def fails(*_: object, **__: object) -> Plan:
        raise HostUnreachable("n1", "gone")

    monkeypatch.setattr(command, "plan", fails)
    assert main([*words, "--out", str(tmp_path / "b")]) == 0
    assert "`nornir-k3s plan` ends with: n1: gone" in capsys.readouterr().out


def test_what_is_left_to_fill_in_is_told(
    hosts: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = ("adoption", "token", encoded(f"K10{'c' * 64}::server:hush"))
    hosts["n1"] = answer("n1", "server", token, ("adoption", "sqlite", ""))
    assert main(["adopt", ADDRESSES["n1"], "--out", str(tmp_path / "new")]) == 0
    printed = capsys.readouterr().out
    assert "next: nornir-k3s move" in printed
    assert "the data are in SQLite, and this tool runs clusters on an external datastore" in printed
    assert "`nornir-k3s move` ends with: " in printed
    assert "192.0.2.11 is a placeholder" in printed
