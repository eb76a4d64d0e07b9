"""The page of a drift check in a real browser: it renders, its filters work, it fits a phone, and nothing leaves it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from nornir_k3s import DriftReport, Finding
from nornir_k3s.model.drift_report import HostState
from nornir_k3s.report.history import SavedRun
from nornir_k3s.report.html import page

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="`make tools` installs a browser")

# Runs beside the page, in a frame as wide as a phone or a desk, and writes down what it sees.
HARNESS = """<!doctype html><body><iframe id=f src=page.html style="width: WIDTHpx; height: 900px; border: 0"></iframe>
<pre id=out></pre><script>
window.addEventListener("load", () => {
  const frame = document.getElementById("f"), page = frame.contentDocument, seen = {};
  const visible = () => [...page.querySelectorAll("article")].filter(one => one.getClientRects().length)
    .map(one => one.dataset.host + ":" + one.dataset.tags);
  const click = query => page.querySelector(query).click();
  seen.width = [page.documentElement.scrollWidth, frame.clientWidth];
  seen.wide = [...page.querySelectorAll("body *")].filter(one => !one.closest("pre") &&
    one.getBoundingClientRect().right > frame.clientWidth + 0.5).map(one => one.outerHTML.slice(0, 80));
  seen.tiles = [...page.querySelectorAll(".tile")].map(one => one.textContent.trim() + "|" + one.className);
  seen.all = visible();
  seen.order = [...page.querySelectorAll(".title, .way")].map(one => one.textContent);
  seen.top = page.getElementById("findings").getBoundingClientRect().top;
  seen.heights = Object.fromEntries([...page.querySelectorAll("article")].map(
    one => [one.dataset.tags, one.getBoundingClientRect().height]));
  click("[data-filter=error]"); seen.errors = visible();
  click("[data-filter=warning]"); seen.both = visible();
  click("[data-filter=error]"); click("[data-filter=warning]"); click("[data-filter=new]"); seen.fresh = visible();
  click("[data-filter=new]"); click(".tile[data-host=lb1]"); seen.host = visible(); click(".tile[data-host=lb1]");
  const search = page.getElementById("search");
  search.value = "HAPROXY"; search.dispatchEvent(new frame.contentWindow.Event("input")); seen.search = visible();
  seen.shown = page.getElementById("shown").textContent;
  seen.requests = frame.contentWindow.performance.getEntriesByType("resource").map(one => one.name);
  seen.back = frame.contentWindow.getComputedStyle(page.body).backgroundColor;
  document.getElementById("out").textContent = JSON.stringify(seen);
});
</script></body>"""


def report(agents: int = 0) -> DriftReport:
    roles = {"db1": "datastore", "s1": "servers", "s2": "servers", "a1": "agents", "lb1": "lb", "lb2": "lb"}
    hosts = {
        name: HostState(role=role, address=f"10.0.0.{n}", node=name, reached=name != "a1", error="no route to host")
        for n, (name, role) in enumerate(roles.items())
    }
    hosts |= {f"a{n}": HostState(role="agents", address=f"10.0.1.{n}", reached=True) for n in range(2, agents + 2)}
    long = "x" * 300
    same = {
        "kind": "file",
        "subject": f"/etc/{long}",
        "found": "it differs",
        "expected": long,
        "remedy": "the next deploy does it",
    }

    def one(host: str, severity: str, **more: Any) -> Finding:
        return Finding.model_validate({"host": host, "severity": severity, **same, **more})

    found = [
        one("s1", "error", age="new", since=datetime.now(UTC)),
        one("lb1", "warning", found="haproxy.cfg differs", diff=f"--- a\n+++ b\n-    retries 1\n+    {long}\n"),
        one("cluster", "error", kind="vip"),
        one("s2", "note"),
        one("lb2", "warning", accepted="planned <b>work</b>"),
    ]
    return DriftReport(
        cluster="prod", version="v1.34.9+k3s1", url="https://10.0.0.100:6443", hosts=hosts, differences=found,
        gone=[one("s2", "error")], holders=["lb1"], backends={"lb1": {"s1": "UP"}}, notes=["left out: nobody"],
    )  # fmt: skip


def history() -> list[SavedRun]:
    now = datetime.now(UTC)
    found = report().differences
    return [
        SavedRun(
            started=now - timedelta(hours=n), seconds=1.0, outcome="drift", unreachable=[], differences=found[: n % 5]
        )
        for n in range(10)
    ]


@cache
def _seen(folder: Path, width: int, scheme: str, agents: int = 0) -> dict[str, Any]:
    (folder / "page.html").write_text(page(report(agents), history()))
    (folder / "harness.html").write_text(HARNESS.replace("WIDTH", str(width)))
    command = [
        "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-extensions",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--allow-file-access-from-files",
        f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000", "--virtual-time-budget=5000",
        f"--blink-settings=preferredColorScheme={1 if scheme == 'light' else 0}",
        "--dump-dom", f"file://{folder / 'harness.html'}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    match = re.search(r'<pre id="out">(.+?)</pre>', done.stdout, re.S)
    assert match, done.stdout[-2000:] + done.stderr[-2000:]
    found: dict[str, Any] = json.loads(unescape(match[1]))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.mark.parametrize("width", [390, 1300])
def test_nothing_overflows(folder: Path, width: int) -> None:
    seen = _seen(folder, width, "light")
    assert seen["width"][0] <= seen["width"][1] == width
    assert seen["wide"] == []


def test_the_cluster_is_a_picture_with_the_drift_where_it_is(folder: Path) -> None:
    tiles = {text.split("10.0")[0].strip(): text for text in _seen(folder, 390, "light")["tiles"]}
    assert "1 finding|tile error" in tiles["s1"]
    assert "1 finding · VIP|tile warning" in tiles["lb1"]
    assert "unreachable|tile unreachable" in tiles["a1"]
    assert "ok|tile ok" in tiles["lb2"], "what is accepted is no drift"
    assert any("the whole cluster1 finding|tile error" in text for text in tiles.values())


def test_the_picture_goes_the_way_of_the_connections(folder: Path) -> None:
    order = _seen(folder, 390, "light")["order"]
    assert order == ["Agents", "https://10.0.0.100:6443", "Load balancers", "Servers", "Datastore"]


def test_many_agents_do_not_hide_the_findings(folder: Path) -> None:
    seen = _seen(folder, 1300, "light", agents=200)
    assert any(text.startswith("a1") for text in seen["tiles"])
    assert seen["top"] < 1100


def test_what_is_gone_is_smaller_than_what_is_there(folder: Path) -> None:
    heights = _seen(folder, 1300, "light")["heights"]
    assert heights["gone"] < heights["error"] / 2


def test_the_filters_work(folder: Path) -> None:
    seen = _seen(folder, 390, "light")
    assert len(seen["all"]) == 7
    assert seen["errors"] == ["a1:error", "s1:error new", "cluster:error"]
    assert seen["both"] == ["a1:error", "s1:error new", "lb1:warning", "cluster:error"]
    assert seen["fresh"] == ["s1:error new"]
    assert seen["host"] == ["lb1:warning"]
    assert seen["search"] == ["lb1:warning"]
    assert seen["shown"] == "1 of 7"


def test_no_request_leaves_it(folder: Path) -> None:
    assert _seen(folder, 390, "light")["requests"] == []


def test_dark_and_light(folder: Path) -> None:
    light, dark = (_seen(folder, 390, scheme)["back"] for scheme in ("light", "dark"))
    assert (light, dark) == ("rgb(246, 247, 249)", "rgb(16, 21, 28)")
