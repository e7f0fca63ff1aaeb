"""The pytest plugin: which driver is checked, on which file system, what was left out, and what deviates.

The driver is named on the command line::

    pytest -p graphdrivers.conformance.plugin --pyargs graphdrivers.conformance --graphdriver NAME

or in pytest's configuration file (``graphdriver = NAME``), with this one line in
a ``conftest.py``; the suite then belongs to the tests of that folder::

    pytest_plugins = ["graphdrivers.conformance.plugin"]

A check that needs what the driver does not claim is *gated*: left out and
counted, with the capability's name. A check that the driver declares as a
`graphdrivers.model.Deviation` must fail. The last lines say how many checks
there are, ran, failed, were gated, and deviated as expected.
"""

import contextlib
import importlib.util
import os
import pathlib
import tempfile
from collections.abc import Generator, Iterable, Iterator

import pytest

from graphdrivers import errors, loading
from graphdrivers.conformance import dump, suite
from graphdrivers.conformance.tally import Tally
from graphdrivers.conformance.workbench import Workbench
from graphdrivers.driver import Driver
from graphdrivers.linux import mountinfo, trees
from graphdrivers.model import Deviation, Support

_TALLY = pytest.StashKey[Tally]()
_PROBED = pytest.StashKey[dict[tuple[object, ...], Support]]()
_DUMP = pytest.StashKey[list[tuple[str, str]]]()


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
    group.addoption(
        "--graphdriver-examples", metavar="N", type=int, help="random lives to try, and time to shorten what fails"
    )
    group.addoption("--graphdriver-report", metavar="FILE", help="write the counts there as JSON")
    parser.addini("graphdriver", "the driver to check, where --graphdriver names none", default="")
    parser.addini("graphdriver_opt", "options of the driver, KEY=VALUE, one a line", type="linelist", default=[])


def pytest_configure(config: pytest.Config) -> None:
    """Find out what is asked for."""
    name = _driver_name(config)
    if not name:
        return
    if importlib.util.find_spec("hypothesis") is None:
        raise pytest.UsageError("hypothesis is missing: pip install 'graphdrivers[conformance]'")
    config.stash[_TALLY] = Tally(name)
    config.pluginmanager.register(config.stash[_TALLY], "graphdriver-tally")
    config.args[:] = [suite.located(argument) for argument in config.args]
    if any(_is_within(folder, argument) for folder in _joined_folders(config) for argument in config.args):
        config.args.append(suite.FOLDER)


def _driver_name(config: pytest.Config) -> str:
    return str(config.getoption("--graphdriver") or config.getini("graphdriver"))


def _joined_folders(config: pytest.Config) -> Iterator[str]:
    """Give the folder of each ``conftest.py`` that names this plugin."""
    for plugin in config.pluginmanager.get_plugins():
        wanted = getattr(plugin, "pytest_plugins", ())
        path = getattr(plugin, "__file__", None) or ""
        if os.path.basename(path) == "conftest.py" and __name__ in ([wanted] if isinstance(wanted, str) else wanted):
            yield os.path.dirname(os.path.realpath(path))


def _is_within(folder: str, argument: str) -> bool:
    """Say whether an argument of pytest's is a folder that holds this one, or is it."""
    given = os.path.realpath(argument)
    return os.path.isdir(given) and os.path.commonpath([given, folder]) == given


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take stock, before ``-k`` and its like leave anything out."""
    tally = config.stash.get(_TALLY, None)
    if tally is None:
        if any(suite.name_of(item.path, item.name) for item in items):
            raise pytest.UsageError("which driver? --graphdriver NAME, or 'graphdriver = NAME' in the configuration")
        return
    folder = pathlib.Path(suite.FOLDER)
    partly = [option for option in ("lf", "ignore", "ignore_glob") if config.getoption(option, None)]
    tally.whole = not partly and any(session.isinitpath(place) for place in (folder, *folder.parents))
    tally.collect(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Look around where a check has just failed; a failure to look hides nothing: it is chained to the first."""
    try:
        return (yield)
    except (Exception, pytest.fail.Exception):
        opened = getattr(item, "funcargs", {}).get("driver")
        if isinstance(opened, Driver):
            item.stash[_DUMP] = list(dump.sections(opened))
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put what was seen into the report."""
    report = yield
    seen = item.stash.get(_DUMP, None)
    if report.failed and seen:
        report.sections.extend(seen)
        del item.stash[_DUMP]
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Fail a run that passed but lacks checks, or whose declared deviations mean nothing."""
    ended = yield
    tally = session.config.stash.get(_TALLY, None)
    if tally is not None and not session.config.option.collectonly:
        session.testsfailed += len(tally.problems())
    return ended


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the last lines, and write the report."""
    tally = config.stash.get(_TALLY, None)
    if tally is None or config.option.collectonly:
        return
    for line in tally.lines():
        terminalreporter.write_line(line)
    for problem in tally.problems():
        terminalreporter.write_line(f"graphdriver {tally.driver}: FAILED: {problem}", red=True)
    if config.getoption("--graphdriver-report"):
        tally.write(config.getoption("--graphdriver-report"))


@pytest.fixture
def driver_options(request: pytest.FixtureRequest) -> dict[str, str]:
    """Options of the driver, from ``--graphdriver-opt``, else from the configuration."""
    given = request.config.getoption("--graphdriver-opt") or request.config.getini("graphdriver_opt")
    pairs = [pair.partition("=") for pair in given]
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


def _declared(request: pytest.FixtureRequest, deviations: Iterable[Deviation]) -> list[Deviation]:
    """Give those of the deviations that are about the check that asks."""
    check = suite.name_of(request.path, request.node.name)
    return [one for one in deviations if suite.matches(one.check, check)]


@pytest.fixture
def driver(request: pytest.FixtureRequest, fresh_root: str, driver_options: dict[str, str]) -> Iterator[Driver]:
    """The driver on a home of its own; on each file system, and with each set of options, it is probed once."""
    name = _driver_name(request.config)
    if not name:
        raise pytest.UsageError("which driver? --graphdriver NAME, or 'graphdriver = NAME' in the configuration")
    probed = request.config.stash.setdefault(_PROBED, {})
    circumstances = (os.stat(fresh_root).st_dev, *sorted(driver_options.items()))
    known = probed.get(circumstances)
    try:
        opened = loading.load_driver(name, os.path.join(fresh_root, "home"), driver_options, support=known)
    except errors.DriverUnavailable as error:
        if request.config.getoption("--graphdriver-require"):
            pytest.fail(f"{error} (and --graphdriver-require was given)")
        pytest.skip(str(error))
    probed[circumstances] = opened.support
    request.config.stash[_TALLY].open(opened.support)
    for deviation in _declared(request, opened.support.deviations):
        reason = f"declared deviation: {deviation.reason} ({deviation.link})"
        request.node.add_marker(pytest.mark.xfail(strict=not deviation.sometimes, reason=reason))
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
def other_benches(request: pytest.FixtureRequest, driver: Driver, fresh_root: str) -> Iterator[list[Workbench]]:
    """Every other driver that works here, but those that say themselves that they deviate from this check."""
    benches = []
    for entry in loading.list_drivers(fresh_root):
        if entry.usable and entry.name != driver.name and not _declared(request, entry.deviations):
            home, scratch = (os.path.join(fresh_root, f"{entry.name}-{kind}") for kind in ("home", "flat"))
            os.mkdir(scratch)
            with contextlib.suppress(errors.DriverNotFound):  # a plugin that is broken in its constructor
                benches.append(Workbench(loading.load_driver(entry.name, home), scratch))
    if not benches:
        pytest.skip("gated: no other driver works here to compare with")
    yield benches
    for one in benches:
        one.forget()
