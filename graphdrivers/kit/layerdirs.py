"""The home of a driver that keeps each layer in a folder: who is there, whose parent, sealed or not.

Layout::

    HOME/driver.json            which driver, with which lasting options
    HOME/layers/NAME/           one layer
        layer.json              its parent and all ancestors, nearest first
        sealed                  there when the layer is sealed
        limit                   how many bytes it may take, if that is limited: see ``quotas``
        touched                 there when a writable mount was planned since the layer was last brought to rest
        ...                     the driver's own files
    HOME/tmp/                   what is being made or deleted

A layer is made in ``tmp`` and renamed into ``layers``, and renamed back before
it is deleted, so ``layers`` never holds half of one. What lies in ``tmp``
carries a lock for as long as its process lives; without one it is rubbish.

Ancestors are repeated in each ``layer.json`` so that planning the mount of a
deep stack reads one file. They never change: a layer with children stays.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

import attrs

from graphdrivers import errors
from graphdrivers.kit import quotas
from graphdrivers.linux import durable, mountinfo, trees
from graphdrivers.model import LayerRecord, validate_layer_name

VERSION = 1
"""Version of the layout, in both kinds of file."""

SEALED, TOUCHED = "sealed", "touched"
"""Names of marks in a layer's folder."""

KERNELS = "work"
"""Name of the directory that overlayfs makes anew in a work directory; it stays, empty, after the unmount.

Source: kernel, fs/overlayfs/super.c (``ovl_workdir_create``).
"""

_LABEL_MAX = 255

_PIECE = 1 << 14
"""Bytes read at a time."""

_TRIES = 10
"""How often a name may go and come back while it is read, before its folder is taken to lack ``layer.json``."""

PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]+")
"""Names in which the mount table escapes nothing."""


@attrs.frozen
class LayerFile:
    """What ``layer.json`` says."""

    ancestors: tuple[str, ...] = ()
    """Nearest first; empty for a base layer."""

    @property
    def parent(self) -> str | None:
        """The nearest ancestor."""
        return self.ancestors[0] if self.ancestors else None


Ancestry = LayerFile | Callable[[], LayerFile]
"""That of a layer in the making, or what gives it once its parent is there."""


def recorded_options(home: str, driver: str) -> dict[str, str] | None:
    """Give the lasting options that ``home`` was made with, or ``None`` for a home not made yet.

    Raises:
        PriorDriverState: it is another driver's home.
        StoreVersion: it was made by a newer version.
        StoreCorrupt: ``driver.json`` cannot be understood.
        PrerequisiteMissing: it cannot be read by this user.
    """
    try:
        with open(os.path.join(home, "driver.json"), "rb") as file:
            text = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        reason = f"{home!r} is closed to this user"
        raise errors.PrerequisiteMissing(driver, reason, "run as its owner, or choose another --root") from error
    found = _parsed(home, "driver.json", text)
    name, options = found.get("driver"), found.get("options")
    if not isinstance(name, str) or not isinstance(options, dict):
        raise errors.StoreCorrupt(home, "driver.json lacks the driver or its options")
    if name != driver:
        raise errors.PriorDriverState(home, (name,), driver)
    return {str(key): str(value) for key, value in options.items()}


def describe_home(home: str, driver: str, options: Mapping[str, str], *, lasting: bool = True) -> None:
    """Write ``driver.json``. Atomic, and durable where it is to be ``lasting``."""
    text = json.dumps({"version": VERSION, "driver": driver, "options": dict(options)}, indent=1)
    with directory(home) as opened:
        durable.write_atomic(opened, "driver.json", text.encode(), durable=lasting)


class LayerDirs:
    """The layers of one home. Every verb reads the disk: other processes work here too."""

    made_as: ClassVar[tuple[str, ...]] = (quotas.TRIAL,)
    """Names that the folder of a layer in the making has in a folder of ``tmp``."""

    def __init__(self, home: str, driver: str, options: Mapping[str, str]) -> None:
        """Open a home, making it (mode 0700 whatever the umask) where it is missing.

        Raises:
            PriorDriverState, StoreVersion, StoreCorrupt: see `recorded_options`.
        """
        self.home = home
        self.driver = driver
        self._layers = os.path.join(home, "layers")
        self._tmp = os.path.join(home, "tmp")
        for folder in (home, self._layers, self._tmp):
            make_private(folder)
        if recorded_options(home, driver) is None:
            describe_home(home, driver, options)

    def path(self, layer: str, *parts: str) -> str:
        """Give the path of something in a layer's folder, the name checked."""
        return "/".join((self._layers, validate_layer_name(layer), *parts))

    def read(self, layer: str) -> LayerFile:
        """Read a layer's ancestry.

        Raises:
            LayerNotFound: there is no such layer.
            StoreCorrupt, StoreVersion: its ``layer.json`` cannot be understood.
        """
        try:
            text = _content(self.path(layer, "layer.json"))
        except FileNotFoundError:
            raise errors.LayerNotFound(layer) from None
        ancestors = _parsed(self.home, f"layer.json of {layer!r}", text).get("ancestors")
        if not isinstance(ancestors, list):
            raise errors.StoreCorrupt(self.home, f"layer.json of {layer!r} lacks the ancestors")
        return LayerFile(tuple([validate_layer_name(name) for name in ancestors]))

    def folders(self, ancestry: LayerFile) -> list[str]:
        """Give the folders of a layer's ancestors, nearest first; the names were checked when they were read."""
        if ancestry.parent is None:
            return []
        beside = self.path(ancestry.parent).removesuffix(ancestry.parent)
        return [beside + name for name in ancestry.ancestors]

    def exists(self, layer: str) -> bool:
        """Say whether the name is taken."""
        return os.path.lexists(self.path(layer))

    def is_sealed(self, layer: str) -> bool:
        """Say whether a layer that exists is sealed."""
        return os.path.lexists(self.path(layer, SEALED))

    def contents(self, layer: str) -> frozenset[str]:
        """Give the names in a layer's folder: one look, for who wants to know about several marks.

        Raises:
            LayerNotFound: there is no such layer.
        """
        try:
            return frozenset(os.listdir(self.path(layer)))
        except FileNotFoundError:
            raise errors.LayerNotFound(layer) from None

    def writable(self, layer: str) -> LayerFile:
        """Read a layer's ancestry, refusing a sealed one.

        Raises:
            LayerNotFound, LayerSealed
        """
        found = self.read(layer)
        if self.is_sealed(layer):
            raise errors.LayerSealed(layer)
        return found

    def check_new(self, layer: str, parent: str | None, max_depth: int | None) -> LayerFile:
        """Check that a layer can be created, and give the ancestry that it would have.

        Raises:
            LayerExists, LayerNotFound, LayerNotSealed, ChainTooDeep: in this order.
        """
        if self.exists(layer):
            raise errors.LayerExists(layer)
        if parent is None:
            return LayerFile()
        ancestors = (parent, *self.read(parent).ancestors)
        if not self.is_sealed(parent):
            raise errors.LayerNotSealed(parent)
        depth = len(ancestors) + 1
        if max_depth is not None and depth > max_depth:
            raise errors.ChainTooDeep(layer, depth, max_depth)
        return LayerFile(ancestors)

    @contextlib.contextmanager
    def making(self, layer: str, ancestry: Ancestry) -> Iterator[str]:
        """Give a folder to fill; at the end of the block it is the layer, on an error it never was.

        An ``ancestry`` that is to be asked for is asked for then.

        Raises:
            LayerExists: another process was faster.
        """
        with durable.Staging(self._tmp) as staging, contextlib.ExitStack() as undo:
            made = os.path.join(staging.path, quotas.TRIAL)
            os.mkdir(made, 0o700)
            undo.callback(self.release, made)  # nothing to be done any more once it is renamed
            yield made
            known = ancestry if isinstance(ancestry, LayerFile) else ancestry()
            text = json.dumps({"version": VERSION, "parent": known.parent, "ancestors": known.ancestors})
            with open(os.path.join(made, "layer.json"), "w", encoding="ascii") as file:
                file.write(text)
            try:
                # rename(2) replaces an empty directory only, and a layer is never empty.
                os.rename(made, self.path(layer))
            except OSError as error:
                if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                    raise errors.LayerExists(layer) from None
                raise
            os.rmdir(staging.path)  # nothing is left to search for mounts and delete

    def mark(self, layer: str, name: str) -> None:
        """Make an empty file in a layer's folder. Atomic, idempotent."""
        mark(self.path(layer), name)

    def seal(self, layer: str) -> None:
        """Put the mark that makes a layer immutable. Atomic, idempotent."""
        self.mark(layer, SEALED)

    def touch(self, layer: str) -> None:
        """Remember that a layer may be written to outside of our sight."""
        self.mark(layer, TOUCHED)

    def is_touched(self, layer: str) -> bool:
        """Say whether a layer may have been written to since `rest`."""
        return os.path.lexists(self.path(layer, TOUCHED))

    def rest(self, layer: str) -> None:
        """Forget `touch`."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(layer, TOUCHED))

    def records(self) -> Iterator[LayerRecord]:
        """Give every layer, children before their parents.

        A layer whose ``layer.json`` is damaged (a power cut may do that to one
        that nobody made durable) is given without a parent: all that can be
        done with it is to remove it, and it does not keep the others from their use.

        Raises:
            StoreVersion: a newer release wrote one.
        """
        found = []
        for name in self.names():
            sealed = self.is_sealed(name)
            ancestry = self._listed(name)
            if ancestry is not None:
                found.append((ancestry, name, sealed))
        for ancestry, name, sealed in sorted(found, key=lambda one: (-len(one[0].ancestors), one[1])):
            yield LayerRecord(name, ancestry.parent, sealed)

    def _listed(self, layer: str) -> LayerFile | None:
        """Read a layer that was listed; ``None`` where another process has removed it since, or it is no folder."""
        for _ in range(_TRIES):
            try:
                return self.read(layer)
            except NotADirectoryError:
                return None
            except (errors.StoreCorrupt, errors.InvalidName):
                return LayerFile()
            except errors.LayerNotFound:
                if not self.exists(layer):
                    return None
        return LayerFile()

    def names(self) -> list[str]:
        """Give the names of all layers, checked."""
        return [validate_layer_name(name) for name in os.listdir(self._layers)]

    def mounted_at(self, layer: str, tree: str) -> str:
        """Say where a layer is mounted in this mount namespace; empty when it is not.

        Found are mounts of ``tree`` in the layer's folder (as a bind, or as an
        overlay's upper directory), mounts inside of the folder, and mounts that
        carry the folder as their source (see `label`).
        """
        folder = self.path(layer)
        if PLAIN_NAME.fullmatch(layer) and not in_mount_table(f"/layers/{layer}", label(folder)):
            return ""
        inside = os.path.realpath(folder) + "/"
        users = mountinfo.users_of(os.path.join(folder, tree))
        users += [use for use in mountinfo.read() if use.source == label(folder) or use.target.startswith(inside)]
        return users[0].target if users else ""

    def refuse_mounted(self, layer: str, tree: str) -> None:
        """Raise ``LayerInUse`` when `mounted_at` finds a mount."""
        where = self.mounted_at(layer, tree)
        if where:
            raise errors.LayerInUse(layer, f"at {where!r}")

    def remove(self, layer: str) -> None:
        """Delete a layer: one rename, `release`, then its files. Idempotent; needs no room on the disk."""
        with durable.discarding(self.path(layer), self._tmp) as moved:
            self.release(moved)

    def release(self, folder: str) -> None:
        """Undo what the files of a layer's folder, anywhere by now, hold beside themselves; they are deleted next.

        Idempotent; nothing is done where there is no folder. Here it is the limit on its size. A driver that keeps
        more than files overrides it: subvolumes, datasets and devices end here.
        """
        quotas.release(folder)

    def sweep(self) -> None:
        """Delete what dead processes, and removals that failed, left in ``tmp``.

        Raises:
            OSError, GraphDriverError: of the first that resisted, when all were tried; others are in its notes.
        """
        failed: list[OSError | errors.GraphDriverError] = []
        for name in durable.Staging.leftovers(self._tmp):
            try:
                for folder in ("", *self.made_as):
                    self.release(os.path.join(self._tmp, name, folder))
                delete(self._tmp, name)
            except (OSError, errors.GraphDriverError) as error:
                failed.append(error)
        if failed:
            for other in failed[1:]:
                failed[0].add_note(f"another one: {other}")
            raise failed[0]


def mark(folder: str, name: str) -> None:
    """Make an empty file. Atomic, idempotent."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(f"{folder}/{name}", flags, 0o600))


def in_mount_table(*texts: str) -> bool:
    """Search the unparsed mount table: a quick no, where parsing would cost a millisecond per hundred mounts."""
    table = mountinfo.unparsed()
    return any(os.fsencode(text) in table for text in texts)


def label(folder: str) -> str:
    """Give the source label of mounts of the layer in ``folder``: its path, shortened where the kernel needs it.

    Source: fsconfig(2), ``FSCONFIG_SET_STRING`` takes 255 bytes.
    """
    path = os.fsencode(folder)
    return folder if len(path) <= _LABEL_MAX else f"graphdrivers:{hashlib.sha256(path).hexdigest()}"


def delete(folder: str, name: str) -> None:
    """Delete a tree of ``folder``, whatever is in it. Idempotent.

    Raises:
        OSError: ``EBUSY``, with nothing deleted, while something is mounted in it.
    """
    with directory(folder) as parent:
        trees.remove_tree(parent, os.fsencode(name))


def delete_work(folder: str, name: str) -> None:
    """Delete overlay's work directory: what an unmount leaves of it with two calls, anything else as `delete` does."""
    try:
        os.rmdir(f"{folder}/{name}/{KERNELS}")
        os.rmdir(f"{folder}/{name}")
    except OSError:
        delete(folder, name)


@contextlib.contextmanager
def directory(path: str) -> Iterator[int]:
    """Open a directory for the time of a block."""
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield opened
    finally:
        os.close(opened)


def make_private(folder: str) -> None:
    """Make a directory that only its owner enters, whatever the umask and the parent's default ACL. Idempotent."""
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        return
    for name in os.listxattr(folder):
        if name.startswith("system.posix_acl"):
            os.removexattr(folder, name)
    os.chmod(folder, 0o700)


def _content(path: str) -> bytes:
    """Read a file of ours in as few calls as can be: every verb reads one."""
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = piece = os.read(opened, _PIECE)
        while len(piece) == _PIECE:  # less is the end of a file on disk
            piece = os.read(opened, _PIECE)
            text += piece
        return text
    finally:
        os.close(opened)


def _parsed(home: str, what: str, text: bytes) -> dict[str, object]:
    """Parse one of our files and check its version."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise errors.StoreCorrupt(home, f"{what} is no JSON: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("version"), int):
        raise errors.StoreCorrupt(home, f"{what} has no version")
    if found["version"] > VERSION:
        raise errors.StoreVersion(home, f"{what} has version {found['version']}; this release knows {VERSION}")
    return found
