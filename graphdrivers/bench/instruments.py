"""What is measured with, found out once and the same for all drivers of a run."""

from typing import Self

import attrs

from graphdrivers.bench import database, memory


@attrs.frozen
class Instruments:
    """Who reads and writes the database, and how memory is measured."""

    database: database.Engine
    memory: memory.Meter

    @classmethod
    def found(cls) -> Self:
        """Take the best that this machine has."""
        return cls(database.engine(), memory.meter())
