"""What differs between two layers of a store, whatever lies between them."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from graphdrivers import archive, naivediff
from graphdrivers.model import Change, Profile
from graphdrivers.store import ledger, trees
from graphdrivers.store.site import Site

if TYPE_CHECKING:
    from graphdrivers.archive.entries import Difference, Tree


def changes(site: Site, base: str | None, top: str | None) -> Iterator[Change]:
    """Give what has to be done to the merged tree of ``base`` to make it that of ``top``, sorted by path bytes.

    ``None`` is an empty tree.

    Costs what changed where ``top`` stands on ``base`` and the driver knows its
    changes; else both trees are walked.
    """
    if top is not None and _parent(site, top) == base:
        return site.driver.changes(top)
    return naivediff.listed(differences(site, base, top))


def diff(
    site: Site,
    base: str | None,
    top: str | None,
    *,
    profile: Profile = Profile.FULL,
    source_date_epoch: int | None = None,
) -> BinaryIO:
    """Give the same as an uncompressed layer tar; the caller closes it."""
    if top is not None and _parent(site, top) == base:
        return site.driver.diff(top, profile=profile, source_date_epoch=source_date_epoch)
    return archive.produce.produce(differences(site, base, top), profile=profile, source_date_epoch=source_date_epoch)


def differences(site: Site, base: str | None, top: str | None) -> "Iterator[Difference]":
    """Compare two merged trees; both stay open until the iterator is at its end or closed."""
    above = None if base is None or top is None else trees.layers_above(site, base, top)
    with contextlib.ExitStack() as stack:
        if above is not None:
            uppers, lowers = above
            yield from archive.compare.compare_layers(uppers, stack.enter_context(archive.union.Union(lowers)))
            return
        lower, upper = (stack.enter_context(_opened(site, layer)) for layer in (base, top))
        yield from archive.compare.compare(lower, upper)


def _opened(site: Site, layer: str | None) -> "contextlib.AbstractContextManager[Tree]":
    return contextlib.nullcontext(archive.plain.EmptyTree()) if layer is None else trees.opened(site, layer)


def _parent(site: Site, layer: str) -> str | None:
    return ledger.find_layer(site.database, layer).parent
