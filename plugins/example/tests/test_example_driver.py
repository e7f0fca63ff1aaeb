# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""What only this driver has: its options, and that it keeps to the rooms that a driver may import."""

import ast
import inspect
import os
import pathlib

import pytest
from graphdrivers_example.driver import ExampleDriver

from graphdrivers import errors, loading
from graphdrivers.linux import filesystems

ROOMS = {"errors", "model", "linux", "archive", "driver", "naivediff", "kit"}


def test_it_imports_what_a_driver_may() -> None:
    """Of graphdrivers only the rooms below the backends are imported."""
    modules = pathlib.Path(inspect.getfile(ExampleDriver)).parent.rglob("*.py")
    nodes = [node for module in modules for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))]
    dotted = [f"{node.module}.{name.name}" for node in nodes if isinstance(node, ast.ImportFrom) for name in node.names]
    dotted += [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]
    rooms = {(name + ".").split(".")[1] for name in dotted if name.split(".")[0] == "graphdrivers"}

    assert rooms
    assert rooms <= ROOMS


def test_it_is_found(tmp_path: pathlib.Path) -> None:
    """The entry point leads to it, and it works here."""
    (entry,) = [one for one in loading.list_drivers(tmp_path) if one.name == ExampleDriver.name]

    assert entry.usable, entry.reason


@pytest.mark.parametrize("option", [{"reflink": "never"}, {"relfink": "require"}])
def test_unknown_options(option: dict[str, str], tmp_path: pathlib.Path) -> None:
    """An unknown option or value is refused, and told apart from the known ones."""
    with pytest.raises(errors.InvalidOption, match=r"neither auto nor require|it is unknown"):
        loading.load_driver(ExampleDriver.name, tmp_path / "home", option)


def test_reflinks_are_required(tmp_path: pathlib.Path) -> None:
    """With ``reflink=require`` it works where blocks can be shared, and says what to do where they cannot."""
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    can = filesystems.supports_reflink(folder)
    os.close(folder)

    if can:
        assert loading.load_driver(ExampleDriver.name, tmp_path / "home", {"reflink": "require"}).name
        return
    with pytest.raises(errors.IncompatibleFilesystem, match="put --root on btrfs or xfs"):
        loading.load_driver(ExampleDriver.name, tmp_path / "home", {"reflink": "require"})
    assert not (tmp_path / "home").exists()
