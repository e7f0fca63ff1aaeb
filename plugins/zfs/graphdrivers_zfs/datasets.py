"""The datasets of one home: made, cloned, mounted, snapshot and destroyed, and never any that are not ours.

Each is a child of one dataset, has a random name, and says in user properties
whose it is::

    POOL/NAME/graphdrivers-0123456789abcdef     the content of one layer
        graphdrivers:home                       the number of the home that made it
        graphdrivers:layer, graphdrivers:parent which layer, over which one, as it was made
        @sealed                                 what children are clones of
            graphdrivers:sealed                 tells our snapshot from one that somebody else called so

In it are ``root``, the layer's tree, and what was put aside. It is mounted at
``HOME/mnt/ITS-NAME``, when asked for. While it is not, there is no ``root``
there: what comes too late finds nothing at all, not an empty layer.

The name is random because a dataset is slow to rename and has to be unmounted
for it, and because not every layer's name could be a dataset's.
"""

import contextlib
import errno
import os
import re
import stat
import time
import urllib.parse
from collections.abc import Callable, Iterator

import attrs

from graphdrivers import errors
from graphdrivers.kit import layerdirs
from graphdrivers.linux import mountinfo, mounts
from graphdrivers_zfs.tool import Busy, Exists, Missing, Tool, ZfsError

TYPES = frozenset({"zfs", "fuse.zfs"})
"""What the mount table calls them, of the kernel and of zfs-fuse."""

TREE = "root"

_PREFIX = "graphdrivers-"
_NAME = re.compile(_PREFIX + r"[0-9a-f]{16}")
NAME_LENGTH = len(_PREFIX) + 16 + len("@sealed")
"""What the name of the dataset above has to leave room for."""

_SEALED = "sealed"
_HOME, _LAYER, _PARENT, _MARK = (f"graphdrivers:{word}" for word in ("home", "layer", "parent", "sealed"))

SETTINGS = (
    "canmount=noauto",  # nothing mounts thousands of layers when the pool is imported
    "readonly=off",
    "setuid=on",
    "devices=on",
    "exec=on",
    "sharenfs=off",
    "sharesmb=off",
    "com.sun:auto-snapshot=false",
)
"""What layers must not take over from the dataset above; compression, checksums and the like they do."""

FOREVER = ("utf8only=off", "normalization=none", "casesensitivity=sensitive")
"""The same for what is fixed when a dataset is made, which a clone has from its origin."""

_PATIENCE = 2.0
"""Seconds. zfs-fuse learns of an unmount a moment later; what is busy for longer is in use."""


@attrs.frozen
class Found:
    """One dataset or snapshot, as listed."""

    name: str
    home: str
    mark: str


@attrs.frozen
class Datasets:
    """The datasets of a home, all children of one."""

    tool: Tool
    above: str
    """The dataset that they are children of."""
    home: str
    """The number of the home."""
    folder: str
    """Where they are mounted, each in a directory of its own name."""
    extras: tuple[str, ...] = ()
    """Properties that this ZFS has and others lack."""

    def name(self, dataset: str) -> str:
        """Give the full name.

        Raises:
            StoreCorrupt: it is none of ours.
        """
        if not _NAME.fullmatch(dataset):
            raise errors.StoreCorrupt(self.folder, f"{dataset!r} is no dataset of a layer")
        return f"{self.above}/{dataset}"

    def place(self, dataset: str) -> str:
        """Say where it is mounted."""
        return os.path.join(self.folder, dataset)

    def tree(self, dataset: str) -> str:
        """Give the layer's tree, which is there while it is mounted."""
        return os.path.join(self.folder, dataset, TREE)

    def make(self, dataset: str, layer: str, size: int | None) -> None:
        """Make an empty one, without a tree; it is not mounted."""
        settings = (*self._settings(dataset, layer, None, size), *FOREVER)
        self.tool.run("create", *_options(settings), self.name(dataset))
        self.unmount(dataset, layer)

    def clone(self, dataset: str, layer: str, origin: str, parent: str, size: int | None) -> None:
        """Make one with the content that another had when it was sealed; it is not mounted.

        Raises:
            Missing: the other has no such snapshot.
        """
        settings = self._settings(dataset, layer, parent, size)
        self.tool.run("clone", *_options(settings), f"{self.name(origin)}@{_SEALED}", self.name(dataset))
        # zfs-fuse mounts clones whatever canmount says.
        self.unmount(dataset, layer)

    def _settings(self, dataset: str, layer: str, parent: str | None, size: int | None) -> tuple[str, ...]:
        marks = [f"{_HOME}={self.home}", f"{_LAYER}={_quoted(layer)}", f"{_PARENT}={_quoted(parent or '')}"]
        # Not refquota: that one counts what is shared with the parent.
        limit = [] if size is None else [f"quota={size}"]
        return (*SETTINGS, *self.extras, f"mountpoint={self.place(dataset)}", *marks, *limit)

    def seal(self, dataset: str) -> None:
        """Take the snapshot that children are made from. Idempotent: one of before is taken anew.

        Raises:
            ZfsError: there is a snapshot of this name that is not ours.
        """
        snapshot = f"{self.name(dataset)}@{_SEALED}"
        command = ("snapshot", "-o", f"{_MARK}={dataset}", snapshot)
        try:
            self.tool.run(*command)
        except Exists:  # a process was killed behind this step; the layer may have been written to since
            self._refuse_foreign(dataset, self._list(dataset))
            self.tool.run("destroy", snapshot)
            self.tool.run(*command)

    def ready(self, dataset: str, layer: str) -> str:
        """Mount it where it is not mounted, and give the layer's tree. Idempotent.

        Raises:
            StoreCorrupt: the dataset is gone.
            LayerInUse: somebody keeps it from being mounted here.
            ZfsError: it is mounted, but not here.
        """
        tree = self.tree(dataset)
        if not self._is_there(tree):
            with _explained(layer, self.folder):
                self._patiently(lambda: self._mount(dataset))
            if not self._is_there(tree):
                raise self._elsewhere(dataset)
        return tree

    def begin(self, dataset: str, layer: str) -> str:
        """Mount one that has no tree yet, and say where."""
        with _explained(layer, self.folder):
            self._mount(dataset)
        place = self.place(dataset)
        if not self.mounted(dataset):
            raise self._elsewhere(dataset)
        return place

    def _mount(self, dataset: str) -> None:
        try:
            self.tool.run("mount", self.name(dataset))
        except ZfsError as error:
            if "already mounted" not in error.said:
                raise

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
                self._patiently(lambda: mounts.detach(self.place(dataset)))
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
        if not layerdirs.in_mount_table(dataset):
            return []
        return [mount for mount in mountinfo.read() if mount.source == name and mount.fs_type in TYPES]

    def destroy(self, dataset: str, layer: str) -> None:
        """Destroy it and our snapshot of it, if all that there is of it is ours. Idempotent.

        It is not done recursively: what somebody else put there keeps it whole.

        Raises:
            LayerInUse: it is mounted somewhere.
            ZfsError: there are snapshots, clones or datasets of somebody else.
        """
        try:
            found = self._list(dataset)
        except Missing:
            found = []
        if found:
            self._refuse_foreign(dataset, found)
            self.unmount(dataset, layer)
            with contextlib.suppress(Missing):
                self._destroy_all(dataset, layer, sealed=len(found) > 1)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self.place(dataset))

    def _destroy_all(self, dataset: str, layer: str, *, sealed: bool) -> None:
        try:
            if sealed:
                self.tool.run("destroy", f"{self.name(dataset)}@{_SEALED}")
            self._patiently(lambda: self.tool.run("destroy", self.name(dataset)))
        except Busy as error:
            raise errors.LayerInUse(layer, f"as dataset {self.name(dataset)!r}: {error.said}") from error

    def _list(self, dataset: str) -> list[Found]:
        """Give a dataset with its snapshots and what is below it.

        Raises:
            Missing: there is none.
        """
        return self._listed("-r", self.name(dataset))

    def _listed(self, *arguments: str) -> list[Found]:
        columns = ("-H", "-t", "filesystem,volume,snapshot", "-o", f"name,{_HOME},{_MARK}")
        return [Found(*row) for row in self.tool.rows("list", *columns, *arguments)]

    def _refuse_foreign(self, dataset: str, found: list[Found]) -> None:
        """Refuse to touch a dataset that is not ours, or has on it what is not."""
        name = self.name(dataset)
        (itself, *others) = found
        if itself.home != self.home:
            advice = "remove what is yours by hand; 'zfs get all' shows whose it is"
            raise ZfsError(f"destroy {name}", f"it was made for another home ({_HOME}={itself.home})", advice)
        foreign = [one.name for one in others if one.name != f"{name}@{_SEALED}" or one.mark != dataset]
        if foreign:
            advice = "destroy what is not needed any more, or promote its clones"
            raise ZfsError(f"destroy {name}", f"others made {', '.join(foreign[:5])} there", advice)

    def orphans(self, known: Callable[[], set[str]]) -> Iterator[str]:
        """Give those that are ours and that no folder knows.

        Args:
            known: read after the datasets are; a folder is there before its dataset is.
        """
        listed = self._listed("-r", "-d", "1", self.above)
        names = [one.name.rpartition("/")[2] for one in listed if one.home == self.home]
        ours = [name for name in names if _NAME.fullmatch(name)]
        if ours:
            folders = known()
            yield from (name for name in ours if name not in folders)

    @staticmethod
    def _patiently(step: Callable[[], object]) -> None:
        """Try again what is busy."""
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


def new_name() -> str:
    """Make a name that no dataset has."""
    return f"{_PREFIX}{os.urandom(8).hex()}"


def _options(settings: tuple[str, ...]) -> list[str]:
    return [word for setting in settings for word in ("-o", setting)]


def _quoted(name: str) -> str:
    """Write a layer's name as the value of a property: printable ASCII in one column, 600 characters at most."""
    return urllib.parse.quote(os.fsencode(name), safe="") or "-"


@contextlib.contextmanager
def _explained(layer: str, home: str) -> Iterator[None]:
    """Say what it means that a dataset cannot be mounted."""
    try:
        yield
    except Missing as error:
        raise errors.StoreCorrupt(home, f"the dataset of layer {layer!r} is gone: {error.said}") from error
    except Busy as error:
        raise errors.LayerInUse(layer, f"by somebody who keeps it from being mounted: {error.said}") from error
