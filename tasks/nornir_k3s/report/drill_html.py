"""A drill as one HTML page without scripts or external resources: the picture of the timelines, and every number."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from nornir_k3s.model.drill_report import DrillReport
from nornir_k3s.report.drill_terminal import summary
from nornir_k3s.report.timeline import picture


def page(report: DrillReport) -> str:
    """Return the page."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = environment.from_string(files("nornir_k3s.report").joinpath("drill.html.j2").read_text())
    # The picture escapes what comes from the inventory itself.
    return template.render(report=report, picture=Markup(picture(report)), summary=summary(report))  # noqa: S704 - made here, of escaped text
