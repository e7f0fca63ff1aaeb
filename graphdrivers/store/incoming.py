"""What comes in with an import: where layers are read from, who is told, and how layers are kept meanwhile."""

from collections.abc import Callable, Sequence
from typing import BinaryIO

import attrs

from graphdrivers.model import ChainID, DiffID
from graphdrivers.store import ledger, making, names
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
            making.hold(step, lease, layer.name)
            found.append(layer)
    return found
