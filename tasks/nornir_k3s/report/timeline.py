"""A drill as a picture: a row for each fault, a strip for each probe, as SVG without anything around it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from xml.sax.saxutils import escape

from nornir_k3s.model.drill_report import STEP, DrillReport, FaultResult

_LEFT, _RIGHT, _WIDTH, _ROW, _STRIP = 190, 150, 900, 52, 7
_COLOURS = {"a": "#2a7a3b", "f": "#b42318", "-": "#b8bfca"}
_WORDS = {"a": "answered", "f": "failed", "-": "no answer"}


def picture(report: DrillReport) -> str:
    """Return the picture; it carries its own background, so that it is readable on any page."""
    longest = max((len(one.timeline) * STEP for fault in report.faults for one in fault.probes), default=1.0)
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    height = _ROW * len(report.faults) + 46
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img"'
        f' font-family="system-ui, sans-serif" font-size="12" fill="#1c2430">',
        f"<title>drill of cluster {escape(report.cluster)}: {report.outcome}</title>",
        f'<rect width="{_WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
    ]
    for number, fault in enumerate(report.faults):
        lines += _row(fault, _ROW * number + 8, scale)
    lines += _legend(height - 18, scale)
    return "\n".join([*lines, "</svg>"])


def _row(fault: FaultResult, top: int, scale: float) -> Iterator[str]:
    name = f"{fault.kind} {fault.host}".strip()
    colour = _COLOURS["f"] if fault.broken else "#1c2430"
    yield f'<text x="12" y="{top + 15}" font-weight="600" fill="{colour}">{escape(name)}</text>'
    holders = " → ".join(dict.fromkeys(fault.holders))
    yield f'<text x="12" y="{top + 31}" fill="#667085">VIP {escape(holders)}</text>'
    begin, span = _LEFT + fault.zero * scale, max(2.0, fault.seconds * scale)
    yield f'<rect x="{begin:.1f}" y="{top}" width="{span:.1f}" height="{_ROW - 10}" fill="#f4e3c1"/>'
    for number, probe in enumerate(fault.probes):
        y = top + 5 + number * (_STRIP + 2)
        yield from _strip(probe.timeline, y, scale, f"{probe.kind}s from {probe.place}")
    if fault.rotation is not None:
        at = begin + span + fault.rotation * scale
        yield f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{top + _ROW - 10}" stroke="#1865a8" stroke-width="2"/>'
    x = _WIDTH - _RIGHT + 12
    yield f'<text x="{x}" y="{top + 15}">{fault.failed} failed</text>'
    yield f'<text x="{x}" y="{top + 31}" fill="#667085">longest gap {fault.gap:.2f} s</text>'


def _strip(timeline: str, y: int, scale: float, what: str) -> Iterator[str]:
    """Yield a rectangle for each run of the same letters."""
    at = 0
    for letter, run in groupby(timeline):
        count = len(list(run))
        x, width = _LEFT + at * STEP * scale, count * STEP * scale
        yield (
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_STRIP}" fill="{_COLOURS[letter]}">'
            f"<title>{escape(what)}: {_WORDS[letter]}, {count * STEP:g} s</title></rect>"
        )
        at += count


def _legend(y: int, scale: float) -> Iterator[str]:
    marks = (
        *((_COLOURS[key], _WORDS[key]) for key in "af-"),
        ("#f4e3c1", "fault"),
        ("#1865a8", "all servers up again"),
    )
    x = _LEFT
    for colour, word in marks:
        yield f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/>'
        yield f'<text x="{x + 15}" y="{y}">{word}</text>'
        x += 30 + 7 * len(word)
    yield f'<text x="{_WIDTH - _RIGHT + 12}" y="{y}" fill="#667085">{10 * scale:.0f} px = 10 s</text>'
