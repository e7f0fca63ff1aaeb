"""Every case of the corpus, on every driver that works here: the right outcome, and the same on all of them."""

import pytest
from cases import Case
from corpus import all_cases
from stage import assert_outcome, expected_of, isolated, perform

from graphdrivers.conformance.observe import assert_same
from graphdrivers.driver import Driver

CASES = all_cases()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_hostile_layer(case: Case, drivers: list[Driver]) -> None:
    """The layer is refused by name, or gives just the tree it should; nothing beside it changes, nothing is left."""
    outcomes = {}
    for driver in drivers:
        outcome = isolated(lambda driver=driver: perform(driver, case))
        expected = expected_of(case, driver)
        assert_outcome(expected, outcome, driver.name)
        if expected is case.outcome:
            outcomes[driver.name] = outcome
    first, *others = outcomes.values()
    for other in others:
        assert (first.error, first.member, first.offset) == (other.error, other.member, other.offset)
        assert_same(first.tree, other.tree)
        assert first.diff == other.diff, list(outcomes)
