# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""The example keeps to the rooms that a driver may import, and is found by its name."""

import ast
import pathlib

import graphdrivers_example

from graphdrivers import loading

ROOMS = {"errors", "model", "linux", "archive", "driver", "naivediff"}


def test_it_imports_what_a_driver_may() -> None:
    """Of graphdrivers only the rooms below the backends are imported."""
    tree = ast.parse(pathlib.Path(graphdrivers_example.__file__).read_text(encoding="utf-8"))
    dotted = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    dotted += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    rooms = {(name + ".").split(".")[1] for name in dotted if name.split(".")[0] == "graphdrivers"}

    assert rooms
    assert rooms <= ROOMS


def test_it_is_found(tmp_path: pathlib.Path) -> None:
    """The entry point leads to it, and it works here without being chosen by itself."""
    (entry,) = [one for one in loading.list_drivers(str(tmp_path)) if one.name == "example"]

    assert entry.usable
    assert graphdrivers_example.ExampleDriver.rank == 0
