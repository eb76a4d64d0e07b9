"""Clusters that this tool has not made: after K3s' guide, and as k3s-ansible and k3sup leave them."""

from __future__ import annotations

import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import yaml

from .conftest import DB, PREFIX, VIP, Site, eventually

TOKEN = "made-by-hand"
PASSWORD = "p@ss:w0rd"
ENDPOINT = f"mysql://k3s:{PASSWORD}@tcp({DB}:3306)/k3s"
SERVERS, AGENTS, BALANCERS = ("s1", "s2", "s3"), ("a1", "a2"), ("lb1", "lb2")
ADDRESS = {name: f"{PREFIX}.{number}" for number, name in enumerate(("db1", *SERVERS, *AGENTS, *BALANCERS), 11)}
_INSTALL = "set -e\nexport DEBIAN_FRONTEND=noninteractive\napt-get -q update && apt-get -qy install "
_DATABASE = f"""{_INSTALL} mariadb-server
printf '[mysqld]\\nbind-address = 0.0.0.0\\nmax_connections = 500\\n' >/etc/mysql/mariadb.conf.d/99-k3s.cnf
systemctl restart mariadb
mariadb <<'SQL'
CREATE DATABASE k3s;
CREATE USER k3s IDENTIFIED BY '{PASSWORD}';
GRANT ALL ON k3s.* TO k3s;
SQL
"""
_NAME = "database.example.org"
_DROP_INS = f"""mkdir -p /etc/rancher/k3s/config.yaml.d /etc/systemd/system/k3s.service.d
printf '[Service]\\nEnvironment=GOGC=80\\n' >/etc/systemd/system/k3s.service.d/10-go.conf
printf 'token-file: /etc/rancher/k3s/token\\n' >/etc/rancher/k3s/config.yaml.d/50-token.yaml
(umask 077; echo {TOKEN} >/etc/rancher/k3s/token)
"""
# As docs.k3s.io `datastore/cluster-loadbalancer` has them.
_BALANCER = """{install} haproxy keepalived psmisc
cat >>/etc/haproxy/haproxy.cfg <<'END'

frontend k3s-frontend
    bind *:6443
    mode tcp
    option tcplog
    default_backend k3s-backend

backend k3s-backend
    mode tcp
    option tcp-check
    balance roundrobin
    default-server inter 10s downinter 5s
{servers}
END
cat >/etc/keepalived/keepalived.conf <<'END'
global_defs {{
  enable_script_security
  script_user root
}}

vrrp_script chk_haproxy {{
    script 'killall -0 haproxy' # faster than pidof
    interval 2
}}

vrrp_instance haproxy-vip {{
    interface {interface}
    state {state} # MASTER on lb-1, BACKUP on lb-2
    priority {priority} # 200 on lb-1, 100 on lb-2

    virtual_router_id 61

    virtual_ipaddress {{
        {vip}/24
    }}

    track_script {{
        chk_haproxy
    }}
}}
END
systemctl restart haproxy keepalived
"""


def guide(site: Site) -> None:
    """Make a cluster with the guide's own commands: flags in the unit, MariaDB, HAProxy and keepalived by hand."""
    with ThreadPoolExecutor() as pool:
        balancers = [pool.submit(_balancer, site, name) for name in BALANCERS]
        site.lab.exec("db1", ["sh", "-s"], input=_DATABASE, timeout=300)
        flags = [*_flags(site), f"--token={TOKEN}", f"--datastore-endpoint={ENDPOINT}", f"--tls-san={VIP}"]
        server(site, "s1", flags)
        list(pool.map(lambda name: server(site, name, flags), SERVERS[1:]))
        for one in balancers:
            one.result()
        list(pool.map(lambda name: agent(site, name, f"https://{VIP}:6443"), AGENTS))
    _all_ready(site)


def k3sup(site: Site) -> None:
    """Make a cluster as `k3sup install --datastore … --token …` and `k3sup join` do: agents use the first server.

    One server has the datastore's name, which it alone knows, where the others have its address.
    """
    site.lab.exec("db1", ["sh", "-s"], input=_DATABASE, timeout=300)
    site.lab.exec("s3", ["sh", "-c", f"echo '{DB} {_NAME}' >>/etc/hosts"])
    for name in SERVERS:
        endpoint = ENDPOINT.replace(DB, _NAME) if name == "s3" else ENDPOINT
        more = [f"--tls-san {ADDRESS[name]}", f"--datastore-endpoint={endpoint}", f"--token {TOKEN}"]
        exec_ = " ".join(["server", *_flags(site), *more])  # the installer quotes what a shell would not take
        install(site, name, f"INSTALL_K3S_EXEC={shlex.quote(exec_)} sh /usr/local/bin/install.sh")
        _api(site, name)
    for name in AGENTS:
        agent(site, name, f"https://{ADDRESS['s1']}:6443")
    _all_ready(site)


def k3s_ansible(site: Site) -> None:
    """Make a cluster as k3s-ansible does: config.yaml 0644 on servers, and K3S_TOKEN in the environment of agents.

    Somebody has added a drop-in to the unit, and one with the token in a file.
    """
    for name in BALANCERS:
        _balancer(site, name)
    site.lab.exec("db1", ["sh", "-s"], input=_DATABASE, timeout=300)
    for number, name in enumerate(SERVERS):
        config = {**_settings(site), "token": "hidden" if name == "s2" else TOKEN, "tls-san": [VIP]}
        if number:
            config["server"] = f"https://{VIP}:6443"
        text = yaml.safe_dump(config)
        script = f"{_DROP_INS if name == 's2' else ''}mkdir -p /etc/rancher/k3s\n"
        script += f"cat >/etc/rancher/k3s/config.yaml <<'END'\n{text}END\n"
        exec_ = f"server --datastore-endpoint={ENDPOINT}"
        install(site, name, f"{script}INSTALL_K3S_EXEC={shlex.quote(exec_)} sh /usr/local/bin/install.sh")
        _api(site, name)
    for name in AGENTS:
        agent(site, name, f"https://{VIP}:6443")
    _all_ready(site)


def install(site: Site, name: str, script: str) -> None:
    """Run K3s' own installer on a host that has the release already."""
    root = f"/proc/{next(one.init for one in site.lab.status() if one.host.name == name)}/root"
    for file in ("k3s", "install.sh"):
        shutil.copy(site.folder / "bundle" / file, f"{root}/usr/local/bin/{file}")
    ready = "set -e\nchmod 755 /usr/local/bin/k3s /usr/local/bin/install.sh\nexport INSTALL_K3S_SKIP_DOWNLOAD=true\n"
    site.lab.exec(name, ["sh", "-s"], input=ready + script + "\n", timeout=300)


def server(site: Site, name: str, flags: list[str]) -> None:
    """Start a server as the guide says: `curl … | sh -s - server --token=… --datastore-endpoint=…`."""
    install(site, name, f"sh /usr/local/bin/install.sh server {shlex.join(flags)}")
    _api(site, name)


def agent(site: Site, name: str, url: str) -> None:
    """Start an agent: `curl … | K3S_URL=… K3S_TOKEN=… sh -s -`."""
    more = shlex.join(f"--kubelet-arg={one}" for one in _own(site).get("kubelet-arg", []))
    install(
        site, name, f"K3S_URL={url} K3S_TOKEN={TOKEN} sh /usr/local/bin/install.sh {'agent ' + more if more else ''}"
    )


def _api(site: Site, name: str) -> None:
    def answers() -> None:
        found = site.lab.exec(name, ["k3s", "kubectl", "get", "--raw", "/readyz"], check=False)
        assert found.stdout.strip() == "ok", found.stderr

    eventually(answers, deadline=180)


def _all_ready(site: Site) -> None:
    """Wait until all nodes are Ready, and keep an administrator's kubeconfig for the VIP where tests look for it."""
    text = site.lab.exec("s1", ["cat", "/etc/rancher/k3s/k3s.yaml"]).stdout
    site.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    site.kubeconfig.write_text(text.replace("127.0.0.1", address(site)))

    def ready() -> None:
        assert site.nodes() == dict.fromkeys((*SERVERS, *AGENTS), True)

    eventually(ready, deadline=180)


def address(site: Site) -> str:
    """Return what kubectl uses: the VIP where there is one, else the first server."""
    held = any(VIP in site.lab.exec(name, ["ip", "-o", "addr"]).stdout for name in BALANCERS)
    return VIP if held else ADDRESS["s1"]


def _balancer(site: Site, name: str) -> None:
    first = name == BALANCERS[0]
    device = site.lab.exec(name, ["sh", "-c", "ip -o -4 addr show to " + ADDRESS[name]]).stdout.split()[1]
    text = _BALANCER.format(
        install=_INSTALL,
        servers="\n".join(f"    server {one} {ADDRESS[one]}:6443 check" for one in SERVERS),
        interface=device.partition("@")[0],
        state="MASTER" if first else "BACKUP",
        priority=200 if first else 100,
        vip=VIP,
    )
    site.lab.exec(name, ["sh", "-s"], input=text, timeout=300)


def _own(site: Site) -> dict[str, Any]:
    defaults = yaml.safe_load((site.folder / "inventory" / "defaults.yaml").read_text())
    return dict(defaults["data"]["k3s_cluster"].get("agent", {}))


def _settings(site: Site) -> dict[str, Any]:
    defaults = yaml.safe_load((site.folder / "inventory" / "defaults.yaml").read_text())
    return dict(defaults["data"]["k3s_cluster"]["server"])


def _flags(site: Site) -> list[str]:
    flags = []
    for key, value in _settings(site).items():
        flags += [f"--{key}={one}" for one in (value if isinstance(value, list) else [value])]
    return flags


def started(site: Site) -> dict[str, str]:
    """Return when K3s was started on each node: it does not change where K3s was not restarted."""
    units = dict.fromkeys(SERVERS, "k3s") | dict.fromkeys(AGENTS, "k3s-agent")
    show = ["systemctl", "show", "-p", "ExecMainStartTimestampMonotonic,MainPID"]
    return {name: site.lab.exec(name, [*show, unit]).stdout for name, unit in units.items()}
