"""Paths below a root: the kernel and the walk must agree, and nothing may lead outside."""

import contextlib
import errno
import itertools
import os
import pathlib
import random
import threading
from collections.abc import Callable, Iterator

import pytest
from linuxtools import fail_with

from graphdrivers.errors import SyscallError
from graphdrivers.linux import resolve, trees

Opener = Callable[[int, bytes, int], int]

LINKS = {
    "here": ".",
    "up": "..",
    "far-up": "../../../../../../etc",
    "root": "/",
    "abs": "/dir/sub",
    "rel": "dir/sub",
    "dangling": "nowhere",
    "to-file": "/dir/file",
    "slash": "dir/",
    "file-slash": "dir/file/",
    "loop": "loop",
    "ping": "pong",
    "pong": "ping",
    "chain": "abs",
    "dir/sub/abs-deep": "/dir/sub",
    "dir/back": "../rel/../..//up",
    "dir/sub/out": "/../../up/dir",
}


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> Iterator[int]:
    """A directory with links of all kinds, and things of the same names outside it."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "dir" / "file").write_text("outside")
    inside = tmp_path / "in" / "root"
    (inside / "dir" / "sub").mkdir(parents=True)
    (inside / "dir" / "file").write_text("inside")
    (inside / "dir" / "sub" / "leaf").write_text("inside")
    for name, link in LINKS.items():
        (inside / name).symlink_to(link)
    opened = os.open(inside, os.O_PATH)
    yield opened
    os.close(opened)


def outcome(call: Callable[[], int]) -> tuple[int, int] | str:
    """Give the inode that was opened, or the name of the error."""
    try:
        opened = call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    try:
        status = os.fstat(opened)
        assert os.get_inheritable(opened) is False
    finally:
        os.close(opened)
    return status.st_dev, status.st_ino


def paths() -> list[bytes]:
    """Give all short paths of interesting components, and random longer ones."""
    parts = ["dir", "sub", "file", "leaf", "..", ".", "", "missing", *LINKS]
    found = {"/".join(combination) for length in (1, 2) for combination in itertools.product(parts, repeat=length)}
    chance = random.Random(7)
    found |= {"/".join(chance.choices(parts, k=chance.randint(3, 7))) for _ in range(800)}
    return sorted(os.fsencode(path) for path in found)


@pytest.mark.parametrize("opener", [resolve.open_in_root, resolve.open_beneath])
@pytest.mark.parametrize(
    "flags",
    [os.O_PATH, os.O_PATH | os.O_NOFOLLOW, os.O_RDONLY, os.O_RDONLY | os.O_NOFOLLOW, os.O_RDONLY | os.O_DIRECTORY],
)
def test_walk_agrees_with_the_kernel(tree: int, opener: Opener, flags: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """For thousands of paths the component walk opens the same inode, or fails with the same error, as the kernel."""
    kernel = {path: outcome(lambda: opener(tree, path, flags)) for path in paths()}  # noqa: B023 - called at once
    monkeypatch.setattr(resolve, "_openat2", fail_with(errno.ENOSYS))
    walked = {path: outcome(lambda: opener(tree, path, flags)) for path in paths()}  # noqa: B023 - called at once

    assert {path: (kernel[path], walked[path]) for path in kernel if kernel[path] != walked[path]} == {}


def test_climbing_stays_inside(tree: int, resolution: str) -> None:
    """Names, absolute links and ``..`` that point upward reach only what is inside."""
    del resolution
    for path in (b"/../../dir/file", b"up/../dir/file", b"dir/sub/out/file", b"root/../to-file", b"far-up/../dir/file"):
        with contextlib.suppress(FileNotFoundError):
            opened = resolve.open_in_root(tree, path, os.O_RDONLY)
            with os.fdopen(opened) as file:
                assert file.read() == "inside"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (b"..", errno.EXDEV),
        (b"dir/../../x", errno.EXDEV),
        (b"/dir", errno.EXDEV),
        (b"rel", errno.ELOOP),
        (b"rel/leaf", errno.ELOOP),
    ],
)
def test_beneath_refuses(tree: int, resolution: str, path: bytes, code: int) -> None:
    """Without a root to stand for ``/``, climbing out and every symbolic link are errors."""
    del resolution
    with pytest.raises(SyscallError) as caught:
        resolve.open_beneath(tree, path, os.O_PATH)

    assert caught.value.errno == code


@pytest.mark.parametrize("opener", [resolve.open_in_root, resolve.open_beneath])
def test_create(tree: int, resolution: str, opener: Opener) -> None:
    """Files can be created, and exclusively."""
    del resolution
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    os.close(opener(tree, b"dir/sub/new", flags))

    with pytest.raises(FileExistsError):
        opener(tree, b"dir/sub/new", flags)


def test_create_through_a_link(tree: int, resolution: str) -> None:
    """A dangling link is created through, inside; with ``O_EXCL`` it is refused."""
    del resolution
    with pytest.raises(FileExistsError):
        resolve.open_in_root(tree, b"dangling", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.close(resolve.open_in_root(tree, b"dangling", os.O_WRONLY | os.O_CREAT))

    assert os.stat("nowhere", dir_fd=tree, follow_symlinks=False).st_size == 0


def test_no_openat2_in_a_sandbox(tree: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that says EPERM to an unknown call does not stop us."""
    monkeypatch.setattr(resolve, "_openat2", fail_with(errno.EPERM))

    os.close(resolve.open_in_root(tree, b"abs/leaf", os.O_RDONLY))


def test_interrupted_is_tried_again(tree: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal, or a rename elsewhere on the system, only repeats the call."""
    real, failures = resolve._openat2, [errno.EAGAIN, errno.EINTR]

    def flaky(*arguments: object) -> int:
        return fail_with(failures.pop())() if failures else real(*arguments)

    monkeypatch.setattr(resolve, "_openat2", flaky)
    os.close(resolve.openat2(tree, b"dir", os.O_PATH))

    assert not failures


@pytest.mark.parametrize("opener", [resolve.open_in_root, resolve.open_beneath])
def test_paths_longer_than_a_system_call_takes(tmp_path: pathlib.Path, opener: Opener) -> None:
    """A path of 20,000 bytes, with ``..`` in it, is opened like any other."""
    top = os.open(tmp_path, os.O_PATH)
    name = b"n" * 99
    here = os.dup(top)
    for _ in range(200):
        os.mkdir(name, dir_fd=here)
        deeper = os.open(name, os.O_PATH, dir_fd=here)
        os.close(here)
        here = deeper
    path = b"/".join([*[name] * 200, b"..", name])

    opened = opener(top, path, os.O_PATH)

    assert os.path.samestat(os.fstat(opened), os.fstat(here))
    trees.remove_tree(top, name)  # pytest itself cannot
    for descriptor in (top, here, opened):
        os.close(descriptor)


def test_nul_is_refused(tree: int) -> None:
    """A NUL byte never shortens a path."""
    with pytest.raises(ValueError, match="null"):
        resolve.open_in_root(tree, b"dir\0x", os.O_PATH)


def content(opener: Opener, top: int, path: bytes) -> str | None:
    """Read a file that may be out of the way right now."""
    try:
        opened = opener(top, path, os.O_RDONLY)
    except OSError as error:
        assert error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV}  # noqa: PT017 - all are fair
        return None
    with os.fdopen(opened) as file:
        return file.read()


@pytest.mark.parametrize("opener", [resolve.open_in_root, resolve.open_beneath])
def test_a_swapped_directory_never_leads_out(tmp_path: pathlib.Path, resolution: str, opener: Opener) -> None:
    """While another thread swaps a directory for links to the outside, only inside files are ever opened."""
    del resolution
    inside = tmp_path / "root"
    (inside / "real" / "d").mkdir(parents=True)
    (inside / "real" / "d" / "file").write_text("inside")
    (tmp_path / "outside" / "d").mkdir(parents=True)
    (tmp_path / "outside" / "d" / "file").write_text("outside")
    stop = threading.Event()

    def swap() -> None:
        for link in itertools.cycle([str(tmp_path / "outside"), "../outside", "real"]):
            if stop.is_set():
                return
            (inside / "next").symlink_to(link)
            (inside / "next").replace(inside / "way")
            (inside / "way").unlink()
            (inside / "real").rename(inside / "way")
            (inside / "way").rename(inside / "real")

    thread = threading.Thread(target=swap)
    top = os.open(inside, os.O_PATH)
    thread.start()
    try:
        for _ in range(1500):
            assert content(opener, top, b"way/../way/d/file") in {None, "inside"}
    finally:
        stop.set()
        thread.join()
        os.close(top)
