"""Measurements before and after."""

import json
import pathlib
from typing import Any

import pytest

from graphdrivers.bench import comparison


def document(low: float, median: float | None, high: float, unit: str = "s", **facts: object) -> dict[str, Any]:
    """Make a document with one result."""
    result: dict[str, object] = {"workload": "x", "title": "the x", "driver": "a", "unit": unit}
    result |= {"median": median, "low": low, "high": high}
    return {"kind": "graphdrivers-bench", "schema": 1, "facts": facts, "settings": {}, "results": [result]}


@pytest.mark.parametrize(
    ("unit", "now", "verdict"),
    [
        ("s", (1.0, 1.5, 1.9), "faster"),
        ("s", (1.0, 1.5, 2.0), "same"),
        ("s", (5.0, 6.0, 7.0), "slower"),
        ("B", (5.0, 5.0, 5.0), "larger"),
        ("B", (1.0, 1.0, 1.0), "smaller"),
    ],
)
def test_verdicts(unit: str, now: tuple[float, float, float], verdict: str) -> None:
    """A change counts where the intervals are apart."""
    (compared,) = comparison.compare(document(2.0, 3.0, 4.0, unit), document(*now, unit))

    assert compared.verdict == verdict
    assert (compared.before, compared.now) == (3.0, now[1])


def test_dashes_are_not_compared() -> None:
    """What either did not measure is left out."""
    assert comparison.compare(document(0, None, 0), document(1, 1, 1)) == []
    assert comparison.compare(document(1, 1, 1), document(0, None, 0)) == []


def test_another_machine_is_told() -> None:
    """Each fact that changed is named."""
    assert comparison.doubts(document(1, 1, 1, cpus=2), document(1, 1, 1, cpus=4)) == ["cpus was 2 and is 4"]
    assert comparison.doubts(document(1, 1, 1, cpus=2), document(1, 1, 1, cpus=2)) == []


@pytest.mark.parametrize("text", ["[]", "{}", '{"kind": "graphdrivers-bench", "schema": 2}', "no json"])
def test_other_files_are_refused(tmp_path: pathlib.Path, text: str) -> None:
    """With a ValueError that says why."""
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - each text has another reason
        comparison.read(str(path))
    assert str(caught.value)


def test_documents_are_read(tmp_path: pathlib.Path) -> None:
    """What was written is what is compared with."""
    path = tmp_path / "old.json"
    path.write_text(json.dumps(document(1, 1, 1)))
    assert comparison.read(str(path)) == document(1, 1, 1)
