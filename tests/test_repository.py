"""The walls of CONTRIBUTING.md, measured on every Python file of the project."""

import ast
import configparser
import pathlib
import re
import subprocess
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = ("graphdrivers", "plugins", "tests", "docs", "benchmarks")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if "_build" not in path.parts)
SCRIPTS = sorted((ROOT / "scripts").iterdir())
FILES += [path for path in SCRIPTS if path.read_text(encoding="utf-8").startswith("#!/usr/bin/env python3\n")]
FILE_WALL = 500
FUNCTION_WALL = 60
BLIND = {"Exception", "BaseException"}
Function = ast.FunctionDef | ast.AsyncFunctionDef

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def functions(path: pathlib.Path) -> Iterator[Function]:
    """Give every function and method of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def promising(path: pathlib.Path) -> Iterator[Function]:
    """Give the public functions of a file and the public methods of its public classes."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    classes = (node for node in module.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_"))
    for body in (module.body, *(node.body for node in classes)):
        yield from (node for node in body if isinstance(node, Function) and not node.name.startswith("_"))


def length(function: Function) -> int:
    """Count the lines of a function, its docstring left out."""
    docstring = ast.get_docstring(function, clean=False)
    return (function.end_lineno or 0) - function.lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)


@every_file
def test_walls(path: pathlib.Path) -> None:
    """No file is longer than 500 lines, no function longer than 60."""
    assert path.read_text(encoding="utf-8").count("\n") <= FILE_WALL
    assert [(f.name, length(f)) for f in functions(path) if length(f) > FUNCTION_WALL] == []


@every_file
def test_nothing_is_caught_blindly(path: pathlib.Path) -> None:
    """A handler that catches everything raises it again or ends the (forked) process: no error gets lost."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            caught = {
                name.id for name in ast.walk(node.type or ast.Name("BaseException")) if isinstance(name, ast.Name)
            }
            ending = ast.unparse(node.body[-1])
            assert ending == "raise" or ending.startswith("os._exit(") or not caught & BLIND, f"{path}:{node.lineno}"


@every_file
def test_promises_are_written(path: pathlib.Path) -> None:
    """Every public function of the library, and every test, says what it promises."""
    if path.is_relative_to(ROOT / "graphdrivers") or path.name.startswith("test_"):
        assert [f.name for f in promising(path) if not ast.get_docstring(f)] == []


def test_base_names_differ() -> None:
    """No two test files share a base name: folders of tests are no packages, so pytest could not tell them apart."""
    names = [path.name for path in FILES if path.name.startswith("test_") and path.is_relative_to(ROOT / "tests")]

    assert sorted(set(names)) == sorted(names)


def test_version_is_in_the_changelog() -> None:
    """The changelog's first section is about the version that setup.cfg builds."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert headings[0] == setup["metadata"]["version"]


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / ".ci" / "run"], ids=lambda p: p.name)
def test_scripts_parse(script: pathlib.Path) -> None:
    """Every script may be executed and is understood by the shell, or the Python, that its first line names."""
    shell = script.read_text(encoding="utf-8").splitlines()[0].split("/")[-1].split()[-1]

    assert script.stat().st_mode & 0o111
    if shell == "python3":
        assert ast.parse(script.read_text(encoding="utf-8"))
        return
    assert subprocess.run([shell, "-n", script], check=False, capture_output=True, text=True).stderr == ""
