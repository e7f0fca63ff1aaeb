"""The conformance suite says what it did, and needs nothing that a stranger has not."""

import pathlib

import discovery
import pytest
from broken.controls import Sound, Unavailable
from conforming import conform


def test_checks_are_counted(tmp_path: pathlib.Path) -> None:
    """The last line says how many checks ran."""
    run = conform(tmp_path / "run", Sound, ["test_trees.py::test_an_empty_layer"])

    assert run.code == pytest.ExitCode.OK, run.output
    assert "graphdriver sound: 1 checks ran, 0 failed, 0 gated" in run.output


def test_gated_checks_are_counted_with_their_reason(tmp_path: pathlib.Path) -> None:
    """What the driver does not claim is left out, counted, and named."""
    run = conform(tmp_path / "run", Sound, ["test_lifecycle.py::test_a_size_that_is_claimed_holds"])

    assert "graphdriver sound: 1 gated, sound does not claim quota" in run.output
    assert "graphdriver sound: 0 checks ran, 0 failed, 1 gated" in run.output


@pytest.mark.parametrize(("require", "code"), [(False, pytest.ExitCode.OK), (True, pytest.ExitCode.TESTS_FAILED)])
def test_a_driver_that_cannot_work_here(tmp_path: pathlib.Path, *, require: bool, code: int) -> None:
    """A driver that is unavailable is skipped with its reason, or fails where it was required."""
    required = ["--graphdriver-require"] if require else []
    run = conform(tmp_path / "run", Unavailable, ["test_trees.py::test_an_empty_layer"], *required)

    assert run.code == code, run.output
    assert "the moon is not full; wait for it" in run.output


def test_the_suite_is_for_strangers() -> None:
    """The suite enters neither store nor backends: what it needs, every driver's author has."""
    for path in discovery.SUITE.glob("*.py"):
        text = path.read_text()
        assert "graphdrivers.store" not in text, path
        assert "graphdrivers.backends" not in text, path
