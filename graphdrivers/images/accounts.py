"""Users and groups as an image's own ``/etc/passwd`` and ``/etc/group`` have them.

Both files are content of the image. They are found and read inside its root,
never waited for, and only so far: a link to a file of the host, a pipe, a
device or a file without end gives an error, not an answer (CVE-2024-9676,
CVE-2026-47262). A number is a number: an account whose *name* is digits is
never found by it (CVE-2026-46680).

Source: passwd(5), group(5); OCI image-spec ``config.md``, property ``User``.
"""

import errno
import os
import stat
from collections.abc import Iterator

import attrs

from graphdrivers import errors
from graphdrivers.linux import resolve

FILE_MAX = 1 << 20
"""Bytes of the largest ``/etc/passwd`` or ``/etc/group`` that is read."""

LINE_MAX = 64 << 10
"""Bytes of the longest line in them."""

GROUPS_MAX = 65536
"""Groups of one process; Source: getgroups(2), ``NGROUPS_MAX``."""

ID_MAX = (1 << 32) - 2
"""The largest uid or gid; the one above it means "leave as it is" to chown(2)."""

_PASSWD = b"/etc/passwd"
_GROUP = b"/etc/group"
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@attrs.frozen
class Account:
    """Who a process runs as."""

    uid: int
    gid: int
    additional_gids: tuple[int, ...]
    """Sorted, without ``gid``."""
    home: str
    """An absolute path; ``/`` where the image does not say."""


@attrs.frozen
class _User:
    """One line of ``/etc/passwd``."""

    name: bytes
    uid: int
    gid: int
    home: bytes


@attrs.frozen
class _Group:
    """One line of ``/etc/group``."""

    name: bytes
    gid: int
    members: bytes
    """Names, with commas between them."""


def read_account(root: int, user: str, source: str) -> Account:
    """Find out who ``user`` is in an image.

    A user without a group gets the group of its line in ``/etc/passwd`` and the
    supplementary groups that ``/etc/group`` lists it in, whether it is given by
    name or by number; a number without a line gets group 0 and no others. With
    a group there are no supplementary ones. (``conversion.md`` would have none
    for numbers; ``config.md``, which image authors read, and Docker give them.)

    Args:
        root: descriptor of the root directory of the image's merged tree.
        user: ``user``, ``uid``, ``user:group``, ``uid:gid``, ``uid:group`` or ``user:gid``; no user is uid 0.
        source: the image, for messages.

    Raises:
        UserNotFound: the image does not have the user or group, or the number is none.
        InvalidManifest: one of the two files is not a regular one, or larger than is read.
        OSError: the file system failed, or this process may not read.
    """
    name, _, group = user.partition(":")
    entry = _find_user(list(_users(root, source)), name or "0", source)
    home = _home(entry.home)
    if group:
        return Account(entry.uid, _find_gid(root, group, source), (), home)
    return Account(entry.uid, entry.gid, _supplementary(root, entry, source), home)


def _find_user(users: list[_User], name: str, source: str) -> _User:
    """Find a user by number where ``name`` is one, else by name; the first line counts."""
    number = _number(name, source)
    if number is not None:
        return next((user for user in users if user.uid == number), _User(b"", number, 0, b""))
    wanted = _encoded(name)
    for user in users:
        if user.name == wanted:
            return user
    raise errors.UserNotFound(source, f"its /etc/passwd has no user {name!r}")


def _find_gid(root: int, name: str, source: str) -> int:
    """Find a group's number; the first line counts."""
    number = _number(name, source)
    if number is not None:
        return number
    wanted = _encoded(name)
    for group in _groups(root, source):
        if group.name == wanted:
            return group.gid
    raise errors.UserNotFound(source, f"its /etc/group has no group {name!r}")


def _supplementary(root: int, user: _User, source: str) -> tuple[int, ...]:
    """Give the groups that list a user."""
    if not user.name:
        return ()
    gids = {group.gid for group in _groups(root, source) if user.name in group.members.split(b",")}
    gids.discard(user.gid)
    if len(gids) > GROUPS_MAX:
        raise errors.InvalidManifest(source, f"/etc/group: a user is in {len(gids)} groups; {GROUPS_MAX} is the limit")
    return tuple(sorted(gids))


def _number(text: str, source: str) -> int | None:
    """Read a uid or gid; ``None`` for a name. Signs, spaces and other alphabets' digits make no number."""
    if not (text.isascii() and text.isdigit()):
        return None
    if len(text) > len(str(ID_MAX)) or int(text) > ID_MAX:
        raise errors.UserNotFound(source, f"{text!r} is no uid or gid: {ID_MAX} is the largest")
    return int(text)


def _encoded(name: str) -> bytes:
    """Give a name's bytes; what no UTF-8 file can have becomes something that no line has either."""
    return name.encode("utf-8", "backslashreplace")


def _users(root: int, source: str) -> Iterator[_User]:
    for fields in _lines(root, _PASSWD, source):
        uid, gid = (_field(fields, at) for at in (2, 3))
        if uid is not None and gid is not None:
            yield _User(fields[0], uid, gid, fields[5] if len(fields) > 5 else b"")


def _groups(root: int, source: str) -> Iterator[_Group]:
    for fields in _lines(root, _GROUP, source):
        gid = _field(fields, 2)
        if gid is not None:
            yield _Group(fields[0], gid, fields[3] if len(fields) > 3 else b"")


def _field(fields: list[bytes], at: int) -> int | None:
    """Read a number of a line; ``None`` makes the line one that nobody is found by."""
    text = fields[at] if at < len(fields) else b""
    if not text.isdigit() or len(text) > len(str(ID_MAX)) or int(text) > ID_MAX:
        return None
    return int(text)


def _lines(root: int, path: bytes, source: str) -> Iterator[list[bytes]]:
    """Split a file into lines and those into fields; comments, NIS entries and nameless lines are left out."""
    for line in _content(root, path, source).split(b"\n"):
        if len(line) > LINE_MAX:
            raise errors.InvalidManifest(source, f"{os.fsdecode(path)} has a line of {len(line)} bytes")
        if b":" in line and line[:1] not in b"#+-:":
            yield line.split(b":")


def _content(root: int, path: bytes, source: str) -> bytes:
    """Read a file inside the root; a missing one (or one behind a link that leads nowhere) is empty.

    It is looked at before it is opened for reading: to open a device can be an act by itself.
    """
    try:
        place = resolve.open_in_root(root, path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _ABSENT:
            return b""
        raise
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise errors.InvalidManifest(source, f"its {os.fsdecode(path)} is not a regular file")
        opened = os.open(f"/proc/self/fd/{place}", _READ)
    finally:
        os.close(place)
    with open(opened, "rb") as file:
        content = file.read(FILE_MAX + 1)
    if len(content) > FILE_MAX:
        raise errors.InvalidManifest(source, f"its {os.fsdecode(path)} has more than {FILE_MAX} bytes")
    return content


def _home(field: bytes) -> str:
    """Give a home directory that can stand in an environment."""
    try:
        home = field.decode()
    except UnicodeDecodeError:
        return "/"
    return home if home.startswith("/") and home.isprintable() else "/"
