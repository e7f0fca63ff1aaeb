"""What the tests of budgets share: options, and one trace for each driver.

They run where this folder, or a file in it, is named (``tox -e budgets``), not with all the others: the counts are
the same whatever the Python.
"""

import os
import pathlib
from collections.abc import Callable

import budgetfile
import budgettrace
import pytest

HERE = pathlib.Path(__file__).parent

_SHRUNK = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the way to write the files anew."""
    parser.addoption("--budgets-update", action="store_true", help="budgets: write what is counted into the files")


def pytest_configure(config: pytest.Config) -> None:
    """Begin the list of what has become cheaper."""
    config.stash[_SHRUNK] = []


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave the folder out unless it is named."""
    named = (pathlib.Path(argument.partition("::")[0]).absolute() for argument in config.args)
    return None if any(path.is_relative_to(HERE) for path in named) else True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Tell what has become cheaper, so that its budget is brought down."""
    if config.stash[_SHRUNK]:
        terminalreporter.section("cheaper than its budget: bring it down with --budgets-update")
        for line in config.stash[_SHRUNK]:
            terminalreporter.line(line)


@pytest.fixture(scope="session", autouse=True)
def strace() -> None:
    """Need the program that counts."""
    reason = budgettrace.needs_strace()
    if reason and os.environ.get("GRAPHDRIVERS_OPTIONAL_TOOLS") == "1":
        pytest.skip(reason)
    if reason:
        pytest.fail(f"{reason} (GRAPHDRIVERS_OPTIONAL_TOOLS=1 skips what needs it)")


Hold = Callable[[budgetfile.Subject, budgetfile.Units, budgetfile.Where], None]


@pytest.fixture
def hold(request: pytest.FixtureRequest) -> Hold:
    """Give the function that holds figures against their budget."""

    def held(what: budgetfile.Subject, figures: budgetfile.Units, where: budgetfile.Where) -> None:
        if request.config.getoption("--budgets-update"):
            budgetfile.update(what, figures)
            return
        budget = budgetfile.read(what.operation).get(what.user, {}).get(what.variant)
        if budget is None:
            pytest.fail(f"no budget of {what}: write one with --budgets-update")
        found = budgetfile.changes(budget, figures)
        request.config.stash[_SHRUNK] += [f"{what}: {one}" for one in found if not one.grown]
        grown = [one for one in found if one.grown]
        if grown:
            pytest.fail(f"{what} costs more:\n{budgetfile.told(grown, where)}", pytrace=False)

    return held
