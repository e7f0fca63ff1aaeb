"""The fuse-overlayfs driver: each layer holds what it changes, a program merges the stack.

Layers are unpacked, compared and measured in their folders; the program runs
only while a stack is mounted. See `layout` for folders and plans, `dialect` for
whiteouts, `support` for what is tried before it is used and what is known to be
wrong with each version of the program.
"""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, ClassVar

from graphdrivers import errors
from graphdrivers.archive.apply import Target, apply
from graphdrivers.kit import layerdirs, quotas, remembering, reserved, roots
from graphdrivers.kit.uppers import Awaited, UpperDriver
from graphdrivers.linux import locks, mounts
from graphdrivers.model import (
    Applied,
    LayerSpec,
    Limits,
    Mount,
    Progress,
    Support,
)
from graphdrivers_fuse_overlayfs import dialect, layout
from graphdrivers_fuse_overlayfs import support as trials
from graphdrivers_fuse_overlayfs.options import NAME, parse

_NO_LIMITS = quotas.Refusal(
    "what fuse-overlayfs writes is not limited",
    "use driver overlay with --root on xfs or ext4, mounted with -o prjquota",
)

_PATIENCE = 5.0
"""Seconds that a program is given to end after its mount is gone."""


class FuseOverlayDriver(UpperDriver):
    """fuse-overlayfs over one folder per layer."""

    name: ClassVar[str] = NAME
    rank: ClassVar[int] = 0
    contract: ClassVar[int] = 1

    def __init__(self, home: str, options: Mapping[str, str], support: Support) -> None:
        """Open ``home``; see `driver.Driver`."""
        super().__init__(home, options, support)
        self._settings = parse(options)
        self._resting = dialect.at_rest(user_xattrs=self._settings.user_xattrs)
        self._in_use = dialect.in_use(self._resting)
        self._dirs = layerdirs.LayerDirs(home, self.name, {})
        remembering.remember(home, options, support)

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Mount and use a toy stack; see `driver.Driver.probe`."""
        return remembering.probed(home, options, lambda: trials.probed(home, options))

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Create an upper directory; cost independent of the parent's content."""
        can = self.support.capabilities
        ancestry = self._dirs.check_new(layer, parent, can.max_depth)
        quotas.check(self.name, spec.size, claimed=can.quota, tried=lambda: _NO_LIMITS)
        with self._dirs.making(layer, ancestry) as folder:
            diff = os.path.join(folder, layout.DIFF)
            if parent is None:
                roots.make_root(diff, ownership=can.ownership)
            else:
                # Every layer's root got the merged root's attributes when it was created.
                above = self._dirs.path(parent, layout.DIFF)
                roots.make_root_like(diff, above, ownership=can.ownership, dialect=self._resting)
            # Made while there is room: a full disk has to be mounted too.
            layerdirs.mark(folder, layout.SERVED)

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Plan a mount by fuse-overlayfs, or for a base layer a bind mount of its one directory."""
        ancestry = self._dirs.read(layer) if view else self._dirs.writable(layer)
        lowers = [self._dirs.path(ancestor) for ancestor in ancestry.ancestors]
        if view:
            return layout.view(self._dirs.path(layer), lowers, self._settings)
        return self._writable(layer, lowers)

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Unpack into the upper directory with whiteouts; what already has content is written through its mount."""
        ancestors = self._dirs.writable(layer).ancestors
        self._refuse_mounted(layer)
        with contextlib.ExitStack() as stack:
            root = stack.enter_context(layerdirs.directory(self._dirs.path(layer, layout.DIFF)))
            if os.listdir(root):
                lowers = [self._dirs.path(ancestor) for ancestor in ancestors]
                merged = stack.enter_context(mounts.opened(self._writable(layer, lowers)))
                target = Target(merged, dialect.through(), None, self.support.capabilities)
            else:
                lower = stack.enter_context(self._union(ancestors)) if ancestors else None
                target = Target(root, self._resting, lower, self.support.capabilities)
            return apply(tar, target, headers=headers, limits=limits, progress=progress)

    def apply_ahead(
        self,
        layer: str,
        parent: str | None,
        tar: BinaryIO,
        *,
        ready: Callable[[], object],
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Unpack into an upper directory that becomes the layer at the end; see `driver.AppliesAhead`."""
        can = self.support.capabilities
        ancestry = Awaited(self._dirs, layer, parent, ready, can.max_depth)
        with self._dirs.making(layer, ancestry) as folder:
            diff = os.path.join(folder, layout.DIFF)
            roots.make_root(diff, ownership=can.ownership)
            layerdirs.mark(folder, layout.SERVED)
            with ancestry.target(diff, self._resting, can, self._branch) as target:
                return apply(tar, target, headers=headers, limits=limits, progress=progress)

    def settle(self, layer: str | None = None) -> None:
        """Delete leftovers; bring whiteouts to their resting form, put names reserved for them aside.

        A layer that is still served, in another mount namespace or for files that are open, is left as it is.

        Raises:
            ReservedNameError: some were found in this layer; they are out of it now.
        """
        if layer is None:
            self._dirs.sweep()
            return
        self._dirs.read(layer)
        if not self._dirs.is_sealed(layer) and not self._dirs.mounted_at(layer, layout.DIFF) and self._is_free(layer):
            self._rest(layer)

    def _rest(self, layer: str) -> None:
        """Clean up after mounts of a layer that is not mounted now."""
        if not self._dirs.is_touched(layer):
            return
        layerdirs.delete(self._dirs.path(layer), layout.WORK)
        diff = self._dirs.path(layer, layout.DIFF)
        dialect.tidy(diff, self._resting)
        aside = reserved.put_aside(diff, self._dirs.path(layer, "reserved"))
        self._dirs.rest(layer)
        if aside:
            raise errors.ReservedNameError(layer, aside)

    def _writable(self, layer: str, lowers: Sequence[str]) -> tuple[Mount, ...]:
        folder = self._dirs.path(layer)
        self._dirs.touch(layer)
        if lowers:
            layerdirs.make_private(os.path.join(folder, layout.WORK))
        return layout.writable(folder, lowers, self._settings)

    def _refuse_mounted(self, layer: str) -> None:
        super()._refuse_mounted(layer)
        if not self._is_free(layer):
            raise errors.LayerInUse(layer, "in another mount namespace, or files in it are open")

    def _is_free(self, layer: str) -> bool:
        """Wait until no program serves the layer any more; false where one goes on."""
        try:
            with locks.FileLock(self._dirs.path(layer, layout.SERVED), timeout=_PATIENCE):
                return True
        except errors.LockTimeout:
            return False
        except FileNotFoundError:  # another process has removed the layer
            return True

    def _dialect_of(self, layer: str) -> dialect.FuseDialect:
        return self._in_use if self._dirs.is_touched(layer) else self._resting
