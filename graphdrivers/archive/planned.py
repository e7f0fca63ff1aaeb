"""Merged trees read from a mount plan, without mounting it and without privilege.

A plan says which directories are merged and how, and for a plain directory and
for overlays that is all that `PlainTree` and `Union` need to know. Whoever gets
``None`` from here mounts the plan (``graphdrivers.linux.mounts.opened``).
"""

import contextlib
import os
from collections.abc import Iterator, Sequence

import attrs

from graphdrivers.archive.entries import Tree
from graphdrivers.archive.plain import PlainTree
from graphdrivers.archive.union import Branch, Union
from graphdrivers.archive.whiteouts import OVERLAY, OVERLAY_USER
from graphdrivers.model import Mount

_KNOWN = frozenset(
    {"lowerdir+", "upperdir", "workdir", "userxattr", "index", "metacopy", "redirect_dir", "xino", "volatile"}
)
"""Options of overlay whose meaning for a reader is known here; most have none."""


@contextlib.contextmanager
def planned_tree(plan: Sequence[Mount], *, recorded: bool = False) -> Iterator[Tree | None]:
    """Give the merged tree of a plan, as its mount would show it; nothing is mounted.

    Redirects and metadata-only copies are followed whatever the plan says of
    them: a layer has some only where its mounts follow them. What the plan names
    must not change while the tree is used.

    Args:
        plan: what a driver's ``mounts`` gave.
        recorded: show owners and modes as recorded (`graphdrivers.archive.owners`), which a mount does not.

    Yields:
        The tree, or ``None`` for a plan that has to be mounted to be read.

    Raises:
        OSError: a directory cannot be opened; while reading: a file cannot be.
    """
    branches = branches_of(plan, recorded=recorded)
    if branches is not None:
        with Union(branches) as union:
            yield union
        return
    source = _plain_source(plan)
    if source is None:
        yield None
        return
    root = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with PlainTree(root, recorded=recorded) as tree:
            yield tree
    finally:
        os.close(root)


def branches_of(plan: Sequence[Mount], *, recorded: bool = False) -> list[Branch] | None:
    """Give the directories that an overlay merges, top first; ``None`` where the plan is not one overlay.

    Arguments as for `planned_tree`.
    """
    if len(plan) != 1 or plan[0].type != "overlay" or plan[0].target:
        return None
    options = plan[0].options
    if any(key not in _KNOWN for key, _ in options):
        return None
    dialect = OVERLAY_USER if ("userxattr", None) in options else OVERLAY
    if recorded:
        dialect = attrs.evolve(dialect, records_owners=True)
    uppers = [value for key, value in options if key == "upperdir"]
    lowers = [value for key, value in options if key == "lowerdir+"]
    return [Branch(path, dialect) for path in (*uppers, *lowers) if path is not None] or None


def _plain_source(plan: Sequence[Mount]) -> str | None:
    """Give the directory that is the merged tree as it stands, if there is one."""
    if len(plan) != 1 or plan[0].type != "bind" or plan[0].target:
        return None
    return plan[0].source
