"""The conformance suite catches drivers that break the contract: for every check there is one that it is needed for."""

import concurrent.futures
import os
import pathlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping

import discovery
import pytest
from broken.controls import Sound, SoundOverlay
from conforming import Run, conform

from graphdrivers.backends.overlay.driver import OverlayDriver
from graphdrivers.driver import Driver

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="most of the drivers to break need root")

BASIC = "test_trees.py::test_an_empty_layer"
"""What every driver can do, unless that is what is broken: one that fails everything proves nothing."""

CAUGHT_BY = discovery.caught_by()

Runs = Mapping[str, concurrent.futures.Future[Run]]


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """The runs of all drivers whose tests were chosen, by name; two at once, because most of a run is its start."""
    chosen = {item.callspec.params.get("broken") for item in request.session.items if hasattr(item, "callspec")}
    folder = tmp_path_factory.mktemp("runs")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        yield {one.name: pool.submit(_run, folder / one.name, one) for one in CAUGHT_BY if one in chosen}
        pool.shutdown(wait=False, cancel_futures=True)


def _run(folder: pathlib.Path, broken: type[Driver]) -> Run:
    return conform(folder, broken, dict.fromkeys((BASIC, *CAUGHT_BY[broken])), "--graphdriver-require")


@pytest.mark.parametrize("broken", CAUGHT_BY, ids=lambda broken: broken.name)
def test_a_broken_driver_is_caught(runs: Runs, broken: type[Driver]) -> None:
    """Each flaw fails every check that is about it, by an assertion or an error of the contract, and not just all."""
    run = runs[broken.name].result()
    failed = [one for one in run.found if one.when == "call" and one.outcome == "failed"]

    assert run.code == pytest.ExitCode.TESTS_FAILED, run.output
    assert [one for one in failed if not one.contract] == [], run.output
    missed = {check for check in CAUGHT_BY[broken] if not set(run.of(check)) & set(failed)}
    assert missed == set(), f"not caught by {missed}\n{run.output}"
    assert discovery.function(BASIC) in map(discovery.function, CAUGHT_BY[broken]) or _passed(run, BASIC), run.output


@pytest.mark.parametrize("control", [Sound, SoundOverlay], ids=lambda control: control.name)
def test_without_the_flaw_the_same_checks_pass(tmp_path: pathlib.Path, control: type[Driver]) -> None:
    """It was the flaw that the checks caught; only what no driver here can do is left out, with its name."""
    over = issubclass(control, OverlayDriver)
    checks = dict.fromkeys(
        check for one in CAUGHT_BY for check in CAUGHT_BY[one] if issubclass(one, OverlayDriver) == over
    )
    run = conform(tmp_path / "run", control, checks, "--graphdriver-require")
    left_out = [check for check in checks if not _passed(run, check)]

    assert run.code == pytest.ExitCode.OK, run.output
    for check in left_out:
        assert [one.reason for one in run.of(check) if re.search(r"gated: .* claim", one.reason)], check


def test_every_check_catches_something(tmp_path: pathlib.Path) -> None:
    """For every check of the suite there is a driver that it catches, and no check is named that is not there."""
    collected = conform(tmp_path / "run", Sound, [""], "--collect-only")
    checks = set(map(discovery.function, re.findall(r"(?<=/)test_\w+\.py::.+", collected.output)))
    named = {discovery.function(check) for claimed in CAUGHT_BY.values() for check in claimed}

    assert collected.code == pytest.ExitCode.OK, collected.output
    assert checks <= named, "no broken driver needs\n" + "\n".join(sorted(checks - named))
    assert named <= checks, "these are no checks of the suite:\n" + "\n".join(sorted(named - checks))


def test_names_of_broken_drivers_differ() -> None:
    """A driver is chosen by its name, so each has its own."""
    names = Counter(one.name for one in CAUGHT_BY)

    assert {name: count for name, count in names.items() if count > 1} == {}


def _passed(run: Run, check: str) -> bool:
    outcomes = {one.outcome for one in run.of(check) if one.when == "call"}
    return outcomes == {"passed"}
