"""What the kernel can do."""

import errno
import os
from collections.abc import Callable

import pytest
from linuxtools import fail_with

from graphdrivers.linux import mountapi, probe, resolve


def test_release() -> None:
    """The release is what uname says."""
    assert probe.kernel_release() == os.uname().release


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_missing_calls(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A kernel or a sandbox without the calls is told by trying them."""
    monkeypatch.setattr(resolve, "_openat2", fail_with(code))
    monkeypatch.setattr(mountapi, "_mount_setattr", fail_with(code))

    assert not probe.has_openat2.__wrapped__()
    assert not probe.has_new_mount_api.__wrapped__()


@pytest.mark.usefixtures("root")
def test_overlay_of_an_older_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.5 a context accepts any key, so that success at once means no."""
    monkeypatch.setattr(mountapi, "_fsconfig", lambda *_arguments: 0)

    assert not probe.has_lowerdir_append.__wrapped__()


@pytest.mark.usefixtures("root")
def test_overlay_that_does_not_know_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """An overlay that refuses the key itself cannot append, whatever else it can."""
    monkeypatch.setattr(mountapi, "_fsconfig", fail_with(errno.EINVAL))

    assert not probe.has_lowerdir_append.__wrapped__()


@pytest.mark.usefixtures("root")
def test_kernel_without_overlay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that does not know overlay cannot append to it."""
    monkeypatch.setattr(mountapi, "_fsopen", fail_with(errno.ENODEV))

    assert not probe.has_lowerdir_append.__wrapped__()


def test_asking_leaves_no_descriptor_open() -> None:
    """Probes close what they open."""

    def ask(question: Callable[[], bool]) -> list[str]:
        question()
        return os.listdir("/proc/self/fd")

    for question in (probe.has_openat2, probe.has_new_mount_api, probe.has_lowerdir_append):
        before = len(os.listdir("/proc/self/fd"))

        assert len(ask(question.__wrapped__)) == before
