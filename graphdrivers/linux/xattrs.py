"""Extended attributes of files, symbolic links included. Names are ``str`` with surrogateescape."""

import errno
import os
from collections.abc import Callable, Mapping


def at(dir_fd: int, name: bytes) -> bytes:
    """Give a path for ``name`` in an open directory, for calls that know no ``dir_fd`` (needs ``/proc``)."""
    return b"/proc/self/fd/%d/%s" % (dir_fd, name)


def read_all(
    target: int | bytes, leave_out: Callable[[str], bool] | None = None, names: list[str] | None = None
) -> dict[str, bytes]:
    """Read every attribute that the caller may see.

    Args:
        target: an open file, or a path whose last component is not followed.
        leave_out: says of a name whether nobody asks for its value.
        names: what the target has, where that is known.

    Returns:
        Empty where the file system has no attributes.
    """
    follow = isinstance(target, int)
    if names is None:
        try:
            names = os.listxattr(target, follow_symlinks=follow)
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return {}
            raise
    if names and leave_out is not None:
        names = [name for name in names if not leave_out(name)]
    return _values(target, names, follow=follow) if names else {}


def write_all(target: int | bytes, attributes: Mapping[str, bytes]) -> None:
    """Set each attribute; those that the target has besides are left alone.

    Args:
        target: an open file, or a path whose last component is not followed.
        attributes: value by full name (``user.comment``).
    """
    follow = isinstance(target, int)
    for name, value in attributes.items():
        os.setxattr(target, name, value, follow_symlinks=follow)


def _values(target: int | bytes, names: list[str], *, follow: bool) -> dict[str, bytes]:
    found = {}
    for name in names:
        try:
            found[name] = os.getxattr(target, name, follow_symlinks=follow)
        except OSError as error:
            if error.errno != errno.ENODATA:  # removed since it was listed
                raise
    return found
