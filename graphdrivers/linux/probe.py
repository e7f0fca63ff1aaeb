"""What the running kernel can do, found out by trying; each answer is kept for the life of the process."""

import contextlib
import errno
import functools
import os

from graphdrivers.errors import SyscallError
from graphdrivers.linux import mountapi, resolve
from graphdrivers.linux.libc import AT_FDCWD


def kernel_release() -> str:
    """Give the kernel's release, as ``uname -r`` prints it."""
    return os.uname().release


@functools.cache
def has_openat2() -> bool:
    """Tell whether ``openat2`` works (Linux 5.6; some sandboxes forbid it)."""
    try:
        os.close(resolve.openat2(AT_FDCWD, b".", os.O_PATH, resolve=resolve.RESOLVE_IN_ROOT))
    except SyscallError:
        return False
    return True


@functools.cache
def has_new_mount_api() -> bool:
    """Tell whether all of ``fsopen`` to ``mount_setattr`` work (Linux 5.12); without CAP_SYS_ADMIN the answer is no."""
    try:
        mountapi.mount_setattr(-1, 0)
    except SyscallError as error:
        return error.errno not in {errno.ENOSYS, errno.EPERM}
    return True


@functools.cache
def has_lowerdir_append() -> bool:
    """Tell whether overlay takes its lower directories one by one (``lowerdir+``, Linux 6.5).

    Without CAP_SYS_ADMIN the answer is no.
    """
    if not has_new_mount_api():
        return False
    try:
        context = mountapi.fsopen("overlay")
    except SyscallError:
        return False
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, context)
        try:
            # Before 6.5 any key is accepted here and refused at creation; since 6.5 the path is looked up at once.
            mountapi.fsconfig_set_string(context, "lowerdir+", b"/proc/self/fd/-1")
        except SyscallError as error:
            return error.errno == errno.ENOENT
    return False
