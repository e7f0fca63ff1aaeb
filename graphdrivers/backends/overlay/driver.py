"""The overlay driver: each layer holds what it changes, the kernel merges the stack.

See ``layout`` for the folders and plans, ``options`` for what can be chosen and
``support`` for what is tried before it is used. Works as root, and as root of a
user namespace with ``user.overlay.*`` marks (Linux 5.11).
"""

import contextlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import BinaryIO, ClassVar

from graphdrivers import archive, errors
from graphdrivers.archive.whiteouts import PLAIN, Dialect
from graphdrivers.backends.overlay import layout
from graphdrivers.backends.overlay import options as choices
from graphdrivers.backends.overlay import support as trials
from graphdrivers.kit import layerdirs, quotas, remembering, reserved, roots
from graphdrivers.kit.uppers import Awaited, UpperDriver
from graphdrivers.kit.watch import WatchedDialect
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
        ancestry = self._dirs.read(layer)
        present = self._dirs.contents(layer)
        if not view and layerdirs.SEALED in present:
            raise errors.LayerSealed(layer)
        lowers = self._dirs.folders(ancestry)
        # Against a privileged process some file systems hold a limit in an overlay only.
        if not lowers and (_ESCAPES in present or quotas.LIMIT in present):
            lowers = [self._nothing()]
        if view:
            return layout.view(self._dirs.path(layer), lowers, self._settings)
        return self._writable(layer, lowers, present)

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
        ancestry = self._dirs.writable(layer)
        ancestors = ancestry.ancestors
        self._refuse_mounted(layer)
        with contextlib.ExitStack() as stack:
            root = stack.enter_context(layerdirs.directory(self._dirs.path(layer, layout.DIFF)))
            dialect = WatchedDialect.over(self._dialect, self._undoes_escapes)
            again = bool(os.listdir(root))
            if again:
                lowers = self._dirs.folders(ancestry) or [self._nothing()]
                merged = stack.enter_context(mounts.opened(self._writable(layer, lowers, self._dirs.contents(layer))))
                target = archive.apply.Target(merged, PLAIN, None, self.support.capabilities)
            else:
                lower = stack.enter_context(self._union(ancestors)) if ancestors else None
                target = archive.apply.Target(root, dialect, lower, self.support.capabilities)
            stack.enter_context(quotas.kept(self.name, self._dirs.path(layer), self._dirs.path(layer, layout.DIFF)))
            applied = archive.apply.apply(tar, target, headers=headers, limits=limits, progress=progress)
        if dialect.escaped or again:
            self._dirs.mark(layer, _ESCAPES)
        return applied

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
        dialect = WatchedDialect.over(self._dialect, self._undoes_escapes)
        with self._dirs.making(layer, ancestry) as folder:
            diff = os.path.join(folder, layout.DIFF)
            roots.make_root(diff, ownership=can.ownership)
            with ancestry.target(diff, dialect, can, self._branch) as target:
                applied = archive.apply.apply(tar, target, headers=headers, limits=limits, progress=progress)
            if dialect.escaped:
                layerdirs.mark(folder, _ESCAPES)
        return applied

    def settle(self, layer: str | None = None) -> None:
        """Delete leftovers; put names reserved for whiteouts aside.

        A layer that holds neither is left as it is, with its empty ``work``: so whether it is mounted, which costs
        a look at every mount of the machine, need not be known.

        Raises:
            ReservedNameError: some were found in this layer; they are out of it now.
        """
        if layer is None:
            self._dirs.sweep()
        elif not self._dirs.is_touched(layer):
            self._dirs.read(layer)
        elif self._needs_rest(layer) and not self._is_used(layer):
            self._rest(layer)

    def _rest(self, layer: str) -> None:
        """Clean up after mounts of a layer that is not mounted now, and will not be mounted writable any more."""
        if self._dirs.is_touched(layer):
            layerdirs.delete_work(self._dirs.path(layer), layout.WORK)
            aside = reserved.put_aside(self._dirs.path(layer, layout.DIFF), self._dirs.path(layer, "reserved"))
            self._dirs.rest(layer)
            if aside:
                raise errors.ReservedNameError(layer, aside)

    def _is_used(self, layer: str) -> bool:
        return self._dirs.is_sealed(layer) or bool(self._dirs.mounted_at(layer, layout.DIFF))

    def _needs_rest(self, layer: str) -> bool:
        """Look for what must not stay after a mount: a file whose copying up was cut, a reserved name."""
        folder = self._dirs.path(layer)
        with contextlib.suppress(FileNotFoundError):  # not mounted yet, or a layer that needs no overlay
            if os.listdir(f"{folder}/{layout.WORK}/{layerdirs.KERNELS}"):
                return True
        return reserved.is_any_in(f"{folder}/{layout.DIFF}")

    def _writable(self, layer: str, lowers: Sequence[str], present: Collection[str]) -> tuple[Mount, ...]:
        """Make ready what is not ``present`` in the layer's folder since an earlier mount, and plan."""
        folder = self._dirs.path(layer)
        trees = [f"{folder}/{name}" for name in ((layout.DIFF, layout.WORK) if lowers else (layout.DIFF,))]
        if layerdirs.TOUCHED not in present:
            self._dirs.touch(layer)
        if lowers and layout.WORK not in present:
            layerdirs.make_private(trees[-1])
        if quotas.LIMIT in present:
            quotas.keep(self.name, folder, *trees, room=bool(lowers))
        return layout.writable(folder, lowers, self._settings)

    def _dialect_of(self, layer: str) -> Dialect:  # noqa: ARG002 - one for all layers
        return self._dialect

    def _limits_refused(self) -> quotas.Refusal | None:
        return trials.limits_refused(self.home, self._settings)

    def _undoes_escapes(self) -> bool:
        return trials.undoes_escapes(self.home, self._settings)

    def _nothing(self) -> str:
        """Give the folder of an empty layer, for mounts that take at least one lower directory."""
        folder = os.path.join(self.home, "nothing")
        layerdirs.make_private(folder)
        layerdirs.make_private(os.path.join(folder, layout.DIFF))
        return folder
