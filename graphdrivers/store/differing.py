"""What differs between two layers of a store, whatever lies between them."""

import contextlib
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

from graphdrivers import archive, errors, naivediff
from graphdrivers.model import Change, Profile
from graphdrivers.store import ledger, names, trees
from graphdrivers.store.site import Site

if TYPE_CHECKING:
    from graphdrivers.archive.entries import Difference, Tree

_PIECE = 1 << 20


def changes(site: Site, base: str | None, top: str | None) -> Iterator[Change]:
    """Give what has to be done to the merged tree of ``base`` to make it that of ``top``, sorted by path bytes.

    ``None`` is an empty tree.

    Costs what changed where ``top`` stands on ``base`` and the driver knows its
    changes; else both trees are walked.

    Raises (while iterating):
        FileChanged: a layer was removed meanwhile; some of what it held may be missing.
    """
    if top is not None and _parent(site, top) == base:
        return _changes_of(site, top)
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
        return _checked(site, (top,), site.driver.diff(top, profile=profile, source_date_epoch=source_date_epoch))
    return compared(site, base, top, profile=profile, source_date_epoch=source_date_epoch)


def compared(
    site: Site,
    base: str | None,
    top: str | None,
    *,
    profile: Profile = Profile.FULL,
    source_date_epoch: int | None = None,
) -> BinaryIO:
    """Give it by comparing the two trees, which may also be those of layers made by hand."""
    found = _differences(site, base, top)
    stream = archive.produce.produce(found, profile=profile, source_date_epoch=source_date_epoch)
    return _checked(site, (base, top), stream)


def differences(site: Site, base: str | None, top: str | None) -> "Iterator[Difference]":
    """Compare two merged trees; both stay open until the iterator is at its end or closed.

    Raises (while iterating):
        FileChanged: a layer was removed meanwhile; some of what it held may be missing.
    """
    with _whole(site, base, top):
        yield from _differences(site, base, top)


def _differences(site: Site, base: str | None, top: str | None) -> "Iterator[Difference]":
    above = None if base is None or top is None else trees.layers_above(site, base, top)
    with contextlib.ExitStack() as stack:
        if above is not None:
            uppers, lowers = above
            yield from archive.compare.compare_layers(uppers, stack.enter_context(archive.union.Union(lowers)))
            return
        lower, upper = (stack.enter_context(_opened(site, layer)) for layer in (base, top))
        yield from archive.compare.compare(lower, upper)


def _changes_of(site: Site, top: str) -> Iterator[Change]:
    with _whole(site, top):
        yield from site.driver.changes(top)


def _checked(site: Site, layers: tuple[str | None, ...], stream: BinaryIO) -> BinaryIO:
    return cast("BinaryIO", archive.stream.ChunkStream(_pieces(site, layers, stream), stream.close))


def _pieces(site: Site, layers: tuple[str | None, ...], stream: BinaryIO) -> Generator[bytes]:
    with stream, _whole(site, *layers):
        while piece := stream.read(_PIECE):
            yield piece


@contextlib.contextmanager
def _whole(site: Site, *layers: str | None) -> Iterator[None]:
    """Refuse what a block read of layers that were removed meanwhile: who lists a folder does not miss what is gone.

    A layer that is removed is out of the ledger's use before its first file goes.
    """
    try:
        yield
    except OSError as error:  # a file that was there a moment ago, say
        _refuse_removed(site, layers, error)
        raise
    _refuse_removed(site, layers)


def _refuse_removed(site: Site, layers: tuple[str | None, ...], cause: OSError | None = None) -> None:
    for layer in layers:
        if layer is not None and names.is_own(layer):  # the ledger knows no layers made by hand
            try:
                ledger.find_layer(site.database, layer)
            except errors.LayerNotFound:
                raise errors.FileChanged(f"layer {layer!r} was removed") from cause


def _opened(site: Site, layer: str | None) -> "contextlib.AbstractContextManager[Tree]":
    return contextlib.nullcontext(archive.plain.EmptyTree()) if layer is None else trees.opened(site, layer)


def _parent(site: Site, layer: str) -> str | None:
    return ledger.find_layer(site.database, layer).parent
