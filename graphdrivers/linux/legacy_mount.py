"""Plans performed with ``mount(2)``, for kernels without the new mount API.

All options are one string there, which the kernel silently cuts at a page. Lower
directories that would not fit are named by descriptor, in a few bytes each,
relative to ``/proc/self/fd``; what does not fit even then is refused.
"""

import contextlib
import ctypes
import errno
import os
import re
import threading
from collections.abc import Callable, Sequence

from graphdrivers.errors import SyscallError
from graphdrivers.linux import aufs_mount, fuse_mount, mountapi, resolve
from graphdrivers.linux.libc import check, function
from graphdrivers.model import Mount

_FLAGS = {
    "ro": mountapi.MS_RDONLY,
    "nosuid": mountapi.MS_NOSUID,
    "nodev": mountapi.MS_NODEV,
    "noexec": mountapi.MS_NOEXEC,
    "noatime": mountapi.MS_NOATIME,
}

_KEPT = sum(_FLAGS.values()) | mountapi.MS_NODIRATIME
"""Flags that a remount must repeat: a user namespace may not clear them. ``statvfs`` has the same bits."""

_SPECIAL = re.compile(rb"([\\:,])")
_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_CLONE_FS = 0x200

_unshare = function("unshare", ctypes.c_int)

Settings = Sequence[tuple[str, str | None]]


def attach(plan: Sequence[Mount], target: str) -> None:
    """Perform a plan at a directory: all of it or nothing.

    Raises:
        SyscallError: ``E2BIG`` where the options do not fit into a page.
        ValueError: a bind with an option that binds do not have.
    """
    attached: list[str] = []
    try:
        for mount in plan:
            with contextlib.ExitStack() as stack:
                place = _place(target, mount.target, stack)
                _mount(mount, place, stack)
                attached.append(os.readlink(place))
    except BaseException:
        for path in reversed(attached):
            mountapi.umount2(path, mountapi.MNT_DETACH | mountapi.UMOUNT_NOFOLLOW)
        raise


def overlay_options(settings: Settings) -> bytes:
    """Write overlay options as ``mount(2)`` wants them, special characters escaped.

    Args:
        settings: as in a plan; ``lowerdir+`` repeats, nearest parent first.
    """
    lowers: list[bytes] = []
    rest: list[bytes] = []
    for key, value in settings:
        if value is None:
            rest.append(os.fsencode(key))
        elif key == "lowerdir+":
            lowers.append(_SPECIAL.sub(rb"\\\1", os.fsencode(value)))
        else:
            rest.append(os.fsencode(key) + b"=" + _SPECIAL.sub(rb"\\\1", os.fsencode(value)))
    if lowers:
        rest.insert(0, b"lowerdir=" + b":".join(lowers))
    return b",".join(rest)


def _place(target: str, below: str, stack: contextlib.ExitStack) -> str:
    """Give a path of the directory to mount on that nothing can redirect while ``stack`` is open."""
    place = os.open(target, _PLACE)
    stack.callback(os.close, place)
    if below:
        place = resolve.open_beneath(place, os.fsencode(below), os.O_PATH | os.O_DIRECTORY)
        stack.callback(os.close, place)
    return f"/proc/self/fd/{place}"


def _mount(mount: Mount, place: str, stack: contextlib.ExitStack) -> None:
    flags = mountapi.MS_RDONLY if mount.readonly else 0
    settings = []
    for key, value in mount.options:
        if value is None and key in _FLAGS:
            flags |= _FLAGS[key]
        else:
            settings.append((key, value))
    if mount.type == "overlay":
        _overlay(mount.source or "overlay", place, flags, settings, stack)
    elif mount.type == aufs_mount.TYPE:
        aufs_mount.mount(mount.source or "none", place, flags, settings, _limit())
    elif fuse_mount.is_fuse(mount.type):
        fuse_mount.mount(mount.type, mount.source, place, flags, settings)
    elif mount.type == "bind":
        if settings:
            raise ValueError(f"a bind mount has no option {settings[0][0]!r}")
        _bind(mount.source, place, flags)
    else:
        text = ",".join(key if value is None else f"{key}={value}" for key, value in settings)
        mountapi.mount(mount.source, place, mount.type, flags, _fitting(os.fsencode(text)))


def _bind(source: str, place: str, flags: int) -> None:
    """Bind, then remount for the flags: the kernel ignores them in the first step."""
    mountapi.mount(source, place, None, mountapi.MS_BIND, b"")
    if not flags:
        return
    # The descriptor is on the directory below the new mount; its name leads to the top.
    top = os.readlink(place)
    try:
        flags |= os.statvfs(top).f_flag & _KEPT
        mountapi.mount(None, top, None, mountapi.MS_REMOUNT | mountapi.MS_BIND | flags, b"")
    except BaseException:
        mountapi.umount2(top, mountapi.MNT_DETACH | mountapi.UMOUNT_NOFOLLOW)
        raise


def _overlay(source: str, place: str, flags: int, settings: Settings, stack: contextlib.ExitStack) -> None:
    text = overlay_options(settings)
    if len(text) <= _limit():
        mountapi.mount(source, place, "overlay", flags, text)
        return
    # Upper and work directory keep their names: the mount table must tell whose they are.
    short = [(key, _short(value, stack) if key == "lowerdir+" and value else value) for key, value in settings]
    text = _fitting(overlay_options(short))
    _in_fd_directory(lambda: mountapi.mount(source, place, "overlay", flags, text))


def _short(directory: str, stack: contextlib.ExitStack) -> str:
    opened = os.open(directory, _PLACE)
    stack.callback(os.close, opened)
    return str(opened)


def _in_fd_directory(action: Callable[[], None]) -> None:
    """Run ``action`` where relative names are descriptor numbers, in a thread with a working directory of its own."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            check(_unshare(_CLONE_FS), "unshare")
            os.chdir("/proc/self/fd")
            action()
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="mount")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _fitting(text: bytes) -> bytes:
    """Refuse options that the kernel would cut."""
    if len(text) > _limit():
        raise SyscallError(errno.E2BIG, "mount", f"{len(text)} bytes of options, {_limit()} fit")
    return text


def _limit() -> int:
    return os.sysconf("SC_PAGE_SIZE") - 1
