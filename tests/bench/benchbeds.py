"""What beds of real drivers are opened with in tests."""

import os
from collections.abc import Callable

from graphdrivers.bench.bed import Bed
from graphdrivers.bench.sizes import Sizes

TINY = Sizes(files=20, database=1 << 20, writes=4, shared=1 << 20, patience=0.0)

DRIVERS = ["overlay", "vfs"] if os.geteuid() == 0 else ["vfs"]

Opening = Callable[..., list[Bed]]
"""What the fixture ``opening`` gives."""
