"""Attributes of a new layer's root directory."""

import os
import stat

from graphdrivers.archive import owners
from graphdrivers.archive.whiteouts import PLAIN, Dialect
from graphdrivers.kit import layerdirs


def make_root(folder: str, *, ownership: bool, dialect: Dialect = PLAIN) -> None:
    """Make the root of a layer without parent: 0755, 0:0, times 0, no xattrs, whatever the umask.

    Without ``ownership`` it stays the caller's, and its owner is recorded where the dialect does that.
    """
    layerdirs.make_private(folder)
    if ownership:
        os.chown(folder, 0, 0)
    os.chmod(folder, 0o755)  # noqa: S103 - the root of an image; the folder that holds it is 0700
    if dialect.records_owners:
        with layerdirs.directory(folder) as opened:
            owners.give(opened, 0, 0, 0o755, bound=owners.is_bound())
    os.utime(folder, ns=(0, 0))


def make_root_like(folder: str, parent: str, *, ownership: bool, dialect: Dialect = PLAIN) -> None:
    """Make the root of a layer with the attributes of its parent's, a record of its owner too, other marks left out."""
    layerdirs.make_private(folder)
    facts = os.stat(parent)
    if ownership:
        os.chown(folder, facts.st_uid, facts.st_gid)
    for name in os.listxattr(parent):
        if name == owners.XATTR or not dialect.is_private(name):
            os.setxattr(folder, name, os.getxattr(parent, name))
    os.chmod(folder, stat.S_IMODE(facts.st_mode))
    os.utime(folder, ns=(facts.st_atime_ns, facts.st_mtime_ns))
