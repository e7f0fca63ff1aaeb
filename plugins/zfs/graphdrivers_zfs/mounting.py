"""Where the datasets of layers are mounted, and whether somebody uses them.

Each has a place of its own, ``HOME/mnt/ITS-NAME``, and is mounted there when
asked for. The layer's tree is the directory ``root`` in it: while the dataset
is not mounted there is no such directory, so what comes too late finds nothing
at all, not an empty layer.
"""

import contextlib
import errno
import os
import re
import stat
import time
from collections.abc import Callable

import attrs

from graphdrivers import errors
from graphdrivers.linux import mountinfo, mounts
from graphdrivers_zfs.tool import Busy, Missing, Tool, ZfsError

TYPES = frozenset({"zfs", "fuse.zfs"})
"""What the mount table calls them, of the kernel and of zfs-fuse."""

TREE = "root"

PREFIX = "graphdrivers-"
NAME = re.compile(PREFIX + r"[0-9a-f]{16}")

_PATIENCE = 2.0
"""Seconds. zfs-fuse learns of an unmount a moment later; what is busy for longer is in use."""


@attrs.frozen
class Places:
    """Names and mount points of the datasets of a home."""

    tool: Tool
    above: str
    """The dataset that they are children of."""
    folder: str
    """Where they are mounted."""

    def name(self, dataset: str) -> str:
        """Give the full name.

        Raises:
            StoreCorrupt: it is none of ours.
        """
        if not NAME.fullmatch(dataset):
            raise errors.StoreCorrupt(self.folder, f"{dataset!r} is no dataset of a layer")
        return f"{self.above}/{dataset}"

    def place(self, dataset: str) -> str:
        """Say where it is mounted."""
        return os.path.join(self.folder, dataset)

    def tree(self, dataset: str) -> str:
        """Give the layer's tree, which is there while it is mounted."""
        return os.path.join(self.folder, dataset, TREE)

    def ready(self, dataset: str, layer: str) -> str:
        """Mount it where it is not mounted, and give the layer's tree. Idempotent.

        Raises:
            StoreCorrupt: the dataset is gone.
            LayerInUse: somebody keeps it from being mounted here.
            ZfsError: it is mounted, but not here.
        """
        tree = self.tree(dataset)
        if not self._is_there(tree):
            self._mount(dataset, layer)
            if not self._is_there(tree):
                raise self._elsewhere(dataset)
        return tree

    def begin(self, dataset: str, layer: str) -> str:
        """Mount one that has no tree yet, and say where; raises what `ready` does."""
        self._mount(dataset, layer)
        if not self.mounted(dataset):
            raise self._elsewhere(dataset)
        return self.place(dataset)

    def _mount(self, dataset: str, layer: str) -> None:
        self.prepare(dataset)
        try:
            patiently(lambda: self.tool.run("mount", self.name(dataset)))
        except Missing as error:
            raise errors.StoreCorrupt(self.folder, f"the dataset of layer {layer!r} is gone: {error.said}") from error
        except Busy as error:
            raise errors.LayerInUse(layer, f"by somebody who keeps it from being mounted: {error.said}") from error
        except ZfsError as error:
            if "already mounted" not in error.said:
                raise

    def prepare(self, dataset: str) -> None:
        """Make its mount point. Idempotent. The tool would make it too, but not below a path that is not ASCII."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.place(dataset), 0o700)

    def _is_there(self, tree: str) -> bool:
        try:
            return stat.S_ISDIR(os.lstat(tree).st_mode)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            # The daemon that served this mount is dead, and nobody will ever read from it again.
            mounts.detach(os.path.dirname(tree), lazy=True)
            return False

    def _elsewhere(self, dataset: str) -> ZfsError:
        places = [use.target for use in self._mounts(dataset)]
        where = f"at {places[0]!r}" if places else "where this process does not see it"
        advice = "unmount it there; work in the mount namespace of zfs-fuse; import the pool without -R"
        return ZfsError(f"mount {self.name(dataset)}", f"it is mounted {where}, not at {self.place(dataset)!r}", advice)

    def unmount(self, dataset: str, layer: str) -> None:
        """Unmount it where it is mounted at its place. Idempotent.

        Raises:
            LayerInUse: files in it are open, or something is mounted in it.
        """
        while self.mounted(dataset):
            try:
                patiently(lambda: mounts.detach(self.place(dataset)))
            except OSError as error:
                if error.errno == errno.EINVAL:  # another process was faster
                    continue
                if error.errno != errno.EBUSY:
                    raise
                raise errors.LayerInUse(layer, f"below {self.place(dataset)!r}: files in it are open") from error

    def mounted(self, dataset: str) -> bool:
        """Say whether it is mounted at its place."""
        place = os.path.realpath(self.place(dataset))
        return any(use.target == place for use in self._mounts(dataset))

    def users(self, dataset: str) -> list[str]:
        """Say where it is mounted in this mount namespace, but for its place."""
        place = os.path.realpath(self.place(dataset))
        return [use.target for use in self._mounts(dataset) if use.target != place]

    def _mounts(self, dataset: str) -> list[mountinfo.MountPoint]:
        name = self.name(dataset)
        # Only lines with the dataset are parsed: a home with hundreds of layers has long tables.
        with open("/proc/self/mountinfo", "rb", buffering=1 << 16) as table:
            lines = [line for line in table.read().split(b"\n") if os.fsencode(dataset) in line]
        return [mount for mount in mountinfo.parse(lines) if mount.source == name and mount.fs_type in TYPES]

    def forget(self, dataset: str) -> None:
        """Delete the mount point of a dataset that is gone. Idempotent."""
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self.place(dataset))


def patiently(step: Callable[[], object]) -> None:
    """Try again, for a while, what is busy."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            step()
        except (Busy, OSError) as error:
            busy = isinstance(error, Busy) or error.errno == errno.EBUSY
            if not busy or time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return
