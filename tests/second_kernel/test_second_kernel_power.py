"""Power cuts: what a store has acknowledged is there afterwards, nothing else, and it opens without help.

``GRAPHDRIVERS_POWER_CUTS`` is how many (6), ``GRAPHDRIVERS_POWER_CUTS_BTRFS`` how many more on subvolumes (2); their
seeds follow on those of the short form.
"""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from power import Case, Outcome, outcome_of

KINDS = (
    ("ext4", "commit=1", "overlay", "layer"),
    ("ext4", "commit=1000", "vfs", "layer"),
    ("xfs", "", "overlay", "layer"),
    ("btrfs", "commit=1", "overlay", "layer"),
    ("ext4", "commit=1000", "overlay", "file"),
    ("ext4", "commit=1", "vfs", "file"),
    ("xfs", "", "vfs", "file"),
    ("btrfs", "commit=1000", "vfs", "layer"),
    ("ext4", "commit=1000", "overlay", "layer"),
    ("ext4", "commit=1", "aufs", "layer"),
    ("xfs", "", "aufs", "layer"),
)
"""As many as are coprime with 4 and 5, which choose what else is cut."""
CUTS = int(os.environ.get("GRAPHDRIVERS_POWER_CUTS", "6"))
CASES = [
    Case(*KINDS[number % len(KINDS)], seed=number, makes=number % 5 == 4, recovery_cuts=int(number % 4 == 1))
    for number in range(CUTS)
]
CASES += [
    Case("btrfs", "commit=1", "btrfs", "layer", seed=number, makes=number % 10 == 9, recovery_cuts=int(number % 4 == 1))
    for number in range(int(os.environ.get("GRAPHDRIVERS_POWER_CUTS_BTRFS", "2")))
]
BROKEN = [
    Case("ext4", "commit=1000", "overlay", "none", seed=0),
    Case("ext4", "commit=1000", "overlay", "layer", seed=0, broken="ledger"),
    Case("ext4", "commit=1000", "overlay", "layer", seed=0, broken="syncfs"),
]
"""Without what makes a store durable: they must be seen to lose what they acknowledged."""

Running = dict[Case, Future[Outcome]]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """All guests, as many at once as there are processors: a guest has only one."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {case: pool.submit(outcome_of, case) for case in (*BROKEN, *CASES)}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_was_acknowledged_is_there(running: Running, case: Case) -> None:
    """Everything acknowledged is there to the byte, what was removed is not back, nothing is left over."""
    outcome = running[case].result()

    assert case.makes or outcome.acknowledged >= 1
    assert outcome.complaints == []


@pytest.mark.parametrize("case", BROKEN, ids=str)
def test_the_loss_is_noticed(running: Running, case: Case) -> None:
    """A store that does not make durable what it acknowledges is found out."""
    assert running[case].result().complaints
