"""The conformance plugin: deviations are strict, nothing gets lost, failures can be understood."""

import json
import pathlib
import re

import pytest
from plugin_drivers import AGREEMENT, EXISTING, LINK, Forgetful, Plain
from pluginrun import PLUGIN, make_site, run

from graphdrivers.conformance import dump, suite

NAME = EXISTING.partition("::")[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a distribution that offers drivers to try the plugin out."""
    return make_site(tmp_path_factory.mktemp("site"))


def test_every_check_is_listed() -> None:
    """The list of checks in the package is that of the files."""
    renew = (
        "the list of checks is not that of the files: run 'make checks' and commit graphdrivers/conformance/checks.txt"
    )

    assert suite.listed() == suite.written(), renew


def test_a_driver_is_probed_once(site: str, tmp_path: pathlib.Path) -> None:
    """Every check has a home of its own, but what the probe found holds for all of them."""
    done = run(site, tmp_path, *PLUGIN, "--graphdriver", "once", "-k", "test_an_existing_name or test_an_empty_layer")

    assert done.returncode == pytest.ExitCode.OK, done.stdout
    assert "graphdriver once: 2 checks ran, 0 failed" in done.stdout


def test_a_declared_deviation_is_expected(site: str, tmp_path: pathlib.Path) -> None:
    """A check that deviates as declared does not fail the run; its reason and link are shown, and it is counted."""
    done = run(site, tmp_path, *PLUGIN, "--graphdriver", "declared", "-k", NAME)

    assert done.returncode == pytest.ExitCode.OK, done.stdout
    assert f"graphdriver declared: deviates as expected: {EXISTING} (its store overwrites, {LINK})" in done.stdout
    assert "graphdriver declared: 1 checks ran, 0 failed, 0 gated, 1 deviated as expected" in done.stdout


def test_an_undeclared_deviation_fails(site: str, tmp_path: pathlib.Path) -> None:
    """The same flaw without the declaration fails the run."""
    done = run(site, tmp_path, *PLUGIN, "--graphdriver", "undeclared", "-k", NAME)

    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "graphdriver undeclared: 1 checks ran, 1 failed, 0 gated, 0 deviated as expected" in done.stdout


def test_a_deviation_that_is_none_fails(site: str, tmp_path: pathlib.Path) -> None:
    """A check that passes although its deviation is declared fails the run."""
    done = run(site, tmp_path, *PLUGIN, "--graphdriver", "reformed", "-k", NAME)

    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert f"[XPASS(strict)] declared deviation: its store overwrites ({LINK})" in done.stdout
    assert "1 checks ran, 1 failed" in done.stdout


@pytest.mark.parametrize(("driver", "deviated"), [("racing", 0), ("racing-lost", 1)])
def test_a_deviation_that_is_a_race(site: str, tmp_path: pathlib.Path, driver: str, deviated: int) -> None:
    """A check from which a driver deviates only sometimes may pass, and may fail."""
    done = run(site, tmp_path, *PLUGIN, "--graphdriver", driver, "-k", NAME)

    assert done.returncode == pytest.ExitCode.OK, done.stdout
    assert f"graphdriver {driver}: 1 checks ran, 0 failed, 0 gated, {deviated} deviated as expected" in done.stdout


def test_a_deviation_of_another_driver_is_not_ours(tmp_path: pathlib.Path) -> None:
    """A sound driver is not compared with one that declares that it deviates from the check."""
    (folder := tmp_path / "site").mkdir()
    site = make_site(folder, [Plain, Forgetful])
    name = AGREEMENT.partition("::")[2]
    done = run(site, tmp_path, *PLUGIN, "--graphdriver", "plain", "-k", name)
    blamed = run(site, tmp_path, *PLUGIN, "--graphdriver", "forgetful", "-k", name)

    assert done.returncode == pytest.ExitCode.OK, done.stdout
    assert "4 checks ran, 0 failed, 0 gated" in done.stdout
    assert "4 checks ran, 0 failed, 0 gated, 4 deviated as expected" in blamed.stdout


@pytest.mark.parametrize(
    ("driver", "complaint"), [("pointless", "matches no check"), ("void", "is void: what it matches is gated")]
)
def test_a_deviation_that_means_nothing_fails(site: str, tmp_path: pathlib.Path, driver: str, complaint: str) -> None:
    """A declaration that matches no check, or none that runs, fails the run with one line though all checks pass."""
    done = run(
        site, tmp_path, *PLUGIN, "--graphdriver", driver, "-k", "test_a_size_that_is_claimed or test_an_empty_layer"
    )
    lines = [line for line in done.stdout.splitlines() if "FAILED" in line]

    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert len(lines) == 1
    assert complaint in lines[0]
    assert "1 checks ran, 0 failed, 1 gated" in done.stdout


def test_a_part_of_the_suite_complains_about_no_other_part(site: str, tmp_path: pathlib.Path) -> None:
    """Where only some files are asked for, declarations about the others are none of its business."""
    done = run(site, tmp_path, "-p", PLUGIN[1], "--graphdriver", "pointless", "test_trees.py::test_an_empty_layer")

    assert done.returncode == pytest.ExitCode.OK, done.stdout
    assert "1 checks ran, 0 failed" in done.stdout


def test_a_deviation_without_a_link_is_refused(site: str, tmp_path: pathlib.Path) -> None:
    """Nobody can follow up a deviation without a link, so there can be none."""
    done = run(site, tmp_path, *PLUGIN, "--graphdriver", "unexplained", "-k", NAME)

    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert f"InvalidDeviation: invalid deviation '{EXISTING}': it gives no link but ''" in done.stdout


def test_a_lost_check_fails_the_run(site: str, tmp_path: pathlib.Path) -> None:
    """A whole run that does not find all checks of the list fails, and names them."""
    done = run(site, tmp_path, *PLUGIN, "--graphdriver", "plain", "-o", "python_functions=test_an_*")
    (line,) = [line for line in done.stdout.splitlines() if "FAILED" in line]

    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert re.search(r"graphdriver plain: FAILED: \d+ checks are lost", line)
    assert "test_trees.py::test_devices" in line


def test_the_list_tells_lost_from_new() -> None:
    """What is listed and was not found is lost; what was found and is not listed is new."""
    lost, *others = suite.listed()
    (first, second) = suite.complaints([*(f"{check}[parameter]" for check in others), "test_new.py::test_new"])

    assert first.startswith("1 checks are lost")
    assert first.endswith(lost)
    assert second.startswith("checks.txt lacks test_new.py::test_new (renew it: ")


@pytest.mark.parametrize(
    ("pattern", "check", "means"),
    [
        ("test_a.py::test_b", "test_a.py::test_b", True),
        ("test_a.py::test_b", "test_a.py::test_b[1]", False),
        ("test_a.py::test_b*", "test_a.py::test_b[1]", True),
        ("test_a.py::test_b[1-x]", "test_a.py::test_b[1-x]", True),
        ("test_a.py::test_b[1-x]", "test_a.py::test_bx", False),
        ("test_a.py::test_?[*-x]", "test_a.py::test_b[1-x]", True),
    ],
)
def test_patterns(pattern: str, check: str, *, means: bool) -> None:
    """A pattern has the shell's ``*`` and ``?``; brackets stand for themselves."""
    assert suite.matches(pattern, check) == means


def test_a_failure_can_be_understood(site: str, tmp_path: pathlib.Path) -> None:
    """The report of a failed check shows the home on disk and the merged trees."""
    done = run(site, tmp_path, *PLUGIN, "--graphdriver", "undeclared", "-k", NAME)

    assert "- graphdriver home -" in done.stdout
    assert re.search(r"drwx------ \d+:\d+ \d+ 'layers/base'", done.stdout)
    assert "- merged tree of 'base' (writable) -" in done.stdout


def test_a_failure_to_look_hides_nothing(site: str, tmp_path: pathlib.Path) -> None:
    """Where the home cannot be shown, that is said, and the failure itself is still there."""
    done = run(site, tmp_path, *PLUGIN, "--graphdriver", "blind", "-k", NAME)

    assert "cannot be shown: [Errno 2]" in done.stdout
    assert "Failed: DID NOT RAISE" in done.stdout


def test_long_trees_are_cut(tmp_path: pathlib.Path) -> None:
    """What is shown of a tree has an end, and says that there was more."""
    for number in range(2 * dump.LINES):
        (tmp_path / f"file{number}").write_bytes(b"x" * 1000)
    lines = dump.tree(str(tmp_path)).splitlines()

    assert len(lines) == dump.LINES + 1
    assert lines[-1] == "... and more"
    assert max(map(len, lines)) < 200


def test_a_suite_without_a_driver_is_refused(site: str, tmp_path: pathlib.Path) -> None:
    """Nobody takes a run that checked nothing for a passed one."""
    done = run(site, tmp_path, *PLUGIN)

    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "which driver? --graphdriver NAME" in done.stderr


def test_the_report_counts_the_same(site: str, tmp_path: pathlib.Path) -> None:
    """``--graphdriver-report`` writes the counts of the last lines as JSON."""
    asked = ["--graphdriver", "declared", "-k", f"{NAME} or test_a_size_that or test_devices", "--graphdriver-report"]
    run(site, tmp_path, *PLUGIN, *asked, "counts.json")
    counts = json.loads((tmp_path / "counts.json").read_text())

    assert counts["whole"]
    assert counts["expected"] == {EXISTING: f"its store overwrites, {LINK}"}
    assert counts["gated"]["declared does not claim quota"] == 1
    assert counts["functions"] == len(suite.listed())
    assert counts["failed"] == counts["problems"] == []
