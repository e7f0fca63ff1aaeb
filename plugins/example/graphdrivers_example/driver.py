"""The driver: each layer is a folder with a full copy of its parent's tree, and a bind mount shows it.

Layout of a home, which `graphdrivers.kit.layerdirs` keeps: ``layers/NAME/`` is one layer, made in ``tmp/`` and
renamed into place, so that a killed process leaves a whole layer or none. This driver adds ``tree`` to it.
"""

import os
from collections.abc import Iterator, Mapping
from typing import ClassVar

import attrs

from graphdrivers import errors
from graphdrivers.kit import abilities, layerdirs, remembering, reserved, roots
from graphdrivers.linux import copying
from graphdrivers.model import LayerRecord, LayerSpec, Mount, Support
from graphdrivers.naivediff import NaiveDiff

_TREE = "tree"


class ExampleDriver(NaiveDiff):
    """One plain folder per layer; `NaiveDiff` makes ``apply``, ``changes``, ``diff`` and ``usage`` of the mounts."""

    # The name before "=" in setup.cfg; the version of the contract that this was written for, as a number and not
    # taken over from graphdrivers; and the place in the automatic choice, where 0 is never taken by itself.
    name: ClassVar[str] = "example"
    contract: ClassVar[int] = 1
    rank: ClassVar[int] = 0

    def __init__(self, home: str, options: Mapping[str, str], support: Support) -> None:
        """Open ``home``; see `graphdrivers.driver.Driver`."""
        super().__init__(home, options, support)
        _requires_reflink(options)  # a caller may come here without a probe
        # No option of ours decides what is on the disk; one that does is given here, and the home remembers it.
        self._dirs = layerdirs.LayerDirs(home, self.name, {})
        remembering.remember(home, options, support)

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Try it in a scratch folder; on a full disk, what was found before is believed."""
        required = _requires_reflink(options)
        return remembering.probed(home, options, lambda: cls._tried(home, required=required))

    @classmethod
    def _tried(cls, home: str, *, required: bool) -> Support:
        layerdirs.recorded_options(home, cls.name)  # refuses the home of another driver
        with abilities.scratch(cls.name, home) as folder:
            found = abilities.tried(folder)
            views = abilities.views_are_readonly(folder)
        if required and not found.reflink:
            # One of the three errors with which the automatic choice goes on: what is wrong, and what helps.
            reason = f"the file system of {home!r} cannot share blocks between files"
            raise errors.IncompatibleFilesystem(cls.name, reason, "put --root on btrfs or xfs, or leave out the option")
        # Each of these is a promise that the conformance suite checks. What is left out is "cannot".
        capabilities = attrs.evolve(
            found,
            mount_free=True,
            readonly_views=views,
            rename_directories=True,
            hard_links_across_layers=True,
            stable_inodes=True,
        )
        copies = "shared blocks" if found.reflink else "copied blocks"
        notes = ("each layer holds a copy of its parent's whole tree", *abilities.notes_on_owners(capabilities))
        return Support(capabilities, f"full copies, {copies}", notes)

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Copy the parent's tree beside the layers; the copy is renamed into place at the end of the block."""
        ancestry = self._dirs.check_new(layer, parent, max_depth=None)
        if spec.size is not None:
            raise errors.NotSupported(self.name, "it cannot limit the size of a layer", "create it without a size")
        with self._dirs.making(layer, ancestry) as folder:
            tree = os.path.join(folder, _TREE)
            if parent is None:
                roots.make_root(tree, ownership=self.support.capabilities.ownership)
                return
            layerdirs.make_private(tree)
            with layerdirs.directory(self._dirs.path(parent, _TREE)) as source, layerdirs.directory(tree) as target:
                copying.copy_tree(source, target)

    def seal(self, layer: str) -> None:
        """Put a mark file beside the tree: who mounts through us cannot change it any more."""
        if not self.record(layer).sealed:
            self._dirs.refuse_mounted(layer, _TREE)
            self._rest(layer)
            self._dirs.seal(layer)

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Give the tree as it lies there, read-only in a view where this process can mount."""
        if view:
            self._dirs.read(layer)  # refuses a layer that does not exist
            readonly = self.support.capabilities.readonly_views
            return (Mount("bind", self._dirs.path(layer, _TREE), readonly=readonly),)
        self._dirs.writable(layer)
        self._dirs.touch(layer)  # from here on somebody may write without our seeing it
        return (Mount("bind", self._dirs.path(layer, _TREE)),)

    def layers(self) -> Iterator[LayerRecord]:
        """Read what is on the disk, the deepest layers first."""
        return self._dirs.records()

    def record(self, layer: str) -> LayerRecord:
        """Read one layer's record; `NaiveDiff` would search through all of them."""
        return LayerRecord(layer, self._dirs.read(layer).parent, self._dirs.is_sealed(layer))

    def remove(self, layer: str) -> None:
        """Rename the layer out of sight, then delete it."""
        if self._dirs.exists(layer):
            self._dirs.refuse_mounted(layer, _TREE)
            self._dirs.remove(layer)

    def settle(self, layer: str | None = None) -> None:
        """Delete what dead processes left; bring one layer to rest after its last unmount."""
        if layer is None:
            self._dirs.sweep()
        elif not self.record(layer).sealed and not self._dirs.mounted_at(layer, _TREE):
            self._rest(layer)

    def _rest(self, layer: str) -> None:
        """Move names that would mean deletions in a tar out of a tree that somebody may have written to."""
        if self._dirs.is_touched(layer):
            aside = reserved.put_aside(self._dirs.path(layer, _TREE), self._dirs.path(layer, "reserved"))
            self._dirs.rest(layer)
            if aside:
                raise errors.ReservedNameError(layer, aside)


def _requires_reflink(options: Mapping[str, str]) -> bool:
    """Read the options; ``reflink=require`` refuses a file system on which each copy takes its full space."""
    for key in options:
        if key != "reflink":
            raise errors.InvalidOption(ExampleDriver.name, key, "it is unknown; this driver has: reflink")
    wanted = options.get("reflink", "auto")
    if wanted not in {"auto", "require"}:
        raise errors.InvalidOption(ExampleDriver.name, "reflink", f"{wanted!r} is neither auto nor require")
    return wanted == "require"
