"""Flaws that ``test_fidelity.py`` catches: tars that are not read or written as they are meant."""

import contextlib
import io
import os
import stat
import tarfile
from typing import BinaryIO, ClassVar

from broken.flaws import Members, Misreading, Remaking, below, tree_of
from graphdrivers import errors
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver
from graphdrivers.model import Applied, Limits, Profile, Progress


class Short(Misreading):
    """Keeps a hundred bytes of a name, as the first tars did."""

    name: ClassVar[str] = "short"

    def misread(self, members: Members, root: str) -> Members:
        """Cut the rest off."""
        del root
        for header, _ in members:
            header.name = header.name[:100]
        return members


class Modern(Misreading):
    """Passes over types of members that it takes for history."""

    name: ClassVar[str] = "modern"

    def misread(self, members: Members, root: str) -> Members:
        """Leave them out."""
        del root
        return [one for one in members if one[0].type not in {tarfile.CONTTYPE, tarfile.AREGTYPE}]


class Local(VfsDriver):
    """Takes a global header for a member that it does not know."""

    name: ClassVar[str] = "local"

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Refuse it."""
        content = tar.read()
        if content[156:157] == tarfile.XGLTYPE:
            raise errors.UnsupportedEntry("its type is unknown", "pax_global_header")
        return super().apply(layer, io.BytesIO(content), headers=headers, limits=limits, progress=progress)


class Dotless(Misreading):
    """Takes every name with two dots for an attack."""

    name: ClassVar[str] = "dotless"

    def misread(self, members: Members, root: str) -> Members:
        """Refuse it."""
        del root
        for header, _ in members:
            if ".." in header.name:
                raise errors.UnsafePath("it climbs", header.name)
        return members


class UmaskedApply(VfsDriver):
    """Leaves the modes of what it unpacks to the umask."""

    name: ClassVar[str] = "umasked-apply"

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Take the bits away."""
        applied = super().apply(layer, tar, headers=headers, limits=limits, progress=progress)
        umask = os.umask(0)
        os.umask(umask)
        for path, facts in below(tree_of(self, layer)):
            if not stat.S_ISLNK(facts.st_mode):
                os.chmod(path, stat.S_IMODE(facts.st_mode) & ~umask)
        return applied


class SmallOwners(Misreading):
    """Reads owners into 16 bits."""

    name: ClassVar[str] = "small-owners"

    def misread(self, members: Members, root: str) -> Members:
        """Cut the rest off."""
        del root
        for header, _ in members:
            header.uid &= 0xFFFF
            header.gid &= 0xFFFF
        return members


class ChownLast(Misreading):
    """Sets the owner last, which takes the set-user-ID bit and the capabilities."""

    name: ClassVar[str] = "chown-last"

    def correct(self, members: Members, root: str) -> None:
        """Set it again."""
        for header, _ in members:
            os.chown(os.path.join(root, header.name), header.uid, header.gid, follow_symlinks=False)


class Seconds(Misreading):
    """Reads times without their fractions."""

    name: ClassVar[str] = "seconds"

    def misread(self, members: Members, root: str) -> Members:
        """Cut them off."""
        del root
        for header, _ in members:
            header.mtime = int(header.mtime)
            header.pax_headers = {}
        return members


class Touching(Misreading):
    """Leaves directories with the time at which something was last done in them."""

    name: ClassVar[str] = "touching"

    def correct(self, members: Members, root: str) -> None:
        """Set it."""
        del members
        for path, facts in below(root):
            if stat.S_ISDIR(facts.st_mode):
                os.utime(path)


class Dereferencing(Misreading):
    """Links to what a symbolic link points to, where it should link to the link."""

    name: ClassVar[str] = "dereferencing"

    def misread(self, members: Members, root: str) -> Members:
        """Resolve the target."""
        del root
        ways = {header.name: header.linkname for header, _ in members if header.issym()}
        for header, _ in members:
            if header.islnk():
                header.linkname = ways.get(header.linkname, header.linkname)
        return members


class Wrapping(Misreading):
    """Cuts device numbers to what the kernel takes."""

    name: ClassVar[str] = "wrapping"

    def misread(self, members: Members, root: str) -> Members:
        """Take the rest away."""
        del root
        for header, _ in members:
            header.devmajor &= 0xFFF
            header.devminor &= 0xFFFFF
        return members


class OldDevices(Misreading):
    """Knows 256 minor numbers."""

    name: ClassVar[str] = "old-devices"

    def misread(self, members: Members, root: str) -> Members:
        """Take the rest away."""
        del root
        for header, _ in members:
            header.devminor &= 0xFF
        return members


class ReadingOnce(VfsDriver):
    """Takes a short read for the end of a stream."""

    name: ClassVar[str] = "reading-once"

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Read once."""
        content = io.BytesIO(tar.read(1 << 24))
        return super().apply(layer, content, headers=headers, limits=limits, progress=progress)


class Untold(VfsDriver):
    """Takes what goes wrong with the stream for its end, and tells nobody of progress."""

    name: ClassVar[str] = "untold"

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Read what there is."""
        del progress
        pieces = []
        with contextlib.suppress(OSError):
            pieces += iter(lambda: tar.read(1 << 16), b"")
        return super().apply(layer, io.BytesIO(b"".join(pieces)), headers=headers, limits=limits)


class RootlessDiff(Remaking):
    """Leaves the root out of a diff."""

    name: ClassVar[str] = "rootless-diff"

    def remake(self, members: Members) -> Members:
        """Drop it."""
        return [one for one in members if one[0].name != "."]


class ParentlessDiff(Remaking):
    """Leaves directories out of a diff that nothing of the layer is about."""

    name: ClassVar[str] = "parentless-diff"

    def remake(self, members: Members) -> Members:
        """Drop those above others."""
        names = [header.name for header, _ in members]
        return [one for one in members if not any(name.startswith(one[0].name + "/") for name in names)]


class Delinking(Remaking):
    """Gives every name of a linked file the content."""

    name: ClassVar[str] = "delinking"

    def remake(self, members: Members) -> Members:
        """Replace the links."""
        contents = {header.name: content for header, content in members}
        for place, (header, _) in enumerate(members):
            if header.islnk():
                content = contents[header.linkname]
                header.type, header.size, header.linkname = tarfile.REGTYPE, len(content), ""
                members[place] = header, content
        return members


class SocketsRefused(VfsDriver):
    """Gives no diff of a layer with a socket in it."""

    name: ClassVar[str] = "sockets-refused"

    def diff(self, layer: str, *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None) -> BinaryIO:
        """Look for one."""
        for path, facts in below(tree_of(self, layer)):
            if stat.S_ISSOCK(facts.st_mode):
                raise errors.UnsupportedEntry("a tar cannot hold it", path)
        return super().diff(layer, profile=profile, source_date_epoch=source_date_epoch)


class Ageing(VfsDriver):
    """Knows no SOURCE_DATE_EPOCH."""

    name: ClassVar[str] = "ageing"

    def diff(self, layer: str, *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None) -> BinaryIO:
        """Forget it."""
        del source_date_epoch
        return super().diff(layer, profile=profile)


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    Short: ("test_formats",),
    Modern: ("test_older_types_of_members",),
    Local: ("test_global_headers",),
    Dotless: ("test_names_are_made_plain",),
    UmaskedApply: ("test_modes_do_not_depend_on_the_umask",),
    SmallOwners: ("test_owners_of_any_size",),
    ChownLast: ("test_setuid_and_capabilities_outlive_the_owner",),
    Seconds: ("test_times_of_any_size",),
    Touching: ("test_times_of_directories",),
    Dereferencing: ("test_a_hard_link_to_a_symbolic_link",),
    Wrapping: ("test_devices_out_of_range",),
    OldDevices: ("test_large_device_numbers",),
    ReadingOnce: ("test_a_slow_stream",),
    Untold: ("test_a_stream_that_breaks", "test_an_apply_is_cancelled"),
    RootlessDiff: ("test_a_change_of_the_root_travels",),
    ParentlessDiff: ("test_parents_in_a_diff",),
    Delinking: ("test_links_in_a_diff", "test_links_to_what_did_not_change"),
    SocketsRefused: ("test_sockets_stay_behind",),
    Ageing: ("test_a_source_date_epoch",),
}
