"""What comes in with an import: where layers are read from, who is told, and how layers are kept meanwhile."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import attrs

from graphdrivers.archive import compression
from graphdrivers.linux.locks import FileLock
from graphdrivers.model import ChainID, DiffID, Limits
from graphdrivers.store import leases, ledger, names
from graphdrivers.store.ledger import Layer
from graphdrivers.store.site import Site


@attrs.frozen(eq=False)
class Source:
    """Where one layer comes from."""

    diff_id: DiffID
    open: Callable[[], BinaryIO]
    """Opens its tar, compressed or not; asked for only when the store lacks the layer."""
    size: int | None = None
    """Bytes of what is opened, as far as known; it only tells whether it is worth another process."""
    distant: bool = False
    """It comes over a network, where several streams bring more than one, whatever the processors do."""


class Watch:
    """Told how an import goes, from several threads, of several layers at a time; this one does nothing."""

    def found(self, number: int, layer: Layer) -> None:
        """Layer ``number`` (from 0) is there already."""

    def began(self, number: int) -> None:
        """Layer ``number`` is unpacked from now on."""

    def consumed(self, number: int, size: int) -> None:
        """``size`` bytes of the uncompressed tar of layer ``number`` are unpacked."""

    def done(self, number: int, layer: Layer) -> None:
        """Layer ``number`` is there now, and durable."""


@attrs.frozen(eq=False)
class Wanted:
    """The layers that an import is to bring, by their numbers from 0, lowest first; and what goes for all of them."""

    site: Site
    sources: Sequence[Source]
    lease: str
    """Holds them until an image does."""
    limits: Limits
    """What each may ask for."""
    told: Watch
    chains: Sequence[ChainID] = attrs.field(init=False)
    """Of the stacks that end with each."""

    @chains.default
    def _chains(self) -> list[ChainID]:
        return chains_of([source.diff_id for source in self.sources])

    def lock(self, number: int, *, timeout: float | None = None) -> FileLock:
        """Give the lock of who makes a layer on those below it."""
        return self.site.lock(f"chain:{self.chains[number]}", timeout=timeout)

    def found(self, number: int) -> Layer | None:
        """Let the lease keep a layer if it is there by now, and give it. Atomic."""
        held = hold(self.site, self.chains[number : number + 1], self.lease)
        return held[0] if held else None

    @contextlib.contextmanager
    def opened(self, number: int) -> Iterator[BinaryIO]:
        """Open the uncompressed tar of a layer for the time of a block."""
        with self.sources[number].open() as stream, compression.open_plain(stream, self.limits) as plain:
            yield plain


def chains_of(diff_ids: Sequence[DiffID]) -> list[ChainID]:
    """Compute the ChainIDs of all stacks that begin with the lowest layer."""
    chains: list[ChainID] = []
    for diff_id in diff_ids:
        chains.append(names.chain_id(chains[-1] if chains else None, diff_id))
    return chains


def hold(site: Site, chains: Sequence[ChainID], lease: str) -> list[Layer]:
    """Let a lease keep the layers of stacks, up to the first that is not there; give them. Atomic."""
    found: list[Layer] = []
    if not chains or ledger.find_chain(site.database, chains[0]) is None:
        return found
    with site.database.write() as step:
        for chain in chains:
            layer = ledger.find_chain(site.database, chain)  # again: it may just have been collected
            if layer is None:
                break
            leases.hold(step, lease, layer.name)
            found.append(layer)
    return found
