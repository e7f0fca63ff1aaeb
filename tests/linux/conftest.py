"""What the tests of this room share: kernels of other ages, other users, and overlays to mount."""

import errno
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Iterator

import pytest
from linuxtools import fail_with

from graphdrivers.linux import mountapi, mountinfo, mounts, probe, resolve


@pytest.fixture
def root() -> None:
    """Need root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture(params=["openat2", "walk"])
def resolution(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Resolve paths in the kernel, and as on a kernel without ``openat2``."""
    if request.param == "walk":
        monkeypatch.setattr(resolve, "_openat2", fail_with(errno.ENOSYS))
    return str(request.param)


@pytest.fixture
def legacy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mount as on a kernel without the new mount API."""
    for call in ("_mount_setattr", "_fsopen", "_open_tree"):
        monkeypatch.setattr(mountapi, call, fail_with(errno.ENOSYS))
    # Answers are kept for the life of the process: ask anew.
    monkeypatch.setattr(probe, "has_new_mount_api", probe.has_new_mount_api.__wrapped__)
    monkeypatch.setattr(probe, "has_lowerdir_append", probe.has_lowerdir_append.__wrapped__)
    assert not probe.has_new_mount_api()


@pytest.fixture(params=["new", "legacy"])
def api(request: pytest.FixtureRequest) -> str:
    """Mount with the new mount API, and without it."""
    if request.param == "legacy":
        request.getfixturevalue("legacy")
    return str(request.param)


@pytest.fixture
def target(tmp_path: pathlib.Path, root: None) -> Iterator[str]:
    """Give an empty directory to mount on; whatever is left there is unmounted."""
    del root
    place = tmp_path / "target"
    place.mkdir()
    yield str(place)
    while mountinfo.mounted_at(str(place)):
        mounts.detach(str(place), lazy=True)


@pytest.fixture
def run_as() -> Callable[[int, Callable[[], object]], None]:
    """Run a function in a child process under another uid, without any privilege."""

    def run(uid: int, action: Callable[[], object]) -> None:
        if os.geteuid() != 0:
            pytest.skip("needs root")
        child = os.fork()
        if not child:
            try:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
                action()
            except BaseException:  # noqa: BLE001 - the parent must hear of every failure
                traceback.print_exc(file=sys.__stderr__)
                os._exit(1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    return run
