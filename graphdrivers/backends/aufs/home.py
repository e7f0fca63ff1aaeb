r"""The home of the aufs driver, laid out as Docker's driver of that name kept its own.

Layout::

    HOME/driver.json      which driver, with which lasting options
    HOME/layers/NAME      the ancestry: one name a line, nearest first
    HOME/diff/NAME/       what the layer itself holds; at rest in the ``.wh.`` dialect
    HOME/mnt/NAME/        where its merged tree can be; the copy engine puts it there
    HOME/state/NAME/      what Docker's driver had no need to remember
        sealed            there when the layer is sealed
        limit             how many bytes it may take, if that is limited: see ``quotas``
        marked            there when ``diff`` may hold ``.wh.`` names
        escapes           there when ``diff`` may hold escaped xattrs
        shown, baseline   of the copy in ``mnt``: see ``copied``
        above/, below/    for overlay mounts: see ``shadow``
        work/             overlay's work directory
        reserved/         names that had to be put aside
    HOME/phase/NAME       there when ``diff`` is not at rest: see ``phases``
    HOME/lock             held while names appear in or vanish from these folders
    HOME/tmp/             what is being made or deleted

``layers/NAME`` decides: it is the last to come and the first to go, so what a
crash leaves in the other folders has no line in ``layers`` and is rubbish. In
``layers`` a backslash and a newline in a name are written ``\\`` and ``\n``.

A home that Docker's driver made has no ``driver.json`` and no ``state``. It is
taken over as it is: layers that have children become sealed ones.
"""

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from typing import ClassVar

from graphdrivers import errors
from graphdrivers.backends.aufs import phases
from graphdrivers.backends.aufs.phases import Phase
from graphdrivers.kit import layerdirs, quotas
from graphdrivers.kit.layerdirs import Ancestry, LayerDirs, LayerFile
from graphdrivers.linux import durable, locks, mountinfo
from graphdrivers.model import validate_layer_name

NAME = "aufs"

DIFF, MNT, STATE, PHASE = "diff", "mnt", "state", "phase"
_FOLDERS = (PHASE, STATE, DIFF, MNT)
MARKED = "marked"
ESCAPES = "escapes"


class AufsDirs(LayerDirs):
    """The layers of one home. Every verb reads the disk: other processes work here too."""

    made_as: ClassVar[tuple[str, ...]] = (quotas.TRIAL, STATE)

    def __init__(self, home: str, driver: str, options: Mapping[str, str], *, lasting: bool = True) -> None:
        """Open a home, making it where it is missing and taking over one of Docker's; see `LayerDirs`.

        With ``lasting`` off nothing waits for the disk: for a home that is only a trial.
        """
        self.lasting = lasting
        self.home = home
        self._phases = os.path.join(home, PHASE)
        self._layers = os.path.join(home, "layers")
        layerdirs.make_private(home)
        for folder in _FOLDERS:
            layerdirs.make_private(os.path.join(home, folder))
        if os.path.isdir(self._layers) and not os.path.exists(os.path.join(home, "driver.json")):
            self._take_over()  # before driver.json is there, so that it is done again if it is cut
        if not lasting:
            layerdirs.describe_home(home, driver, options, lasting=False)
        super().__init__(home, driver, options)

    def path(self, layer: str, *parts: str) -> str:
        """Give the path of something in a layer's folder of ``state``, the name checked."""
        return os.path.join(self.home, STATE, validate_layer_name(layer), *parts)

    def diff(self, layer: str) -> str:
        """Give the path of what the layer itself holds."""
        return os.path.join(self.home, DIFF, validate_layer_name(layer))

    def mnt(self, layer: str) -> str:
        """Give the path of the place for the layer's merged tree."""
        return os.path.join(self.home, MNT, validate_layer_name(layer))

    def read(self, layer: str) -> LayerFile:
        """Read a layer's ancestry.

        Raises:
            LayerNotFound: there is no such layer.
            StoreCorrupt: it names what cannot be a layer.
        """
        try:
            with open(self._record(layer), "rb") as file:
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            raise errors.LayerNotFound(layer) from None
        try:
            return LayerFile(tuple(validate_layer_name(_unquoted(line)) for line in lines if line))
        except errors.InvalidName as error:
            raise errors.StoreCorrupt(self.home, f"layers/{layer}: {error.message}") from error

    def exists(self, layer: str) -> bool:
        """Say whether the name is taken."""
        return os.path.lexists(self._record(layer))

    def phase(self, layer: str) -> Phase | None:
        """Read in which phase a layer is; ``None`` at rest."""
        return phases.read(self._phases, validate_layer_name(layer))

    def enter_phase(self, layer: str, phase: Phase, *, lasting: bool = True) -> None:
        """Put a layer into a phase. Atomic, and durable once this returns where it is to be ``lasting``."""
        with self._lock():
            phases.write(self._phases, layer, phase, lasting=lasting and self.lasting)

    @contextlib.contextmanager
    def claimed(self, layer: str, *, wait: bool = True) -> Iterator[bool]:
        """Keep other processes, for the time of a block, from bringing a layer to rest or to its mount.

        Whoever opens a home settles all that dead processes left, while others begin to use it. A phase that
        was read before the block has to be read again in it. See `locks.claimed`.
        """
        mine = True
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(FileNotFoundError):  # somebody has just removed it
                mine = stack.enter_context(locks.claimed(self.path(layer), wait=wait))
            yield mine

    def come_to_rest(self, layer: str) -> None:
        """Say that a layer is at rest. Atomic, idempotent."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self._phases, layer))

    def sync(self, directory: int) -> None:
        """Make everything on the file system of an open directory durable."""
        if self.lasting:
            durable.syncfs(directory)

    def restless(self) -> list[str]:
        """Give the layers that are not at rest."""
        return [validate_layer_name(name) for name in os.listdir(self._phases) if name != phases.TEMPORARY]

    @contextlib.contextmanager
    def making(self, layer: str, ancestry: Ancestry, phase: Phase | None = None) -> Iterator[str]:
        """Give a folder to make ``diff`` in; at the end of the block it is the layer, on an error it never was.

        What else is put into the folder becomes the layer's folder of ``state``.
        The layer is born in ``phase``. An ``ancestry`` that is to be asked for is asked for at the end of the block.

        Raises:
            LayerExists: another process was faster.
        """
        with durable.Staging(self._tmp) as staging, contextlib.ExitStack() as undo:
            made = os.path.join(staging.path, STATE)
            record = os.path.join(staging.path, "layer")
            os.mkdir(made, 0o700)
            undo.callback(self.release, made)  # nothing to be done any more once it is renamed
            yield made
            known = ancestry if isinstance(ancestry, LayerFile) else ancestry()
            with open(record, "wb") as file:
                file.writelines(_quoted(name) + b"\n" for name in known.ancestors)
            with self._lock():
                if self.exists(layer):
                    raise errors.LayerExists(layer)
                self._clear(layer, staging.path)
                os.rename(os.path.join(made, DIFF), self.diff(layer))
                os.rename(made, self.path(layer))
                os.mkdir(self.mnt(layer), 0o700)
                if phase is not None:
                    phases.write(self._phases, layer, phase, lasting=False)
                os.rename(record, self._record(layer))
            try:
                os.rmdir(staging.path)  # most often nothing is left to search for mounts and delete
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise

    def remove(self, layer: str) -> None:
        """Delete a layer: its record first, then all that has its name. Idempotent; needs no room on the disk."""
        with contextlib.ExitStack() as deleted_after, self._lock():
            for link in (self._record(layer), os.path.join(self._phases, layer)):
                with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # rubbish of that kind is swept
                    os.unlink(link)
            self.release(self.path(layer))
            for folder in (self.path(layer), self.diff(layer), self.mnt(layer)):
                deleted_after.enter_context(durable.discarding(folder, self._tmp))

    def sweep(self) -> None:
        """Delete what dead processes left: in ``tmp``, and of layers without a record."""
        with self._lock():
            known = set(self.names())
            lost = {name for folder in _FOLDERS for name in os.listdir(os.path.join(self.home, folder))}
            lost -= known
        if lost:
            with durable.Staging(self._tmp) as staging, self._lock():
                for layer in lost - set(self.names()):
                    self._clear(layer, staging.path)
        super().sweep()

    def mounted_at(self, layer: str, tree: str = DIFF) -> str:  # noqa: ARG002 -- there is but one place to look
        """Say where a layer is mounted in this mount namespace; empty when it is not. See `LayerDirs.mounted_at`."""
        folders = [self.diff(layer), self.mnt(layer)]
        texts = [f"/{kind}/{layer}" for kind in (DIFF, MNT)]
        if layerdirs.PLAIN_NAME.fullmatch(layer) and not layerdirs.in_mount_table(*texts, self.label(layer)):
            return ""
        # A killed exchange of folders leaves one of them missing.
        users = [use for folder in folders if os.path.isdir(folder) for use in mountinfo.users_of(folder)]
        users += [use for use in mountinfo.read() if use.source == self.label(layer)]
        users += [use for folder in folders for use in mountinfo.mounted_within(os.path.realpath(folder))]
        return users[0].target if users else ""

    def label(self, layer: str) -> str:
        """Give the source that mounts of the layer carry, by which they are found again."""
        return layerdirs.label(self.diff(layer))

    def has(self, layer: str, mark: str) -> bool:
        """Say whether a mark was set; see `LayerDirs.mark`."""
        return os.path.lexists(self.path(layer, mark))

    def unmark(self, layer: str, mark: str) -> None:
        """Take a mark away. Idempotent."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(layer, mark))

    def _record(self, layer: str) -> str:
        return os.path.join(self.home, "layers", validate_layer_name(layer))

    def _lock(self) -> locks.FileLock:
        return locks.FileLock(os.path.join(self.home, "lock"))

    def _clear(self, layer: str, staging: str) -> None:
        """Move what has a layer's name, but its record, to where it will be deleted."""
        self.release(os.path.join(self.home, STATE, layer))  # of what is no layer the name may be anything
        for folder in _FOLDERS:
            with contextlib.suppress(FileNotFoundError):
                os.rename(os.path.join(self.home, folder, layer), os.path.join(staging, f"{folder}-{layer}"))

    def _take_over(self) -> None:
        """Give layers that Docker's driver made what it did not remember. Idempotent."""
        names = self.names()
        parents = {parent for name in names for parent in self.read(name).ancestors}
        for name in names:
            for folder in (self.path(name), self.mnt(name)):
                layerdirs.make_private(folder)
            self.mark(name, MARKED)
            if name in parents:
                self.seal(name)


def _quoted(name: str) -> bytes:
    return os.fsencode(name.replace("\\", "\\\\").replace("\n", "\\n"))


def _unquoted(line: bytes) -> str:
    parts = os.fsdecode(line).split("\\\\")
    return "\\".join(part.replace("\\n", "\n") for part in parts)
