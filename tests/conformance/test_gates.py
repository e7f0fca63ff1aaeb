"""Every capability is checked both ways: what holds where it is claimed, and what where it is not."""

import ast
import glob
import os
from collections.abc import Iterator

import attrs
import pytest

from graphdrivers.conformance import suite
from graphdrivers.model import Capabilities

FIELDS = [field.name for field in attrs.fields(Capabilities)]
EXEMPT = {
    "native_diff": "only about time, which 'graphdriver bench' measures; that the result is the same is checked anyway",
    "reflink": "only about space that the file system shares and hides",
    "stable_inodes": "nothing is to be refused without it: a program may only not rely on the numbers",
    "name_max": "a number: test_names_are_as_long_as_claimed tries it and one more",
    "time_resolution": "a number: every comparison of trees is as fine as it says",
}


def gates(way: str) -> Iterator[str]:
    """Give each capability that a check of the suite is gated by, as ``needs`` or as ``lacks``."""
    for path in glob.glob(os.path.join(suite.FOLDER, "test_*.py")):
        with open(path, encoding="utf-8") as file:
            module = ast.parse(file.read())
        for function in ast.walk(module):
            if isinstance(function, ast.FunctionDef):
                yield from _gates_of(function, way)


def _gates_of(function: ast.FunctionDef, way: str) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == way:
            (capability,) = node.args
            if isinstance(capability, ast.Constant):
                yield str(capability.value)
            else:  # a parameter: its values stand in a decorator
                inner = (part for decorator in function.decorator_list for part in ast.walk(decorator))
                yield from (part.value for part in inner if isinstance(part, ast.Constant) and part.value in FIELDS)


@pytest.mark.parametrize("field", FIELDS)
def test_a_capability_is_checked_both_ways(field: str) -> None:
    """There is a check for who claims it and one for who does not, unless there is a reason why not."""
    ways = [way for way in ("needs", "lacks") if field in set(gates(way))]

    if field in EXEMPT:
        assert ways != ["needs", "lacks"], f"{field} is exempt without need: {EXEMPT[field]}"
    else:
        assert ways == ["needs", "lacks"], f"no check of the suite is gated by {field} in the other way"


def test_gates_are_capabilities() -> None:
    """No check is gated by what is none."""
    assert {*gates("needs"), *gates("lacks")} <= set(FIELDS)
    assert set(EXEMPT) <= set(FIELDS)
