"""No operation makes more system calls, or transactions of SQLite, than its budget allows."""

import functools
from collections.abc import Callable

import budgettrace
import pytest
from budgetfile import Change, Subject
from budgetrun import COUNTED
from budgetwork import OPERATIONS

SUBJECTS = [(user, driver) for user in budgettrace.users() for driver in COUNTED[user]]

Trace = Callable[[str, str], budgettrace.Runs]


@pytest.fixture(scope="module")
def runs() -> Trace:
    """Give the function that traces all operations of a user on a driver, once."""
    return functools.cache(lambda user, driver: budgettrace.traced(driver, user=user))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(("user", "driver"), SUBJECTS)
def test_operation(user: str, driver: str, name: str, runs: Trace, hold: Callable[..., None]) -> None:
    """An operation on a driver makes the calls of its budget; lines that make more of them are told."""

    @functools.cache
    def lines() -> budgettrace.Runs:
        return budgettrace.traced(driver, [name], user=user, lines=True)

    def where(grown: Change) -> list[str]:
        return budgettrace.places(lines(), name, grown.unit, grown.kind)

    figures = budgettrace.figures(runs(user, driver), name)
    hold(Subject(name, OPERATIONS[name].title, user, driver), figures, where)
