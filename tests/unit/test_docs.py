"""The documentation says what the code does."""

from __future__ import annotations

import importlib.util
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from nornir_k3s import DriftReport, Finding, Plan, Report, Status, errors
from nornir_k3s.cli import arguments
from nornir_k3s.inventory.file_models import ConfigFile
from nornir_k3s.inventory.schema import ClusterModel, Datastore
from nornir_k3s.model.drift_limits import Limits
from nornir_k3s.model.finding import CHECKS
from nornir_k3s.model.finding import KINDS as KINDS_OF_DRIFT
from nornir_k3s.report.prometheus import _HELP

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"
PAGES = sorted({*DOCS.rglob("*.md"), *PROJECT.glob("*.md"), *PROJECT.glob("bench/*.md"), *PROJECT.glob("tests/*/*.md")})
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


def test_the_table_of_differences_is_whole() -> None:
    rows = dict(re.findall(r"^\| `([a-z]+)` \| (.+) \|$", (DOCS / "drift.md").read_text(), re.M))
    assert {kind: rows.get(kind) for kind in KINDS_OF_DRIFT} == dict(KINDS_OF_DRIFT)


def test_what_drift_writes_is_documented() -> None:
    text = (DOCS / "drift.md").read_text()
    names = {*DriftReport.model_fields, *DriftReport.model_computed_fields, *Finding.model_fields, *_HELP}
    assert not {name for name in names - {"cluster", "version"} if f"`{name}" not in text}
    for name, field in Limits.model_fields.items():
        assert re.search(rf"^ +{name}: {field.default} ", text, re.M), name


def test_links_lead_somewhere() -> None:
    for path in PAGES:
        for name, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", path.read_text()):
            target = path.parent / name if name else path
            assert target.exists(), f"{path.name}: {name}"
            assert not anchor or anchor in _anchors(target), f"{path.name}: {name}#{anchor}"


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and GitLab make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^-\w ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_example_of_a_datastore_is_accepted() -> None:
    pages = [DOCS / "datastores.md", *sorted((DOCS / "datastores").glob("*.md"))]
    blocks = re.findall(r"^```yaml\n(.*?)^```", "".join(page.read_text() for page in pages), re.M | re.S)
    texts = [text for block in blocks for text in re.split(r"^(?=datastore)", block, flags=re.M) if text]
    examples = [yaml.safe_load(text)["datastore"] for text in texts if text.startswith("datastore:")]
    assert len(examples) >= 12
    for example in examples:
        TypeAdapter(Datastore).validate_python(example)


def test_the_reference_is_what_the_docstrings_say() -> None:
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec
    assert spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert (DOCS / "reference.md").read_text() == made.text(), "run python docs/make_reference.py"


def _blocks(language: str) -> list[tuple[str, str]]:
    pages = [PROJECT / "README.md", *sorted(DOCS.rglob("*.md"))]
    pattern = rf"^ *```{language}\n(.*?)^ *```"
    return [(page.name, text) for page in pages for text in re.findall(pattern, page.read_text(), re.M | re.S)]


def test_every_yaml_example_is_what_the_tool_takes() -> None:
    seen = 0
    for _name, text in _blocks("yaml"):
        data = yaml.safe_load(textwrap.dedent(text))
        if "user_defined" in data:
            ConfigFile.model_validate({"inventory": {}, **data})
        elif "data" in data or "k3s_cluster" in data:
            settings = data.get("data", data)["k3s_cluster"]
            base = {"name": "x", "version": "v1.34.9+k3s1", "registration": {"address": "10.0.0.1"}}
            ClusterModel.model_validate({**base, "datastore": {"kind": "mariadb"}, **settings})
        else:
            continue  # a datastore, tried above, or a file of somebody else's
        seen += 1
    assert seen >= 4


def test_every_option_that_is_named_is_one() -> None:
    texts = [path.read_text() for path in (PROJECT / "README.md", *DOCS.rglob("*.md"))]
    named: dict[str, set[str]] = {}
    commands = "|".join(arguments.SUBCOMMANDS)
    for line in "\n".join(texts).splitlines():
        pattern = rf"(?:nornir-k3s ({commands})\b|\b({commands})\.py)((?: [^|`]*)?)"
        for installed, runbook, words in re.findall(pattern, line):
            command = installed or runbook
            named.setdefault(command, set()).update(re.findall(r"(?<![-\w])--[a-z][-a-z]+", words))
    assert named["drift"] >= {"--only-new", "--json", "--html"}
    assert named["init"] >= {"--servers", "--datastore"}
    for command, options in named.items():
        parser = arguments.subcommand(command, config=Path("config.yaml"))
        assert not options - {one for action in parser._actions for one in action.option_strings}, command


def test_every_python_example_has_the_right_types(tmp_path: Path) -> None:
    pages = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
    for page in pages:
        for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)):
            if "import" in code:  # a whole module
                (tmp_path / f"{page.stem}_{number}.py").write_text(code)
    files = sorted(map(str, tmp_path.iterdir()))
    assert len(files) >= 7
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", *files]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_targets_of_make_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.M))
    for page in PAGES:
        named = re.findall(r"(?:^    |`)make ([a-z]+)", page.read_text(), re.M)
        assert set(named) <= targets, page.name


def test_the_versions_that_the_readme_calls_run_are_those_of_the_matrix() -> None:
    run: dict[str, set[str]] = {}
    for name, version in re.findall(r"^\| \w+ \| (\w+) ([\d.]+) \|", (DOCS / "tested.md").read_text(), re.M):
        # PostgreSQL's second number is that of its fixes.
        run.setdefault(name, set()).add(".".join(version.split(".")[: 1 if name == "PostgreSQL" else 2]))
    rows = re.findall(r"^\| (\w+) \| ([\d., ]+) \|", (PROJECT / "README.md").read_text(), re.M)
    assert {name: set(versions.split(", ")) for name, versions in rows} == run
