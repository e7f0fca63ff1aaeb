"""The vfs driver: each layer is a full copy of its parent's tree. Slow, and right everywhere.

It needs no mount, no privilege and no kernel feature. Where the file system can
share blocks between files (btrfs, xfs), a copy takes no space but its inodes.

A layer's folder holds ``root`` (the whole tree) and, over a parent,
``baseline``: which inodes the copy made and when they last changed (ctime),
which proves files unchanged without reading them (see ``baseline``).

A home begun by a process that cannot give files away keeps owners in an xattr
(`graphdrivers.archive.owners`), whoever opens it later.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, BinaryIO, ClassVar

import attrs

from graphdrivers import archive, errors
from graphdrivers.archive import owners
from graphdrivers.archive.whiteouts import PLAIN, PLAIN_RECORDED
from graphdrivers.kit import abilities, baseline, layerdirs, quotas, recording, remembering, reserved, roots
from graphdrivers.linux import copying
from graphdrivers.model import Applied, LayerRecord, LayerSpec, Limits, Mount, Progress, Support
from graphdrivers.naivediff import NaiveDiff

if TYPE_CHECKING:
    from graphdrivers.archive.entries import Node
    from graphdrivers.archive.equality import Proof

NAME = "vfs"

_ROOT = "root"
_BASELINE = "baseline"


class VfsDriver(NaiveDiff):
    """One plain directory tree per layer."""

    name: ClassVar[str] = NAME
    contract: ClassVar[int] = 1
    rank: ClassVar[int] = 1

    def __init__(self, home: str, options: Mapping[str, str], support: Support) -> None:
        """Open ``home``; see `driver.Driver`."""
        super().__init__(home, options, support)
        _refuse_options(options)
        recorded = support.capabilities.recorded_owners
        self._dialect = PLAIN_RECORDED if recorded else PLAIN
        self._dirs = layerdirs.LayerDirs(home, self.name, recording.lasting_options(recorded=recorded))
        remembering.remember(home, options, support)

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Try what files can be here; the driver itself works on every file system."""
        _refuse_options(options)
        return remembering.probed(home, options, lambda: cls._probed(home))

    @classmethod
    def _probed(cls, home: str) -> Support:
        lasting = layerdirs.recorded_options(home, cls.name)
        with abilities.scratch(cls.name, home) as folder:
            found = abilities.tried(folder)
            views = abilities.views_are_readonly(folder)
            limits = _limits_refused_in(folder) is None
        recorded = recording.records_owners(cls.name, home, found, lasting)
        capabilities = attrs.evolve(
            found,
            ownership=found.ownership and not recorded,
            recorded_owners=recorded,
            mount_free=True,
            readonly_views=views,
            rename_directories=True,
            hard_links_across_layers=True,
            stable_inodes=True,
            quota=limits,
        )
        how = "shared blocks (FICLONE)" if found.reflink else "copied blocks"
        notes = ["each layer holds a copy of its parent's whole tree"]
        if not views:
            notes.append("views can be written to: a read-only mount needs root")
        notes.extend(abilities.notes_on_owners(capabilities))
        return Support(capabilities, f"full copies, {how}", tuple(notes))

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Copy the parent's tree."""
        ancestry = self._dirs.check_new(layer, parent, None)
        can = self.support.capabilities
        quotas.check(self.name, spec.size, claimed=can.quota, tried=self._limits_refused)
        with self._dirs.making(layer, ancestry) as folder:
            root = os.path.join(folder, _ROOT)
            if parent is None:
                roots.make_root(root, ownership=can.ownership, dialect=self._dialect)
            else:
                layerdirs.make_private(root)
            if spec.size is not None:
                quotas.cover(self.name, folder, root)
            if parent is not None:
                _copy(self._dirs.path(parent, _ROOT), root, os.path.join(folder, _BASELINE))
            if spec.size is not None:
                # The parent's content is no content of this layer's own; the layer may add as much as was asked for.
                copied = quotas.used(folder) if parent is not None else 0
                quotas.limit(self.name, folder, copied + spec.size, root)

    def seal(self, layer: str) -> None:
        """Set a mark file; a plain directory cannot be kept from changing by itself."""
        self._dirs.read(layer)
        if self._dirs.is_sealed(layer):
            return
        self._dirs.refuse_mounted(layer, _ROOT)
        self._rest(layer)
        baseline.expire(self._dirs.path(layer, _BASELINE))
        self._dirs.seal(layer)

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Give the layer's directory, read-only in a view where this process can mount."""
        if view:
            self._dirs.read(layer)
            return (Mount("bind", self._dirs.path(layer, _ROOT), readonly=self.support.capabilities.readonly_views),)
        self._dirs.writable(layer)
        self._dirs.touch(layer)
        quotas.keep(self.name, self._dirs.path(layer), self._dirs.path(layer, _ROOT))
        return (Mount("bind", self._dirs.path(layer, _ROOT)),)

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Unpack over the copied tree; deletions delete."""
        self._dirs.writable(layer)
        self._dirs.refuse_mounted(layer, _ROOT)
        kept = quotas.kept(self.name, self._dirs.path(layer), self._dirs.path(layer, _ROOT))
        with kept, layerdirs.directory(self._dirs.path(layer, _ROOT)) as root:
            target = archive.apply.Target(root, self._dialect, None, self.support.capabilities)
            return archive.apply.apply(tar, target, headers=headers, limits=limits, progress=progress)

    def layers(self) -> Iterator[LayerRecord]:
        """Read the ``layer.json`` of every layer."""
        return self._dirs.records()

    def remove(self, layer: str) -> None:
        """Rename the layer's folder away, then delete it."""
        if self._dirs.exists(layer):
            self._dirs.refuse_mounted(layer, _ROOT)
            self._dirs.remove(layer)

    def settle(self, layer: str | None = None) -> None:
        """Delete leftovers; put names reserved for whiteouts aside.

        Raises:
            ReservedNameError: some were found in this layer; they are out of it now.
        """
        if layer is None:
            self._dirs.sweep()
            return
        self._dirs.read(layer)
        if not self._dirs.is_sealed(layer) and not self._dirs.mounted_at(layer, _ROOT):
            self._rest(layer)

    def _rest(self, layer: str) -> None:
        """Clean up after somebody wrote to a layer."""
        if not self._dirs.is_touched(layer):
            return
        if self._dialect.records_owners:
            with layerdirs.directory(self._dirs.path(layer, _ROOT)) as root:
                owners.make_usable(root)
        aside = reserved.put_aside(self._dirs.path(layer, _ROOT), self._dirs.path(layer, "reserved"))
        self._dirs.rest(layer)
        if aside:
            raise errors.ReservedNameError(layer, aside)

    def _limits_refused(self) -> quotas.Refusal | None:
        with abilities.scratch(self.name, self.home) as folder:
            return _limits_refused_in(folder)

    def record(self, layer: str) -> LayerRecord:
        """Read one ``layer.json``; see `naivediff.NaiveDiff.record`."""
        return LayerRecord(layer, self._dirs.read(layer).parent, self._dirs.is_sealed(layer))

    def unchanged(self, layer: str) -> "Proof":
        """Give the proof that a file is the untouched copy of its parent's; see `naivediff.NaiveDiff.unchanged`."""
        proven = baseline.read(self._dirs.path(layer, _BASELINE), lasting=self._dirs.is_sealed(layer))

        def is_copy(_lower: "Node", upper: "Node") -> bool:
            status = upper.stat
            return (status.st_ino, status.st_ctime_ns) in proven and not stat.S_ISDIR(status.st_mode)

        return is_copy


def _refuse_options(options: Mapping[str, str]) -> None:
    for key in options:
        raise errors.InvalidOption(NAME, key, "it is unknown; this driver has none")


def _limits_refused_in(folder: str) -> quotas.Refusal | None:
    return quotas.refused(NAME, folder, lambda _layer, tree: layerdirs.directory(tree))


def _copy(parent: str, root: str, record: str) -> None:
    """Copy a tree and write down which copies can be told from changed ones later."""
    made: list[tuple[int, int]] = []
    with layerdirs.directory(parent) as source, layerdirs.directory(root) as target:
        copying.copy_tree(source, target, record=lambda inode, ctime: made.append((inode, ctime)))
    baseline.write(record, made)
