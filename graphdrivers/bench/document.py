"""A measurement as a document that JSON can hold: what every report is made of, and what is kept for later.

``document.schema.json`` beside this file is its shape. Within one `SCHEMA`
fields are only ever added.
"""

import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from graphdrivers.bench import facts
from graphdrivers.bench.bed import Bed
from graphdrivers.bench.results import Cell
from graphdrivers.bench.workload import SECONDS, Workload
from graphdrivers.errors import GraphDriverError

SCHEMA = 2
"""Version of the document's shape."""

KIND = "graphdrivers-bench"

_NOT_REACHED = "it was not reached"

Document = Mapping[str, Any]


def schema() -> dict[str, Any]:
    """Give the JSON Schema of the document."""
    text = importlib.resources.files("graphdrivers.bench").joinpath("document.schema.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def read(path: str) -> dict[str, Any]:
    """Read a document.

    Raises:
        ValueError: it is none, or of another schema; the text says which.
    """
    with open(path, encoding="utf-8") as file:
        found = json.load(file)
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise ValueError(f"it is no document of kind {KIND!r}")
    if found.get("schema") != SCHEMA:
        raise ValueError(f"its schema is {found.get('schema')!r}, not {SCHEMA}")
    return found


def described(bed: Bed) -> dict[str, object]:
    """Describe a driver and where it lies."""
    support = bed.driver.support
    return {
        "name": bed.name,
        "engine": support.engine,
        "notes": list(support.notes),
        "options": dict(bed.driver.options),
        "capabilities": attrs.asdict(support.capabilities),
        "place": facts.place(bed.driver.home),
    }


def refusals(refused: Mapping[str, GraphDriverError | OSError]) -> list[dict[str, object]]:
    """Tell why drivers were left out."""
    return [
        {
            "name": name,
            "reason": error.message if isinstance(error, GraphDriverError) else str(error),
            "fix": error.fix if isinstance(error, GraphDriverError) else "",
        }
        for name, error in refused.items()
    ]


def explained(workloads: Sequence[Workload]) -> list[dict[str, object]]:
    """Say what the workloads are."""
    return [
        {
            "name": workload.name,
            "title": workload.title,
            "purpose": workload.purpose,
            "models": workload.models,
            "headline": workload.headline,
            "rows": [attrs.asdict(row) for row in workload.rows],
        }
        for workload in workloads
    ]


def result(cell: Cell, *, counted: bool = False) -> dict[str, object]:
    """Give one figure of the document; with the system calls of one operation where they were to be ``counted``."""
    summary = cell.summary()
    return {
        "workload": cell.workload.name,
        "row": cell.row.name,
        "driver": cell.driver,
        "unit": cell.row.unit,
        "samples": list(cell.samples),
        "operations": list(cell.operations),
        "disturbed": cell.disturbed,
        "warm": cell.warm,
        "median": summary.median if summary else None,
        "low": summary.low if summary else None,
        "high": summary.high if summary else None,
        "reason": None if summary else cell.reason or _NOT_REACHED,
        **({"calls": _calls(cell)} if counted and cell.row.unit == SECONDS else {}),
    }


def _calls(cell: Cell) -> dict[str, object]:
    found = cell.calls
    return {
        "operation": found.total() if found else None,
        "operations": found.operations if found else 0,
        "names": found.each() if found else {},
        "reason": None if found else cell.uncounted or _NOT_REACHED,
    }
