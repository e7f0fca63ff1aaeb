"""Flaws that ``test_whiteouts.py`` catches: layer tars that are read otherwise than the specification says."""

import errno
import io
import os
import shutil
import stat
import tarfile
from typing import BinaryIO, ClassVar

from broken.flaws import MARK, OPAQUE, Members, Misreading, hidden, unpacked, upper_of
from graphdrivers import errors
from graphdrivers.backends.overlay.driver import OverlayDriver
from graphdrivers.driver import Driver
from graphdrivers.model import Applied, Limits, Progress


class FilesOnly(Misreading):
    """Deletes what can be unlinked, and no directory."""

    name: ClassVar[str] = "files-only"

    def misread(self, members: Members, root: str) -> Members:
        """Leave those whiteouts out."""
        return [one for one in members if not os.path.isdir(os.path.join(root, hidden(one[0]) or "\0"))]


class Typed(Misreading):
    """Takes only empty regular files for whiteouts, as AUFS writes them."""

    name: ClassVar[str] = "typed"

    def misread(self, members: Members, root: str) -> Members:
        """Leave the others out."""
        del root
        return [one for one in members if hidden(one[0]) is None or (one[0].isreg() and not one[0].size)]


class Late(Misreading):
    """Deletes when all is unpacked, so that a layer's whiteouts hit its own files."""

    name: ClassVar[str] = "late"

    def misread(self, members: Members, root: str) -> Members:
        """Put the whiteouts by."""
        del root
        return [one for one in members if hidden(one[0]) is None]

    def correct(self, members: Members, root: str) -> None:
        """Carry them out."""
        for target in filter(None, (hidden(member) for member, _ in members)):
            path = os.path.join(root, target)
            if os.path.isdir(path):
                shutil.rmtree(path)
            elif os.path.lexists(path):
                os.unlink(path)


class Demanding(Misreading):
    """Deletes only what is there."""

    name: ClassVar[str] = "demanding"

    def misread(self, members: Members, root: str) -> Members:
        """Complain as the kernel does."""
        for target in filter(None, (hidden(member) for member, _ in members)):
            os.lstat(os.path.join(root, target))
        return members


class NeverOpaque(Misreading):
    """Does not know opaque directories."""

    name: ClassVar[str] = "never-opaque"

    def misread(self, members: Members, root: str) -> Members:
        """Leave the marks out."""
        del root
        return [one for one in members if os.path.basename(one[0].name) != OPAQUE]


class KeepingLinks(Misreading):
    """Takes a link to a directory for the directory that a member describes (``--keep-directory-symlink``)."""

    name: ClassVar[str] = "keeping-links"

    def misread(self, members: Members, root: str) -> Members:
        """Leave the member out."""
        return [one for one in members if not (one[0].isdir() and os.path.islink(os.path.join(root, one[0].name)))]


class FirstDirectory(Misreading):
    """Makes directories where they are missing, and leaves them as they are where they exist."""

    name: ClassVar[str] = "first-directory"

    def misread(self, members: Members, root: str) -> Members:
        """Leave the member out."""
        return [one for one in members if not (one[0].isdir() and os.path.isdir(os.path.join(root, one[0].name)))]


class Tolerant(Misreading):
    """Passes over whiteouts that mean nothing or a directory itself."""

    name: ClassVar[str] = "tolerant"

    def misread(self, members: Members, root: str) -> Members:
        """Leave them out."""
        del root
        return [one for one in members if hidden(one[0]) is None or _last(hidden(one[0])) not in {"", ".", ".."}]


class Greedy(Misreading):
    """Reserves every name with ``.wh`` in front."""

    name: ClassVar[str] = "greedy"

    def misread(self, members: Members, root: str) -> Members:
        """Leave the others out."""
        del root
        return [one for one in members if not _last(one[0].name).startswith(".wh") or MARK in one[0].name]


class Bookkeeping(Misreading):
    """Takes the files that AUFS keeps for itself for content."""

    name: ClassVar[str] = "bookkeeping"

    def correct(self, members: Members, root: str) -> None:
        """Make them."""
        if any(member.name == ".wh..wh.aufs" for member, _ in members):
            os.mknod(os.path.join(root, ".wh..wh.aufs"), stat.S_IFREG | 0o444)


class Stripping(Misreading):
    """Drops the private marks of overlay without a word."""

    name: ClassVar[str] = "stripping"

    def misread(self, members: Members, root: str) -> Members:
        """Take them off."""
        del root
        for member, _ in members:
            kept = {key: value for key, value in member.pax_headers.items() if ".overlay." not in key}
            member.pax_headers = kept
        return members


class Unescaped(OverlayDriver):
    """Stores an image's own marks where the kernel acts on them."""

    name: ClassVar[str] = "unescaped"

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Set them as they are."""
        content = tar.read()
        applied = super().apply(layer, io.BytesIO(content), headers=headers, limits=limits, progress=progress)
        for member, _ in unpacked(content):
            if "SCHILY.xattr.trusted.overlay.opaque" in member.pax_headers:
                os.setxattr(os.path.join(upper_of(self, layer), member.name), "trusted.overlay.opaque", b"y")
        return applied


class NullDevice(Misreading):
    """Takes a character device 0:0 in a tar for overlay's whiteout."""

    name: ClassVar[str] = "null-device"

    def misread(self, members: Members, root: str) -> Members:
        """Delete what has its name."""
        marks = [one for one in members if one[0].ischr() and (one[0].devmajor, one[0].devminor) == (0, 0)]
        for member, _ in marks:
            os.unlink(os.path.join(root, member.name))
        return [one for one in members if one not in marks]


class Emptying(Misreading):
    """Unpacks an empty file for a device node, while it claims to keep them."""

    name: ClassVar[str] = "emptying"

    def misread(self, members: Members, root: str) -> Members:
        """Change the kind."""
        del root
        for member, _ in members:
            member.type = tarfile.REGTYPE if member.ischr() or member.isblk() else member.type
        return members


class Prefixing(Misreading):
    """Writes a whiteout as a file with the prefix in front of the name, which can be too long for that."""

    name: ClassVar[str] = "prefixing"

    def misread(self, members: Members, root: str) -> Members:
        """Complain as the kernel does."""
        del root
        if any(len(_last(member.name)) > 255 for member, _ in members):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return members


class Shredding(Misreading):
    """Frees the space of a file that it deletes, and so empties its other names."""

    name: ClassVar[str] = "shredding"

    def misread(self, members: Members, root: str) -> Members:
        """Truncate first."""
        for target in filter(None, (hidden(member) for member, _ in members)):
            os.truncate(os.path.join(root, target), 0)
        return members


class Narrow(Misreading):
    """Links only to files of the same tar."""

    name: ClassVar[str] = "narrow"

    def misread(self, members: Members, root: str) -> Members:
        """Refuse the others."""
        del root
        names = {member.name for member, _ in members}
        for member, _ in members:
            if member.islnk() and member.linkname not in names:
                raise errors.UnsupportedEntry("a hard link across layers", member=member.name)
        return members


class Linkless(Misreading):
    """Passes over hard links that lead nowhere, and makes the others last."""

    name: ClassVar[str] = "linkless"

    def misread(self, members: Members, root: str) -> Members:
        """Leave them out, sort the rest."""
        names = {member.name for member, _ in members}
        found = [
            one
            for one in members
            if not one[0].islnk() or one[0].linkname in names or os.path.isfile(os.path.join(root, one[0].linkname))
        ]
        return sorted(found, key=lambda one: one[0].islnk())


class MakingParents(Misreading):
    """Makes the directories above each member, 0755, whatever is there."""

    name: ClassVar[str] = "making-parents"

    def misread(self, members: Members, root: str) -> Members:
        """Describe them."""
        del root
        found: Members = []
        for member, content in members:
            above = os.path.dirname(member.name)
            if above:
                parent = tarfile.TarInfo(above)
                parent.type, parent.mode, parent.mtime = tarfile.DIRTYPE, 0o755, member.mtime
                found.append((parent, b""))
            found.append((member, content))
        return found


class Cleaning(Misreading):
    """Makes a harmless name of one that climbs above the root."""

    name: ClassVar[str] = "cleaning"

    def misread(self, members: Members, root: str) -> Members:
        """Normalise below the root."""
        del root
        for member, _ in members:
            member.name = os.path.normpath("/" + member.name).lstrip("/") or "root"
        return members


class FirstWins(Misreading):
    """Keeps the first of several members of one name."""

    name: ClassVar[str] = "first-wins"

    def misread(self, members: Members, root: str) -> Members:
        """Leave the later ones out."""
        del root
        return list({one[0].name: one for one in reversed(members)}.values())[::-1]


def _last(path: str | None) -> str:
    return os.path.basename(path or "")


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    FilesOnly: ("test_w1_a_whiteout_deletes", "test_w9_deletions_across_several_layers"),
    Typed: ("test_w15_a_whiteout_is_known_by_its_name",),
    Late: (
        "test_w2_a_whiteout_beside_its_own_file",
        "test_w3_a_whiteout_beside_its_own_directory",
        "test_w10_a_whiteout_below_a_deleted_directory",
    ),
    Demanding: ("test_w4_a_whiteout_of_nothing",),
    NeverOpaque: ("test_w5_an_opaque_directory", "test_w6_opaque_where_nothing_is_below"),
    KeepingLinks: ("test_w7_an_opaque_directory_over_a_file", "test_w8_kinds_replace_each_other"),
    FirstDirectory: ("test_w11_a_directory_over_a_directory",),
    Tolerant: ("test_w12_w13_whiteouts_of_directories_themselves",),
    Greedy: ("test_w14_names_that_look_like_marks",),
    Bookkeeping: ("test_w16_bookkeeping_of_aufs_is_skipped",),
    Stripping: ("test_w17_private_marks_are_content[metacopy-first]",),
    Unescaped: ("test_w17_private_marks_are_content[opaque-over]",),
    NullDevice: ("test_w18_a_device_0_0_is_content",),
    Emptying: ("test_devices_need_their_capability",),
    Prefixing: ("test_w20_long_names_are_deleted",),
    Shredding: ("test_w21_a_deleted_name_of_a_linked_file",),
    Narrow: ("test_w21_a_link_to_a_lower_file",),
    Linkless: ("test_w22_links_to_what_cannot_be_linked", "test_w22_a_link_before_its_target"),
    MakingParents: ("test_w23_implied_parents", "test_symlinked_parents_resolve_in_the_stack"),
    Cleaning: ("test_names_above_the_root",),
    FirstWins: ("test_w26_members_that_come_twice",),
}
