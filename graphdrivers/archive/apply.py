"""Unpack one layer tar into a tree: the rules of OCI layers, in one pass, never outside the tree.

Source: OCI image-spec ``layer.md``; the decisions on what it leaves open are in
``docs/decisions/``. The rules are the same for every driver; only how a
deletion is written depends on the target's dialect.
"""

import errno
import os
import stat
from typing import BinaryIO, NoReturn

import attrs

from graphdrivers import errors
from graphdrivers.archive import entries, whiteouts
from graphdrivers.archive.attributes import Attributes
from graphdrivers.archive.digests import Digester
from graphdrivers.archive.entries import Entry
from graphdrivers.archive.headers import HeaderRecorder
from graphdrivers.archive.hiding import Hiding
from graphdrivers.archive.merged import MergedTree
from graphdrivers.archive.pathset import PathSet
from graphdrivers.archive.places import Place, Places
from graphdrivers.archive.reader import TarReader
from graphdrivers.archive.union import Union
from graphdrivers.archive.whiteouts import Dialect, Meaning
from graphdrivers.linux import filesystems, namespaces
from graphdrivers.model import Applied, Capabilities, DiffID, Limits, Progress

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_REPORT_EVERY = 256
_SUSPECT = frozenset({b"/", b"."})
_UNSTORABLE = frozenset({errno.ENAMETOOLONG, errno.EMLINK, errno.EFBIG, errno.EILSEQ})
"""What file systems say to a member that they cannot hold, as opposed to what is wrong with themselves."""


@attrs.frozen(eq=False)
class Target:
    """Where a layer is unpacked, and how deletions are written there."""

    root: int
    """Descriptor of the root directory. A layered one has to be empty."""
    dialect: Dialect
    """``PLAIN`` for a flat tree, which may already hold the parents' content."""
    lower: Union | None
    """The parents' merged view for a layered target; ``None`` for a flat one and for a base layer."""
    capabilities: Capabilities
    late: bool = False
    """The parents are looked at as late as can be, and so is their root, whose attributes the layer's is to have."""


def apply(
    tar: BinaryIO,
    target: Target,
    *,
    headers: BinaryIO | None = None,
    limits: Limits = Limits(),
    progress: Progress | None = None,
) -> Applied:
    """Unpack an uncompressed tar; see ``Driver.apply`` for what is promised.

    Raises:
        ArchiveError: refused; what is in the target then is garbage.
        OSError: the file system failed (full, read-only, damaged).
    """
    digester = Digester()
    recorder = None
    job = None
    try:
        recorder = HeaderRecorder(headers) if headers is not None else None
        reader = TarReader(tar, limits, recorder=recorder, tap=digester.put)
        job = _Apply(reader, target, limits, recorder)
        job.run(progress)
        reader.drain()
        job.finish()
        if recorder is not None:
            recorder.close()
        diff_id = DiffID(digester.close())
    except BaseException:
        digester.abort()
        if recorder is not None:
            recorder.abort()
        if job is not None:
            job.places.close(restore=False)
        raise
    if progress is not None:
        progress(reader.consumed)
    return Applied(diff_id, job.size, job.count, job.notes())


class _Apply:
    """One run: the loop over members and one method per kind of member."""

    def __init__(self, reader: TarReader, target: Target, limits: Limits, recorder: HeaderRecorder | None) -> None:
        """Prepare to fill ``target`` from ``reader``."""
        self.count = 0
        self.size = 0
        self.places = Places(target.root, privileged=namespaces.has_capability("CAP_DAC_OVERRIDE"))
        self._reader = reader
        self._capabilities = target.capabilities
        self._attributes = Attributes(target.dialect, target.capabilities)
        self._uid = self._attributes.uid
        self._touchy = self._attributes.touchy
        self._regarded, self._enough = self._attributes.regarded, self._attributes.enough
        self._layered = target.lower is not None
        self._made = None if self._layered or _is_empty(target.root) else PathSet()
        self._tree = MergedTree(self.places, self._attributes, target.lower, self._made, recorder, limits=limits)
        self._relied = self._tree.relied
        self._hiding = Hiding(self._tree, self._attributes, target.dialect, layered=self._layered)
        self._limited = limits.size is not None
        self._room = limits.size if limits.size is not None else filesystems.free_bytes(target.root)
        self._skipped = 0
        self._inherits_root = target.late
        self._root_fd = target.root
        self._handlers = {
            entries.DIRECTORY: self._directory,
            entries.SYMLINK: self._symlink,
            entries.HARDLINK: self._hardlink,
            entries.CHARDEV: self._device,
            entries.BLOCKDEV: self._device,
            entries.FIFO: self._device,
        }

    def run(self, progress: Progress | None) -> None:
        """Apply every member; errors name the one they are about."""
        reader = self._reader
        reported = 0
        while True:
            self._files()
            entry = reader.next()
            if entry is None:
                return
            self.count += 1
            try:
                self._member(entry)
            except (errors.ArchiveError, OSError) as error:
                _blame(error, entry.name, entry.offset)
            if progress is not None and self.count - reported >= _REPORT_EVERY:
                reported = self.count
                progress(reader.consumed)

    def _files(self) -> None:
        """Write the plain files that come next: what `_regular` does, for most of a layer, without calls per file."""
        reader, made, relied, room = self._reader, self._made, self._relied, self._room
        own, regarded, enough = self._uid, self._regarded, self._enough
        path = b""
        try:
            for place, base, path, (mode, uid, gid), mtime, content in reader.files(self.places.get):
                self.count += 1
                self.size += len(content)
                if self.size > room:
                    raise self._too_large()
                try:
                    fd = os.open(base, _NEW, mode, dir_fd=place.fd)
                except FileExistsError:
                    fd = self._replace(place, base, mode)
                try:
                    if content and os.write(fd, content) != len(content):
                        _write_all(fd, content, 0)
                    if uid != own or gid != place.gid or mode & regarded != enough:
                        self._attributes.dress_plain(fd, mode, uid, gid, place.gid)
                    os.utime(fd, (mtime, mtime))
                finally:
                    os.close(fd)
                if made is not None:
                    made.add(path)
                if relied and path in relied:
                    self._tree.forget_names()
        except (errors.ArchiveError, OSError) as error:
            _blame(error, path, reader.consumed)

    def finish(self) -> None:
        """Write what hides lower layers, then leave every directory as its last description says."""
        if self._tree.pseudo_links:
            self._tree.clear(self.places.root, whiteouts.PSEUDO_LINKS)
        self._hiding.finish()
        if self._inherits_root:
            self._tree.inherit_root()
        self.places.close()
        self._attributes.finish_root(self._root_fd)

    def notes(self) -> tuple[str, ...]:
        """What could not be kept, for people."""
        skipped = (f"{self._skipped} x aufs bookkeeping skipped (.wh..wh.*)",) if self._skipped else ()
        return self._attributes.notes() + skipped

    def _member(self, entry: Entry) -> None:
        """Find the member's directory and hand it to the method for its kind."""
        name = entry.name
        regular = entry.kind == entries.REGULAR
        if name[:2] == b"./":
            name = name[2:]
        if not regular and name[-1:] == b"/":
            name = name[:-1]
        if b"/." in name or b"//" in name or name[:1] in _SUSPECT or name[-1:] == b"/":
            name = clean(name)
            if b".wh." in name and self._marker(name, entry.kind):
                return
        head, _, base = name.rpartition(b"/")
        if not name:
            self._root(entry)
            return
        place = self.places.get(head)
        if place is None:
            place = self._parent(head)
            name = place.child(base)
        if regular:
            self._regular(entry, place, base, name)
        else:
            self._handlers[entry.kind](entry, place, base)
        if self._made is not None:
            self._made.add(name)
        if self._relied and name in self._relied:  # it is in the place of a link that earlier names went through
            self._tree.forget_names()

    def _parent(self, head: bytes) -> Place:
        """Find or make a directory that is not open, or is not where its name says."""
        place = self._tree.parent(head)
        if place.path.startswith(whiteouts.PSEUDO_LINKS) and head != whiteouts.PSEUDO_LINKS:
            raise errors.UnsafePath("a symbolic link leads to where aufs keeps linked files")
        return place

    def _marker(self, name: bytes, kind: bytes) -> bool:
        """Carry out a whiteout member, whatever its kind; False for a member to unpack.

        That is an ordinary one, or a file that aufs kept for its other names:
        those come as hard links to it, and at the end it goes.
        """
        meaning, target = whiteouts.classify(name)
        if meaning is Meaning.ORDINARY:
            return False
        head = name.rpartition(b"/")[0]
        if head == whiteouts.PSEUDO_LINKS and kind == entries.REGULAR:
            self._tree.pseudo_links = True
            return False
        if meaning is Meaning.WHITEOUT:
            self._hiding.whiteout(head, target)
        elif meaning is Meaning.OPAQUE:
            self._hiding.opaque(head)
        else:
            self._skipped += 1
        return True

    def _regular(self, entry: Entry, place: Place, base: bytes, path: bytes) -> None:
        """Write a regular file: create, write, times, close; nothing else in the usual case."""
        self.size += entry.size
        if self.size > self._room:
            raise self._too_large()
        mode = entry.mode
        try:
            fd = os.open(base, _NEW, mode, dir_fd=place.fd)
        except FileExistsError:
            fd = self._replace(place, base, mode)
        try:
            content = self._reader.stored(path)
            if content is None:
                self._write_pieces(fd, entry, path)
            elif content and os.write(fd, content) != len(content):
                _write_all(fd, content, 0)
            if entry.xattrs:
                self._attributes.dress_file(fd, entry, place.gid)
            elif entry.uid != self._uid or entry.gid != place.gid or mode & self._regarded != self._enough:
                self._attributes.dress_plain(fd, mode, entry.uid, entry.gid, place.gid)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _replace(self, place: Place, base: bytes, mode: int) -> int:
        """Create a file whose name is taken: what had it is replaced, never written through."""
        self._tree.clear(place, base)
        return os.open(base, _NEW, mode, dir_fd=place.fd)

    def _too_large(self) -> errors.LimitExceeded:
        """Make the error for a layer that has more in it than there is room."""
        if self._limited:
            return errors.LimitExceeded(f"more than {self._room} bytes of files", limit="size")
        return errors.LimitExceeded(f"more bytes of files than are free there ({self._room})")

    def _write_pieces(self, fd: int, entry: Entry, path: bytes) -> None:
        """Write a large or sparse file piece by piece, holes kept."""
        for offset, piece in self._reader.pieces(path):
            _write_all(fd, piece, offset)
        if entry.sparse is not None:
            os.ftruncate(fd, entry.size)

    def _directory(self, entry: Entry, place: Place, base: bytes) -> None:
        """Make a directory, or take over the one that is there."""
        known: Place | None = None
        ordinary = (
            not entry.mode & self._touchy
            and entry.mode & stat.S_IRWXU == stat.S_IRWXU
            and entry.uid == self._uid
            and entry.gid == place.gid
            and not entry.xattrs
            and not place.setgid
        )
        mode = entry.mode if ordinary else 0o700
        try:
            os.mkdir(base, mode, dir_fd=place.fd)
        except FileExistsError:
            place.pinned = True
            known = self.places.step(place, base)
            place.pinned = False
            if known is None:
                self._tree.clear(place, base)
                if self._layered:
                    self._tree.hidden.add(place.child(base))
                os.mkdir(base, mode, dir_fd=place.fd)
        if known is None:
            fd = os.open(base, _DIRECTORY, dir_fd=place.fd)
            if not ordinary:
                try:
                    self._attributes.dress_file(fd, entry, place.gid)
                except BaseException:
                    os.close(fd)
                    raise
            self.places.adopt(place.child(base), fd, entry.mtime, ordinary=ordinary)
        else:
            self._tree.implied.discard(known.path)
            self._redress(known, entry)

    def _redress(self, known: Place, entry: Entry) -> None:
        """Give a directory that exists the attributes of a member; nothing of the old ones stays."""
        self._attributes.strip(known.fd, entry.xattrs)
        self._attributes.dress_file(known.fd, entry, -1)
        self.places.take(known)
        known.mtime = entry.mtime

    def _root(self, entry: Entry) -> None:
        """Apply the member that names the root itself.

        A link or file of that name would redirect all later layers (CVE-2021-29136).
        """
        if entry.kind != entries.DIRECTORY:
            raise errors.UnsafePath("the root of a layer can only be a directory")
        self._inherits_root = False
        self._redress(self.places.root, entry)

    def _symlink(self, entry: Entry, place: Place, base: bytes) -> None:
        """Make a symbolic link; its target is content and never looked at here."""
        if not entry.linkname:
            raise errors.MalformedArchive("symbolic link without a target")
        try:
            os.symlink(entry.linkname, base, dir_fd=place.fd)
        except FileExistsError:
            self._tree.clear(place, base)
            os.symlink(entry.linkname, base, dir_fd=place.fd)
        self._attributes.dress_special(place.fd, base, entry, place.gid)

    def _hardlink(self, entry: Entry, place: Place, base: bytes) -> None:
        """Link to another file of the merged view."""
        literal = clean(entry.linkname)
        if not literal:
            raise errors.MalformedArchive("hard link to the root directory")
        place.pinned = True
        source, name = self._tree.source(literal)
        source.pinned = True
        try:
            if (source.path, name) == (place.path, base):
                return
            try:
                self._link(source, name, place, base)
            except FileExistsError:
                self._tree.clear(place, base)
                self._link(source, name, place, base)
        finally:
            place.pinned = source.pinned = False

    @staticmethod
    def _link(source: Place, name: bytes, place: Place, base: bytes) -> None:
        """Call link(2) without following the source."""
        os.link(name, base, src_dir_fd=source.fd, dst_dir_fd=place.fd, follow_symlinks=False)

    def _device(self, entry: Entry, place: Place, base: bytes) -> None:
        """Make a device node or a fifo."""
        kind = {entries.CHARDEV: stat.S_IFCHR, entries.BLOCKDEV: stat.S_IFBLK}.get(entry.kind, stat.S_IFIFO)
        if kind == stat.S_IFCHR and entry.device == (0, 0):
            if not self._capabilities.char_0_0:
                raise errors.UnsupportedEntry("a character device 0:0 is a whiteout for this driver")
        elif kind != stat.S_IFIFO and not self._capabilities.devices:
            raise errors.UnsupportedEntry("device nodes need root")
        number = 0 if kind == stat.S_IFIFO else os.makedev(*entry.device)
        try:
            os.mknod(base, kind | entry.mode, number, dir_fd=place.fd)
        except FileExistsError:
            self._tree.clear(place, base)
            os.mknod(base, kind | entry.mode, number, dir_fd=place.fd)
        self._attributes.dress_special(place.fd, base, entry, place.gid)


def _blame(error: errors.ArchiveError | OSError, name: bytes, offset: int) -> NoReturn:
    """Raise an error again, naming the member that it is about."""
    if isinstance(error, errors.ArchiveError):
        if not error.member:
            error.member, error.offset = os.fsdecode(name), offset
    elif error.errno in _UNSTORABLE:
        reason = os.strerror(error.errno or 0).lower()
        raise errors.UnsupportedEntry(reason, os.fsdecode(name), offset) from error
    elif error.filename is None or isinstance(error.filename, int):
        error.filename = os.fsdecode(name)
    raise error


def clean(name: bytes) -> bytes:
    """Normalise a member's name: no leading or doubled slashes, no ``.``, ``..`` taken back lexically.

    Raises:
        UnsafePath: it climbs above the root.
    """
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part in {b"", b"."}:
            continue
        if part != b"..":
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            raise errors.UnsafePath(f"{os.fsdecode(name)!r} climbs above the root")
    return b"/".join(parts)


def _write_all(fd: int, piece: memoryview, offset: int) -> None:
    """Write a piece at its place, however often the kernel wants to be asked."""
    while piece:
        written = os.pwrite(fd, piece, offset)
        piece = piece[written:]
        offset += written


def _is_empty(root: int) -> bool:
    """Tell whether a directory has no entries."""
    with os.scandir(root) as found:
        return next(found, None) is None
