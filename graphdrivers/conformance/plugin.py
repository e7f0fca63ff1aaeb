"""The pytest plugin: which driver is checked, on which file system, and what was left out.

::

    pytest -p graphdrivers.conformance.plugin --pyargs graphdrivers.conformance --graphdriver NAME

A check that needs what the driver does not claim is *gated*: left out and
counted, with the capability's name. The last line says how many ran.
"""

import os
import pathlib
import tempfile
from collections.abc import Iterator

import pytest

from graphdrivers import errors, loading
from graphdrivers.conformance.workbench import Workbench
from graphdrivers.driver import Driver
from graphdrivers.linux import mountinfo, trees

_GATED = "gated: "


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("graphdriver", "conformance of a storage driver")
    group.addoption("--graphdriver", metavar="NAME", help="the driver to check")
    group.addoption(
        "--graphdriver-opt", metavar="KEY=VALUE", action="append", default=[], help="an option of the driver"
    )
    group.addoption(
        "--graphdriver-root", metavar="DIR", help="where homes are made: choose the file system (default: pytest's own)"
    )
    group.addoption(
        "--graphdriver-require", action="store_true", help="fail, and do not skip, where the driver cannot work"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Count what happens to the checks."""
    if config.getoption("--graphdriver"):
        config.pluginmanager.register(_Tally(str(config.getoption("--graphdriver"))), "graphdriver-tally")


class _Tally:
    """Counts checks that ran, were gated, or could not run at all."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ran = self.failed = 0
        self.gated: dict[str, int] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Sort one report in."""
        if report.skipped and isinstance(report.longrepr, tuple) and _GATED in report.longrepr[2]:
            reason = report.longrepr[2].partition(_GATED)[2]
            self.gated[reason] = self.gated.get(reason, 0) + 1
        elif report.failed:
            self.failed += 1
        if report.when == "call" and not report.skipped:
            self.ran += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the last line, and why checks were gated."""
        for reason, count in sorted(self.gated.items()):
            terminalreporter.write_line(f"graphdriver {self.name}: {count} gated, {reason}")
        terminalreporter.write_line(
            f"graphdriver {self.name}: {self.ran} checks ran, {self.failed} failed, {sum(self.gated.values())} gated"
        )


@pytest.fixture
def driver_options(request: pytest.FixtureRequest) -> dict[str, str]:
    """Options of the driver, from ``--graphdriver-opt``."""
    pairs = [pair.partition("=") for pair in request.config.getoption("--graphdriver-opt")]
    return {key: value for key, _, value in pairs}


@pytest.fixture
def fresh_root(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[str]:
    """An empty directory on the file system to check; it must hold no mounts at the end."""
    chosen = request.config.getoption("--graphdriver-root")
    root = tempfile.mkdtemp(prefix="conformance-", dir=chosen or tmp_path)
    yield root
    left = [mount.target for mount in mountinfo.mounted_below(root)]
    parent = os.open(os.path.dirname(root), os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert not left, f"mounts were left behind: {left}"
        trees.remove_tree(parent, os.fsencode(os.path.basename(root)))
    finally:
        os.close(parent)


@pytest.fixture
def driver(request: pytest.FixtureRequest, fresh_root: str, driver_options: dict[str, str]) -> Iterator[Driver]:
    """The driver on a home of its own."""
    name = request.config.getoption("--graphdriver")
    if not name:
        pytest.skip("no --graphdriver was given")
    try:
        opened = loading.load_driver(name, os.path.join(fresh_root, "home"), driver_options)
    except errors.DriverUnavailable as error:
        if request.config.getoption("--graphdriver-require"):
            pytest.fail(f"{error} (and --graphdriver-require was given)")
        pytest.skip(str(error))
    yield opened
    opened.close()


@pytest.fixture
def bench(driver: Driver, fresh_root: str) -> Iterator[Workbench]:
    """The driver with a flat directory beside it."""
    before = os.umask(0o022)
    scratch = os.path.join(fresh_root, "flat")
    os.mkdir(scratch)
    workbench = Workbench(driver, scratch)
    yield workbench
    os.umask(before)
    workbench.forget()


@pytest.fixture
def other_benches(driver: Driver, fresh_root: str) -> Iterator[list[Workbench]]:
    """Every other driver that works here."""
    benches = []
    for entry in loading.list_drivers(fresh_root):
        if entry.usable and entry.name != driver.name:
            home, scratch = (os.path.join(fresh_root, f"{entry.name}-{kind}") for kind in ("home", "flat"))
            os.mkdir(scratch)
            benches.append(Workbench(loading.load_driver(entry.name, home), scratch))
    if not benches:
        pytest.skip("gated: no other driver works here to compare with")
    yield benches
    for one in benches:
        one.forget()
