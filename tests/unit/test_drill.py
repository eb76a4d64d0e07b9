"""A drill without hosts: which faults there are, what samples mean, which limits are broken, how it is shown."""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
from pydantic import ValidationError
from rich.console import Console

from nornir_k3s import shell
from nornir_k3s.errors import CommandFailed, HostUnreachable, NotReady, UsageError
from nornir_k3s.faults import hosts, measure, probes, rolling_restart, rounds
from nornir_k3s.faults.catalogue import faults, select, targets
from nornir_k3s.faults.client import Client as RealClient
from nornir_k3s.faults.client import RequestFailed, from_here
from nornir_k3s.faults.measure import Sample
from nornir_k3s.faults.objects import Objects
from nornir_k3s.model.cluster import Cluster
from nornir_k3s.model.drill_limits import DEFAULTS, FAULTS, DrillOptions, Limit
from nornir_k3s.model.drill_report import DrillReport, FaultResult, ProbeResult, WatchResult
from nornir_k3s.records import SAY
from nornir_k3s.report import drill_terminal
from nornir_k3s.report.drill_html import page
from nornir_k3s.report.timeline import picture
from nornir_k3s.run.context import Run

from .conftest import HOSTS

Make = Callable[..., Cluster]


def without(*names: str, **more: tuple[str, str]) -> dict[str, tuple[str, str]]:
    return {name: host for name, host in HOSTS.items() if name not in names} | more


def ids(cluster: Cluster) -> list[str]:
    return [one.id for one in faults(cluster)[0]]


def test_a_cluster_has_the_faults_that_it_should_survive(load: Make) -> None:
    found, notes = faults(load())
    servers = [f"{kind}:{name}" for name in ("s1", "s2") for kind in ("server-stop", "server-kill", "server-cut")]
    assert [one.id for one in found] == [*FAULTS[:4], *servers, "rolling-restart", "datastore-stop:db1"]
    assert notes == []
    assert {one.kind for one in found} | {"datastore-cut"} == set(FAULTS) == set(DEFAULTS)
    assert next(one for one in found if one.kind == "datastore-stop").unit == "mariadb.service"


def test_what_would_end_the_cluster_is_left_out_and_said(load: Make) -> None:
    alone, notes = faults(load(hosts=without("lb2", "s2")))
    assert [one.id for one in alone] == ["datastore-stop:db1"]
    assert notes == [
        "left out: faults of load balancers: there is only one load balancer",
        "left out: faults of servers: there is only one",
    ]


def test_of_several_members_of_etcd_the_leader_fails(load: Make) -> None:
    more = {f"db{number}": (f"10.0.0.{30 + number}", "datastore") for number in (2, 3)}
    found, _ = faults(load({"datastore": {"kind": "etcd"}}, hosts=without(**more)))
    assert [(one.id, one.how) for one in found if one.kind.startswith("datastore")] == [
        ("datastore-stop", "stop"),
        ("datastore-cut", "cut"),
    ]


def test_a_fault_names_the_hosts_that_it_may_be_made_on(load: Make) -> None:
    cluster = load()
    found = {one.id: targets(cluster, one) for one in faults(cluster)[0]}
    assert found["holder-cut"] == ["lb1", "lb2"]
    assert found["server-cut:s2"] == ["s2"]
    assert found["rolling-restart"] == ["s1", "s2"]
    assert found["datastore-stop:db1"] == ["db1"]


def test_faults_are_chosen_by_kind_and_by_host(load: Make) -> None:
    found, _ = faults(load())
    assert [one.id for one in select(found, ("haproxy-stop", "server-cut:s2"), ())] == ["haproxy-stop", "server-cut:s2"]
    left = select(found, ("server-stop", "server-kill"), ("server-kill", "server-stop:s1"))
    assert [one.id for one in left] == ["server-stop:s2"]
    with pytest.raises(UsageError, match=r"there is no fault 'server-stpo'\n.*did you mean server-stop\?"):
        select(found, ("server-stpo",), ())
    with pytest.raises(UsageError, match="this cluster has no fault 'datastore-cut'"):
        select(found, (), ("datastore-cut",))
    with pytest.raises(UsageError, match="no fault is left"):
        select(found, ("server-stop",), ("server-stop",))


def test_limits_of_the_config_change_the_usual_ones() -> None:
    options = DrillOptions.model_validate({"limits": {"server-cut": {"gap": 2}, "server-stop": {"failed": None}}})
    assert options.limit("server-cut") == Limit(gap=2)
    assert options.limit("server-stop") == Limit(failed=None)
    assert options.limit("server-kill") == Limit(failed=1)
    assert DrillOptions().limit("datastore-stop") == Limit(back=1.0, died=0)
    names: list[dict[str, Any]] = [{"server-cutt": {}}, {"server-cut": {"gaps": 1}}, {"server-cut": {"gap": -1}}]
    wrongs: list[dict[str, Any]] = [*({"limits": one} for one in names), {"rate": 0}]
    for wrong in wrongs:
        with pytest.raises(ValidationError):
            DrillOptions.model_validate(wrong)


def test_the_documentation_has_every_fault_with_its_limits() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "drill.md").read_text()
    rows = dict(re.findall(r"^\| `([-a-z]+)` \|.*\| ([^|]*) \|$", text, re.M))
    assert {kind: drill_terminal.limits(limit) or "none" for kind, limit in DEFAULTS.items()} == rows
    for model in (DrillReport, FaultResult, ProbeResult, WatchResult, Limit, DrillOptions):
        fields = {*model.model_fields, *model.model_computed_fields} - {"cluster", "version", "url", "kind"}
        assert not {name for name in fields if f"`{name}`" not in text}, model


def samples(*failed: int, count: int = 40) -> list[Sample]:
    """Return a request every 50 ms, each answered at once, or failed."""
    return [Sample(n * 0.05, n * 0.05 + 0.01, "timed out" if n in failed else "") for n in range(count)]


def test_the_gap_is_the_longest_time_without_an_answer() -> None:
    found = measure.result("controller", "read", samples(10, 11, 12), begin=0, end=2, healed=0.55)
    assert (found.requests, found.failed, found.gap, found.back) == (40, 3, 0.2, 0.11)
    assert found.errors == {"timed out": 3}
    assert found.timeline == "aafaaaaa-"


def test_nothing_fails_and_yet_no_answer_comes() -> None:
    """Requests that wait are answered late: a gap without a failure, also at both ends."""
    late = [Sample(n * 0.05, 1.5 if 10 <= n < 20 else n * 0.05 + 0.01) for n in range(20)]
    found = measure.result("a1", "write", late, begin=0, end=3, healed=1)
    assert (found.failed, found.gap) == (0, 1.5)
    assert found.timeline == "aa----a------"
    assert measure.result("a1", "write", [], begin=1, end=3, healed=1).gap == 2
    assert measure.longest_gap([0, 0.1, 0.7, 0.8]) == (0.1, 0.7)


def test_every_acknowledged_write_is_looked_for_on_each_server() -> None:
    held = {"s1": {"a", "b", "unacknowledged"}, "s2": {"a"}}
    assert measure.lost({"a", "b"}, held) == {"s2": 1}
    assert measure.lost({"a"}, held) == {}
    assert measure.lost({"a"}, {"s1": set()}) == {"s1": 1}


def test_a_watch_must_have_seen_what_the_datastore_holds() -> None:
    found = measure.watched({"a", "ghost"}, {"a", "b", "c"}, events=2, reconnects=1)
    assert (found.missed, found.phantom) == (2, 1)


def fault(**more: Any) -> FaultResult:
    probe = ProbeResult(place="a1", kind="read", requests=100, failed=2, gap=0.4, back=0.3, timeline="aaff-aaa")
    fields: dict[str, Any] = {
        "kind": "server-cut",
        "host": "s1",
        "what": "cut the network of s1",
        "started": datetime(2026, 1, 2, tzinfo=UTC),
        "seconds": 1,
        "rotation": 0.5,
        "holders": ["lb1", "lb2", "lb1"],
        "probes": [probe, probe.model_copy(update={"kind": "write", "failed": 0, "errors": {"timed out": 2}})],
        "watch": WatchResult(events=9, reconnects=1, missed=0, phantom=0),
        "acknowledged": 90,
        "limit": Limit(),
        "zero": 0.5,
    }
    return FaultResult(**fields | more)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"limit": Limit(failed=2, gap=0.4, back=0.3)}, []),
        ({"limit": Limit(failed=1)}, ["2 of 100 reads from a1 failed; limit 1"]),
        ({"limit": Limit(gap=0.39)}, ["no answer for 0.40 s, reads from a1; limit 0.39 s"]),
        ({"limit": Limit(back=0.2)}, ["no answer until 0.30 s after the fault, reads from a1; limit 0.2 s"]),
        ({"died": ["s2"]}, ["K3s ended on s2; limit 0"]),
        ({"died": ["s2"], "limit": Limit(died=None)}, []),
        ({"lost": {"s3": 4}}, ["s3 does not have 4 of 90 acknowledged writes"]),
        (
            {"watch": WatchResult(events=9, reconnects=0, missed=1, phantom=2)},
            ["the watch missed 1 objects of the datastore, and saw 2 that it does not hold"],
        ),
    ],
)
def test_broken_limits_are_named(changed: dict[str, Any], said: list[str]) -> None:
    assert list(measure.broken(fault(**changed))) == said


def test_a_host_that_is_several_things_may_cost_what_the_most_generous_limit_allows() -> None:
    assert measure.together(Limit(gap=0.3, failed=0), Limit(gap=0.5)) == Limit(gap=0.5)
    assert measure.together(Limit(gap=0.3, died=1), Limit(gap=0.2, died=0)) == Limit(gap=0.3, died=1)


def test_the_outcome_and_its_exit_code() -> None:
    def report(**more: Any) -> DrillReport:
        return DrillReport(cluster="x", version="v1", url="https://x", **more)

    assert (report().outcome, report().exit_code) == ("ok", 0)
    for broken in ({"faults": [fault(broken=["x"])]}, {"problems": ["x"]}, {"left": ["x"]}):
        assert (report(**broken).outcome, report(**broken).exit_code) == ("failed", 1)
    assert report(interrupted=True, left=["x"]).exit_code == 130


EVIL = "<script>alert(1)</script>"


def evil_report() -> DrillReport:
    return DrillReport(
        cluster=EVIL, version="v1", url="https://x", rate=20, seconds=12, notes=[EVIL], problems=[EVIL], left=[EVIL],
        faults=[fault(broken=["no answer for 0.40 s"], host=EVIL), fault(holders=["lb1"] * 3, kind="datastore-stop")],
    )  # fmt: skip


def test_the_terminal_shows_each_fault_in_80_columns() -> None:
    out = io.StringIO()
    report = evil_report().model_copy(update={"faults": [fault(), fault(broken=["it was slow"])]})
    drill_terminal.show(report, Console(file=out, width=80, highlight=False))
    text = out.getvalue()
    assert "server-cut s1" in text
    assert "lb1 → lb2" in text, text
    assert "broken: server-cut on s1: it was slow" in text
    assert "1 of 2 faults within their limits; 0 of 180 acknowledged writes lost; 12 s" in text
    assert f"not put back: {EVIL}" in text


def test_the_page_and_the_picture_hold_no_script_and_no_outside_address() -> None:
    report = evil_report()
    html, svg = page(report), picture(report)
    ElementTree.fromstring(svg)  # noqa: S314 - our own
    HTMLParser().feed(html)
    for text in (html, svg):
        assert "<script" not in text
        assert "src=" not in text
        assert "href=" not in text.replace('href="data:,"', "")
    assert 'fill="#b42318"' in svg
    assert "VIP lb1 → lb2" in svg
    assert "no answer for 0.40 s" in html
    assert "2 times timed out" in html


class Fake:
    """A client whose answers the test decides."""

    def __init__(self, ask: Callable[[str, str], Any]) -> None:
        self.ask: Any = lambda *words, **_: ask(*words[:2])
        self.insist = self.ask


def test_a_probe_asks_at_its_rate_and_counts_what_fails() -> None:
    def ask(method: str, path: str) -> dict[str, Any]:
        time.sleep(0.2)  # slower than the rate: the next ones do not wait for it
        if method == "POST":
            raise RequestFailed("status 500", 500)
        return {}

    client: Any = Fake(ask)
    both = [probes.reader("controller", client, 50), probes.writer("a1", client, 50, Objects("f1"))]
    for probe in both:
        probe.start()
    time.sleep(1)
    for probe in both:
        probe.stop()
        probe.wait()
    assert all(30 <= len(probe.samples) <= 75 for probe in both), [len(probe.samples) for probe in both]
    assert {one.error for one in both[0].samples} == {""}
    assert {(one.error, one.name) for one in both[1].samples} == {("status 500", "")}


def test_a_watch_goes_on_where_it_ended_and_begins_anew_where_it_cannot() -> None:
    """The connection ends in an event; then the revision is compacted: the list says what was missed."""
    paths: list[str] = []
    added = '{{"type": "ADDED", "object": {{"metadata": {{"name": "{}", "resourceVersion": "{}"}}}}}}\n'
    error = '{"type": "ERROR", "object": {"code": 410}}\n'
    answers = iter([added.format("a", 5) + '{"type": "ADD', error, added.format("c", 9)])

    class Client(Fake):
        @contextlib.contextmanager
        def open(self, _: str, path: str, **_more: float) -> Iterator[io.BytesIO]:
            paths.append(path)
            yield io.BytesIO(next(answers, "").encode())

    lists = iter([(set(), "3"), ({"a", "b"}, "8")])

    class Listed(Objects):
        def names(self, _: Any) -> tuple[set[str], str]:
            return next(lists)

    client: Any = Client(lambda *_: {})
    watch = probes.Watch(client, Listed("f1"))
    watch.start()
    until = time.monotonic() + 20
    while watch.seen != {"a", "b", "c"} and time.monotonic() < until:
        time.sleep(0.01)
    watch.stop()
    assert watch.seen == {"a", "b", "c"}
    revisions = [path.partition("resourceVersion=")[2].partition("&")[0] for path in paths]
    assert revisions[:3] == ["3", "5", "8"]


def test_the_leader_of_etcd_is_the_member_that_says_so() -> None:
    def status(leader: int) -> str:
        return json.dumps([{"Endpoint": "x", "Status": {"header": {"member_id": 7}, "leader": leader}}])

    assert hosts.leads(status(7))
    assert not hosts.leads(status(8))
    for broken in ("", "[]", "{}", "[1]", "null"):
        assert not hosts.leads(broken)


def test_units_that_must_be_active_are_those_of_the_host_s_roles(load: Make) -> None:
    cluster = load()
    assert hosts.units(cluster, "lb1") == ["haproxy.service", "keepalived.service"]
    assert hosts.units(cluster, "s1") == ["k3s.service"]
    assert hosts.units(cluster, "db1") == ["mariadb.service"]
    assert hosts.units(cluster, "a1") == []


def test_a_unit_is_the_one_that_the_host_s_family_has(load: Make, tmp_path: Path) -> None:
    (units,) = hosts.units(load({"datastore": {"kind": "mysql"}}), "db1")
    has = 'case $* in "cat -- mysqld.service") ;; "is-active mysqld.service") echo active ;; *) exit 1 ;; esac'
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\n{has}\n")
    (tmp_path / "systemctl").chmod(0o755)
    script = f"DRILL=x FILE=/nowhere\n{SAY}{shell.source('faults/drill.sh')}{shell.call('drill_look', units)}\n"
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", script], env=path, check=False, capture_output=True, text=True)
    assert done.stdout.splitlines()[0] == "@active\tmysqld.service\tactive"


def run_fault(folder: Path, kind: str, action: str, **programs: str) -> str:
    """Run the script of a fault with other programs instead of the host's; return what they were told."""
    told = folder / "told"
    told.touch()
    for name in ("systemctl", "nft", "iptables", "ip6tables", "sleep", "ip"):
        body = programs.get(name, "exit 0")
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{told}\n{body}\n')
        (folder / name).chmod(0o755)
    values = f"KIND={kind} UNIT=haproxy.service WHO=all SECONDS_OF_IT=5"
    script = f"{values}\n{shell.source('faults/fault.sh')}{action}\n"
    environment = {"PATH": f"{folder}:/usr/bin:/bin"}
    subprocess.run(["sh", "-c", script], env=environment, check=False, capture_output=True)
    return told.read_text()


def test_a_fault_and_what_undoes_it(tmp_path: Path) -> None:
    assert run_fault(tmp_path, "stop", "make") == "systemctl stop haproxy.service\nsleep 5\n"
    told = run_fault(tmp_path, "stop", "undo")
    assert told.endswith("systemctl reset-failed haproxy.service\nsystemctl start haproxy.service\n")


def test_a_network_is_cut_at_its_devices(tmp_path: Path) -> None:
    addresses = "2: eth0    inet 10.0.0.1/24 scope global eth0\\n3: cni0    inet 10.42.0.1/24 scope global cni0"
    rules = tmp_path / "rules"
    told = run_fault(tmp_path, "cut", "make", nft=f"cat >{rules}", ip=f"printf '{addresses}\\n'")
    assert [line for line in told.splitlines() if not line.startswith("ip ")] == [
        "sleep 0.5",
        "nft -c -f -",
        "nft -f -",
        "sleep 5",
    ]
    assert re.findall(r'hook (\w+) device "(\w+)"', rules.read_text()) == [("ingress", "eth0"), ("egress", "eth0")]


def test_an_older_kernel_cuts_what_is_ip_unless_keepalived_would_speak_past_it(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    old = f"cat >{rules}; ! grep -q netdev {rules}"
    address = "echo '2: eth0 inet 10.0.0.1/24 scope global eth0'"
    told = run_fault(tmp_path, "cut", "make", nft=old, ip=address, systemctl="exit 3")
    assert told.splitlines()[-2:] == ["nft -f -", "sleep 5"]
    assert "table arp nornir_k3s_drill" in rules.read_text()
    (tmp_path / "told").unlink()
    told = run_fault(tmp_path, "cut", "make", nft=old, ip=address, systemctl="exit 0")
    assert "nft -f -" not in told.splitlines()


def test_without_nft_a_network_is_cut_with_iptables(tmp_path: Path) -> None:
    told = run_fault(tmp_path, "cut", "make", nft="cat >/dev/null; exit 1", systemctl="exit 3")
    assert "iptables -w 5 -t raw -I PREROUTING ! -i lo -m comment --comment nornir_k3s_drill -j DROP" in told
    assert "ip6tables -w 5 -t raw -I OUTPUT ! -o lo -m comment --comment nornir_k3s_drill -j DROP" in told
    (tmp_path / "told").unlink()
    told = run_fault(tmp_path, "cut", "undo")
    for family in ("netdev", "inet", "arp"):
        assert f"nft delete table {family} nornir_k3s_drill" in told
    assert "iptables -w 5 -t raw -D OUTPUT" in told


def test_requests_that_find_nobody_say_so_in_a_few_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    to: Any = SimpleNamespace(host="127.0.0.1", port=port, context=None)
    one = RealClient(to, from_here(to))
    with pytest.raises(RequestFailed, match=r"^connection refused$"):
        one.ask("GET", "/")


class Hosts:
    """What a drill does on hosts, written down; `trouble` is raised at a step of that name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **trouble: BaseException) -> None:
        self.did: list[str] = []
        self.trouble = trouble
        self.holders = iter([("lb1",), ("lb2",), ("lb2",), ("lb1",)])
        for name in ("begin", "heal", "wait_until_reached", "rotation", "look", "objects"):
            monkeypatch.setattr(hosts, name, self._step(name))
        monkeypatch.setattr(rounds, "CALM", 0.2)
        monkeypatch.setattr(rounds, "_CAUGHT_UP", 0.1)

    def _step(self, name: str) -> Callable[..., Any]:
        def step(run: Any, *_: Any, **more: Any) -> Any:
            if name in ("begin", "heal", "wait_until_reached"):
                self.did.append(name)
            if name in self.trouble:
                raise self.trouble.pop(name)
            if name == "rotation":
                return hosts.Rotation(next(self.holders, ("lb2",)), ())
            if name == "look":
                return {"s1": hosts.Look(processes={"k3s.service": "7"})}
            return {"s1": {"other"}} if name == "objects" else None

        return step


def drill_of(cluster: Cluster, tell: Callable[[str], None] = lambda _: None) -> rounds.Drill:
    nr = SimpleNamespace(with_runner=lambda _: "quiet")
    made: Any = Run  # of which it needs little
    unused = dict.fromkeys(("source", "store", "widths", "report"))
    run = made(nr=nr, cluster=cluster, deadlines={"verify": 5}, **unused)
    report = DrillReport(cluster="test", version="v1", url="https://x")
    answers: dict[str, Any] = {"items": [], "metadata": {"resourceVersion": "1"}}

    class Client(Fake):
        @contextlib.contextmanager
        def open(self, *_: str, **_more: float) -> Iterator[io.BytesIO]:
            time.sleep(0.05)
            yield io.BytesIO(b"")

    places: Any = {"controller": Client(lambda *_: answers)}
    return rounds.Drill(run, places, DrillOptions(rate=50), list, report, tell)


def short(cluster: Cluster, word: str) -> Any:
    (fault,) = select(faults(cluster)[0], (word,), ())
    return replace(fault, seconds=0.2)


def test_a_fault_is_measured_from_its_begin_to_its_end(load: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = load()
    fake = Hosts(monkeypatch)
    found = drill_of(cluster).carry_out(short(cluster, "haproxy-stop"), 1)
    assert fake.did == ["begin", "heal"]
    assert (found.host, found.holders) == ("lb1", ["lb1", "lb2", "lb2"])
    assert found.what == "stop HAProxy on the load balancer that holds the VIP: lb1"
    assert found.acknowledged >= 10
    assert found.lost == {"s1": found.acknowledged}, "the server lists only another one"
    assert found.watch
    assert (found.watch.missed, found.rotation) == (1, 0.0)
    assert len(found.broken) == 2


@pytest.mark.parametrize("trouble", [KeyboardInterrupt(), HostUnreachable("lb1", "it is gone"), NotReady("lb1", "x")])
@pytest.mark.parametrize(
    ("fault", "step"), [("haproxy-stop", "begin"), ("haproxy-stop", "heal"), ("holder-cut", "begin")]
)
def test_a_fault_is_undone_whatever_happens_meanwhile(
    load: Make, monkeypatch: pytest.MonkeyPatch, fault: str, step: str, trouble: BaseException
) -> None:
    cluster = load()
    fake = Hosts(monkeypatch, **{step: trouble})
    work = drill_of(cluster)
    with pytest.raises(type(trouble)):
        work.carry_out(short(cluster, fault), 1)
    assert fake.did[-1] == "wait_until_reached"
    assert work.report.left == []


def test_what_could_not_be_undone_is_said_with_what_to_do(load: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = load()
    Hosts(monkeypatch, begin=KeyboardInterrupt(), wait_until_reached=HostUnreachable("lb1", "it is gone"))
    work = drill_of(cluster)
    with pytest.raises(KeyboardInterrupt):
        work.carry_out(short(cluster, "holder-cut"), 1)
    (left,) = work.report.left
    assert left.startswith(
        "lb1: cut the network of the load balancer that holds the VIP: not undone (lb1: it is gone);"
    )
    assert left.endswith("or now: systemctl stop nornir-k3s-drill")


def test_a_host_that_holds_the_vip_and_the_only_datastore_is_not_cut(
    load: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = load()
    fake = Hosts(monkeypatch)
    fake.holders = iter([("db1",)])
    with pytest.raises(
        rounds.LeftOut, match="holder-cut: db1 has the VIP, and the datastore cannot do without this host"
    ):
        drill_of(cluster).carry_out(short(cluster, "holder-cut"), 1)
    assert fake.did == []


def test_nothing_is_broken_where_the_probes_fail_before(load: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = load()
    fake = Hosts(monkeypatch)
    work = drill_of(cluster)

    def fails(*_: Any) -> Any:
        raise RequestFailed("status 500", 500)

    client: Any = work.client
    client.ask = fails
    with pytest.raises(rounds.NotRight, match="reads from controller fail before the fault begins: status 500"):
        work.carry_out(short(cluster, "server-stop:s1"), 1)
    assert fake.did == []


def test_a_cluster_that_does_not_settle_ends_the_drill(load: Make) -> None:
    problems = iter([["s1 is not ready"], [], ["s2 is not ready"]])
    work = replace(drill_of(load()), problems=lambda: next(problems, ["s2 is not ready"]))
    work.settle()
    work.run.deadlines = {"verify": 0.5}
    with pytest.raises(rounds.NotRight, match="s2 is not ready"):
        work.settle()


def test_limits_of_a_host_that_is_cut_are_those_of_all_that_it_is(load: Make) -> None:
    cluster = load()
    work = drill_of(cluster)
    cut = short(cluster, "server-cut:s1")
    assert work._limit(cut, "s1", ("lb1",)) == DEFAULTS["server-cut"]
    assert work._limit(cut, "s1", ("s1",)) == DEFAULTS["holder-cut"]
    assert work._limit(short(cluster, "server-stop:s1"), "s1", ("s1",)) == DEFAULTS["server-stop"]


def test_what_is_written_after_the_list_is_no_phantom(load: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that hung in the fault is done a moment after the list; the watch sees it."""
    cluster = load()
    Hosts(monkeypatch)
    watch: Any = SimpleNamespace(seen={"a"}, events=1, connections=1, stop=lambda: None)

    def late(*_: Any) -> dict[str, set[str]]:
        watch.seen |= {"b", "late"}
        return {"s1": {"a", "b"}, "s2": {"a"}}

    monkeypatch.setattr(hosts, "objects", late)
    probe: Any = SimpleNamespace(samples=[Sample(0, 1, "", "a"), Sample(0, 1, "", "b"), Sample(0, 1, "timed out", "c")])
    found = fault()
    drill_of(cluster)._compare(found, Objects("f1"), watch, [probe])
    assert found.watch
    assert (found.watch.missed, found.watch.phantom) == (0, 0)
    assert (found.acknowledged, found.lost) == (2, {"s2": 1})


def test_a_server_comes_back_into_rotation_as_soon_as_what_takes_it_out_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The script that takes it out keeps the one that brings it back away, for some seconds."""
    tries = iter([CommandFailed("lb2", "bringing s1 back", status=75), NotReady("lb2", "x"), None])

    def bring_back(*_: Any) -> None:
        if error := next(tries, NotReady("lb2", "never")):
            raise error

    recovered: list[str] = []
    run: Any = SimpleNamespace(not_stopped=recovered.extend)
    monkeypatch.setattr(rolling_restart, "bring_back", bring_back)
    monkeypatch.setattr(rolling_restart, "_POLL", 0.01)
    left: list[str] = []
    rolling_restart.bring_server_back(run, "s1", ["lb1", "lb2"], left)
    assert recovered == ["lb1", "lb2"] * 3, "Nornir leaves hosts out that failed before"
    assert left == []
    monkeypatch.setattr(rolling_restart, "_BACK", 0.05)
    rolling_restart.bring_server_back(run, "s1", ["lb1", "lb2"], left)
    (line,) = left
    assert line.startswith("server s1 may be out of rotation on lb1, lb2")


@pytest.mark.parametrize(("failures", "code"), [(0, 0), (3, 0), (9, 1)])
def test_a_server_that_has_just_come_back_is_asked_again(tmp_path: Path, failures: int, code: int) -> None:
    (tmp_path / "sleep").write_text("#!/bin/sh\n")
    (tmp_path / "k3s").write_text(
        f"#!/bin/sh\necho x >>{tmp_path}/asked; [ $(wc -l <{tmp_path}/asked) -gt {failures} ] || exit 1\n"
        "echo configmap/one\n"
    )
    for name in ("sleep", "k3s"):
        (tmp_path / name).chmod(0o755)
    call = shell.call("drill_objects", str(tmp_path / "k3s"), "drill", "a=b")
    script = f"DRILL=x FILE=/nowhere\n{SAY}{shell.source('faults/drill.sh')}{call}\n"
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", script], env=path, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, "" if code else "@object\tone\n")
