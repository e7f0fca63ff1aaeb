"""The table of what the suite covers is true: every case has checks that exist, or a reason."""

import csv
import pathlib
import re
from collections import Counter

import discovery

ROOT = pathlib.Path(__file__).parent.parent.parent

with open(ROOT / "docs" / "reference" / "checks.csv", newline="", encoding="utf-8") as file:
    ROWS = list(csv.DictReader(file))


def existing() -> set[str]:
    """Give every check of the suite as ``FILE::FUNCTION``."""
    files = discovery.SUITE.glob("test_*.py")
    return {
        f"{file.name}::{name}"
        for file in files
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
    }


def test_every_named_check_exists() -> None:
    """No row rests on a check that was renamed or taken away."""
    named = {check for row in ROWS for check in row["checks"].split()}

    assert sorted(named - existing()) == []


def test_every_case_has_checks_or_a_reason() -> None:
    """A case is checked, or says why drivers are not asked."""
    assert [row["case"] for row in ROWS if bool(row["checks"]) == bool(row["why there is none"])] == []


def test_every_case_is_there_once() -> None:
    """Each case of each source has one row."""
    count = Counter((row["of"], row["case"]) for row in ROWS)

    assert [case for case, number in count.items() if number > 1] == []


def test_the_numbered_semantics_are_complete() -> None:
    """Each of the rules W1 to W26 and O1 to O12 has a row."""
    cases = {row["case"].split()[0] for row in ROWS if row["of"] == "whiteout semantics"}

    assert {f"W{number}" for number in range(1, 27)} | {f"O{number}" for number in range(1, 13)} <= cases


def test_places_of_other_tests_exist() -> None:
    """Where a row sends the reader to tests of another room, they are there."""
    places = {place for row in ROWS for place in re.findall(r"tests/[\w/.]*\w", row["why there is none"])}

    assert [place for place in sorted(places) if not (ROOT / place).exists()] == []
