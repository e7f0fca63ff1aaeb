"""The catalogue of attacks is whole: each row has a case, or says why it needs none."""

import ast
import pathlib

import pytest
from catalogue import CATALOGUE, PEERS, RULES, Row
from corpus import all_cases
from test_hostile_images import ARCHIVES, LAYOUTS, TARS

HERE = pathlib.Path(__file__).parent
SOURCES = {case.source for case in all_cases().values()}
SOURCES |= {lie.source for table in (ARCHIVES, LAYOUTS, TARS) for lie in table.values()}


def named_in(path: pathlib.Path) -> set[str]:
    """Name the functions of a file."""
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("name", "row"), CATALOGUE.items(), ids=CATALOGUE)
def test_row(name: str, row: Row) -> None:
    """An attack is the source of a case or has a test that exists, or it cannot concern us and the row says why."""
    missing = [test for test in row.tests if test.partition("::")[2] not in named_in(HERE / test.partition("::")[0])]

    assert missing == []
    assert bool(row.reason) != bool(row.tests or name in SOURCES)


@pytest.mark.parametrize("name", [*RULES, *(name for names in PEERS.values() for name in names)])
def test_rule_or_peer(name: str) -> None:
    """A rule, or a peer's test, is the source of a case."""
    assert name in SOURCES


def test_nothing_is_outside_of_the_catalogue() -> None:
    """No case has a source that the catalogue does not list."""
    listed = {*CATALOGUE, *RULES, *(name for names in PEERS.values() for name in names)}

    assert {source for source in SOURCES if source not in listed} == set()
