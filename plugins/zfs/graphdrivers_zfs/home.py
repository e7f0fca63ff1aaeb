"""The home: a folder for each layer, which names the dataset that holds the layer's content.

The folder is the record, the dataset the content. ``dataset`` is written before
the dataset is made, and the folder is out of sight before the dataset is
destroyed, so whatever a crash cuts, a folder or a mark leads to what is left::

    HOME/id                     tells this home's datasets from those of others
    HOME/mnt/DATASET/           where datasets are mounted
    HOME/layers/NAME/dataset    the name of the layer's

For the rest of the layout see `graphdrivers.kit.layerdirs`.
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Mapping

from graphdrivers import errors
from graphdrivers.kit import layerdirs, quotas
from graphdrivers.linux import durable
from graphdrivers_zfs.datasets import Datasets
from graphdrivers_zfs.mounting import Places
from graphdrivers_zfs.tool import Tool, find

_DATASET = "dataset"
_RECORD = "layer.json"
_MOUNTS = "mnt"
_NUMBER = "id"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_ID = re.compile(r"[0-9a-f]{32}")


class ZfsHome(layerdirs.LayerDirs):
    """The layers of one home, each with a dataset."""

    def __init__(self, home: str, driver: str, lasting: Mapping[str, str], above: str, extras: tuple[str, ...]) -> None:
        """Open a home; see `layerdirs.LayerDirs`, and for the last two `Datasets`."""
        super().__init__(home, driver, lasting)
        mounts = os.path.join(home, _MOUNTS)
        layerdirs.make_private(mounts)
        tool = Tool(find(driver))
        self.places = Places(tool, above, mounts)
        self.datasets = Datasets(tool, self.places, self._number(), extras)

    def _number(self) -> str:
        """Read the home's number, making it where there is none; of several processes one makes it."""
        while (number := number_of(self.home)) is None:
            with durable.Staging(self._tmp) as staging:
                durable.write_atomic(staging.fd, _NUMBER, os.urandom(16).hex().encode())
                with contextlib.suppress(FileExistsError):
                    os.link(os.path.join(staging.path, _NUMBER), os.path.join(self.home, _NUMBER))
            durable.fsync_directory(self.home)
        return number

    def dataset(self, layer: str) -> str:
        """Give the name of a layer's dataset.

        Raises:
            LayerNotFound: there is no such layer.
            StoreCorrupt: its folder does not name one.
        """
        name = _read(self.path(layer))
        if name:
            return name
        if not self.exists(layer):
            raise errors.LayerNotFound(layer)
        raise errors.StoreCorrupt(self.home, f"the folder of layer {layer!r} names no dataset")

    def born(self, layer: str) -> int:
        """Give a time, in ns, at which the layer was not there yet, on the clock of its files; see `be_born`."""
        return os.stat(self.path(layer, _DATASET)).st_mtime_ns

    def limit(self, layer: str) -> int | None:
        """Give the size that a layer was limited to, in bytes."""
        try:
            with open(self.path(layer, quotas.LIMIT), encoding="ascii") as file:
                return int(file.read())
        except FileNotFoundError:
            return None

    def persist(self, layer: str) -> None:
        """Make a layer's folder, and all that was done in the home before, durable.

        The caller's syncfs(2) does not reach zfs-fuse, and fsync(2) there writes nothing but the log up to the last
        *write* to that very file: so one is made, of a byte that is there already.
        """
        opened = os.open(self.path(layer, _RECORD), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.pwrite(opened, os.pread(opened, 1, 0), 0)
            os.fsync(opened)
        finally:
            os.close(opened)
        durable.fsync_path(self.path(layer, _DATASET))  # where the home is on another file system, all this is needed
        durable.fsync_directory(self.path(layer))
        durable.fsync_directory(self._layers)

    def seal(self, layer: str) -> None:
        """Put the mark that makes a layer immutable. Atomic, idempotent, durable."""
        super().seal(layer)
        self.persist(layer)

    def remove(self, layer: str) -> None:
        """Move a layer's folder out of sight, destroy its dataset, then delete the folder. Idempotent.

        In a full pool no name can be changed, so the dataset goes first there; cut in between, the layer is
        there without content until it is removed again.

        Raises:
            LayerInUse, ZfsError: the dataset has to stay; so does the layer.
        """
        try:
            self._discard(layer)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self._release(self.path(layer), layer)
            self._discard(layer)

    def _discard(self, layer: str) -> None:
        with durable.discarding(self.path(layer), self._tmp) as moved:
            try:
                self._release(moved, layer)
            except errors.GraphDriverError:
                with contextlib.suppress(FileNotFoundError):
                    os.rename(moved, self.path(layer))
                raise
        durable.fsync_directory(self._layers)

    def release(self, folder: str) -> None:
        """Destroy the dataset that a folder, anywhere by now, names. Idempotent."""
        self._release(folder, os.path.basename(folder))

    def _release(self, folder: str, layer: str) -> None:
        name = _read(folder)
        if name:
            self.datasets.destroy(name, layer)

    def sweep(self) -> None:
        """Delete what dead processes left in ``tmp``; what somebody still uses is left for the next time."""
        for name in durable.Staging.leftovers(self._tmp):
            with contextlib.suppress(errors.GraphDriverError):
                for folder in ("", *self.made_as):
                    self.release(os.path.join(self._tmp, name, folder))
                layerdirs.delete(self._tmp, name)

    def known(self) -> set[str]:
        """Give the datasets that folders name, those of layers that are being made or removed too."""
        return set(self._known())

    def _known(self) -> Iterator[str]:
        # A folder moves from tmp to layers when its layer is made: looked for in this order it is not missed.
        for name in os.listdir(self._tmp):
            for folder in ("", *self.made_as):
                yield _read(os.path.join(self._tmp, name, folder))
        for name in self.names():
            yield _read(self.path(name))


def number_of(home: str) -> str | None:
    """Read a home's number; ``None`` where the home is not begun.

    Raises:
        StoreCorrupt: the file holds something else.
    """
    try:
        with open(os.path.join(home, _NUMBER), encoding="ascii", errors="replace") as file:
            number = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not _ID.fullmatch(number):
        raise errors.StoreCorrupt(home, f"the file {_NUMBER!r} holds no number of a home but {number!r}")
    return number


def intend(folder: str, dataset: str, size: int | None = None) -> None:
    """Write down, in the folder of a layer in the making, which dataset it is going to have, of which size."""
    with layerdirs.directory(folder) as opened:
        durable.write_atomic(opened, _DATASET, dataset.encode(), durable=False)
        if size is not None:
            durable.write_atomic(opened, quotas.LIMIT, f"{size}".encode(), durable=False)


def be_born(folder: str, time: int) -> None:
    """Say when the layer came to be whose state the one of this folder is, in ns; else it is when `intend` ran."""
    os.utime(os.path.join(folder, _DATASET), ns=(time, time))


def mark_sealed(folder: str) -> None:
    """Make the layer of a folder, that is in the making, one that is sealed from the start."""
    with open(os.path.join(folder, "sealed"), "xb"):
        pass  # an empty file


def _read(folder: str) -> str:
    """Read which dataset a folder names; empty where it names none."""
    try:
        with open(os.path.join(folder, _DATASET), encoding="ascii", errors="replace") as file:
            return file.read().strip("\0\n")
    except (FileNotFoundError, NotADirectoryError):
        return ""
