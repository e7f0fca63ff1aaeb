"""The overlay driver: each layer holds what it changes, the kernel merges the stack.

See ``layout`` for the folders and plans, ``options`` for what can be chosen and
``support`` for what is tried before it is used. Works as root, and as root of a
user namespace with ``user.overlay.*`` marks (Linux 5.11).
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import BinaryIO, ClassVar

from graphdrivers import archive, errors
from graphdrivers.archive.whiteouts import PLAIN, Dialect
from graphdrivers.backends.overlay import layout
from graphdrivers.backends.overlay import options as choices
from graphdrivers.backends.overlay import support as trials
from graphdrivers.kit import layerdirs, quotas, remembering, reserved, roots
from graphdrivers.kit.uppers import UpperDriver
from graphdrivers.kit.watch import Watch
from graphdrivers.linux import mounts
from graphdrivers.model import (
    Applied,
    LayerSpec,
    Limits,
    Mount,
    Progress,
    Support,
)

_ESCAPES = "escapes"
"""In a layer's folder: it may hold xattrs that only an overlay mount shows under their own names."""


class OverlayDriver(UpperDriver):
    """Kernel overlayfs over one folder per layer."""

    name: ClassVar[str] = choices.NAME
    contract: ClassVar[int] = 1
    rank: ClassVar[int] = 100

    def __init__(self, home: str, options: Mapping[str, str], support: Support) -> None:
        """Open ``home``; see `driver.Driver`."""
        super().__init__(home, options, support)
        self._settings = trials.settings_for(home, options, self.name)
        self._dialect = trials.dialect_of(self._settings)
        self._dirs = layerdirs.LayerDirs(home, self.name, self._settings.lasting())
        remembering.remember(home, options, support)

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Mount and use a toy stack; see `driver.Driver.probe`."""
        return remembering.probed(home, options, lambda: trials.probed(home, options, cls.name))

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Create an upper directory; cost independent of the parent's content."""
        can = self.support.capabilities
        ancestry = self._dirs.check_new(layer, parent, can.max_depth)
        quotas.check(self.name, spec.size, claimed=can.quota, tried=self._limits_refused)
        with self._dirs.making(layer, ancestry) as folder:
            diff = os.path.join(folder, layout.DIFF)
            if parent is None:
                roots.make_root(diff, ownership=can.ownership)
            else:
                # Every layer's root got the merged root's attributes when it was created.
                above = self._dirs.path(parent, layout.DIFF)
                roots.make_root_like(diff, above, ownership=can.ownership, dialect=self._dialect)
            if spec.size is not None:
                quotas.limit(self.name, folder, spec.size, diff)

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Plan an overlay mount, or for a base layer a bind mount of its one directory."""
        ancestry = self._dirs.read(layer) if view else self._dirs.writable(layer)
        lowers = [self._dirs.path(ancestor) for ancestor in ancestry.ancestors]
        if not lowers and self._needs_overlay(layer):
            lowers = [self._nothing()]
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
            dialect = Watch.over(self._dialect, self._undoes_escapes)
            again = bool(os.listdir(root))
            if again:
                lowers = [self._dirs.path(ancestor) for ancestor in ancestors] or [self._nothing()]
                merged = stack.enter_context(mounts.opened(self._writable(layer, lowers)))
                target = archive.apply.Target(merged, PLAIN, None, self.support.capabilities)
            else:
                lower = stack.enter_context(self._union(ancestors)) if ancestors else None
                target = archive.apply.Target(root, dialect, lower, self.support.capabilities)
            stack.enter_context(quotas.kept(self.name, self._dirs.path(layer), self._dirs.path(layer, layout.DIFF)))
            applied = archive.apply.apply(tar, target, headers=headers, limits=limits, progress=progress)
        if dialect.escaped or again:
            self._dirs.mark(layer, _ESCAPES)
        return applied

    def settle(self, layer: str | None = None) -> None:
        """Delete leftovers; put names reserved for whiteouts aside.

        Raises:
            ReservedNameError: some were found in this layer; they are out of it now.
        """
        if layer is None:
            self._dirs.sweep()
            return
        self._dirs.read(layer)
        if not self._dirs.is_sealed(layer) and not self._dirs.mounted_at(layer, layout.DIFF):
            self._rest(layer)

    def _rest(self, layer: str) -> None:
        """Clean up after mounts of a layer that is not mounted now."""
        if not self._dirs.is_touched(layer):
            return
        layerdirs.delete(self._dirs.path(layer), layout.WORK)
        aside = reserved.put_aside(self._dirs.path(layer, layout.DIFF), self._dirs.path(layer, "reserved"))
        self._dirs.rest(layer)
        if aside:
            raise errors.ReservedNameError(layer, aside)

    def _writable(self, layer: str, lowers: Sequence[str]) -> tuple[Mount, ...]:
        folder = self._dirs.path(layer)
        trees = [os.path.join(folder, name) for name in ((layout.DIFF, layout.WORK) if lowers else (layout.DIFF,))]
        self._dirs.touch(layer)
        if lowers:
            layerdirs.make_private(trees[-1])
        quotas.keep(self.name, folder, *trees, room=bool(lowers))
        return layout.writable(self._dirs.path(layer), lowers, self._settings)

    def _dialect_of(self, layer: str) -> Dialect:  # noqa: ARG002 - one for all layers
        return self._dialect

    def _limits_refused(self) -> quotas.Refusal | None:
        return trials.limits_refused(self.home, self._settings)

    def _needs_overlay(self, layer: str) -> bool:
        """Say whether a base layer's directory cannot be used as it stands."""
        # Against a privileged process some file systems hold a limit in an overlay only.
        return os.path.lexists(self._dirs.path(layer, _ESCAPES)) or quotas.is_limited(self._dirs.path(layer))

    def _undoes_escapes(self) -> bool:
        return trials.undoes_escapes(self.home, self._settings)

    def _nothing(self) -> str:
        """Give the folder of an empty layer, for mounts that take at least one lower directory."""
        folder = os.path.join(self.home, "nothing")
        layerdirs.make_private(folder)
        layerdirs.make_private(os.path.join(folder, layout.DIFF))
        return folder
