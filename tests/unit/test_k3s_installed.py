"""The settings of a K3s that others have installed: unit, environment, config.yaml and drop-ins, merged as K3s does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from nornir_k3s import facts, records, shell
from nornir_k3s.k3s_installed import installed, key_of, of_texts
from nornir_k3s.k3s_unit import environment, unit
from nornir_k3s.model.installed import Installed
from nornir_k3s.model.secret import Secret

CONFIG = "/etc/rancher/k3s/config.yaml"
ENVIRONMENT = "/etc/systemd/system/k3s.service.env"
# As K3s' install.sh writes it.
GUIDE = """\
# /etc/systemd/system/k3s.service
[Unit]
Description=Lightweight Kubernetes
[Service]
Type=notify
EnvironmentFile=-/etc/default/%N
EnvironmentFile=-/etc/systemd/system/k3s.service.env
ExecStartPre=-/sbin/modprobe br_netfilter
ExecStart=/usr/local/bin/k3s \\
    server \\
\t'--token=S3cret' \\
\t'--datastore-endpoint=mysql://k3s:p%%40 s@tcp(10.0.0.9:3306)/k3s' \\
\t'--disable' \\
\t'traefik,servicelb' \\
\t'--write-kubeconfig-mode=0644' \\
\t'--debug' \\

"""


def of(text: str, *files: tuple[str, str], environments: tuple[tuple[str, str], ...] = ()) -> Installed:
    found = installed("k3s.service", text, files=files, environments=environments)
    assert found is not None
    return found


def started(flags: str) -> str:
    return f"[Service]\nExecStart=/usr/local/bin/k3s {flags}\n"


def test_flags_of_the_guide() -> None:
    found = of(GUIDE)
    assert (found.role, found.binary) == ("server", "/usr/local/bin/k3s")
    assert found.text("datastore-endpoint") == "mysql://k3s:p%40 s@tcp(10.0.0.9:3306)/k3s"
    assert found.values("disable") == ("traefik", "servicelb")
    assert (found.text("write-kubeconfig-mode"), found.text("debug")) == ("0644", "true")
    assert found.settings["token"].values == (Secret("S3cret"),)
    assert "S3cret" not in repr(found)
    assert "p%40" not in repr(found)
    assert found.settings["token"].origin == "flags of k3s.service"
    assert found.settings["token"].shown == "********"


def test_flags_hide_files_and_files_hide_the_environment() -> None:
    found = of(
        started("server --token=flag"),
        (CONFIG, "token: file\ndatastore-endpoint: file\n"),
        environments=(("/etc/default/k3s", "K3S_DATASTORE_ENDPOINT=env\nK3S_URL=https://a:6443\nK3S_TOKEN=env\n"),),
    )
    assert [found.text(key) for key in ("token", "datastore-endpoint", "server")] == ["flag", "file", "https://a:6443"]
    assert found.settings["server"].origin == "/etc/default/k3s"


def test_lists_of_flags_and_files_add_up_and_hide_the_environment_as_one() -> None:
    found = of(started("server --node-label a=1 --tls-san x,y"), (CONFIG, "node-label: [b=2]\ntls-san: z\n"))
    assert found.values("node-label") == ("b=2", "a=1")
    assert found.values("tls-san") == ("z", "x", "y")
    assert found.settings["tls-san"].origin == f"{CONFIG} and flags of k3s.service"


def test_drop_ins_replace_or_append() -> None:
    found = of(
        started("server"),
        (f"{CONFIG}.d/test2.yaml", "node-label: [other=what, foo=three]\nnode-taint+: [c=d:NoSchedule]\nv: 2\n"),
        (f"{CONFIG}.d/test1.yml", "write-kubeconfig-mode: 0644\nnode-taint: [a=b:NoExecute]\n"),
        (CONFIG, "token: boop\nnode-label: [foo=bar]\nv: 1\n"),
        ("/elsewhere/config.yaml", "token: other\n"),
    )
    assert found.values("node-label") == ("other=what", "foo=three")
    assert found.values("node-taint") == ("a=b:NoExecute", "c=d:NoSchedule")
    assert found.text("write-kubeconfig-mode") == "420", "YAML's octal number, as K3s reads it"
    assert (found.text("token"), found.text("v")) == ("boop", "2")
    assert found.settings["node-taint"].origin == f"{CONFIG}.d/test1.yml and {CONFIG}.d/test2.yaml"
    assert set(found.files) == {CONFIG, f"{CONFIG}.d/test2.yaml", f"{CONFIG}.d/test1.yml"}


@pytest.mark.parametrize("how", ["--config /srv/k3s.yaml", "-c /srv/k3s.yaml", "--config=/srv/k3s.yaml"])
def test_another_config_file_has_its_own_drop_ins(how: str) -> None:
    files = ((CONFIG, "token: no\n"), ("/srv/k3s.yaml", "token: one\n"), ("/srv/k3s.yaml.d/a.yaml", "debug: true\n"))
    found = of(started(f"server {how}"), *files)
    assert (found.text("token"), found.text("debug")) == ("one", "true")
    assert "config" not in found.settings


def test_the_environment_names_the_config_file_before_the_flag_does() -> None:
    found = of(
        started("server --config /b"),
        ("/a", "token: a\n"),
        ("/b", "token: b\n"),
        environments=((ENVIRONMENT, "K3S_CONFIG_FILE='/a'\n"),),
    )
    assert found.text("token") == "a"


def test_what_a_server_does_not_know_is_skipped_and_an_agent_gets_it() -> None:
    found = of(started("server"), (CONFIG, "disabel: [traefik]\netcd-s3: true\nkube-controller-arg: [v=2]\n"))
    assert found.ignored == ("disabel",)
    assert found.text("etcd-s3") == "true"
    assert found.values("kube-controller-manager-arg") == ("v=2",)
    assert "disabel" in of(started("agent"), (CONFIG, "disabel: [traefik]\n")).settings


def test_files_that_are_no_yaml_are_problems() -> None:
    found = of(started("server"), (CONFIG, "a: [\n"), (f"{CONFIG}.d/b.yaml", "- a\n"), (f"{CONFIG}.d/c.yaml", ""))
    assert found.problems == (
        f"{CONFIG} is not YAML: K3s does not start with it",
        f"{CONFIG}.d/b.yaml is not a mapping: K3s does not start with it",
    )


def test_booleans_never_take_the_next_word() -> None:
    found = of(started("server --cluster-init --secrets-encryption=T --disable traefik --selinux=0 --rootless"))
    assert found.text("cluster-init") == "true"
    assert (found.text("secrets-encryption"), found.text("selinux")) == ("true", "false")
    assert found.values("disable") == ("traefik",)


def test_variables_in_the_command_as_systemd_replaces_them() -> None:
    text = started("server $K3S_ARGS --node-name=${NAME}-1 --node-label=a=$$x")
    found = of(text, environments=((ENVIRONMENT, 'K3S_ARGS="--tls-san a --debug"\nNAME=n\nHTTP_PROXY=http://u:p@x\n'),))
    assert (found.values("tls-san"), found.text("node-name")) == (("a",), "n-1")
    assert found.values("node-label") == ("a=$x",)
    assert found.variables["HTTP_PROXY"] == Secret("http://u:p@x")


def test_a_drop_in_of_the_unit_replaces_the_command() -> None:
    dropin = (
        "# /etc/systemd/system/k3s.service.d/a.conf\n[Service]\nExecStart=\nExecStart=/opt/k3s agent -s https://a\n"
    )
    found = of(GUIDE + dropin + 'Environment=\nEnvironment="K3S_TOKEN=a b" X\n[Install]\nExecStart=/no server\n')
    assert (found.role, found.binary, found.text("server"), found.text("token")) == (
        "agent",
        "/opt/k3s",
        "https://a",
        "a b",
    )


def test_comments_among_continued_lines_are_no_flags_and_end_nothing() -> None:
    lines = ["server \\", "# '--disable' 'traefik' \\", "  ; --debug", "  --token=t \\", "#", "  --v=2"]
    found = of(started("\n".join(lines)))
    assert {key: found.text(key) for key in found.settings} == {"token": "t", "v": "2"}


def test_units_that_start_no_k3s_are_none() -> None:
    assert installed("x.service", "[Service]\nExecStart=/usr/bin/nornir-k3s drift\n") is None
    assert installed("x.service", "") is None


@pytest.mark.parametrize(
    "command",
    [
        "/bin/sh -c 'exec k3s server --token=a:(b) --disable traefik'".replace("a:(b)", "'\"'\"'a:(b)'\"'\"'"),
        "/usr/bin/bash -ec \"sleep 1; /usr/local/bin/k3s server --token='a:(b)' --disable traefik && true\"",
        "/usr/bin/env GOGC=50 /usr/local/bin/k3s server '--token=a:(b)' --disable=traefik",
        "/usr/bin/nice -n 5 /usr/local/bin/k3s server '--token=a:(b)' --disable=traefik",
        "/opt/k3s-1.34 server '--token=a:(b)' --disable=traefik",
    ],
)
def test_a_shell_or_another_program_may_start_it(command: str) -> None:
    found = of(f"[Service]\nExecStart={command}\n")
    assert (found.role, found.text("token"), found.values("disable")) == ("server", "a:(b)", ("traefik",))
    assert found.problems == ()
    assert found.variables == ({"GOGC": Secret("50")} if "env" in command else {})


@pytest.mark.parametrize(
    ("command", "why", "debug"),
    [
        ("/bin/sh -c 'exec k3s server --debug --v=$$(nproc)'", "/bin/sh puts values into its command", True),
        ('/bin/sh -c "k3s server --debug --v=\'$$1"', "/bin/sh puts values into its command", True),
        ("/bin/sh /opt/start.sh", "/bin/sh starts a script", False),
        ("/opt/start-k3s.sh --debug", "/opt/start-k3s.sh starts it", False),
    ],
)
def test_a_command_whose_settings_are_not_all_known_is_told(command: str, why: str, debug: bool) -> None:
    found = of(f"[Service]\nExecStart={command}\n")
    assert found.role == "server"
    assert found.problems == (f"k3s.service: {why}: it may have more settings than are known",)
    assert ("debug" in found.settings) is debug
    assert installed("x.service", f"[Service]\nExecStart={command}\n") is None or debug, "K3s' own units alone"


def test_the_text_of_a_token_file_is_the_token() -> None:
    files = ((CONFIG, "token: older\n"), (f"{CONFIG}.d/t.yaml", "token-file: /etc/k3s.token\n"))
    tokens = [("/etc/k3s.token", "hush\n"), ("/etc/agents", "two")]
    text = started("server --agent-token-file /etc/agents --token=other")
    found = installed("k3s.service", text, files=files, tokens=tokens)
    assert found is not None
    assert (found.settings["token"].values, found.settings["token"].origin) == ((Secret("hush"),), "/etc/k3s.token")
    assert found.text("agent-token") == "two"
    assert "hush" not in repr(found)
    unread = of(started("server"), *files)
    assert unread.text("token") == "older", "its text is not known"


def test_files_are_found_by_what_names_them() -> None:
    unit_text = "[Service]\nEnvironmentFile=/x\nEnvironmentFile=\nEnvironmentFile=-/etc/default/%N\n"
    texts = {
        "/etc/default/k3s": "K3S_CONFIG_FILE=/srv/k3s.yaml\nK3S_TOKEN_FILE=/t\n",
        "/srv/k3s.yaml": "debug: true\n",
        "/t": "hush",
        "/x": "K3S_NODE_NAME=no\n",
        CONFIG: "v: 2\n",
    }
    found = of_texts("k3s.service", f"{unit_text}ExecStart=/usr/local/bin/k3s server\n", texts)
    assert found is not None
    assert {key: found.text(key) for key in found.settings} == {"debug": "true", "token-file": "/t", "token": "hush"}
    assert of_texts("x.service", "", texts) is None


def test_what_flags_hide_in_the_environment_is_no_setting() -> None:
    variables = "K3S_TOKEN=hidden\nK3S_DATASTORE_ENDPOINT=hidden\nK3S_NODE_NAME=hidden\nK3S_RESOLV_CONF=/r\nGOGC=50\n"
    flags = "server --token=t --datastore-endpoint=mysql://x --node-name n"
    found = of(started(flags), environments=(("/etc/default/k3s", variables),))
    assert "hidden" not in [one.text for one in found.settings.values()]
    assert found.settings["resolv-conf"].origin == found.variable_origins["GOGC"] == "/etc/default/k3s"


def test_environment_files_and_names() -> None:
    assert environment("# no\nA='b c'\nB=d e\nC=\n1D=x\n") == {"A": "b c", "B": "d e", "C": ""}
    assert environment("export K3S_TOKEN=x\n") == {}, "systemd ignores it"
    assert unit("[Service]\nExecStart=-/usr/bin/k3s 'server\n").command == ("/usr/bin/k3s", "'server")
    assert [key_of(name) for name in ("t", "K3S_URL", "K3S_DATA_DIR", "K3S_OTHER", "tls-san")] == [
        *("token", "server", "data-dir", "other", "tls-san"),
    ]


def test_the_script_reads_unit_environment_and_the_files_that_they_name(tmp_path: Path) -> None:
    config, env, unit_file = tmp_path / "k3s.yaml", tmp_path / "k3s.env", tmp_path / "unit"
    (tmp_path / "k3s.yaml.d").mkdir()
    (tmp_path / "k3s.yaml.d/a.yaml").write_text("debug: true\n")
    token = tmp_path / "k3s.token"
    token.write_text("hush\n")
    config.write_text(f"token-file: '{token}'\n")
    env.write_text(f"K3S_CONFIG_FILE={config}\n")
    unit_file.write_text("[Service]\nExecStart=/usr/local/bin/k3s \\\n    server \\\n")
    fake = tmp_path / "systemctl"
    fake.write_text(
        "#!/bin/sh\n"
        "case $1 in\n"
        "list-unit-files) printf 'k3s.service enabled\\nk3s-killer.service static\\nssh.service enabled\\n' ;;\n"
        f"cat) [ $3 = k3s.service ] && cat {unit_file} || echo '[Service]' ;;\n"
        "is-active) echo active ;;\nis-enabled) echo enabled ;;\n"
        f"show) echo 'EnvironmentFiles={env} (ignore_errors=yes)' ;;\n"
        "esac\n"
    )
    fake.chmod(0o755)

    def read(state: Path, how: str) -> tuple[Installed, ...]:
        call = shell.call("fact_installations", state, how)
        script = f"PATH={tmp_path}:$PATH\n{records.SAY}{shell.source('facts/k3s_installed.sh')}{call}\nsay end\n"
        done = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True)
        return facts.parse("h", done.stdout).installations

    (found,) = read(tmp_path / "none", "others")
    assert (found.text("token"), found.text("debug"), found.active, found.enabled) == ("hush", "true", True, True)
    (tmp_path / "state").mkdir()
    (tmp_path / "state/installed").write_text("x")
    assert read(tmp_path / "state", "others") == ()
    (found,) = read(tmp_path / "state", "everything")
    assert found.ours
