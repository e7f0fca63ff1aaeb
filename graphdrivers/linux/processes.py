"""What one process may ask of the kernel about its relatives."""

import ctypes
import os
import signal

from graphdrivers.linux.libc import check, function

_PR_SET_PDEATHSIG = 1

_prctl = function("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends; at once where ``parent`` is gone.

    Args:
        parent: number of the process that started this one, as it saw itself.

    Source: PR_SET_PDEATHSIG(2const), Linux ``include/uapi/linux/prctl.h``.
    """
    check(_prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != parent:  # it ended before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)
