"""Write docs/reference.md: every public name with its signature and docstring. A test holds the file against this."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from pydantic import BaseModel

import nornir_k3s

_HEAD = """# Reference

Generated from the docstrings by `python docs/make_reference.py`: everything that `from nornir_k3s import …` gives. What
is not here may change without notice.
"""


def text() -> str:
    """Return the page."""
    parts = [_HEAD]
    for name in sorted(nornir_k3s.__all__, key=str.lower):
        thing = getattr(nornir_k3s, name)
        parts.append(f"## {name}\n\n{_signature(name, thing)}{_doc(thing)}\n{_fields(thing)}")
    return "\n".join(parts)


def _signature(name: str, thing: object) -> str:
    if not callable(thing) or isinstance(thing, type):
        return ""
    if name.startswith("k3s_"):
        names = ["base=None", "state=None", "options=None"]
        names += ["dry_run=None"] if "dry_run" in inspect.signature(thing).parameters else []
        return f"```text\nnr.run(task={name}, {', '.join(names)})\n```\n\n"
    modules = r"nornir_k3s\.[a-z_.]+\.|pathlib\.|nornir\.core\.|collections\.abc\.|typing\."
    shown = re.sub(modules, "", str(inspect.signature(thing)))
    return f"```text\n{name}{shown.replace(chr(39), '')}\n```\n\n"


def _doc(thing: object) -> str:
    lines, shown = (inspect.getdoc(thing) or "").splitlines(), []
    for line in lines:
        if re.fullmatch(r"(Arguments|Returns|Raises):", line):
            shown += [f"**{line}**", ""]
        elif re.match(r"    \w[\w, .]*: ", line):
            shown.append("- " + line.strip())
        elif line.startswith("        "):
            shown.append("  " + line.strip())
        else:
            shown.append(line.strip())
    return "\n".join(shown) + "\n"


def _fields(thing: object) -> str:
    if not (isinstance(thing, type) and issubclass(thing, BaseModel)):
        return ""
    fields = thing.model_fields
    rows = [f"| `{name}` | {field.description or ''} |" for name, field in fields.items()]
    rows += [f"| `{name}` | {field.description or ''} |" for name, field in thing.model_computed_fields.items()]
    return "| field | meaning |\n|---|---|\n" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "reference.md").write_text(text())
