"""Drivers that get owners in layer tars wrong; see ``graphdrivers.conformance.test_owners``."""

import io
import os
import tarfile
from collections.abc import Mapping
from typing import BinaryIO, ClassVar

import attrs

from graphdrivers.archive import owners
from graphdrivers.archive.whiteouts import PLAIN
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver
from graphdrivers.linux import trees
from graphdrivers.model import Applied, LayerSpec, Limits, Profile, Progress, Support


class Recording(VfsDriver):
    """No flaw: records owners also as root, who need not."""

    name: ClassVar[str] = "recording"

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Claim what a plain user has."""
        support = super().probe(home, options)
        claimed = attrs.evolve(support.capabilities, ownership=False, recorded_owners=True)
        return attrs.evolve(support, capabilities=claimed)


class TwoWays(Recording):
    """Claims both ways of keeping owners."""

    name: ClassVar[str] = "two-ways"

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Claim ownership besides."""
        support = super().probe(home, options)
        return attrs.evolve(support, capabilities=attrs.evolve(support.capabilities, ownership=True))


class Forgetful(Recording):
    """Claims to record owners, and does not."""

    name: ClassVar[str] = "forgetful"

    def __init__(self, home: str, options: Mapping[str, str], support: Support) -> None:
        """Write plain trees."""
        super().__init__(home, options, support)
        self._dialect = PLAIN


class Leaking(Recording):
    """Shows its records as content."""

    name: ClassVar[str] = "leaking"

    def diff(self, layer: str, *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None) -> BinaryIO:
        """Read the tree as it is."""
        support = self.support
        self.support = attrs.evolve(support, capabilities=attrs.evolve(support.capabilities, recorded_owners=False))
        with super().diff(layer, profile=profile, source_date_epoch=source_date_epoch) as stream:
            tar = b"".join(iter(lambda: stream.read(1 << 16), b""))
        self.support = support
        return io.BytesIO(tar)


class _Meddling(Recording):
    """Does something to each file after a tar was applied."""

    def meddle(self, directory: int, name: bytes) -> None:
        """Do it to one file or directory."""
        raise NotImplementedError

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Apply, then meddle at the top."""
        done = super().apply(layer, tar, headers=headers, limits=limits, progress=progress)
        root = os.open(self._dirs.path(layer, "root"), os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in os.listdir(root):
                if not os.path.islink(f"/proc/self/fd/{root}/{name}"):
                    self.meddle(root, os.fsencode(name))
        finally:
            os.close(root)
        return done


class SetId(_Meddling):
    """Sets the recorded set-id bits for real: they give the caller's rights away."""

    name: ClassVar[str] = "set-id"

    def meddle(self, directory: int, name: bytes) -> None:
        """Set the mode that is recorded."""
        status = os.stat(name, dir_fd=directory)
        os.chmod(name, owners.look(directory, name, status).st_mode & 0o7777, dir_fd=directory)


class RootsOnly(_Meddling):
    """Takes every owner for root."""

    name: ClassVar[str] = "roots-only"

    def meddle(self, directory: int, name: bytes) -> None:
        """Record root."""
        fd = os.open(name, os.O_RDONLY, dir_fd=directory)
        owners.give(fd, 0, 0, os.fstat(fd).st_mode & 0o7777, bound=True)
        os.close(fd)


class Nobodys(_Meddling):
    """Takes every owner for nobody."""

    name: ClassVar[str] = "nobodys"

    def meddle(self, directory: int, name: bytes) -> None:
        """Record nobody."""
        fd = os.open(name, os.O_RDONLY, dir_fd=directory)
        owners.give(fd, 65534, 65534, os.fstat(fd).st_mode & 0o7777, bound=True)
        os.close(fd)


class Orphaning(Recording):
    """Loses the records of files when it copies a parent."""

    name: ClassVar[str] = "orphaning"

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Drop them."""
        super().create(layer, parent, spec)
        root = os.open(self._dirs.path(layer, "root"), os.O_RDONLY | os.O_DIRECTORY)
        with trees.DirStack(root) as stack:
            for name in os.listdir(stack.fd):
                path = f"/proc/self/fd/{stack.fd}/{name}"
                if owners.XATTR in os.listxattr(path):
                    os.removexattr(path, owners.XATTR)
        os.close(root)


class Trusting(Recording):
    """Takes a record in a tar for its own."""

    name: ClassVar[str] = "trusting"

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Write what the tar says, unchecked."""
        self._dialect = PLAIN
        return super().apply(layer, tar, headers=headers, limits=limits, progress=progress)


class Obeying(VfsDriver):
    """Gives files away as an xattr in a tar says, though it records nothing."""

    name: ClassVar[str] = "obeying"

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Apply, then obey."""
        done = super().apply(layer, tar, headers=headers, limits=limits, progress=progress)
        root = self._dirs.path(layer, "root")
        for name in os.listdir(root):
            path = os.path.join(root, name)
            value = owners.read(os.fsencode(path))
            record = None if value is None else owners.parse(value, os.lstat(path).st_mode & 0o170000)
            if record is not None:
                os.chown(path, record.uid, record.gid)
        return done


class Silent(Recording):
    """Loses owners without a word."""

    name: ClassVar[str] = "silent"

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Drop the notes."""
        return attrs.evolve(super().apply(layer, tar, headers=headers, limits=limits, progress=progress), notes=())


class Unlinking(VfsDriver):
    """Gives every name of a file an owner of its own, by copying the file."""

    name: ClassVar[str] = "unlinking"

    def diff(self, layer: str, *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None) -> BinaryIO:
        """Replace hard links by files of root."""
        buffer = io.BytesIO()
        with (
            super().diff(layer, profile=profile, source_date_epoch=source_date_epoch) as stream,
            tarfile.open(fileobj=stream, mode="r|") as source,
            tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as target,
        ):
            for member in source:
                if member.islnk():
                    member.type, member.uid, member.gid = tarfile.REGTYPE, 0, 0
                target.addfile(member, source.extractfile(member) if member.size else None)
        buffer.seek(0)
        return buffer


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    TwoWays: ("test_owners_are_kept_in_one_way",),
    Forgetful: ("test_the_diff_gives_owners_back",),
    Nobodys: ("test_implied_directories_belong_to_root",),
    RootsOnly: ("test_the_diff_gives_owners_back", "test_owners_are_described_anew"),
    Leaking: ("test_records_are_no_content", "test_owners_make_the_round_trip"),
    SetId: ("test_recorded_files_grant_nothing",),
    Orphaning: ("test_a_child_has_the_owners_of_its_parent",),
    Trusting: ("test_a_record_in_a_tar_is_refused",),
    Obeying: ("test_a_record_in_a_tar_is_content_elsewhere",),
    Silent: ("test_lost_owners_are_counted",),
    Unlinking: ("test_names_of_one_file_have_one_owner",),
}
