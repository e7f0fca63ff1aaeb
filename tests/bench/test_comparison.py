"""Measurements before and after."""

import json
import pathlib
from typing import Any

import pytest
from benchdocuments import a_document, cell, workload

from graphdrivers.bench import comparison, document
from graphdrivers.bench.results import Results
from graphdrivers.bench.workload import Row


def measured(*samples: float, unit: str = "s", **facts: object) -> dict[str, Any]:
    """Make a document with one result."""
    what = workload("x", Row("row", "the row", "a row", unit))
    return a_document(Results([cell(what, "a", *samples)]), "a", **facts)


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
def test_verdicts(unit: str, now: tuple[float, ...], verdict: str) -> None:
    """A change counts where the intervals are apart."""
    (change,) = comparison.compare([measured(2.0, 3.0, 4.0, unit=unit)], measured(*now, unit=unit), 0.1)

    assert change.verdict == verdict
    assert (change.before, change.now, change.title) == (3.0, now[1], "the row")
    assert change.low <= change.ratio <= change.high


@pytest.mark.parametrize(
    ("now", "tolerance", "regressed"),
    [((3.0, 3.0, 3.0), 0.4, True), ((3.0, 3.0, 3.0), 0.6, False), ((2.0, 3.0, 9.0), 0.1, False)],
)
def test_a_regression_is_sure_and_beyond_the_tolerance(
    now: tuple[float, ...],
    tolerance: float,
    regressed: bool,  # noqa: FBT001 - a column of the table above
) -> None:
    """Half as slow again is one with 40 % tolerance and none with 60 %; a wide interval proves nothing."""
    (change,) = comparison.compare([measured(2.0, 2.0, 2.0)], measured(*now), tolerance)

    assert change.regressed is regressed


def test_several_earlier_ones_must_agree() -> None:
    """Slower than one lucky run and as fast as another is the same."""
    lucky, usual = measured(1.0, 1.0, 1.0), measured(2.0, 2.0, 2.0)
    (change,) = comparison.compare([lucky, usual], measured(2.0, 2.0, 2.0), 0.1)

    assert (change.verdict, change.regressed, change.before) == ("same", False, 1.5)
    assert comparison.compare([lucky], measured(2.0, 2.0, 2.0), 0.1)[0].regressed


def test_few_samples_prove_nothing() -> None:
    """Twice as slow in one sample each is not sure; three against three are; a size is what it is."""
    (one,) = comparison.compare([measured(1.0)], measured(2.0), 0.1)
    (three,) = comparison.compare([measured(1.0, 1.0, 1.0)], measured(2.0, 2.0, 2.0), 0.1)
    (size,) = comparison.compare([measured(1.0, unit="B")], measured(2.0, unit="B"), 0.1)

    assert (one.verdict, one.regressed) == ("unsure", False)
    assert (three.verdict, three.regressed) == ("slower", True)
    assert (size.verdict, size.regressed) == ("larger", True)


def test_dashes_are_not_compared() -> None:
    """What either did not measure is left out."""
    assert comparison.compare([measured()], measured(1.0), 0.1) == []
    assert comparison.compare([measured(1.0)], measured(), 0.1) == []


def test_nothing_to_nothing_is_the_same() -> None:
    """A size of no bytes is compared without a division by it."""
    (change,) = comparison.compare([measured(0.0, unit="B")], measured(0.0, unit="B"), 0.1)

    assert (change.ratio, change.verdict) == (1.0, "same")


def test_another_machine_is_told() -> None:
    """Each fact that changed is named, and each disturbance."""
    quiet, other = measured(1.0, cpus=2), measured(1.0, cpus=4)
    other["disturbed"] = ["7 pages were swapped"]
    other["drivers"] = [{**other["drivers"][0], "place": {"filesystem": "xfs"}}]

    assert list(comparison.doubts(quiet, quiet)) == []
    assert list(comparison.doubts(quiet, other)) == [
        "cpus was 2 and is 4",
        "file system of a was 'ext4' and is 'xfs'",
        "disturbed now: 7 pages were swapped",
    ]


@pytest.mark.parametrize("text", ["[]", "{}", '{"kind": "graphdrivers-bench", "schema": 1}', "no json"])
def test_other_files_are_refused(tmp_path: pathlib.Path, text: str) -> None:
    """With a ValueError that says why."""
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - each text has another reason
        document.read(str(path))
    assert str(caught.value)


def test_documents_are_read(tmp_path: pathlib.Path) -> None:
    """What was written is what is compared with."""
    path = tmp_path / "old.json"
    path.write_text(json.dumps(measured(1.0)))
    assert document.read(str(path)) == measured(1.0)
