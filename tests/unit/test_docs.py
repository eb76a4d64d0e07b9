"""The documentation says what the code does."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from nornir_k3s import Plan, Report, Status, errors
from nornir_k3s.findings import CHECKS
from nornir_k3s.schema import Datastore

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"
KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.K3sError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_its_section_with_its_exit_code_and_what_to_do(kind: type[errors.K3sError]) -> None:
    sections = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=^## |\Z)", (DOCS / "errors.md").read_text(), re.M | re.S))
    assert set(sections) == {k.__name__ for k in KINDS}
    if kind is not errors.HostsFailed:  # it has the code of what it holds
        assert sections[kind.__name__].startswith(f"Exit {kind.exit_code}.")
    assert re.search(r"^(Check|Run|Nothing)", sections[kind.__name__], re.M)


def test_the_table_of_the_preflight_is_whole() -> None:
    rows = dict(re.findall(r"^\| `([-a-z0-9]+)` \| (.+) \|$", (DOCS / "preflight.md").read_text(), re.M))
    assert rows == dict(CHECKS)


def test_the_fields_of_the_reports_are_documented() -> None:
    text = (DOCS / "report.md").read_text()
    for model in (Report, Plan, Status):
        fields = {*model.model_fields, *model.model_computed_fields} - {"cluster", "version", "holder"}
        assert not {name for name in fields if f"`{name}" not in text}


def test_links_lead_somewhere() -> None:
    for path in (*DOCS.rglob("*.md"), *PROJECT.glob("*.md")):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_every_example_of_a_datastore_is_accepted() -> None:
    pages = [DOCS / "datastores.md", *sorted((DOCS / "datastores").glob("*.md"))]
    blocks = re.findall(r"^```yaml\n(.*?)^```", "".join(page.read_text() for page in pages), re.M | re.S)
    texts = [text for block in blocks for text in re.split(r"^(?=datastore)", block, flags=re.M) if text]
    examples = [yaml.safe_load(text)["datastore"] for text in texts if text.startswith("datastore:")]
    assert len(examples) >= 12
    for example in examples:
        TypeAdapter(Datastore).validate_python(example)
