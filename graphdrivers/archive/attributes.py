"""Give files their owner, mode, xattrs and times, and count what could not be kept.

The order matters: ``chown(2)`` clears set-id bits and file capabilities, so the
owner comes first, then xattrs, then the mode, and the times last.
"""

import errno
import os
import stat
from collections import Counter
from collections.abc import Mapping

from graphdrivers import errors
from graphdrivers.archive import owners
from graphdrivers.archive.acls import ACCESS
from graphdrivers.archive.entries import Entry, Node
from graphdrivers.archive.whiteouts import OVERLAY, OVERLAY_USER, Dialect
from graphdrivers.linux import xattrs
from graphdrivers.model import Capabilities

_REFUSED = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EINVAL, errno.ENOSPC, errno.E2BIG, errno.ERANGE}
_OWNER = "owner not kept: the file belongs to the caller"
_UNRECORDED = "owner not kept: only regular files and directories can carry a record of it"

_NAMELESS = frozenset({dialect.namespace for dialect in (OVERLAY, OVERLAY_USER)})
"""Refused by every driver, because a layer means the same for all: overlayfs lists these and fails to read them."""


def current_umask() -> int:
    """Read the process's umask without changing it, as ``umask(2)`` would for a moment for every thread.

    Source: proc(5), heading */proc/pid/status* (``Umask``, Linux 4.7).
    """
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return 0o777  # unknown: then every mode is set explicitly


class Attributes:
    """The attribute policy of one apply."""

    def __init__(self, dialect: Dialect, capabilities: Capabilities) -> None:
        """Follow what the driver found out it can keep."""
        self.uid = os.geteuid()
        self.keeps_owner = capabilities.ownership
        self.records = dialect.records_owners
        umask = current_umask()
        self.touchy = umask | stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
        """Mode bits that creating a file does not give it reliably."""
        self._bound = owners.is_bound()
        needed = owners.needed_bits(stat.S_IFREG) if self.records and self._bound else 0
        self.regarded = self.touchy | needed
        """Mode bits of a regular file that say whether creating it is enough."""
        self.enough = -1 if umask & needed else needed
        """What they are in that case."""
        self._dialect = dialect
        self._capabilities = capabilities
        self._lost: Counter[str] = Counter()

    def notes(self) -> tuple[str, ...]:
        """What could not be kept, one line per kind with its count."""
        return tuple(f"{count} x {what}" for what, count in sorted(self._lost.items()))

    def own(self, target: int | bytes, uid: int, gid: int, dir_fd: int | None = None) -> None:
        """Give ``target`` (a descriptor, or a name in ``dir_fd`` that is not followed) its owner."""
        if not self.keeps_owner:
            if (uid, gid) != (self.uid, os.getegid()):
                self._lost[_UNRECORDED if self.records else _OWNER] += 1
            return
        try:
            if isinstance(target, int):
                os.fchown(target, uid, gid)
            else:
                os.chown(target, uid, gid, dir_fd=dir_fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.EPERM}:
                raise
            raise errors.UnsupportedEntry(f"owner {uid}:{gid} is not available to this process") from error

    def dress_file(self, fd: int, entry: Entry, gid: int) -> None:
        """Finish a regular file or directory all but its times; ``gid`` is the group it was born with."""
        if not self.records and (entry.uid != self.uid or entry.gid != gid):
            self.own(fd, entry.uid, entry.gid)
        if entry.xattrs:
            if not entry.mode & stat.S_IWUSR:
                os.fchmod(fd, stat.S_IRWXU)  # without privileges, setting xattrs takes it
            self.mark(fd, entry.xattrs)
        self._finish(fd, entry.uid, entry.gid, entry.mode)
        if ACCESS in entry.xattrs:  # chmod(2) changed its mask: some tools write the group's own bits into the mode
            self.mark(fd, {ACCESS: entry.xattrs[ACCESS]})

    def dress_plain(self, fd: int, mode: int, uid: int, gid: int, born: int) -> None:
        """Finish a regular file without xattrs, just created with ``mode`` and in the group ``born``; not its times.

        Changing the owner takes nothing from a mode that creating gives reliably.
        """
        if not self.records and (uid != self.uid or gid != born):
            self.own(fd, uid, gid)
        if self.records or mode & self.touchy:
            self._finish(fd, uid, gid, mode)

    def dress_special(self, dir_fd: int, name: bytes, entry: Entry, gid: int) -> None:
        """Finish anything else, by name and without following it, times included."""
        if entry.uid != self.uid or entry.gid != gid:
            self.own(name, entry.uid, entry.gid, dir_fd)
        if entry.xattrs:
            self.mark(xattrs.at(dir_fd, name), entry.xattrs)
        if not entry.linkname and entry.mode & self.touchy:
            os.chmod(name, entry.mode, dir_fd=dir_fd)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=dir_fd, follow_symlinks=False)

    def mark(self, target: int | bytes, marks: Mapping[str, bytes]) -> None:
        """Set xattrs as the merged view shall show them; the dialect's own names are escaped.

        Raises:
            UnsupportedEntry: the kernel, file system or user cannot hold one.
        """
        for shown, value in marks.items():
            if self.records and shown == owners.XATTR:
                raise errors.UnsupportedEntry(f"xattr {shown!r} would be taken for the owner that is recorded here")
            if shown in _NAMELESS:
                raise errors.UnsupportedEntry(
                    f"xattr {shown!r} has nothing behind its prefix, and overlayfs cannot show it"
                )
            name = self._dialect.escape(shown)
            try:
                os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
            except OSError as error:
                self._refused(shown, error)

    def copy(self, node: Node, fd: int) -> int:
        """Give a directory or file the attributes of a lower one, as a copy-up would; returns its mtime in ns."""
        facts = node.stat
        if self.keeps_owner:
            os.fchown(fd, facts.st_uid, facts.st_gid)
        self.mark(fd, node.xattrs())
        self._finish(fd, facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode))
        return facts.st_mtime_ns

    def finish_root(self, fd: int) -> None:
        """Keep the root of a layer movable for a user whom permissions bind."""
        if self.records and self._bound:
            owners.make_movable(fd)

    def plain_directory(self, fd: int) -> None:
        """Make a directory what an implied one is where no layer describes it: 0755, 0:0, no xattrs."""
        if self.keeps_owner:
            os.fchown(fd, 0, 0)
        self.strip(fd)
        self._finish(fd, 0, 0, 0o755)

    def strip(self, fd: int, keep: Mapping[str, bytes] | None = None) -> None:
        """Remove the xattrs that an existing directory has and its new description lacks."""
        for name in os.listxattr(fd):
            if (keep is None or name not in keep) and name != "security.selinux" and not self._dialect.is_private(name):
                os.removexattr(fd, name)

    def _finish(self, fd: int, uid: int, gid: int, mode: int) -> None:
        """Set the mode; record it and the owner where records are kept."""
        if self.records:
            owners.give(fd, uid, gid, mode, bound=self._bound)
        else:
            os.fchmod(fd, mode)

    def _refused(self, name: str, error: OSError) -> None:
        """Count an xattr that only a privileged process may set; refuse the member for any other."""
        namespace = name.partition(".")[0]
        able = self._capabilities.trusted_xattrs if namespace == "trusted" else self._capabilities.security_xattrs
        if namespace in {"trusted", "security"} and not able:
            self._lost[f"xattr {namespace}.* not kept: only root may set it"] += 1
            return
        if error.errno not in _REFUSED:
            raise error
        reason = os.strerror(error.errno or 0)
        raise errors.UnsupportedEntry(f"xattr {name!r}: {reason}") from error
