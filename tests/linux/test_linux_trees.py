"""Trees walked, measured and removed."""

import errno
import os
import pathlib
import resource
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest
from linuxtools import chain, fail_with

from graphdrivers.errors import SyscallError
from graphdrivers.linux import mounts, resolve, trees
from graphdrivers.model import Mount

Run = Callable[[int, Callable[[], object]], None]


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> Iterator[int]:
    """An open directory."""
    opened = os.open(tmp_path, os.O_RDONLY)
    yield opened
    os.close(opened)


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Leave the process a hundred descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 200, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_stack_goes_down_and_up(directory: int) -> None:
    """Far down and back again, each level is the directory that it was, with a bounded number open."""
    with trees.DirStack(directory) as stack:
        inodes = [os.fstat(stack.fd).st_ino]
        for number in range(200):
            os.mkdir(str(number), dir_fd=stack.fd)
            stack.enter(b"%d" % number)
            inodes.append(os.fstat(stack.fd).st_ino)

        assert stack.depth == 200
        assert stack.path(b"x") == b"/".join(b"%d" % number for number in range(200)) + b"/x"
        assert sum(level.fd != -1 for level in stack._levels) == stack.KEEP
        for inode in reversed(inodes[:-1]):
            os.close(stack.leave())

            assert os.fstat(stack.fd).st_ino == inode
        assert stack.path() == b""
    stack.close()


def test_stack_leaks_nothing(directory: int) -> None:
    """Closing in the middle of a deep tree closes everything."""
    before = os.listdir("/proc/self/fd")
    with trees.DirStack(directory) as stack:
        for _ in range(150):
            os.mkdir("d", dir_fd=stack.fd)
            stack.enter(b"d")
        for _ in range(100):
            os.close(stack.leave())
        stack.enter(b"d")

    assert os.listdir("/proc/self/fd") == before


def test_a_stack_is_closed_at_its_deepest(directory: int) -> None:
    """The root is closed too, where the current directory is far below it."""
    before = os.listdir("/proc/self/fd")
    with trees.DirStack(directory) as stack:
        for _ in range(2 * stack.KEEP):
            os.mkdir("d", dir_fd=stack.fd)
            stack.enter(b"d")

    assert os.listdir("/proc/self/fd") == before


def test_stack_notices_a_move(directory: int, tmp_path: pathlib.Path) -> None:
    """A directory that was moved elsewhere does not lead the walk there."""
    with trees.DirStack(directory) as stack:
        for _ in range(100):
            os.mkdir("d", dir_fd=stack.fd)
            stack.enter(b"d")
        outside = tmp_path / "outside"
        outside.mkdir()
        (tmp_path / ("d/" * 30)).rename(outside / "moved")
        for _ in range(100 - 30):
            os.close(stack.leave())
        with pytest.raises(SyscallError) as caught:
            stack.leave()

    assert caught.value.errno == errno.ESTALE


@pytest.mark.parametrize("kind", ["link", "file"])
def test_stack_enters_directories_only(directory: int, tmp_path: pathlib.Path, kind: str) -> None:
    """Symbolic links to directories, and files, are not entered."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/")
    with trees.DirStack(directory) as stack, pytest.raises(OSError, match=r"[Nn]ot a directory|symbolic"):
        stack.enter(kind.encode())


@pytest.mark.usefixtures("root")
def test_stack_stays_on_the_file_system(target: str) -> None:
    """Where another file system begins, the walk ends with an error."""
    mounts.attach((Mount("tmpfs", "x"),), target)
    parent = os.open(os.path.dirname(target), os.O_RDONLY)
    before = os.listdir("/proc/self/fd")
    with trees.DirStack(parent) as stack, pytest.raises(SyscallError) as caught:
        stack.enter(b"target")

    assert caught.value.errno == errno.EXDEV
    assert os.listdir("/proc/self/fd") == before
    os.close(parent)


def test_usage(directory: int, tmp_path: pathlib.Path) -> None:
    """Apparent bytes of files, inodes once each, blocks as du counts them; the root itself is not counted."""
    assert trees.usage(directory) == (0, 0, 0)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "file").write_bytes(b"x" * 10_000)
    (tmp_path / "a" / "b" / "file").write_bytes(b"x" * 5)
    (tmp_path / "link").symlink_to("a")
    os.link(tmp_path / "a" / "file", tmp_path / "a" / "b" / "again")
    with open(tmp_path / "sparse", "wb") as sparse:
        sparse.truncate(1 << 30)
    os.sync()

    size, inodes, disk = trees.usage(directory)

    du = subprocess.run(["du", "-s", "-B1", tmp_path], check=True, capture_output=True)
    assert (size, inodes) == (10_005 + (1 << 30), 6)
    assert disk == int(du.stdout.split()[0]) - tmp_path.stat().st_blocks * 512


def test_usage_ignores_what_it_is_told(directory: int, tmp_path: pathlib.Path) -> None:
    """Entries that the caller rules out (whiteouts) do not count."""
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    os.link(tmp_path / "one", tmp_path / "one again")

    assert trees.usage(directory, lambda _name, status: status.st_nlink == 2)[:2] == (3, 1)


def test_remove(directory: int, tmp_path: pathlib.Path) -> None:
    """Everything below a name goes, nothing beside it, and nothing that a link points to."""
    (tmp_path / "stays" / "sub").mkdir(parents=True)
    (tmp_path / "goes" / "a" / "b").mkdir(parents=True)
    (tmp_path / "goes" / "a" / "\udcff\n").touch()
    (tmp_path / "goes" / "link").symlink_to(tmp_path / "stays")
    os.mkfifo(tmp_path / "goes" / "a" / "b" / "pipe")
    mode = tmp_path.stat().st_mode
    trees.remove_tree(directory, b"goes")
    trees.remove_tree(directory, b"goes")

    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["stays", "stays/sub"]
    assert tmp_path.stat().st_mode == mode


def test_remove_what_is_no_directory(directory: int, tmp_path: pathlib.Path) -> None:
    """Files and links are removed; what a link points to is not."""
    (tmp_path / "file").touch()
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to("dir")
    for name in (b"file", b"link"):
        trees.remove_tree(directory, name)

    assert os.listdir(tmp_path) == ["dir"]


@pytest.mark.parametrize("openat2", [True, False])
def test_remove_without_permissions(
    tmp_path: pathlib.Path, run_as: Run, monkeypatch: pytest.MonkeyPatch, *, openat2: bool
) -> None:
    """Directories that their owner cannot read, search or write are removed all the same; the parent is left alone."""
    if not openat2:
        monkeypatch.setattr(resolve, "_openat2", fail_with(errno.ENOSYS))
    home = tmp_path / "home"
    for mode in (0o000, 0o100, 0o400, 0o500, 0o300):
        deep = home / "tree" / oct(mode) / "sub"
        deep.mkdir(parents=True)
        (deep / "file").touch()
        deep.chmod(mode)
        deep.parent.chmod(mode)
    subprocess.run(["chown", "-R", "65534:65534", home], check=True)
    opened = os.open(home, os.O_RDONLY)
    run_as(65534, lambda: trees.remove_tree(opened, b"tree"))

    assert os.listdir(home) == []
    (home / "tree").mkdir()
    os.chown(home / "tree", 65534, 65534)
    home.chmod(0o555)

    def refused() -> None:
        with pytest.raises(PermissionError):
            trees.remove_tree(opened, b"tree")

    run_as(65534, refused)
    assert home.stat().st_mode & 0o777 == 0o555
    os.close(opened)


@pytest.mark.parametrize("mount", [Mount("tmpfs", "x"), Mount("bind", "")])
@pytest.mark.parametrize("name", ["mnt", "m nt\\\n\udcff"])
def test_remove_refuses_mounts(target: str, tmp_path: pathlib.Path, mount: Mount, name: str) -> None:
    """With anything mounted in the tree nothing is deleted at all, and the error names the mount."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    place = pathlib.Path(target, "a", name)
    place.mkdir(parents=True)
    pathlib.Path(target, "file").touch()
    mounts.attach((Mount(mount.type, mount.source or str(tmp_path / "precious")),), str(place))
    parent = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(SyscallError) as caught:
        trees.remove_tree(parent, b"target")
    pathlib.Path(place, "in the mount").touch()
    mounts.detach(str(place))

    assert caught.value.errno == errno.EBUSY
    assert caught.value.filename == str(place)
    assert sorted(os.listdir(target)) == ["a", "file"]
    assert "file" in os.listdir(tmp_path / "precious")
    os.close(parent)


def test_remove_in_a_detached_mount(target: str, tmp_path: pathlib.Path) -> None:
    """What is mounted somewhere on the machine is not in the way of the same path in a mount that nobody sees."""
    pathlib.Path(target, "busy").mkdir()
    mounts.attach((Mount("tmpfs", "tmpfs"),), f"{target}/busy")
    tree = tmp_path / "tree"
    inside = pathlib.Path(f"{tree}/{target}")
    (inside / "busy").mkdir(parents=True)
    plan = (Mount("bind", str(tree), options=(("noatime", None),)),)
    try:
        with mounts.opened(plan) as root:
            parent = os.open(target[1:], os.O_RDONLY, dir_fd=root)
            try:
                trees.remove_tree(parent, b"busy")
            finally:
                os.close(parent)
    finally:
        mounts.detach(f"{target}/busy")

    assert list(inside.iterdir()) == []
    assert os.listdir(target) == ["busy"]


def test_walk_does_not_enter_a_bind(target: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount that appears after the look into the table is not entered, though it is of the same file system."""
    monkeypatch.setattr(trees, "_refuse_mounts", lambda *_arguments: None)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    place = pathlib.Path(target, "mnt")
    place.mkdir()
    mounts.attach((Mount("bind", str(tmp_path / "precious")),), str(place))
    parent = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(SyscallError) as caught:
        trees.remove_tree(parent, b"target")
    mounts.detach(str(place))

    assert caught.value.errno == errno.EXDEV
    assert os.listdir(tmp_path / "precious") == ["file"]
    os.close(parent)


def test_two_remove_the_same(directory: int, tmp_path: pathlib.Path) -> None:
    """Two threads that remove one tree both succeed."""
    for round_ in range(5):
        for number in range(300):
            (tmp_path / "tree" / str(number % 20) / str(number)).mkdir(parents=True)
            (tmp_path / "tree" / str(number % 20) / str(number) / "file").touch()
        failures: list[OSError] = []

        def work(failures: list[OSError] = failures) -> None:
            try:
                trees.remove_tree(directory, b"tree")
            except OSError as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert (round_, failures, os.listdir(tmp_path)) == (round_, [], [])


@pytest.mark.usefixtures("few_descriptors")
def test_a_tree_100_000_deep(target: str) -> None:
    """The deepest trees are measured and removed with few descriptors and no recursion."""
    mounts.attach((Mount("tmpfs", "x", (("nr_inodes", "0"),)),), target)
    top = os.open(target, os.O_RDONLY)
    chain(top, b"deep", 100_000)

    assert trees.usage(top)[:2] == (4, 100_002)

    trees.remove_tree(top, b"deep")

    assert os.listdir(top) == []
    os.close(top)
