"""What a program keeps of a store for a while."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Self

from graphdrivers.store import leases
from graphdrivers.store.site import Site


class Lease:
    """A layer kept from being collected; a context manager that ends it."""

    def __init__(self, site: Site, layer: str, lease: str) -> None:
        """Take over what `leases.take` gave."""
        self._site = site
        self.layer = layer
        """What is kept, with all below it: its name in the driver."""
        self.lease = lease
        """What `Store.explain` calls it."""

    def release(self) -> None:
        """End it; what it alone kept stays until it is collected. Idempotent."""
        leases.end(self._site, self.lease)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


@contextlib.contextmanager
def keeping(site: Site, layers: Iterable[str | None]) -> Iterator[None]:
    """Keep layers for the time of a block, for work that reads them and that nobody else knows of."""
    with contextlib.ExitStack() as held:
        for layer in layers:
            if layer is not None:
                held.callback(leases.end, site, leases.take(site, layer))
        yield
