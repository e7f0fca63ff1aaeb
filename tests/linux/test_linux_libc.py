"""The door to the C library."""

import ctypes
import errno
import os

import pytest

from graphdrivers.errors import SyscallError
from graphdrivers.linux import libc


def test_nul_is_refused() -> None:
    """A NUL byte in a string is an error: the C side would see a shorter, other name."""
    with pytest.raises(ValueError, match="null"):
        libc.c_string("etc\0passwd")
    with pytest.raises(ValueError, match="null"):
        libc.c_string(b"etc\0passwd")


def test_any_other_byte_survives() -> None:
    """All bytes but NUL pass, as bytes and as the str that stands for them."""
    name = bytes(range(1, 256))

    assert name == libc.c_string(name) == libc.c_string(os.fsdecode(name))


def test_missing_function() -> None:
    """A function that the C library lacks fails as on a kernel that lacks it."""
    with pytest.raises(SyscallError) as caught:
        libc.check(libc.function("no_such_function_at_all", ctypes.c_int)(1), "nothing", "/path")

    assert caught.value.errno == errno.ENOSYS
    assert caught.value.syscall == "nothing"
    assert caught.value.filename == "/path"


def test_prototypes_are_private() -> None:
    """Two prototypes of one function are two objects: neither can change the other's types."""
    first, second = libc.function("syncfs", ctypes.c_int), libc.function("syncfs", ctypes.c_long)

    assert first is not second
    assert second(-1) == first(-1) == -1


def test_check_passes_results() -> None:
    """Whatever is not -1 comes through."""
    assert libc.check(7, "call") == 7
