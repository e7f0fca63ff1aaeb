"""The btrfs driver: each layer is a subvolume, each child a snapshot of its parent's.

A layer's folder holds ``tree`` (the subvolume), over a parent ``origin`` (see
`graphdrivers_btrfs.origins`) and, where its size is limited, ``limit``. Sealing
makes the subvolume read-only.

A home begun by a process that cannot give files away keeps owners in an xattr
(`graphdrivers.archive.owners`), whoever opens it later.
"""

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Mapping
from typing import BinaryIO, ClassVar

import attrs

from graphdrivers import errors
from graphdrivers.archive import owners
from graphdrivers.archive.apply import Target, apply
from graphdrivers.archive.compare import Lister, every_pair
from graphdrivers.archive.entries import Node
from graphdrivers.archive.equality import Proof
from graphdrivers.archive.whiteouts import PLAIN, PLAIN_RECORDED
from graphdrivers.kit import abilities, layerdirs, quotas, recording, remembering, roots
from graphdrivers.linux import namespaces
from graphdrivers.model import Applied, LayerRecord, LayerSpec, Limits, Mount, Progress, Support
from graphdrivers.naivediff import NaiveDiff
from graphdrivers_btrfs import aside, changed, ioctls, limits, origins, subvolumes, trial

NAME = "btrfs"

_TREE = "tree"
_TRIES = 40
_PAUSE = 0.05
"""How often, and after how many seconds, a removal is tried again while the kernel frees blocks."""

_FULL_QUOTAS = (
    "quotas of the full kind are on: btrfs counts anew what layers share whenever one goes, for seconds where they are"
    " many; the simple kind (Linux 6.7) does not: btrfs quota disable ROOT, then btrfs quota enable --simple ROOT"
)

_OLDER = 1_000_000_000
"""By how many ns a change has to be older than a snapshot to be told from every later one by its time."""


class _Folders(layerdirs.LayerDirs):
    """Folders of layers that hold a subvolume each."""

    def release(self, folder: str) -> None:
        """Delete the subvolumes in a layer's folder, its limit too; see `layerdirs.LayerDirs.release`."""
        limits.forget(folder, os.path.join(folder, _TREE))
        subvolumes.remove_all(folder)

    def remove(self, layer: str) -> None:
        """Delete a layer, also where the disk is so full that not even a name can be moved.

        A subvolume is deleted from what btrfs keeps in reserve for that; there is room for the rename when its blocks
        are free. Only then can a kill in between leave a layer that has no tree any more: it can still be removed.
        """
        for left in reversed(range(_TRIES)):
            try:
                super().remove(layer)
            except OSError as error:
                if error.errno != errno.ENOSPC or not left:
                    raise
            else:
                return
            self.release(self.path(layer))
            with layerdirs.directory(self.home) as home:
                ioctls.sync(home)
            time.sleep(_PAUSE)


class BtrfsDriver(NaiveDiff):
    """One subvolume per layer."""

    name: ClassVar[str] = NAME
    rank: ClassVar[int] = 50
    contract: ClassVar[int] = 1

    def __init__(self, home: str, options: Mapping[str, str], support: Support) -> None:
        """Open ``home``; see `graphdrivers.driver.Driver`."""
        super().__init__(home, options, support)
        _refuse_options(options)
        recorded = support.capabilities.recorded_owners
        self._dialect = PLAIN_RECORDED if recorded else PLAIN
        self._dirs = _Folders(home, self.name, recording.lasting_options(recorded=recorded))
        remembering.remember(home, options, support)

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Make a subvolume and its snapshot in a scratch folder, and try what more this process may do there."""
        _refuse_options(options)
        return remembering.probed(home, options, lambda: cls._probed(home))

    @classmethod
    def _probed(cls, home: str) -> Support:
        lasting = layerdirs.recorded_options(home, cls.name)
        found = trial.run(cls.name, home)
        recorded = recording.records_owners(cls.name, home, found.files, lasting)
        capabilities = attrs.evolve(
            found.files,
            ownership=found.files.ownership and not recorded,
            recorded_owners=recorded,
            mount_free=True,
            readonly_views=True,
            rename_directories=True,
            hard_links_across_layers=True,
            stable_inodes=True,
            native_diff=found.searches,
            copy_on_write=True,
            fork_live=True,
            quota=found.unlimited is None,
        )
        notes = abilities.notes_on_owners(capabilities)
        if not found.searches:
            notes.append("changes are found by walking both trees: to search for them needs root")
        if not found.deletes:
            notes.append("layers are deleted file by file: mount the file system with user_subvol_rm_allowed")
        if found.unlimited is not None:
            notes.append(f"no limits on sizes: {found.unlimited.reason}; {found.unlimited.fix}")
        if found.quotas == "full":
            notes.append(_FULL_QUOTAS)
        return Support(capabilities, "subvolumes and snapshots", tuple(notes))

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Make a subvolume, over a parent as a snapshot of its."""
        ancestry = self._dirs.check_new(layer, parent, None)
        can = self.support.capabilities
        quotas.check(self.name, spec.size, claimed=can.quota, tried=self._limits_refused)
        with self._dirs.making(layer, ancestry) as folder:
            tree = os.path.join(folder, _TREE)
            with layerdirs.directory(folder) as place:
                if parent is None:
                    ioctls.make_subvolume(place, _TREE.encode())
                    roots.make_root(tree, ownership=can.ownership, dialect=self._dialect)
                else:
                    with self._opened(parent) as source:
                        ioctls.make_snapshot(source, place, _TREE.encode())
                        origins.keep(folder, ioctls.describe(source), _described(tree))
            if spec.size is not None:
                limits.limit(self.name, folder, tree, spec.size)

    def snapshot(self, layer: str, name: str) -> None:
        """Make a read-only snapshot of the layer's subvolume; see `graphdrivers.driver.Snapshots`."""
        ancestry = self._dirs.writable(layer)
        if self._dirs.exists(name):
            raise errors.LayerExists(name)
        with self._dirs.making(name, ancestry) as folder, self._opened(layer) as source:
            tree = os.path.join(folder, _TREE)
            inside = subvolumes.paths_inside(source)
            final = not self._dialect.records_owners and not inside
            with layerdirs.directory(folder) as place:
                ioctls.make_snapshot(source, place, _TREE.encode(), readonly=final)
            if not final or subvolumes.paths_inside(source):
                self._complete(self._tree(layer), tree, inside)
            origins.inherit(self._dirs.path(layer), folder, _described(tree))
            _mark_sealed(folder)

    def _complete(self, source: str, tree: str, inside: list[bytes]) -> None:
        """Give a snapshot what it lacks of its source's content."""
        with layerdirs.directory(tree) as root:
            ioctls.set_readonly(root, False)
            subvolumes.copy_inside(source, tree, inside)
            if self._dialect.records_owners:
                owners.make_usable(root)
            ioctls.set_readonly(root, True)

    def seal(self, layer: str) -> None:
        """Make the subvolume read-only, then set a mark."""
        self._dirs.read(layer)
        if self._dirs.is_sealed(layer):
            return
        self._dirs.refuse_mounted(layer, _TREE)
        self._rest(layer)
        limits.lift(self._dirs.path(layer), self._tree(layer))
        with self._opened(layer) as root:
            ioctls.set_readonly(root, True)
        self._dirs.seal(layer)

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Give the root of the subvolume; a sealed one is read-only by itself, also for those who may not mount."""
        if view:
            self._dirs.read(layer)
            plain = self._dirs.is_sealed(layer) and not namespaces.has_capability("CAP_SYS_ADMIN")
            return (Mount("bind", self._tree(layer), readonly=not plain),)
        self._dirs.writable(layer)
        self._dirs.touch(layer)
        self._make_writable(layer)
        limits.keep(self.name, self._dirs.path(layer), self._tree(layer))
        return (Mount("bind", self._tree(layer)),)

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Unpack over the parent's content; deletions delete."""
        self._dirs.writable(layer)
        self._dirs.refuse_mounted(layer, _TREE)
        self._make_writable(layer)
        self._keep_limit(layer)
        with self._opened(layer) as root:
            target = Target(root, self._dialect, None, self.support.capabilities)
            return apply(tar, target, headers=headers, limits=limits, progress=progress)

    def layers(self) -> Iterator[LayerRecord]:
        """Read the ``layer.json`` of every layer."""
        return self._dirs.records()

    def remove(self, layer: str) -> None:
        """Rename the layer's folder away, then delete the subvolume and the folder."""
        if self._dirs.exists(layer):
            with contextlib.suppress(FileNotFoundError):  # another process has removed it since: nobody uses it
                self._dirs.refuse_mounted(layer, _TREE)
            self._dirs.remove(layer)

    def settle(self, layer: str | None = None) -> None:
        """Delete leftovers; put names reserved for whiteouts aside, and plain directories in the place of subvolumes.

        Raises:
            ReservedNameError: some were found in this layer; they are out of it now.
        """
        if layer is None:
            self._dirs.sweep()
            with layerdirs.directory(self.home) as home:
                limits.sweep(home)
            return
        self._dirs.read(layer)
        if not self._dirs.is_sealed(layer) and not self._dirs.mounted_at(layer, _TREE):
            self._rest(layer)

    def facts(self, layer: str | None = None) -> Mapping[str, str]:
        """Give number and generation of a layer's subvolume, and what it holds where quotas are on."""
        if layer is None:
            with layerdirs.directory(self.home) as home:
                refused, kind = limits.obstacle(home), limits.kind(home)
            return {"quotas": f"on, {kind}" if refused is None else refused.reason}
        self._dirs.read(layer)
        with self._opened(layer) as root:
            own = ioctls.describe(root)
            used = limits.usage(root, own.number)
        told = {"subvolume": str(own.number), "generation": str(own.generation)}
        if used is not None:
            told |= {"referenced": str(used.referenced), "exclusive": str(used.exclusive)}
        size = limits.size_of(self._dirs.path(layer))
        return told if size is None else told | {"limit": str(size)}

    def record(self, layer: str) -> LayerRecord:
        """Read one ``layer.json``; see `graphdrivers.naivediff.NaiveDiff.record`."""
        return LayerRecord(layer, self._dirs.read(layer).parent, self._dirs.is_sealed(layer))

    def unchanged(self, layer: str) -> Proof | None:
        """Give the proof that an inode is as the snapshot found it; see `graphdrivers.naivediff.NaiveDiff.unchanged`.

        A user cannot set the time of an inode's last change. One that was changed just before the snapshot is left out.
        """
        origin = self._origin(layer)
        if origin is None:
            return None
        latest = origin.time - _OLDER

        def is_shared(lower: Node, upper: Node) -> bool:
            old, new = lower.stat, upper.stat
            same = (old.st_ino, old.st_ctime_ns) == (new.st_ino, new.st_ctime_ns)
            return same and new.st_ctime_ns < latest and new.st_ino != ioctls.STUB_INODE

        return is_shared

    def pairs(self, layer: str) -> Lister:
        """Search for what is newer than the snapshot; see `graphdrivers.naivediff.NaiveDiff.pairs`."""
        parent = self._dirs.read(layer).parent
        origin = self._origin(layer)
        if parent is None or origin is None or not self.support.capabilities.native_diff:
            return every_pair
        with self._opened(parent) as lower, self._opened(layer) as upper:
            return changed.Changes(lower, upper, origin.transaction).pairs

    def _origin(self, layer: str) -> origins.Origin | None:
        parent = self._dirs.read(layer).parent
        if parent is None:
            return None
        return origins.of(self._dirs.path(layer), _described(self._tree(parent)), _described(self._tree(layer)))

    def _rest(self, layer: str) -> None:
        """Clean up after somebody wrote to a layer; its limit, which could be in the way, is set anew by `mounts`."""
        if not self._dirs.is_touched(layer):
            return
        folder, tree = self._dirs.path(layer), self._tree(layer)
        limits.lift(folder, tree)
        self._make_writable(layer)
        subvolumes.flatten(tree)
        if self._dialect.records_owners:
            with self._opened(layer) as root:
                owners.make_usable(root)
        moved = aside.put_aside(tree, os.path.join(folder, "reserved"))
        self._dirs.rest(layer)
        if moved:
            raise errors.ReservedNameError(layer, moved)

    def _make_writable(self, layer: str) -> None:
        """Undo what a seal began that was cut before its mark."""
        with self._opened(layer) as root:
            ioctls.set_readonly(root, False)

    def _keep_limit(self, layer: str) -> None:
        limits.keep(self.name, self._dirs.path(layer), self._tree(layer))

    def _limits_refused(self) -> quotas.Refusal | None:
        return trial.run(self.name, self.home).unlimited

    def _tree(self, layer: str) -> str:
        return self._dirs.path(layer, _TREE)

    def _opened(self, layer: str) -> contextlib.AbstractContextManager[int]:
        return layerdirs.directory(self._tree(layer))


def _refuse_options(options: Mapping[str, str]) -> None:
    for key in options:
        raise errors.InvalidOption(NAME, key, "it is unknown; this driver has none")


def _described(tree: str) -> ioctls.Subvolume:
    with layerdirs.directory(tree) as root:
        return ioctls.describe(root)


def _mark_sealed(folder: str) -> None:
    """Do in a folder that is no layer yet what `layerdirs.LayerDirs.seal` does."""
    with open(os.path.join(folder, "sealed"), "xb"):
        pass
