"""The JSON schemas of what people write (for editors) and of what this tool writes (for machines).

`python -m nornir_k3s.cli.schemas FOLDER` writes them all.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from nornir_k3s import (
    Backup,
    DriftReport,
    DrillPlan,
    DrillReport,
    Move,
    Plan,
    Removal,
    Report,
    Reset,
    Restoration,
    Rotation,
    Status,
    UpgradeReport,
)
from nornir_k3s.inventory.file_models import SCHEMAS, json_schema


def documents() -> dict[str, dict[str, Any]]:
    """Return every schema: config, hosts, groups and defaults; report, plan, status, drift, drill, upgrade, …."""
    written: dict[str, type[BaseModel]] = {"report": Report, "plan": Plan, "status": Status, "drift": DriftReport}
    written |= {
        "drill": DrillReport,
        "drill-plan": DrillPlan,
        "upgrade": UpgradeReport,
        "removal": Removal,
        "reset": Reset,
        "rotation": Rotation,
        "backup": Backup,
        "restoration": Restoration,
        "move": Move,
    }
    return {kind: json_schema(kind) for kind in SCHEMAS} | {
        name: model.model_json_schema(mode="serialization") for name, model in written.items()
    }


def write(folder: Path) -> None:
    """Write each schema as FOLDER/NAME.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in documents().items():
        (folder / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "schema"))
