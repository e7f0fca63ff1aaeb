"""The conformance suite catches drivers that break the contract: for every check there is one that it is needed for."""

import concurrent.futures
import os
import pathlib
import queue
import re
import types
from collections.abc import Iterator, Mapping

import discovery
import pytest
from broken import quotas, snapshots
from broken.controls import Sound, SoundOverlay
from conforming import Forks, Run, conform, conform_in, forks

from graphdrivers.driver import Driver

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="most of the drivers to break need root")

BASIC = "test_trees.py::test_an_empty_layer"
"""What every driver can do, unless that is what is broken: one that fails everything proves nothing."""

CAUGHT_BY = discovery.caught_by()
CONTROLS = (Sound, SoundOverlay)
ABLE = {quotas.Limiting: quotas, snapshots.LimitedSnapping: snapshots}

Runs = Mapping[type[Driver], concurrent.futures.Future[Run]]


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """The runs of all drivers whose tests were chosen, two at once."""
    calls = [item.callspec for item in request.session.items if hasattr(item, "callspec")]
    chosen = [call.params.get("driver") for call in calls]
    folder = tmp_path_factory.mktemp("runs")
    with forks() as one, forks() as other, concurrent.futures.ThreadPoolExecutor(2) as pool:
        idle: queue.SimpleQueue[Forks] = queue.SimpleQueue()
        idle.put(one)
        idle.put(other)
        drivers = [driver for driver in (*CONTROLS, *CAUGHT_BY) if driver in chosen]
        yield {driver: pool.submit(_run, idle, folder / _title(driver), driver) for driver in drivers}
        pool.shutdown(wait=False, cancel_futures=True)


def _title(driver: type[Driver]) -> str:
    return f"{driver.__module__.removeprefix('broken.')}-{driver.name}"


def _run(idle: queue.SimpleQueue[Forks], folder: pathlib.Path, driver: type[Driver]) -> Run:
    started = idle.get()
    try:
        return conform_in(started, folder, driver, dict.fromkeys((BASIC, *_checks(driver))), "--graphdriver-require")
    finally:
        idle.put(started)


def _checks(driver: type[Driver]) -> list[str]:
    """Give what a broken driver must fail, and for a control what those must that are built on the same driver."""
    if driver in CAUGHT_BY:
        return list(CAUGHT_BY[driver])
    return [check for one in CAUGHT_BY if issubclass(one, driver.__bases__) for check in CAUGHT_BY[one]]


@pytest.mark.parametrize("driver", CAUGHT_BY, ids=_title)
def test_a_broken_driver_is_caught(runs: Runs, driver: type[Driver]) -> None:
    """Each flaw fails every check that is about it, by an assertion or an error of the contract, and not just all."""
    run = runs[driver].result()
    failed = [one for one in run.found if one.when == "call" and one.outcome == "failed"]

    assert run.code == pytest.ExitCode.TESTS_FAILED, run.output
    assert [one for one in failed if not one.contract] == [], run.output
    missed = {check for check in CAUGHT_BY[driver] if not set(run.of(check)) & set(failed)}
    assert missed == set(), f"not caught by {missed}\n{run.output}"
    assert discovery.function(BASIC) in map(discovery.function, CAUGHT_BY[driver]) or _passed(run, BASIC), run.output


@pytest.mark.parametrize("driver", CONTROLS, ids=_title)
def test_without_the_flaw_the_same_checks_pass(runs: Runs, driver: type[Driver]) -> None:
    """It was the flaw that the checks caught; only what no driver here can do is left out, with its name."""
    run = runs[driver].result()
    left_out = [check for check in _checks(driver) if not _passed(run, check)]

    assert run.code == pytest.ExitCode.OK, run.output
    for check in left_out:
        assert [one.reason for one in run.of(check) if re.search(r"gated: .* claim", one.reason)], check


@pytest.mark.parametrize(("driver", "flaws"), ABLE.items(), ids=["limits", "snapshots"])
def test_what_vfs_cannot_do_passes_without_a_flaw(
    tmp_path: pathlib.Path, driver: type[Driver], flaws: types.ModuleType
) -> None:
    """Drivers that get limits and snapshots wrong are built on ones that get them right: nothing is left out."""
    file = f"test_{flaws.__name__.rpartition('.')[2]}.py"
    checks = dict.fromkeys(f"{file}::{check}" for found in flaws.CAUGHT_BY.values() for check in found)
    run = conform(tmp_path / "run", driver, checks, "--graphdriver-require")

    assert run.code == pytest.ExitCode.OK, run.output
    for check in checks:  # but for what is asked only of those who claim nothing
        assert _passed(run, check) or any(re.search("gated: .* claims ", one.reason) for one in run.of(check)), check


def test_every_check_catches_something(tmp_path: pathlib.Path) -> None:
    """For every check of the suite there is a driver that it catches, and no check is named that is not there."""
    collected = conform(tmp_path / "run", Sound, [""], "--collect-only")
    checks = set(map(discovery.function, re.findall(r"(?<=/)test_\w+\.py::.+", collected.output)))
    named = {discovery.function(check) for claimed in CAUGHT_BY.values() for check in claimed}

    assert collected.code == pytest.ExitCode.OK, collected.output
    assert checks <= named, "no broken driver needs\n" + "\n".join(sorted(checks - named))
    assert named <= checks, "these are no checks of the suite:\n" + "\n".join(sorted(named - checks))


def test_every_broken_driver_has_a_control() -> None:
    """Each is built on a driver of which there is one without a flaw, so that its checks are tried on that too."""
    bases = tuple(base for control in CONTROLS for base in control.__bases__)

    assert [one.name for one in CAUGHT_BY if not issubclass(one, bases)] == []


def _passed(run: Run, check: str) -> bool:
    outcomes = {one.outcome for one in run.of(check) if one.when == "call"}
    return outcomes == {"passed"}
