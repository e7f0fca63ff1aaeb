"""The merged trees of layers, opened to be read."""

import contextlib
from collections.abc import Iterator

from graphdrivers.archive.entries import Tree
from graphdrivers.archive.plain import PlainTree
from graphdrivers.linux import mounts
from graphdrivers.store.site import Site


@contextlib.contextmanager
def opened(site: Site, layer: str) -> Iterator[Tree]:
    """Open the merged tree of a layer for the time of a block, where nobody sees it.

    Raises:
        LayerNotFound: there is no such layer.
        OSError: it can neither be read as it lies on disk nor be mounted by this user.
    """
    recorded = site.driver.support.capabilities.recorded_owners
    with mounts.opened(site.driver.mounts(layer, view=True)) as root, PlainTree(root, recorded=recorded) as tree:
        yield tree
