"""Documents and workloads to look at that nobody had to measure for."""

from typing import Any

from graphdrivers.bench import document
from graphdrivers.bench.bed import Bed
from graphdrivers.bench.results import Cell, Results
from graphdrivers.bench.workload import Row, Workload


def workload(name: str = "x", *rows: Row, take: Any = None, once: bool = False) -> Workload:
    """Make a workload whose ground is nothing and whose act is ``take(bed)``."""
    return Workload(
        name=name,
        title=f"the {name}",
        purpose=f"doing {name}",
        models=f"Somebody does {name}.",
        rows=rows or (Row("row", "a row", "what a row means"),),
        headline=rows[0].name if rows else "row",
        ground=_nothing,
        act=lambda scene: take(scene.bed) if take else None,
        once=once,
    )


def _nothing(_bed: Bed) -> None:
    return None


def a_document(results: Results, *drivers: str, **facts: object) -> dict[str, Any]:
    """Make a document of results, on a machine of which little is known."""
    return {
        "schema": document.SCHEMA,
        "kind": document.KIND,
        "complete": True,
        "created": "2026-01-31T12:00:00Z",
        "facts": facts,
        "settings": {},
        "drivers": [
            {"name": name, "engine": "", "notes": [], "options": {}, "capabilities": {}, "place": _PLACE}
            for name in drivers
        ],
        "refused": [],
        "disturbed": [],
        "workloads": document.explained(results.workloads()),
        "results": [document.result(cell) for cell in results.cells],
    }


_PLACE = {"filesystem": "ext4", "source": "/dev/x", "options": ["rw"]}


def cell(what: Workload, driver: str, *samples: float, reason: str = "", row: str = "") -> Cell:
    """Make a cell with its samples."""
    made = Cell(what, what.row(row or what.headline), driver, list(samples), [1] * len(samples))
    if reason:
        made.refuse(reason)
    return made
