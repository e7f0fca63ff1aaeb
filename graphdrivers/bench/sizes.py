"""How much work a sample is: small enough for a coffee break by default, what it models when all of it is asked for."""

import attrs


@attrs.frozen(kw_only=True)
class Sizes:
    """What the workloads work on. The names of the workloads say how often; see `patience`."""

    image: int = 24 << 20
    """Bytes of files in the lowest layer of the built-in sample, at most."""
    files: int = 500
    """Small files that a workload writes at most."""
    database: int = 64 << 20
    """Bytes of the database's file."""
    writes: int = 64
    """Random writes of 4 KiB to it."""
    shared: int = 8 << 20
    """Bytes of the files that every container of ``density`` reads."""
    patience: float = 0.5
    """Seconds of one sample after which what it does many times is not begun again: a copying driver makes 3
    containers where another makes 100. Times are per operation, so both can be compared. Making the ground that a
    workload stands on has ten times as long."""


FULL = Sizes(image=60 << 20, files=5000, database=1 << 30, writes=1000, shared=64 << 20, patience=float("inf"))
"""What the workloads model, whatever it costs."""
