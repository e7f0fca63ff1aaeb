"""Every case of the corpus, on every driver that works here: the right outcome, and the same on all of them."""

import os
import pathlib
import tempfile

import pytest
from cases import Case
from corpus import all_cases
from stage import assert_outcome, expected_of, isolated, perform

from graphdrivers.conformance.observe import assert_same
from graphdrivers.driver import Driver
from graphdrivers.linux import namespaces

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and whiteouts need root")

CASES = all_cases()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_hostile_layer(case: Case, drivers: list[Driver]) -> None:
    """The layer is refused by name, or gives just the tree it should; nothing beside it changes, nothing is left."""
    outcomes = {}
    for driver in drivers:
        places = (os.path.dirname(driver.home), tempfile.gettempdir())
        outcome = isolated(lambda driver=driver: perform(driver, case), writable=places)
        expected = expected_of(case, driver)
        assert_outcome(expected, outcome, driver.name)
        if expected is case.outcome:
            outcomes[driver.name] = outcome
    first, *others = outcomes.values()
    for other in others:
        assert (first.error, first.member, first.offset) == (other.error, other.member, other.offset)
        assert_same(first.tree, other.tree)
        assert first.diff == other.diff, list(outcomes)


@pytest.mark.skipif(not namespaces.has_capability("CAP_SYS_ADMIN"), reason="needs a mount namespace")
def test_the_machine_is_sheltered(tmp_path: pathlib.Path) -> None:
    """Where cases run, nothing of the root file system can be written but the folders they are given."""

    def work() -> tuple[bool, bool]:
        (tmp_path / "inside").write_text("x")
        return os.access("/etc", os.W_OK), os.access("/etc/passwd", os.W_OK)

    assert isolated(work, writable=(str(tmp_path),)) == (False, False)
    assert (tmp_path / "inside").read_text() == "x"
