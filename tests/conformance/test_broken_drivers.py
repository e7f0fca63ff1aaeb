"""The conformance suite catches drivers that break the contract, and counts what it did."""

import os
import pathlib
import re
import subprocess
import sys

import broken_drivers
import pytest

import graphdrivers.conformance

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="most of the drivers to break need root")

SUITE = os.path.dirname(graphdrivers.conformance.__file__)
HERE = os.path.dirname(__file__)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a distribution that offers every broken driver."""
    folder = tmp_path_factory.mktemp("site")
    info = folder / "broken_drivers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-drivers\nVersion: 1.0\n")
    drivers = [broken_drivers.Sound, broken_drivers.Unavailable, *broken_drivers.CAUGHT_BY]
    lines = "".join(f"{one.name} = broken_drivers:{one.__name__}\n" for one in drivers)
    (info / "entry_points.txt").write_text(f"[graphdrivers.drivers]\n{lines}")
    return str(folder)


def conform(site: str, tmp_path: pathlib.Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the suite, or some of its checks, in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-p", "graphdrivers.conformance.plugin", "-p", "no:cacheprovider", "-q"]
    command += ["--graphdriver", name, "--basetemp", str(tmp_path / "checks"), "-rfs", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([site, HERE]), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, env=environment)


def checks(*names: str) -> list[str]:
    """Give the paths of checks of the suite."""
    return [os.path.join(SUITE, name) for name in names]


@pytest.mark.parametrize("broken", broken_drivers.CAUGHT_BY, ids=lambda broken: broken.name)
def test_a_broken_driver_is_caught(site: str, tmp_path: pathlib.Path, broken: type) -> None:
    """Each flaw fails the check that is about it."""
    check = broken_drivers.CAUGHT_BY[broken]
    done = conform(site, tmp_path, broken.name, "--graphdriver-require", *checks(check))

    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert re.search(r"FAILED .*" + re.escape(check.partition("::")[2]), done.stdout), done.stdout


def test_a_sound_driver_passes_the_same_checks(site: str, tmp_path: pathlib.Path) -> None:
    """Without a flaw every one of these checks passes, so it was the flaw that they caught."""
    done = conform(site, tmp_path, "sound", "--graphdriver-require", *checks(*broken_drivers.CAUGHT_BY.values()))

    assert done.returncode == pytest.ExitCode.OK, done.stdout
    assert re.search(r"graphdriver sound: \d+ checks ran, 0 failed, 0 gated", done.stdout), done.stdout


def test_gated_checks_are_counted_with_their_reason(site: str, tmp_path: pathlib.Path) -> None:
    """What the driver does not claim is left out, counted, and named."""
    check = "test_lifecycle.py::test_a_size_that_is_claimed_holds"
    done = conform(site, tmp_path, "sound", *checks(check))

    assert "graphdriver sound: 1 gated, sound does not claim quota" in done.stdout
    assert "graphdriver sound: 0 checks ran, 0 failed, 1 gated" in done.stdout


@pytest.mark.parametrize(("require", "code"), [(False, pytest.ExitCode.OK), (True, pytest.ExitCode.TESTS_FAILED)])
def test_a_driver_that_cannot_work_here(site: str, tmp_path: pathlib.Path, *, require: bool, code: int) -> None:
    """A driver that is unavailable is skipped with its reason, or fails where it was required."""
    check = checks("test_trees.py::test_an_empty_layer")
    done = conform(site, tmp_path, "unavailable", *check, *(["--graphdriver-require"] if require else []))

    assert done.returncode == code, done.stdout
    assert "the moon is not full; wait for it" in done.stdout


def test_the_suite_is_for_strangers() -> None:
    """The suite enters neither store nor backends: what it needs, every driver's author has."""
    for path in pathlib.Path(SUITE).glob("*.py"):
        text = path.read_text()
        assert "graphdrivers.store" not in text, path
        assert "graphdrivers.backends" not in text, path
