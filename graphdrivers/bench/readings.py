"""What one sample says: the clock that workloads start, and what they cannot do."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

import attrs

Mark = Callable[[str, str], None]
"""Called with ``begin`` or ``end`` and the name of a row."""


def _unmarked(_word: str, _row: str) -> None:
    """Set no mark."""


@attrs.frozen
class Reading:
    """One figure of one sample."""

    value: float
    """In the row's unit; a time is the mean of its operations."""
    operations: int = 1


@attrs.define
class Readings:
    """The figures of one sample, row by row, while it is taken."""

    seconds: dict[str, float] = attrs.Factory(dict)
    operations: dict[str, int] = attrs.Factory(dict)
    sizes: dict[str, float] = attrs.Factory(dict)
    refused: dict[str, str] = attrs.Factory(dict)
    mark: Mark = _unmarked
    """Where system calls are counted, what tells the counter which row they are made for."""

    @contextlib.contextmanager
    def clock(self, row: str, operations: int = 1) -> Iterator[None]:
        """Add the time that the block takes, and how often it does its work; a block that fails adds nothing."""
        # Not by `span`: one more context manager would be a hundredth of the time of rows that others lie in.
        self.mark("begin", row)
        start = time.perf_counter()
        yield
        self.add(row, time.perf_counter() - start, operations)
        self.mark("end", row)

    @contextlib.contextmanager
    def span(self, row: str) -> Iterator[None]:
        """Mark the block as the row's, whose time something else measures; one that fails has no end."""
        self.mark("begin", row)
        yield
        self.mark("end", row)

    def add(self, row: str, seconds: float, operations: int = 1) -> None:
        """Add a time that something else measured."""
        self.seconds[row] = self.seconds.get(row, 0.0) + seconds
        self.operations[row] = self.operations.get(row, 0) + operations

    def note(self, row: str, size: float) -> None:
        """Set a size in bytes."""
        self.sizes[row] = size

    def cannot(self, row: str, reason: str) -> None:
        """Say why there is no figure, whatever was clocked."""
        self.refused[row] = reason
        self.operations.pop(row, None)

    def taken(self) -> Mapping[str, Reading]:
        """Give the figures: sizes as they are, times per operation."""
        times = {row: Reading(self.seconds[row] / count, count) for row, count in self.operations.items() if count}
        return times | {row: Reading(size) for row, size in self.sizes.items()}
