"""Flaws that ``test_diffs.py`` catches: tars that do not give the layer back, or not the same bytes."""

import errno
import io
import os
import time
from typing import BinaryIO, ClassVar

import attrs

from broken.changes import Undeleting
from broken.flaws import Altering, Members, Misreading, Remaking, below, content_of, hidden
from graphdrivers import errors
from graphdrivers.backends.overlay.driver import OverlayDriver
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver
from graphdrivers.linux import mounts
from graphdrivers.model import Applied, DiffID, Limits, Profile, Progress, Usage


class Poor(VfsDriver):
    """Gives the diff that Docker would, whatever is asked for."""

    name: ClassVar[str] = "poor"

    def diff(self, layer: str, *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None) -> BinaryIO:
        """Leave out what that has no place for."""
        del profile
        return super().diff(layer, profile=Profile.OCI, source_date_epoch=source_date_epoch)


class Restless(OverlayDriver):
    """Gives a diff that is different every time."""

    name: ClassVar[str] = "restless"

    def diff(self, layer: str, *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None) -> BinaryIO:
        """Append the time behind the archive."""
        content = content_of(super().diff(layer, profile=profile, source_date_epoch=source_date_epoch))
        return io.BytesIO(content + str(time.time_ns()).encode())


class Padding(VfsDriver):
    """Ends a diff with one record of zeros more than others do."""

    name: ClassVar[str] = "padding"

    def diff(self, layer: str, *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None) -> BinaryIO:
        """Append it."""
        content = content_of(super().diff(layer, profile=profile, source_date_epoch=source_date_epoch))
        return io.BytesIO(content + bytes(10240))


class WhiteoutsLast(Remaking):
    """Writes deletions when everything else is written."""

    name: ClassVar[str] = "whiteouts-last"

    def remake(self, members: Members) -> Members:
        """Sort again."""
        return sorted(members, key=lambda member: hidden(member[0]) is not None)


class Piped(VfsDriver):
    """Gives the end of a pipe, and the process behind it dies when nobody reads on."""

    name: ClassVar[str] = "piped"

    def diff(self, layer: str, *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None) -> BinaryIO:
        """Pass it through."""
        return _Pipe(content_of(super().diff(layer, profile=profile, source_date_epoch=source_date_epoch)))


class _Pipe(io.BytesIO):
    def close(self) -> None:
        """Complain, once, about what was not read."""
        unread = not self.closed and self.read(1)
        super().close()
        if unread:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class Coarse(Misreading):
    """Knows of a directory in a tar only who may enter it."""

    name: ClassVar[str] = "coarse"

    def misread(self, members: Members, root: str) -> Members:
        """Take everything else off."""
        del root
        for member, _ in members:
            if member.isdir():
                member.mode &= 0o777
                member.pax_headers = {key: member.pax_headers[key] for key in member.pax_headers if "xattr" not in key}
        return members


class Holding(VfsDriver):
    """Opens something for each diff and never closes it."""

    name: ClassVar[str] = "holding"

    def diff(self, layer: str, *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None) -> BinaryIO:
        """Open the home."""
        os.open(self.home, os.O_RDONLY)
        return super().diff(layer, profile=profile, source_date_epoch=source_date_epoch)


class Leaking(Remaking):
    """Writes the private marks of its directories into the tar."""

    name: ClassVar[str] = "leaking"

    def remake(self, members: Members) -> Members:
        """Add one to each directory."""
        for member, _ in members:
            if member.isdir():
                member.pax_headers = {**member.pax_headers, "SCHILY.xattr.trusted.overlay.opaque": "y"}
        return members


class Stopping(VfsDriver):
    """Reads no further than the end of the archive, so its DiffID is not that of all bytes."""

    name: ClassVar[str] = "stopping"

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Cut off what follows the last zero."""
        content = tar.read()
        archive = io.BytesIO(content[: content.rfind(b"\0") + 1])
        return super().apply(layer, archive, headers=headers, limits=limits, progress=progress)


class Silent(VfsDriver):
    """Never says how far it is."""

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
        """Forget whom to tell."""
        del progress
        return super().apply(layer, tar, headers=headers, limits=limits)


class Lenient(VfsDriver):
    """Takes a tar that is cut short for a shorter one."""

    name: ClassVar[str] = "lenient"

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Be content with what came."""
        try:
            return super().apply(layer, tar, headers=headers, limits=limits, progress=progress)
        except errors.MalformedArchive:
            return Applied(DiffID("sha256:" + "0" * 64), 0, 0)


class Replacing(VfsDriver):
    """Unpacks into a fresh copy of the parent."""

    name: ClassVar[str] = "replacing"

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Throw away what the layer held."""
        parent = self.record(layer).parent
        self.remove(layer)
        self.create(layer, parent)
        return super().apply(layer, tar, headers=headers, limits=limits, progress=progress)


class Filling(Altering):
    """Copies the holes of files as zeros, as moby's vfs does."""

    name: ClassVar[str] = "filling"

    def alter(self, root: str) -> None:
        """Write every byte."""
        for path, facts in below(root):
            if facts.st_blocks * 512 < facts.st_size:
                with open(path, "r+b") as file:
                    content = file.read()
                    file.seek(0)
                    file.write(content)
                os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


class Boundless(VfsDriver):
    """Has no limits."""

    name: ClassVar[str] = "boundless"

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Forget them."""
        del limits
        return super().apply(layer, tar, headers=headers, progress=progress)


class Unrecorded(VfsDriver):
    """Writes no record of the headers."""

    name: ClassVar[str] = "unrecorded"

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Forget it."""
        del headers
        return super().apply(layer, tar, limits=limits, progress=progress)


class ParentsToo(VfsDriver):
    """Measures the whole tree, parents included."""

    name: ClassVar[str] = "parents-too"

    def usage(self, layer: str) -> Usage:
        """Add the parent's."""
        own, parent = super().usage(layer), self.record(layer).parent
        return own if parent is None else attrs.evolve(own, bytes=own.bytes + self.usage(parent).bytes)


class DoubleCounting(OverlayDriver):
    """Counts a file once for each of its names."""

    name: ClassVar[str] = "double-counting"

    def usage(self, layer: str) -> Usage:
        """Add what hard links share."""
        usage = super().usage(layer)
        with mounts.opened(self.mounts(layer, view=True)) as root:
            names = len([1 for _, _, files, _ in os.fwalk(".", dir_fd=root) for _ in files])
        return attrs.evolve(usage, inodes=usage.inodes + names)


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    Poor: (
        "test_a_diff_gives_the_layer_back",
        "test_native_and_naive_diffs_agree",
        "test_random_stacks_round_trip",
        "test_xattrs_travel",
    ),
    Restless: ("test_a_diff_is_reproducible",),
    Padding: ("test_all_drivers_agree", "test_a_diff_of_nothing"),
    WhiteoutsLast: ("test_names_in_a_diff",),
    Piped: ("test_a_diff_can_be_closed_early",),
    Leaking: ("test_a_diff_holds_no_marks_of_the_engine",),
    Stopping: ("test_applied_is_reported",),
    Silent: ("test_progress_can_cancel",),
    Lenient: ("test_a_refused_tar_leaves_a_removable_layer",),
    Replacing: ("test_applying_to_a_layer_that_was_written_to",),
    Coarse: ("test_a_diff_gives_the_layer_back", "test_xattrs_travel"),
    Holding: ("test_a_diff_can_be_closed_early",),
    Filling: ("test_holes_take_no_room",),
    Boundless: ("test_limits_hold",),
    Unrecorded: ("test_a_record_gives_the_tar_back",),
    ParentsToo: ("test_usage_counts_each_inode_once",),
    DoubleCounting: ("test_usage_counts_each_inode_once",),
    Undeleting: ("test_changes_and_diff_tell_the_same",),
}
