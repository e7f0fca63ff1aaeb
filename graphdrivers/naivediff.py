"""Correct, slow defaults for a driver that can only mount: everything is found by looking at merged trees.

A driver that knows its changes natively overrides these verbs; the conformance
suite compares the two.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from graphdrivers import archive, errors
from graphdrivers.archive.whiteouts import PLAIN, PLAIN_RECORDED
from graphdrivers.driver import Driver
from graphdrivers.linux import mountinfo, mounts
from graphdrivers.model import Applied, Change, ChangeKind, LayerRecord, Limits, Mount, Profile, Progress, Usage

if TYPE_CHECKING:
    from graphdrivers.archive.compare import Lister
    from graphdrivers.archive.entries import Difference, Tree
    from graphdrivers.archive.equality import Proof
    from graphdrivers.archive.plain import PlainTree


def find_record(driver: Driver, layer: str) -> LayerRecord:
    """Return one layer's record, by looking through all of them.

    Raises:
        LayerNotFound: there is no such layer.
    """
    for record in driver.layers():
        if record.name == layer:
            return record
    raise errors.LayerNotFound(layer)


def differences(
    driver: Driver, record: LayerRecord, unchanged: "Proof | None" = None, pairs: "Lister | None" = None
) -> "Iterator[Difference]":
    """Compare the merged view of any driver's layer with its parent's, both whole unless ``pairs`` knows better.

    Both stay mounted, where nobody sees it, until the iterator is at its end or closed.
    """
    with contextlib.ExitStack() as stack:
        lower: Tree = archive.plain.EmptyTree()
        if record.parent is not None:
            lower = stack.enter_context(_view(driver, record.parent))
        upper = stack.enter_context(_view(driver, record.name))
        every = archive.compare.every_pair
        yield from archive.compare.compare(lower, upper, unchanged=unchanged, pairs=pairs or every)


def listed(found: "Iterator[Difference]") -> Iterator[Change]:
    """Return the differences that a person would call changes, sorted by path bytes.

    A directory above a change counts as modified, as in ``docker diff``.
    """
    changed: dict[bytes, ChangeKind] = {}
    for one in found:
        if not one.listed:
            continue
        above = one.path.rpartition(b"/")[0]
        while above and above not in changed:
            changed[above] = ChangeKind.MODIFIED
            above = above.rpartition(b"/")[0]
        changed[one.path] = one.kind
    return iter([Change("/" + os.fsdecode(path), kind) for path, kind in sorted(changed.items())])


def used(found: "Iterator[Difference]") -> Usage:
    """Measure what the upper side of differences holds, each inode once, the root not."""
    seen: set[tuple[int, int]] = set()
    size = disk = 0
    for difference in found:
        if difference.upper is None or not difference.path:
            continue
        status = difference.upper.stat
        inode = (status.st_dev, status.st_ino)
        if inode not in seen:
            seen.add(inode)
            size += status.st_size if stat.S_ISREG(status.st_mode) else 0
            disk += status.st_blocks * 512
    return Usage(size, len(seen), disk)


def changes(driver: Driver, layer: str) -> Iterator[Change]:
    """Give any driver's layer's changes the slow way, for comparison with its own."""
    return listed(differences(driver, find_record(driver, layer)))


def diff(
    driver: Driver, layer: str, *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None
) -> BinaryIO:
    """Give any driver's layer's diff the slow way, for comparison with its own."""
    found = differences(driver, find_record(driver, layer))
    return archive.produce.produce(found, profile=profile, source_date_epoch=source_date_epoch)


class NaiveDiff(Driver):
    """Gives ``apply``, ``changes``, ``diff`` and ``usage`` to any driver, from its ``mounts`` and ``layers`` alone.

    Layers are read through views, mounted where nobody sees it
    (`graphdrivers.linux.mounts.opened`); the cost is that of walking the whole
    tree and its parent's. The hooks `record`, `unchanged` and `pairs` make it
    cheaper where a driver knows more.
    """

    def record(self, layer: str) -> LayerRecord:
        """Return one layer's record; override it where that needs no search through all of them.

        Raises:
            LayerNotFound: there is no such layer.
        """
        return find_record(self, layer)

    def unchanged(self, layer: str) -> "Proof | None":  # noqa: ARG002 -- for drivers that keep something per layer
        """Return what can prove entries unchanged since the layer was created, or None; see `compare`."""
        return None

    def pairs(self, layer: str) -> "Lister":  # noqa: ARG002 -- for drivers that know what was changed
        """Return what lists the entries that may differ from the parent's; see `compare`."""
        return archive.compare.every_pair

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Unpack into the mounted layer; deletions delete."""
        plan = self.mounts(layer)
        _refuse_used(layer, plan)
        with mounts.opened(plan) as root:
            capabilities = self.support.capabilities
            dialect = PLAIN_RECORDED if capabilities.recorded_owners else PLAIN
            target = archive.apply.Target(root, dialect, None, capabilities)
            return archive.apply.apply(tar, target, headers=headers, limits=limits, progress=progress)

    def changes(self, layer: str) -> Iterator[Change]:
        """Compare the layer's view with its parent's, both whole."""
        return listed(self._differences(layer))

    def diff(self, layer: str, *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None) -> BinaryIO:
        """Compare the layer's view with its parent's, both whole, while the stream is read."""
        return archive.produce.produce(self._differences(layer), profile=profile, source_date_epoch=source_date_epoch)

    def usage(self, layer: str) -> Usage:
        """Measure what differs from the parent, directories above it included, each inode once."""
        return used(self._differences(layer))

    def _differences(self, layer: str) -> "Iterator[Difference]":
        return differences(self, self.record(layer), self.unchanged(layer), self.pairs(layer))


@contextlib.contextmanager
def _view(driver: Driver, layer: str) -> "Iterator[PlainTree]":
    recorded = driver.support.capabilities.recorded_owners
    with (
        mounts.opened(driver.mounts(layer, view=True)) as root,
        archive.plain.PlainTree(root, recorded=recorded) as tree,
    ):
        yield tree


def _refuse_used(layer: str, plan: tuple[Mount, ...]) -> None:
    """Raise LayerInUse where a directory of the plan is mounted already."""
    for mount in plan:
        if mount.type == "bind":
            for user in mountinfo.users_of(mount.source):
                raise errors.LayerInUse(layer, f"at {user.target}")
