"""The kinds of drift that are made by hand on the lab's hosts: how, what drift must say, what a deploy may do for it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.e2e.certificates import expired
from tests.e2e.conftest import PREFIX, VIP

CONFIG = "/etc/rancher/k3s/config.yaml"
LEAF = "/var/lib/rancher/k3s/server/tls/client-scheduler.crt"


@dataclass(frozen=True)
class Case:
    """One kind of drift.

    Arguments:
        id: Of the difference, as drift tells it.
        make: Shell that brings it about on the host `at`.
        found: What drift must say, a regular expression.
        unit: What a deploy may start, restart or reload for it; nothing else.
        undo: Shell that takes it back, where a deploy must not.
    """

    id: str
    make: str
    found: str
    at: str = ""
    unit: str = ""
    undo: str = ""
    severity: str = "warning"

    @property
    def where(self) -> str:
        """The host that differs."""
        return self.id.partition("/")[0]

    @property
    def host(self) -> str:
        """The host where it is made."""
        return self.at or self.where


K = "k3s kubectl"
# Two rounds, so that no host has two cases that hide each other.
REPAIRED = (
    (
        Case(f"s1/file:{CONFIG}", f"chmod 640 {CONFIG}", "mode and owner are 640 root:root", severity="error"),
        Case("s2/install:k3s.service", "rm /usr/local/bin/kubectl", "missing: /usr/local/bin/kubectl"),
        Case("s3/stale:k3s.service", f"sed -i 's/$//' {CONFIG}", f"newer than the process: {CONFIG}", unit="k3s"),
        Case(f"a1/file:{CONFIG}", f"echo debug: true >>{CONFIG}", "the content differs", unit="k3s-agent"),
        Case("a2/enabled:k3s-agent.service", "systemctl disable -q k3s-agent", "the unit is disabled"),
        Case(
            "lb1/file:/etc/haproxy/haproxy.cfg", "sed -i 's/retries 10/retries 1/' /etc/haproxy/haproxy.cfg",
            "the content differs", unit="haproxy",
        ),
        Case(
            "lb2/file:/etc/keepalived/nornir-k3s-check", "rm /etc/keepalived/nornir-k3s-check", "the file is missing",
            severity="error",
        ),
        Case(
            "db1/file:/etc/mysql/mariadb.conf.d/90-nornir-k3s.cnf",
            "chown nobody /etc/mysql/mariadb.conf.d/90-nornir-k3s.cnf", "mode and owner are 644 nobody:root",
        ),
        Case(
            "db1/database:inside",
            "mariadb -NBe \"SELECT CONCAT('DROP USER ', QUOTE(User), '@', QUOTE(Host)) FROM mysql.user"
            " WHERE Host LIKE '%.14'\" | mariadb",
            f"missing: .*user k3s_.*@{PREFIX}.14", severity="error",
        ),
    ),
    (
        Case("s1/install:k3s.service", "rm /etc/systemd/system/k3s.service", "missing: /etc/systemd/system/k3s.service"),
        Case("a1/artifact:/usr/local/bin/k3s", "echo >>/usr/local/bin/k3s", "SHA-256", unit="k3s-agent", severity="error"),
        Case("s2/node:s2", f"{K} delete node s2", "node s2 is not listed", at="s1", unit="k3s", severity="error"),
        Case("a2/node:a2", f"{K} delete node a2", "node a2 is not listed", at="s1", unit="k3s-agent", severity="error"),
        Case(
            f"s3/certificate:{LEAF}", f"printf '%s' '{expired()}' >{LEAF}", r"expired \d days ago", unit="k3s",
            severity="error",
        ),
        Case(
            "lb2/package:keepalived", "dpkg --remove --force-depends keepalived >/dev/null 2>&1",
            "package keepalived is not installed", unit="keepalived", severity="error",
        ),
        Case(
            "lb2/file:/etc/haproxy/haproxy.cfg", "cd /etc/haproxy; mv haproxy.cfg other; ln -s other haproxy.cfg",
            "the path is not a file but a link", unit="haproxy", severity="error",
        ),
        Case(
            "db1/file:/etc/mysql/mariadb.conf.d/90-nornir-k3s.cnf",
            "sed -i s/skip_name_resolve/skip-name-resolve/ /etc/mysql/mariadb.conf.d/90-nornir-k3s.cnf",
            "the content differs", unit="mariadb",
        ),
    ),
    (
        Case("s2/unit:k3s.service", "systemctl stop k3s", "the unit is stopped", unit="k3s", severity="error"),
        Case(
            "a2/unit:k3s-agent.service", f"echo no-such-key: 1 >>{CONFIG}; systemctl restart --no-block k3s-agent\n"
            "while systemctl -q is-active k3s-agent; do sleep 0.2; done",
            "the unit (exits and is restarted|does not finish starting|is deactivating)", unit="k3s-agent", severity="error",
        ),
        Case("lb1/unit:haproxy.service", "systemctl stop haproxy", "the unit is stopped", unit="haproxy", severity="error"),
    ),
)  # fmt: skip
# What only a person may mend.
TOLD = (
    (
        Case(
            "s1/settings:/etc/rancher/k3s/config.yaml.d/90-mine.yaml",
            "mkdir -p /etc/rancher/k3s/config.yaml.d; echo 'debug: true' >/etc/rancher/k3s/config.yaml.d/90-mine.yaml",
            "unexpected settings debug", undo="rm -r /etc/rancher/k3s/config.yaml.d",
        ),
        Case(
            "s2/settings:/etc/default/k3s", "echo MY_PASSWORD=hunter2 >/etc/default/k3s", "unexpected settings MY_PASSWORD",
            undo="rm /etc/default/k3s",
        ),
        Case(
            "s3/command:k3s.service",
            "mkdir -p /etc/systemd/system/k3s.service.d; printf '[Service]\\nExecStart=\\nExecStart=/usr/local/bin/k3s server"
            " --debug\\n' >/etc/systemd/system/k3s.service.d/x.conf; systemctl daemon-reload", "the unit runs with --debug",
            undo="rm -r /etc/systemd/system/k3s.service.d; systemctl daemon-reload",
        ),
        Case(
            "s3/settings:/etc/systemd/system/k3s.service.d/x.conf", ":", "unexpected drop-in for k3s.service",
        ),
        Case("a1/label:zone", f"{K} label node a1 zone-", "label zone is missing", at="s1",
             undo=f"{K} label node a1 zone=here"),
        Case("a1/taint:mine", f"{K} taint node a1 mine=yes:NoSchedule", "unexpected taint mine=yes:NoSchedule",
             at="s1", undo=f"{K} taint node a1 mine=yes:NoSchedule-"),
        Case("s2/taint:CriticalAddonsOnly", f"{K} taint node s2 CriticalAddonsOnly=true:NoExecute-",
             "taint CriticalAddonsOnly=true:NoExecute is missing", at="s1",
             undo=f"{K} taint node s2 CriticalAddonsOnly=true:NoExecute"),
        Case("a2/node:a2", f"{K} cordon a2", "node a2 is cordoned", at="s1", undo=f"{K} uncordon a2"),
        Case("cluster/stranger:old1", f"printf '%s' '{{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{{\"name\":"
             f"\"old1\"}},\"spec\":{{}},\"status\":{{\"conditions\":[]}}}}' | {K} create -f -", "node old1 is not in the inventory", at="s1",
             undo=f"{K} delete node old1"),
        Case("s1/check:clock", "printf '#!/bin/sh\\ncase $1 in +%%s.%%N) echo $(($(/bin/date +%%s)+90)).0;; *) exec"
             " /bin/date \"$@\";; esac\\n' >/usr/local/sbin/date; chmod +x /usr/local/sbin/date",
             r"its clock is \+(89|90|91)\.\d s off", undo="rm /usr/local/sbin/date", severity="error"),
        Case("lb1/disk:/run", "mount -o remount,size=$(( $(df -k /run | awk 'END {print $3}') + 4096 ))k /run",
             r"\d+ MiB are free", undo="mount -o remount,size=50% /run", severity="error"),
        Case("db1/check:foreign-data", "mariadb k3s -e \"INSERT INTO kine (name, created, deleted, create_revision,"
             " prev_revision, lease, value, old_value) VALUES ('/bootstrap/0123456789ab', 1, 0, 0, 0, 0, 'x', '')\"",
             "has the data of a cluster with another token", severity="error",
             undo="mariadb k3s -e \"DELETE FROM kine WHERE name = '/bootstrap/0123456789ab'\""),
    ),
    (
        # On whichever has not got it.
        *(
            Case(f"cluster/vip:{VIP}", f"ip -o addr | grep -q '{VIP}/' || ip addr add {VIP}/32 dev lo",
                 "the VIP is on lb1 and lb2", at=name, undo=f"ip addr del {VIP}/32 dev lo || :", severity="error")
            for name in ("lb1", "lb2")
        ),
        Case("db1/connections:datastore", "mariadb -e \"SET GLOBAL max_connections ="
             " $(($(mariadb -NBe 'SELECT COUNT(*) FROM information_schema.PROCESSLIST') + 2))\"",
             r"\d+ of \d+ connections are in use",
             undo="mariadb -e \"SET GLOBAL max_connections = $(sed -n 's/^max_connections = //p'"
             " /etc/mysql/mariadb.conf.d/90-nornir-k3s-live.cnf)\""),
    ),
)  # fmt: skip
