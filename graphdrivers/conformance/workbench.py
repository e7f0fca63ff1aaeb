"""What the checks work with: one driver on a fresh home, and a flat directory that plays along."""

import contextlib
import io
import os
import shutil
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

import attrs
import pytest

from graphdrivers import edits
from graphdrivers.archive import owners
from graphdrivers.archive.restore import restore
from graphdrivers.conformance import observe
from graphdrivers.driver import Driver
from graphdrivers.linux import mounts, namespaces
from graphdrivers.model import Change, Profile

OLDEST = 1_600_000_000
"""Modification time, in seconds, of what `layer_tar` describes."""


class Workbench:
    """A driver, and the shortest ways to make and look at layers."""

    def __init__(self, driver: Driver, scratch: str) -> None:
        """Work with ``driver``; ``scratch`` is an empty directory for flat trees."""
        self.driver = driver
        self.can = driver.support.capabilities
        self.bound = not namespaces.has_capability("CAP_DAC_OVERRIDE")
        """Permissions bind this process: it can do nothing with files that it took its own permissions from."""
        self._scratch = scratch
        self._flats = 0

    def needs(self, capability: str) -> None:
        """Leave the check out, saying so, unless the driver claims a capability."""
        if not getattr(self.can, capability):
            pytest.skip(f"gated: {self.driver.name} does not claim {capability}")

    def lacks(self, capability: str) -> None:
        """Leave the check out, saying so, unless the driver does *not* claim a capability."""
        if getattr(self.can, capability):
            pytest.skip(f"gated: {self.driver.name} claims {capability}")

    @contextlib.contextmanager
    def writing(self, layer: str) -> Iterator[str]:
        """Give the path of a layer's writable tree; afterwards the layer is settled."""
        with mounts.opened(self.driver.mounts(layer)) as root:
            yield f"/proc/self/fd/{root}"
        self.driver.settle(layer)

    @contextlib.contextmanager
    def viewing(self, layer: str) -> Iterator[str]:
        """Give the path of a layer's read-only tree."""
        with mounts.opened(self.driver.mounts(layer, view=True)) as root:
            yield f"/proc/self/fd/{root}"

    @contextlib.contextmanager
    def attached(self, layer: str, folder: str, *, view: bool = False) -> Iterator[str]:
        """Mount a layer where every process sees it, on a new folder in ``folder``; it is not settled afterwards."""
        place = os.path.join(folder, "place")
        os.mkdir(place)
        try:
            mounts.attach(self.driver.mounts(layer, view=view), place)
        except PermissionError:
            os.rmdir(place)
            pytest.skip("gated: this user may not mount")
        try:
            yield place
        finally:
            mounts.detach(place)
            os.rmdir(place)

    def layer(
        self, name: str, parent: str | None = None, changes: Sequence[edits.Edit] = (), *, seal: bool = True
    ) -> str:
        """Create a layer, edit it through its mount, seal it."""
        self.driver.create(name, parent)
        with self.writing(name) as root:
            edits.replay(self._fit(changes), root)
        if seal:
            self.driver.seal(name)
        return name

    def applied(self, name: str, parent: str | None, tar: bytes, *, seal: bool = True) -> str:
        """Create a layer from a tar."""
        self.driver.create(name, parent)
        self.driver.apply(name, io.BytesIO(tar))
        if seal:
            self.driver.seal(name)
        return name

    def flat(self, *rounds: Sequence[edits.Edit]) -> str:
        """Replay the edits of a stack, one round per layer, on a flat directory; give its path."""
        self._flats += 1
        root = os.path.join(self._scratch, f"flat{self._flats}")
        os.mkdir(root)
        os.chmod(root, 0o755)  # noqa: S103 - as the root of an image is
        os.utime(root, ns=(0, 0))
        for changes in rounds:
            edits.replay(self._fit(changes), root)
        return root

    def _fit(self, changes: Sequence[edits.Edit]) -> Sequence[edits.Edit]:
        """Leave the caller its permissions where it could not read its own files otherwise, and no driver could."""
        if not self.bound or self.can.recorded_owners:
            return changes
        with_mode = (edits.Create, edits.Mkdir, edits.Chmod)
        return [attrs.evolve(one, mode=one.mode | 0o700) if isinstance(one, with_mode) else one for one in changes]

    def tree(self, layer: str) -> dict[str, observe.Item]:
        """Look at a sealed layer's merged tree."""
        with self.viewing(layer) as root:
            return self.look(root)

    def look(self, root: str) -> dict[str, observe.Item]:
        """Look at a mounted tree, as precisely as the driver can."""
        return observe.snapshot(root, resolution=self.can.time_resolution, recorded_modes=self.can.recorded_owners)

    def flat_tree(self, root: str) -> dict[str, observe.Item]:
        """Look at a flat directory, as precisely as the driver can."""
        if self.can.recorded_owners:
            fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
            try:
                owners.make_usable(fd)
            finally:
                os.close(fd)
        return observe.snapshot(root, resolution=self.can.time_resolution, recorded_modes=self.can.recorded_owners)

    def contents(self, layer: str) -> dict[str, str]:
        """Give what a sealed layer shows: text of files, ``/`` for directories, ``-> TARGET`` for links, ``?`` else."""
        shown = {}
        with self.viewing(layer) as root:
            for path, item in observe.snapshot(root).items():
                if path != ".":
                    shown[path] = _content(os.path.join(root, path), item)
        return shown

    def changes(self, layer: str) -> list[tuple[str, str]]:
        """Give the changes of a layer as Docker's letters and paths, in the driver's order."""
        return [(change.kind.letter, change.path) for change in self._changes(layer)]

    def _changes(self, layer: str) -> list[Change]:
        return list(self.driver.changes(layer))

    def diff(self, layer: str, profile: Profile = Profile.FULL) -> bytes:
        """Read the diff of a layer."""
        with contextlib.closing(self.driver.diff(layer, profile=profile)) as stream:
            return b"".join(iter(lambda: stream.read(1 << 20), b""))

    def tar_back(self, layer: str, record: BinaryIO) -> bytes:
        """Read the tar of a sealed base layer back from its files and the record of its headers."""

        def opened(path: bytes) -> int:
            return os.open(os.path.join(os.fsencode(root), path), os.O_RDONLY)

        record.seek(0)
        with self.viewing(layer) as root, contextlib.closing(restore(record, opened)) as stream:
            return b"".join(iter(lambda: stream.read(1 << 20), b""))

    def forget(self) -> None:
        """Remove every layer (children first) and the flat directories."""
        for record in list(self.driver.layers()):
            self.driver.remove(record.name)
        self.driver.close()
        shutil.rmtree(self._scratch)


@attrs.frozen
class Member:
    """One tar member; ``name`` may hold any bytes."""

    name: str
    content: bytes = b""
    kind: bytes = tarfile.REGTYPE
    target: str = ""
    mode: int = 0o644
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = attrs.Factory(dict)
    owner: tuple[int, int] | None = None
    """User and group; else the caller's."""


def directory(name: str, mode: int = 0o755) -> Member:
    """Describe a directory."""
    return Member(name, kind=tarfile.DIRTYPE, mode=mode)


def whiteout(path: str) -> Member:
    """Describe the deletion of a path."""
    parent, name = os.path.split(path)
    return Member(os.path.join(parent, f".wh.{name}"))


def opaque(path: str) -> Member:
    """Describe that a directory hides what lower layers have in it."""
    return Member(os.path.join(path, ".wh..wh..opq"))


def layer_tar(members: Iterable[Member | str]) -> bytes:
    """Write a tar; a plain string is a file that contains its own path, or a directory if it ends in a slash."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for member in members:
            tar.addfile(*_tar_member(_described(member)))
    return buffer.getvalue()


def names_in(tar: bytes) -> list[str]:
    """Give the member names of a tar, in order, directories with their slash."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return [member.name + ("/" if member.isdir() else "") for member in archive]


def _described(member: Member | str) -> Member:
    if isinstance(member, Member):
        return member
    return directory(member.rstrip("/")) if member.endswith("/") else Member(member, member.encode())


def _tar_member(member: Member) -> tuple[tarfile.TarInfo, io.BytesIO]:
    header = tarfile.TarInfo(member.name)
    header.type, header.linkname, header.mode = member.kind, member.target, member.mode
    header.mtime, header.size = OLDEST, len(member.content)
    header.uid, header.gid = member.owner or (os.geteuid(), os.getegid())
    header.devmajor, header.devminor = member.device
    header.pax_headers = {
        f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape") for name, value in member.xattrs.items()
    }
    return header, io.BytesIO(member.content)


def _content(path: str, item: observe.Item) -> str:
    if item.kind == stat.S_IFREG:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    return {stat.S_IFDIR: "/", stat.S_IFLNK: f"-> {item.target}"}.get(item.kind, "?")
