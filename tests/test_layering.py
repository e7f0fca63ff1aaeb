"""Imports only go down: the floors of the house, checked on syntax trees. Plugins stay in the rooms open to them."""

import ast
import graphlib
import pathlib
from collections.abc import Iterator

import pytest

import graphdrivers

PACKAGE = pathlib.Path(graphdrivers.__file__).parent
FLOORS = {"errors": 0, "model": 1, "linux": 2, "edits": 3, "archive": 3, "driver": 4, "naivediff": 5, "kit": 6}
FLOORS |= {"offers": 6, "backends": 7, "loading": 7, "store": 8, "images": 9, "api": 10}
FLOORS |= {"conformance": 11, "bench": 11, "cli": 12}
FLOORS |= {"__main__": 13, "__init__": 13}
CLOSED = {"driver": {"linux", "archive"}, "conformance": {"store", "images", "api", "backends", "kit"}}
"""Rooms below that a room may not enter all the same."""


def imports(module: pathlib.Path) -> Iterator[str]:
    """Give the dotted names inside the package that a module imports, wherever the statement stands."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "graphdrivers")
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "graphdrivers"):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def room(dotted: str) -> str:
    """Name the room of a dotted name; the package root itself and relative imports are no room."""
    return [*dotted.split("."), ""][1]


MODULES = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_down(name: str) -> None:
    """A module imports its own room and lower floors only, never the package root, never relatively."""
    here = room(name)
    for target in imports(MODULES[name]):
        there = room(target)
        assert there in FLOORS, f"{name} imports {target}: not a room"
        assert there == here or FLOORS[there] < FLOORS[here], f"{name} imports {target}: not downwards"
        assert there not in CLOSED.get(here, ()), f"{name} imports {target}: that door is closed"


def test_no_cycles() -> None:
    """Modules can be put in an order in which each comes after what it imports."""
    graph = {
        name: {target if target in MODULES else target.rpartition(".")[0] for target in imports(path)}
        for name, path in MODULES.items()
    }
    assert list(graphlib.TopologicalSorter(graph).static_order())


PLUGINS = pathlib.Path(__file__).parent.parent / "plugins"
OPEN = {"errors", "model", "linux", "archive", "driver", "naivediff", "kit"}
"""What a driver may import, whoever it is from."""


def distributions() -> list[pathlib.Path]:
    """Give the folder of each plugin's package."""
    return sorted(path.parent for path in PLUGINS.glob("*/graphdrivers_*/__init__.py"))


def test_plugins_are_found() -> None:
    """Every folder below plugins/ that has a setup.cfg holds one package."""
    assert {path.parent for path in distributions()} == {path.parent for path in PLUGINS.glob("*/setup.cfg")}


@pytest.mark.parametrize("package", distributions(), ids=lambda path: path.name)
def test_plugins_import_what_a_driver_may(package: pathlib.Path) -> None:
    """A plugin imports the open rooms only, and something of them."""
    rooms = {room(target) for path in package.rglob("*.py") for target in imports(path)}

    assert rooms
    assert rooms <= OPEN


def test_built_in_drivers_are_treated_no_better() -> None:
    """The backends import each other and the same rooms."""
    rooms = {room(target) for name in MODULES if room(name) == "backends" for target in imports(MODULES[name])}

    assert rooms <= OPEN | {"backends"}
