"""Agreement: every driver that works here shows the same trees and gives the same bytes."""

import pytest

from graphdrivers.conformance.observe import assert_same
from graphdrivers.conformance.randomly import random_edits
from graphdrivers.conformance.workbench import Workbench
from graphdrivers.model import Capabilities, Profile

_LAYERS = 3
_EDITS = 25


def _common(benches: list[Workbench]) -> Capabilities:
    """Give what every one of these drivers can do."""
    least = {
        field: all(getattr(bench.can, field) for bench in benches)
        for field in ("rename_directories", "hard_links_across_layers", "user_xattrs", "ownership")
    }
    return Capabilities(**least)


@pytest.mark.parametrize("seed", range(4))
def test_random_stacks_are_the_same_everywhere(bench: Workbench, other_benches: list[Workbench], seed: int) -> None:
    """The diffs of a random stack, applied by every other driver, give the same trees, changes and diffs again."""
    can = _common([bench, *other_benches])
    parent = None
    for number, made in enumerate(random_edits(bench, bench.flat(), seed, layers=_LAYERS, count=_EDITS, can=can)):
        name = f"layer{number}"
        bench.layer(name, parent, made.edits)
        tars = {profile: bench.diff(name, profile) for profile in Profile}
        for other in other_benches:
            other.applied(name, parent, tars[Profile.FULL])

            assert_same(bench.tree(name), other.tree(name))
            assert other.changes(name) == bench.changes(name), other.driver.name
            assert {profile: other.diff(name, profile) for profile in Profile} == tars, other.driver.name
        parent = name


@pytest.mark.parametrize("seed", range(100, 104))
def test_the_same_edits_give_the_same_bytes(bench: Workbench, other_benches: list[Workbench], seed: int) -> None:
    """Random edits made through each driver's own mounts give the same trees, changes and diffs on all of them."""
    can = _common([bench, *other_benches])
    parent = None
    for number, made in enumerate(random_edits(bench, bench.flat(), seed, layers=_LAYERS, count=_EDITS, can=can)):
        name = f"layer{number}"
        for one in (bench, *other_benches):
            one.layer(name, parent, made.edits)
            assert_same(made.expected, one.tree(name))
        for other in other_benches:
            assert other.changes(name) == bench.changes(name), other.driver.name
            assert other.diff(name) == bench.diff(name), other.driver.name
        parent = name
