"""Inside a mount: files of a parent are copied up, opened, linked and written to as on any file system."""

import errno
import fcntl
import mmap
import os
import socket
import stat

import pytest

from graphdrivers.conformance.beside import Action, check_action, fails
from graphdrivers.conformance.workbench import Workbench
from graphdrivers.edits import Create, Edit, Mkdir, Mknod, Punch, SetXattr, Symlink

_BASE: list[Edit] = [
    Create("file", b"0123456789" * 1000, 0o640),
    Create("other", b"other"),
    Create("empty"),
    Mkdir("dir", 0o711),
    Mkdir("dir/deep", 0o750),
    Create("dir/deep/file", b"deep"),
    Symlink("link", "file"),
    Symlink("dangling", "no/where"),
    Symlink("loop", "loop"),
    Symlink("way", "dir/deep"),
    Symlink("long", "x/" * 500 + "x"),
    Mknod("fifo"),
    Mknod("socket", stat.S_IFSOCK | 0o755),
    Punch("sparse", 1 << 20),
]


def _opened(root: str, path: str, flags: int, mode: int = 0o644) -> int:
    return os.open(os.path.join(root, path), flags | os.O_CLOEXEC, mode)


def _write(root: str, path: str, content: bytes, flags: int = 0, at: int = 0) -> int:
    fd = _opened(root, path, os.O_WRONLY | flags)
    try:
        return os.pwrite(fd, content, at)
    finally:
        os.close(fd)


def _read(root: str, path: str) -> bytes:
    with open(os.path.join(root, path), "rb") as file:
        return file.read()


def _map_and_write(root: str) -> bytes:
    fd = _opened(root, "file", os.O_RDWR)
    with mmap.mmap(fd, 0) as window:
        window[5:8] = b"map"
        window.flush()
    os.close(fd)
    return _read(root, "file")[:12]


def _map_privately(root: str) -> bytes:
    fd = _opened(root, "file", os.O_RDONLY)
    with mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as window:
        window[:3] = b"own"
        os.close(fd)
        return window[:5] + _read(root, "file")[:5]


def _map_grown(root: str) -> bytes:
    fd = _opened(root, "new", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 10_000)
    with mmap.mmap(fd, 0) as window:
        window[9_000:9_004] = b"far!"
    os.close(fd)
    return _read(root, "new")[8_999:9_005]


def _allocate(root: str) -> int:
    fd = _opened(root, "file", os.O_RDWR)
    os.posix_fallocate(fd, 9_000, 5_000)
    size = os.fstat(fd).st_size
    os.close(fd)
    return size


def _two_writers(root: str) -> bytes:
    fds = [_opened(root, "file", os.O_RDWR) for _ in range(2)]
    for number, fd in enumerate(fds):
        os.pwrite(fd, str(number).encode() * 3, number * 3)
    seen = os.pread(fds[0], 8, 0)
    for fd in fds:
        os.close(fd)
    return seen + _read(root, "file")[:8]


def _two_appenders(root: str) -> bytes:
    fds = [_opened(root, "other", os.O_WRONLY | os.O_APPEND) for _ in range(2)]
    for turn in range(6):
        os.write(fds[turn % 2], str(turn).encode())
    for fd in fds:
        os.close(fd)
    return _read(root, "other")


def _truncate_while_open(root: str) -> tuple[int, bytes]:
    fd = _opened(root, "file", os.O_RDWR)
    os.truncate(os.path.join(root, "file"), 4)
    os.ftruncate(fd, 6)
    found = os.fstat(fd).st_size, os.pread(fd, 10, 0)
    os.close(fd)
    return found


def _synced(root: str) -> None:
    for path in ("file", "dir/deep/file"):
        fd = _opened(root, path, os.O_RDWR)
        os.write(fd, b"durable")
        os.fsync(fd)
        os.fdatasync(fd)
        os.close(fd)
    fd = _opened(root, "dir", os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)


_COPY_UPS: dict[str, Action] = {
    "write": lambda root: _write(root, "file", b"new", at=3),
    "append": lambda root: _write(root, "file", b"new", os.O_APPEND),
    "write far behind the end": lambda root: _write(root, "file", b"new", at=1 << 20),
    "write into a hole": lambda root: _write(root, "sparse", b"new", at=1 << 19),
    "write in a deep directory": lambda root: _write(root, "dir/deep/file", b"new"),
    "open for writing": lambda root: os.close(_opened(root, "file", os.O_RDWR)),
    "open with O_TRUNC": lambda root: os.close(_opened(root, "file", os.O_WRONLY | os.O_TRUNC)),
    "truncate": lambda root: os.truncate(os.path.join(root, "file"), 7),
    "truncate to a larger size": lambda root: os.truncate(os.path.join(root, "file"), 20_000),
    "truncate while it is open": _truncate_while_open,
    "chmod": lambda root: os.chmod(os.path.join(root, "file"), 0o4701),
    "chmod of a directory": lambda root: os.chmod(os.path.join(root, "dir"), 0o3700),
    "chmod of a fifo": lambda root: os.chmod(os.path.join(root, "fifo"), 0o600),
    "chmod of a socket": lambda root: os.chmod(os.path.join(root, "socket"), 0o600),
    "chmod through a link": lambda root: os.chmod(os.path.join(root, "link"), 0o600),
    "fallocate": _allocate,
    "shared map": _map_and_write,
    "private map": _map_privately,
    "shared map of a new file": _map_grown,
    "two writers": _two_writers,
    "two appenders": _two_appenders,
    "fsync": _synced,
    "rename": lambda root: os.rename(os.path.join(root, "file"), os.path.join(root, "dir/deep/moved")),
    "link": lambda root: os.link(os.path.join(root, "file"), os.path.join(root, "dir/linked")),
}


@pytest.mark.parametrize("way", _COPY_UPS)
def test_a_parents_file_is_changed(bench: Workbench, way: str) -> None:
    """Every way to change a parent's file gives what it gives elsewhere, and keeps all that was not changed."""
    check_action(bench, _BASE, _COPY_UPS[way])


def _owners(root: str) -> None:
    for number, path in enumerate(["file", "dir", "link", "fifo", "dir/deep/file"]):
        os.chown(os.path.join(root, path), 100 + number, 200 + number, follow_symlinks=False)


def test_owners_are_changed(bench: Workbench) -> None:
    """Owners of files, directories, links and fifos of a parent can be changed, and nothing else changes with them."""
    bench.needs("ownership")
    check_action(bench, _BASE, _owners)


def _times(root: str) -> list[int]:
    seen = []
    for number, path in enumerate(["file", "dir", "link", "fifo", "dir/deep"]):
        place = os.path.join(root, path)
        os.utime(place, ns=(number * 10**9, number * 10**9 + 10**8), follow_symlinks=False)
        facts = os.lstat(place)
        seen += [facts.st_atime_ns, facts.st_mtime_ns]
    return seen


def test_times_are_set(bench: Workbench) -> None:
    """Access and modification times of a parent's files, directories, links and fifos can be set."""
    check_action(bench, _BASE, _times)


def test_a_copy_up_keeps_times(bench: Workbench) -> None:
    """What changes a file's mode changes no modification time, of the file or of the directories above it."""
    bench.layer("base", None, _BASE)
    before = bench.tree("base")
    bench.driver.create("child", "base")
    with bench.writing("child") as root:
        os.chmod(os.path.join(root, "dir/deep/file"), 0o600)
        os.close(_opened(root, "file", os.O_RDWR))
    bench.driver.seal("child")
    after = bench.tree("child")

    assert {path: item.mtime for path, item in after.items()} == {path: item.mtime for path, item in before.items()}
    assert after["dir/deep/file"].mode == 0o600


def test_a_write_moves_times(bench: Workbench) -> None:
    """Writing makes a file new, and a new or removed name makes its directory new."""
    bench.layer("base", None, _BASE)
    old = bench.tree("base")
    bench.driver.create("child", "base")
    with bench.writing("child") as root:
        _write(root, "file", b"new")
        os.unlink(os.path.join(root, "dir/deep/file"))
        os.mkdir(os.path.join(root, "dir/more"))
        new = bench.flat_tree(root)
    bench.driver.seal("child")

    assert all(new[path].mtime > old[path].mtime for path in ("file", "dir", "dir/deep"))
    assert new["other"].mtime == old["other"].mtime
    assert bench.tree("child") == new


def _unlinked(root: str) -> tuple[bytes, int, bytes]:
    """Unlink a parent's file that is open, and write to what has no name."""
    fd = _opened(root, "file", os.O_RDWR)
    os.unlink(os.path.join(root, "file"))
    os.pwrite(fd, b"ghost", 0)
    found = os.pread(fd, 8, 0), os.fstat(fd).st_nlink, os.pread(fd, 5, 9_995)
    os.close(fd)
    return found


def _replaced(root: str) -> tuple[bytes, bytes]:
    """Rename another file over one that is open."""
    fd = _opened(root, "file", os.O_RDWR)
    os.rename(os.path.join(root, "other"), os.path.join(root, "file"))
    found = os.pread(fd, 5, 0), _read(root, "file")
    os.close(fd)
    return found


def _exclusive(root: str) -> None:
    os.unlink(os.path.join(root, "file"))
    os.close(_opened(root, "file", os.O_WRONLY | os.O_CREAT | os.O_EXCL))


def _holes(root: str) -> tuple[int, bytes]:
    fd = _opened(root, "sparse", os.O_RDWR)
    data = os.lseek(fd, 0, os.SEEK_DATA)
    found = data // 65536, os.pread(fd, 5, (1 << 20) - 5)
    os.close(fd)
    return found


_OPEN_FILES: dict[str, Action] = {
    "unlinked": _unlinked,
    "replaced": _replaced,
    "O_EXCL on a deleted name": _exclusive,
    "O_EXCL on a parent's name": fails(
        errno.EEXIST, lambda root: _opened(root, "file", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    ),
    "O_CREAT on a parent's name": lambda root: _write(root, "file", b"new", os.O_CREAT),
    "O_EXCL on a dangling link": fails(
        errno.EEXIST, lambda root: _opened(root, "dangling", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    ),
    "O_NOFOLLOW on a link": fails(errno.ELOOP, lambda root: _opened(root, "link", os.O_RDONLY | os.O_NOFOLLOW)),
    "O_DIRECTORY on a file": fails(errno.ENOTDIR, lambda root: _opened(root, "file", os.O_RDONLY | os.O_DIRECTORY)),
    "a directory for writing": fails(errno.EISDIR, lambda root: _opened(root, "dir", os.O_WRONLY)),
    "a loop": fails(errno.ELOOP, lambda root: _opened(root, "loop", os.O_RDONLY)),
    "a file as a directory": fails(errno.ENOTDIR, lambda root: _opened(root, "file/below", os.O_RDONLY)),
    "a name that is too long": fails(
        errno.ENAMETOOLONG, lambda root: _opened(root, "n" * (os.pathconf(root, "PC_NAME_MAX") + 1), os.O_RDONLY)
    ),
    "a link with a slash": lambda root: sorted(os.listdir(os.path.join(root, "way/"))),
    "a socket": fails(errno.ENXIO, lambda root: _opened(root, "socket", os.O_RDONLY)),
    "holes": _holes,
    "a long link": lambda root: os.readlink(os.path.join(root, "long")),
}


@pytest.mark.parametrize("how", _OPEN_FILES)
def test_files_are_opened(bench: Workbench, how: str) -> None:
    """Opening a parent's files with every flag gives the file or the error that it gives elsewhere."""
    check_action(bench, _BASE, _OPEN_FILES[how])


def test_a_reader_meets_a_copy_up(bench: Workbench) -> None:
    """A file opened before somebody writes to it stays readable: the old content or the new, whole (moby#12327)."""
    bench.layer("base", None, _BASE)
    old = b"0123456789" * 1000
    bench.driver.create("child", "base")
    with bench.writing("child") as root:
        fd = _opened(root, "file", os.O_RDONLY)
        assert os.pread(fd, len(old), 0) == old
        _write(root, "file", b"N" * len(old))
        assert os.pread(fd, len(old), 0) in {old, b"N" * len(old)}
        os.unlink(os.path.join(root, "file"))
        assert os.pread(fd, len(old), 0) in {old, b"N" * len(old)}
        os.close(fd)
    bench.driver.seal("child")

    assert "file" not in bench.contents("child")
    assert bench.contents("base")["file"].encode() == old


def test_a_file_without_a_name(bench: Workbench) -> None:
    """A file made with ``O_TMPFILE`` leaves nothing, or becomes the name that it is given by linkat(2)."""

    def act(root: str) -> bytes:
        descriptors = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for name in ("", "dir/given"):
            fd = os.open(os.path.join(root, "dir"), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o640)
            os.write(fd, b"temporary")
            if name:
                # With a directory os.link calls linkat(2), which can follow the link in /proc; link(2) cannot.
                os.link(str(fd), os.path.join(root, name), src_dir_fd=descriptors, follow_symlinks=True)
            os.close(fd)
        os.close(descriptors)
        return _read(root, "dir/given")

    bench.layer("below the trial")
    bench.driver.create("trial", "below the trial")
    with bench.writing("trial") as root:
        try:
            os.close(os.open(root, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR}:
                raise
            pytest.skip("gated: this kernel has no O_TMPFILE on this file system")
    check_action(bench, _BASE, act)


def test_locks_exclude(bench: Workbench) -> None:
    """Whoever opens a file for writing meets the lock of another who did, on a parent's file too."""
    bench.layer("base", None, _BASE)
    bench.driver.create("child", "base")
    with bench.writing("child") as root:
        one, two = (_opened(root, "file", os.O_RDWR) for _ in range(2))
        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError):
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(one)
        fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(two)


def test_inodes_are_stable(bench: Workbench) -> None:
    """Within one mount nothing that happens to a file or directory changes its device and inode (moby#19647)."""
    bench.needs("stable_inodes")
    bench.layer("base", None, _BASE)
    bench.driver.create("child", "base")
    with bench.writing("child") as root:
        before = {path: _inode(root, path) for path in ("file", "dir", "dir/deep", "dir/deep/file", "fifo", "link")}
        _write(root, "file", b"new")
        os.chmod(os.path.join(root, "dir/deep/file"), 0o600)
        os.chmod(os.path.join(root, "fifo"), 0o600)
        os.mkdir(os.path.join(root, "dir/deep/new"))
        os.utime(os.path.join(root, "link"), ns=(1, 1), follow_symlinks=False)
        os.rename(os.path.join(root, "other"), os.path.join(root, "dir/other"))
        after = {path: _inode(root, path) for path in before}
        with os.scandir(os.path.join(root, "dir")) as entries:
            listed = {entry.name: entry.inode() for entry in entries}

        assert after == before
        assert len({device for device, _ in after.values()}) == 1
        assert listed == {name: _inode(root, f"dir/{name}")[1] for name in ("deep", "other")}


def _inode(root: str, path: str) -> tuple[int, int]:
    status = os.lstat(os.path.join(root, path))
    return status.st_dev, status.st_ino


def test_fifos_carry_data(bench: Workbench) -> None:
    """A parent's fifo and a new one pass bytes from a writer to a reader."""
    bench.layer("base", None, _BASE)
    bench.driver.create("child", "base")
    with bench.writing("child") as root:
        os.mkfifo(os.path.join(root, "new"))
        for name in ("fifo", "new"):
            reader = _opened(root, name, os.O_RDONLY | os.O_NONBLOCK)
            writer = _opened(root, name, os.O_WRONLY)
            os.write(writer, b"through the pipe")
            assert os.read(reader, 100) == b"through the pipe"
            os.close(writer)
            os.close(reader)


def test_sockets_accept(bench: Workbench) -> None:
    """A socket made in a layer accepts connections; a parent's is dead, and its name can be bound anew (moby#12080)."""
    bench.layer("base", None, _BASE)
    bench.driver.create("child", "base")
    with bench.writing("child") as root:
        place = os.path.join(root, "socket")
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            client.connect(place)
        os.unlink(place)
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind(place)
            server.listen()
            client.connect(place)
            accepted, _ = server.accept()
            with accepted:
                client.sendall(b"over the socket")
                assert accepted.recv(100) == b"over the socket"
    bench.driver.seal("child")

    assert bench.tree("child")["socket"].kind == stat.S_IFSOCK


def test_setuid_falls_with_the_owner(bench: Workbench) -> None:
    """Giving a program away takes its set-user-ID and set-group-ID bits, as everywhere."""
    base: list[Edit] = [Create("program", b"#!", 0o6755), Create("data", b"", 0o2644)]

    def act(root: str) -> list[int]:
        for name in ("program", "data"):
            os.chown(os.path.join(root, name), os.geteuid(), os.getegid())
        return [stat.S_IMODE(os.stat(os.path.join(root, name)).st_mode) for name in ("program", "data")]

    check_action(bench, base, act)


def test_setuid_falls_with_a_strangers_write(bench: Workbench) -> None:
    """A write by somebody who is not root takes the set-user-ID bit from the file."""
    bench.needs("ownership")

    def act(root: str) -> int:
        return _write_as_nobody(root, "program")

    check_action(bench, [Create("program", b"content", 0o6777)], act)


def _write_as_nobody(root: str, name: str) -> int:
    """Write in a child process that has given up its privileges; give the mode afterwards."""
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            os.write(os.open(name, os.O_WRONLY, dir_fd=directory), b"written")
        except BaseException:  # noqa: BLE001 - a forked test must not go on
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0
    mode = os.stat(name, dir_fd=directory).st_mode
    os.close(directory)
    return stat.S_IMODE(mode)


def test_capabilities_fall_with_a_write(bench: Workbench) -> None:
    """Writing to a program takes its file capabilities; looking at it does not."""
    bench.needs("security_xattrs")
    mark = bytes.fromhex("0100000201000000000000000000000000000000")
    base: list[Edit] = [Create("a", b"1"), Create("b", b"2")]
    base += [SetXattr(name, "security.capability", mark) for name in ("a", "b")]

    check_action(bench, base, lambda root: (_read(root, "b"), _write(root, "a", b"new")))
