"""What an open store is, whatever is done with it: its place and driver, open until it is closed."""

from typing import NoReturn, Self

from graphdrivers.driver import Driver
from graphdrivers.store.recover import Problem
from graphdrivers.store.site import Site


class Opened:
    """Something open; a context manager, which closes it."""

    def __init__(self, site: Site, problems: list[Problem]) -> None:
        """Take over what `opening.open_site` gave; see `open_store`."""
        self._site = site
        self._closed = False
        self.problems = tuple(problems)
        """What opening could not repair."""

    def __repr__(self) -> str:
        """Name the root, the driver, and whether it is closed."""
        return f"<{type(self).__name__} {self.root!r} {self._site.driver.name}{' closed' if self._closed else ''}>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied.

        Raises:
            TypeError: always.
        """
        raise TypeError("a store cannot be pickled: open it in the other process, with graphdrivers.open_store(root)")

    @property
    def site(self) -> Site:
        """The floor below, for tools that need more than is offered here.

        Raises:
            ValueError: it is closed.
        """
        if self._closed:
            raise ValueError(f"the store {self.root!r} is closed: open it again, with graphdrivers.open_store(root)")
        return self._site

    @property
    def root(self) -> str:
        """Where everything lies."""
        return self._site.root

    @property
    def driver(self) -> Driver:
        """The driver in use; its layers are the store's, to be looked at only."""
        return self.site.driver

    def close(self) -> None:
        """Let go of the driver and the ledger. Idempotent."""
        self._closed = True
        self._site.close()

    def __enter__(self) -> Self:
        """Give itself.

        Raises:
            ValueError: it is closed.
        """
        _ = self.site
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.close()
