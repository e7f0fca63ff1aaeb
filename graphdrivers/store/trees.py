"""The merged trees of layers, opened to be read: as they lie on disk where that can be, else where nobody sees it."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from graphdrivers import archive
from graphdrivers.linux import mounts
from graphdrivers.store.site import Site

if TYPE_CHECKING:
    from graphdrivers.archive.entries import Tree
    from graphdrivers.archive.union import Branch


@contextlib.contextmanager
def opened(site: Site, layer: str) -> "Iterator[Tree]":
    """Open the merged tree of a layer for the time of a block; needs no privilege where its files can be read.

    Raises:
        LayerNotFound: there is no such layer.
        OSError: it can neither be read as it lies on disk nor be mounted by this user.
    """
    recorded = site.driver.support.capabilities.recorded_owners
    plan = site.driver.mounts(layer, view=True)
    with archive.planned.planned_tree(plan, recorded=recorded) as tree:
        if tree is not None:
            yield tree
            return
    with mounts.opened(plan) as root, archive.plain.PlainTree(root, recorded=recorded) as mounted:
        yield mounted


def layers_above(site: Site, base: str, top: str) -> "tuple[Sequence[Branch], Sequence[Branch]] | None":
    """Give the directories that ``top`` has above those of ``base``, and the latter, each topmost first.

    ``None`` where ``top`` does not stand on ``base``, or where a layer is not a
    directory that an overlay merges.
    """
    recorded = site.driver.support.capabilities.recorded_owners
    upper = archive.planned.branches_of(site.driver.mounts(top, view=True), recorded=recorded)
    if upper is None:
        return None
    plan = site.driver.mounts(base, view=True)
    lower = archive.planned.branches_of(plan, recorded=recorded)
    if lower is None and len(plan) == 1 and plan[0].type == "bind" and plan[0].source == upper[-1].directory:
        lower = upper[-1:]
    if lower is None or len(lower) >= len(upper):
        return None
    if [branch.directory for branch in lower] != [branch.directory for branch in upper[-len(lower) :]]:
        return None
    return upper[: -len(lower)], upper[-len(lower) :]
