"""A workload as a value: what it models, the rows of figures that it gives, the steps it is composed of."""

from collections.abc import Callable

import attrs

from graphdrivers.bench.bed import Bed
from graphdrivers.bench.scene import Scene
from graphdrivers.bench.steps import Act

SECONDS = "s"
BYTES = "B"

Ground = Callable[[Bed], str | None]
"""Makes (once) the layer that a workload stands on."""


@attrs.frozen
class Row:
    """One figure that a workload gives; the less the better."""

    name: str
    title: str
    """For a table: 14 characters at most."""
    meaning: str
    """What is measured, for people."""
    unit: str = SECONDS
    """``s`` for seconds per operation, ``B`` for bytes."""


@attrs.frozen(kw_only=True)
class Workload:
    """Something that people do with containers, measured."""

    name: str
    title: str
    """What it is, in a few words."""
    purpose: str
    """Who needs it to be fast, to go behind *for*."""
    models: str
    """What is done and what that stands for, in a few sentences."""
    rows: tuple[Row, ...]
    headline: str
    """The row that speaks for all of it."""
    ground: Ground
    act: Act
    once: bool = False
    """It is measured a single time, without a warm-up: what it tells does not vary, or it is dear."""

    def take(self, bed: Bed) -> None:
        """Take one sample into the readings of the bed; what it makes is gone afterwards.

        Raises:
            GraphDriverError, OSError: the driver cannot do it here.
        """
        with Scene(bed, self.ground(bed)) as scene:
            self.act(scene)

    def row(self, name: str) -> Row:
        """Find a row.

        Raises:
            KeyError: there is none of this name.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)
