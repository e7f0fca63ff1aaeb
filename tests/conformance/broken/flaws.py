"""What several flaws need: the trees of vfs' layers, tars taken apart, drivers with a place for a flaw."""

import abc
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

import attrs

from graphdrivers.backends.overlay.driver import OverlayDriver
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver
from graphdrivers.model import Applied, LayerSpec, Limits, Profile, Progress, Support

Members = list[tuple[tarfile.TarInfo, bytes]]
"""The members of a tar with their contents."""

MARK = ".wh."
OPAQUE = ".wh..wh..opq"


def tree_of(driver: Driver, layer: str) -> str:
    """Give the directory with the whole tree of a layer of vfs."""
    return os.path.join(driver.home, "layers", layer, "root")


def upper_of(driver: Driver, layer: str) -> str:
    """Give the directory with what a layer of overlay changes."""
    return os.path.join(driver.home, "layers", layer, "diff")


def below(root: str) -> Iterator[tuple[str, os.stat_result]]:
    """Give the path of everything below a directory, parents first, with its ``lstat``."""
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            yield path, os.lstat(path)


def claiming(support: Support, **capabilities: object) -> Support:
    """Claim something else."""
    return attrs.evolve(support, capabilities=attrs.evolve(support.capabilities, **capabilities))


def unpacked(tar: bytes) -> Members:
    """Take a tar apart; the contents are whole, holes are zeros."""
    members = []
    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape") as archive:
        for one in archive:
            one.pax_headers = {key: one.pax_headers[key] for key in one.pax_headers if not key.startswith("GNU.sparse")}
            members.append((one, archive.extractfile(one).read() if one.isreg() else b""))
    return members


def packed(members: Members) -> bytes:
    """Write a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as archive:
        for header, content in members:
            archive.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


def hidden(member: tarfile.TarInfo) -> str | None:
    """Give the path that a whiteout deletes; nothing for any other member."""
    folder, name = os.path.split(member.name)
    if not name.startswith(MARK) or name.startswith(MARK * 2):
        return None
    return os.path.join(folder, name.removeprefix(MARK))


def content_of(stream: BinaryIO) -> bytes:
    """Read a stream to its end, and close it."""
    with stream:
        return b"".join(iter(lambda: stream.read(1 << 20), b""))


class Altering(VfsDriver, abc.ABC):
    """Copies a parent's tree, then does something to the copy; the times of directories stay."""

    @abc.abstractmethod
    def alter(self, root: str) -> None:
        """Do it."""

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Copy and alter."""
        super().create(layer, parent, spec)
        if parent is not None:
            root = tree_of(self, layer)
            before = [
                (path, facts.st_mtime_ns)
                for path, facts in (*below(root), (root, os.lstat(root)))
                if stat.S_ISDIR(facts.st_mode)
            ]
            self.alter(root)
            for path, moment in before:
                os.utime(path, ns=(moment, moment))


class Resting(OverlayDriver, abc.ABC):
    """Does something to what overlay left in a layer's directory whenever the layer comes to rest."""

    @abc.abstractmethod
    def alter(self, upper: str) -> None:
        """Do it."""

    def _rest(self, layer: str) -> None:
        if self._dirs.is_touched(layer):
            self.alter(upper_of(self, layer))
        super()._rest(layer)


class Misreading(VfsDriver):
    """Takes a layer's tar for another one."""

    def misread(self, members: Members, root: str) -> Members:
        """Give the members that are unpacked; ``root`` still has the parent's tree."""
        del root
        return members

    def correct(self, members: Members, root: str) -> None:
        """Do something after unpacking."""

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Unpack what was misread."""
        members, root = unpacked(tar.read()), tree_of(self, layer)
        misread = io.BytesIO(packed(self.misread(members, root)))
        applied = super().apply(layer, misread, headers=headers, limits=limits, progress=progress)
        self.correct(members, root)
        return applied


class Remaking(VfsDriver, abc.ABC):
    """Gives another diff than it should."""

    @abc.abstractmethod
    def remake(self, members: Members) -> Members:
        """Give the members of the other one."""

    def diff(self, layer: str, *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None) -> BinaryIO:
        """Write the tar again."""
        right = content_of(super().diff(layer, profile=profile, source_date_epoch=source_date_epoch))
        return io.BytesIO(packed(self.remake(unpacked(right))))
