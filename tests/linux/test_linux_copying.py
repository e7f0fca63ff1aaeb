"""Files and trees copied whole."""

import errno
import fcntl
import os
import pathlib
import stat
import subprocess
from collections.abc import Callable, Iterator

import pytest
from linuxtools import chain

from graphdrivers.errors import SyscallError
from graphdrivers.linux import copying, mounts, trees, xattrs
from graphdrivers.model import Mount

MIB = 1 << 20
CAPABILITY = bytes.fromhex("0100000202000000000000000000000000000000")


def snapshot(top: pathlib.Path) -> dict[str, object]:
    """Describe everything about a tree that a copy must keep; inode numbers only as groups of names."""
    found: dict[str, object] = {}
    names: dict[int, list[str]] = {}
    for path in (top, *sorted(top.rglob("*"))):
        status, name = path.lstat(), str(path.relative_to(top))
        names.setdefault(status.st_ino, []).append(name)
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        size = status.st_size if not stat.S_ISDIR(status.st_mode) else 0
        owner = (status.st_uid, status.st_gid, status.st_mode, status.st_rdev, size, status.st_mtime_ns)
        found[name] = (owner, xattrs.read_all(os.fsencode(path)), content)
    return found | {"links": sorted(group for group in names.values() if len(group) > 1)}


def copy(source: pathlib.Path, target: pathlib.Path, record: Callable[[int, int], object] | None = None) -> None:
    """Copy a tree into a directory, which is made if need be."""
    target.mkdir(exist_ok=True)
    opened = [os.open(path, os.O_RDONLY) for path in (source, target)]
    try:
        copying.copy_tree(*opened, record=record)
    finally:
        for descriptor in opened:
            os.close(descriptor)


@pytest.fixture
def rich(tmp_path: pathlib.Path) -> pathlib.Path:
    """A tree with one of everything."""
    top = tmp_path / "rich"
    (top / "dir" / "sub").mkdir(parents=True)
    (top / "empty").touch()
    (top / "dir" / "od\n,:\\ \udcff").write_text("odd")
    (top / "big").write_bytes(os.urandom(3 * MIB + 17))
    (top / "dir" / "sub" / "suid").write_text("program")
    os.link(top / "big", top / "dir" / "sub" / "big again")
    for name, target in (("link", "dir"), ("dangling", "no\udcffwhere")):
        (top / name).symlink_to(target)
    os.link(top / "dangling", top / "dir" / "dangling again", follow_symlinks=False)
    os.mkfifo(top / "pipe")
    os.mknod(top / "socket", 0o140711)
    with open(top / "sparse", "wb") as sparse:
        sparse.truncate(50 * MIB)
        os.pwrite(sparse.fileno(), b"middle", 20 * MIB)
    with open(top / "small sparse", "wb") as sparse:
        sparse.truncate(MIB - 1)
    xattrs.write_all(os.fsencode(top / "empty"), {"user.mark": b"\0\xff", "user.empty": b""})
    xattrs.write_all(os.fsencode(top / "dir"), {"user.mark": b"dir"})
    if os.geteuid() == 0:
        os.mknod(top / "device", 0o020640, os.makedev(4, 300))
        os.mknod(top / "whiteout", 0o020000, 0)
        for name in ("empty", "link", "pipe", "dir/sub/suid", "dir", "dangling"):
            os.chown(top / name, 1234, 5678, follow_symlinks=False)
        xattrs.write_all(os.fsencode(top / "dir" / "sub" / "suid"), {"security.capability": CAPABILITY})
        for name in ("dangling", "device", "dir/sub"):
            xattrs.write_all(os.fsencode(top / name), {"trusted.overlay.opaque": b"y"})
        subprocess.run(["setfacl", "-m", "u:77:rw,d:u:77:rwx", top / "dir"], check=True)
        subprocess.run(["setfacl", "-m", "u:77:rw", top / "empty"], check=True)
    (top / "dir" / "sub" / "suid").chmod(0o6755)
    (top / "empty").chmod(0)
    for number, path in enumerate(sorted(top.rglob("*"), reverse=True)):
        os.utime(path, ns=(10**9 * number + 1, 10**18 * (number % 3) + number * 7 - 10**9), follow_symlinks=False)
    (top / "dir" / "sub").chmod(0o2555)
    top.chmod(0o1711)
    os.utime(top, ns=(5, 123_456_789))
    return top


@pytest.fixture
def needs_root(root: None) -> None:
    """Trees with owners and devices need root."""
    del root


@pytest.mark.usefixtures("needs_root")
class TestTree:
    """Trees."""

    def test_everything_is_kept(self, rich: pathlib.Path, tmp_path: pathlib.Path) -> None:
        """The copy is the same tree, and the same that cp makes, holes included."""
        copy(rich, tmp_path / "copy")
        subprocess.run(["cp", "-a", "--sparse=always", rich, tmp_path / "cp"], check=True)

        assert snapshot(tmp_path / "copy") == snapshot(rich)
        assert snapshot(tmp_path / "copy") == snapshot(tmp_path / "cp")
        assert (tmp_path / "copy" / "sparse").stat().st_blocks * 512 < MIB
        assert (tmp_path / "copy" / "small sparse").stat().st_blocks == 0

    @pytest.mark.parametrize("umask", [0, 0o777])
    def test_surroundings_do_not_matter(self, rich: pathlib.Path, tmp_path: pathlib.Path, umask: int) -> None:
        """A umask, a set-group-ID target and a default ACL on it leave no trace in the copy."""
        (tmp_path / "copy").mkdir()
        os.chown(tmp_path / "copy", 99, 99)
        subprocess.run(["setfacl", "-m", "u:1:rwx,d:u:55:rwx,d:g:66:r", tmp_path / "copy"], check=True)
        (tmp_path / "copy").chmod(0o2770)
        old = os.umask(umask)
        try:
            copy(rich, tmp_path / "copy")
        finally:
            os.umask(old)

        assert snapshot(tmp_path / "copy") == snapshot(rich)

    @pytest.mark.parametrize("how", ["exdev", "zero", "short"])
    def test_without_copy_file_range(
        self, rich: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        """A kernel that refuses to copy, copies nothing, or copies little at a time, makes no difference."""
        real = os.copy_file_range

        def weak(src: int, dst: int, count: int, offset_src: int, offset_dst: int) -> int:
            if how == "exdev":
                raise OSError(errno.EXDEV, "no")
            return 0 if how == "zero" else real(src, dst, min(count, 4099), offset_src, offset_dst)

        monkeypatch.setattr(os, "copy_file_range", weak)
        copy(rich, tmp_path / "copy")

        assert snapshot(tmp_path / "copy") == snapshot(rich)

    def test_short_writes(self, rich: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A write that takes only a part is carried on."""
        real = os.write
        monkeypatch.setattr(os, "write", lambda fd, content: real(fd, memoryview(content)[:5]))
        copy(rich, tmp_path / "copy")

        assert snapshot(tmp_path / "copy") == snapshot(rich)

    def test_source_that_changes(
        self, rich: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file whose copy has another length than was seen is an error."""
        monkeypatch.setattr(copying, "clone", lambda *_arguments: True)
        with pytest.raises(OSError, match="changed"):
            copy(rich, tmp_path / "copy")

    def test_record(self, rich: pathlib.Path, tmp_path: pathlib.Path) -> None:
        """Each inode of the copy is recorded once, with the ctime that it then has."""
        recorded: list[tuple[int, int]] = []
        copy(rich, tmp_path / "copy", lambda inode, ctime: recorded.append((inode, ctime)))
        paths = [tmp_path / "copy", *(tmp_path / "copy").rglob("*")]

        assert sorted(recorded) == sorted({(path.lstat().st_ino, path.lstat().st_ctime_ns) for path in paths})

    def test_source_is_untouched(self, rich: pathlib.Path, tmp_path: pathlib.Path) -> None:
        """Copying changes no ctime in the source."""
        before = [path.lstat().st_ctime_ns for path in sorted(rich.rglob("*"))]
        copy(rich, tmp_path / "copy")

        assert [path.lstat().st_ctime_ns for path in sorted(rich.rglob("*"))] == before

    def test_mount_in_the_source(self, tmp_path: pathlib.Path, target: str) -> None:
        """Another file system inside the source is an error, not a silent hole in the copy."""
        place = pathlib.Path(target, "a", "mnt")
        place.mkdir(parents=True)
        mounts.attach((Mount("tmpfs", "x"),), str(place))
        with pytest.raises(SyscallError) as caught:
            copy(pathlib.Path(target), tmp_path / "copy")
        mounts.detach(str(place))

        assert caught.value.errno == errno.EXDEV

    def test_deep_links(self, tmp_path: pathlib.Path) -> None:
        """Hard links between places deeper than any path that a system call takes are kept."""
        (tmp_path / "top").mkdir()
        opened = os.open(tmp_path / "top", os.O_RDONLY)
        chain(opened, b"deep", 3000)
        with trees.DirStack(opened) as stack:
            stack.enter(b"deep")
            for _ in range(3000):
                stack.enter(b"d")
            os.link("file", "again", src_dir_fd=stack.fd, dst_dir_fd=stack.fd)
            os.link("file", tmp_path / "top" / "high", src_dir_fd=stack.fd)
        records: list[int] = []
        copy(tmp_path / "top", tmp_path / "copy", lambda inode, _ctime: records.append(inode))

        assert (tmp_path / "copy" / "high").stat().st_nlink == 3
        assert len(records) == len(set(records)) == 3003
        for name in (b"top", b"copy"):  # pytest itself cannot
            parent = os.open(tmp_path, os.O_RDONLY)
            trees.remove_tree(parent, name)
            os.close(parent)
        os.close(opened)

    def test_no_descriptor_is_left(self, rich: pathlib.Path, tmp_path: pathlib.Path) -> None:
        """Neither success nor failure leaks a descriptor."""
        before = os.listdir("/proc/self/fd")
        copy(rich, tmp_path / "copy")
        with pytest.raises(FileExistsError):
            copy(rich, tmp_path / "copy")

        assert os.listdir("/proc/self/fd") == before


@pytest.fixture
def files(tmp_path: pathlib.Path) -> Iterator[tuple[int, int]]:
    """A file to copy from and one to copy to."""
    opened = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("from", "to")]
    yield opened[0], opened[1]
    for descriptor in opened:
        os.close(descriptor)


def test_unprivileged_copy(tmp_path: pathlib.Path, run_as: Callable[[int, Callable[[], object]], None]) -> None:
    """Without any privilege a tree of one's own is copied whole."""
    top = tmp_path / "own"
    (top / "dir").mkdir(parents=True)
    (top / "dir" / "file").write_text("content")
    (top / "link").symlink_to("dir")
    (top / "dir").chmod(0o500)
    (tmp_path / "copy").mkdir()
    subprocess.run(["chown", "-hR", "65534:65534", top, tmp_path / "copy"], check=False)
    opened = [os.open(path, os.O_RDONLY) for path in (top, tmp_path / "copy")]
    run_as(65534, lambda: copying.copy_tree(opened[0], opened[1]))

    assert snapshot(top) == snapshot(tmp_path / "copy")
    for descriptor in opened:
        os.close(descriptor)


@pytest.mark.parametrize("size", [0, 1, 4096, 3 * MIB + 1])
def test_copy_file(files: tuple[int, int], tmp_path: pathlib.Path, size: int) -> None:
    """Content and length are copied."""
    os.write(files[0], os.urandom(size))
    copying.copy_file(*files, size)

    assert (tmp_path / "from").read_bytes() == (tmp_path / "to").read_bytes()


@pytest.mark.parametrize(
    "layout", [[], [(0, 5)], [(8 * MIB, 5)], [(MIB, MIB), (5 * MIB, 1)], [(16 * MIB - 3, 3)], [(0, 16 * MIB)]]
)
def test_holes_stay_holes(files: tuple[int, int], tmp_path: pathlib.Path, layout: list[tuple[int, int]]) -> None:
    """Holes at the start, between data and at the end are copied as holes, and the length is kept."""
    os.ftruncate(files[0], 16 * MIB)
    for offset, length in layout:
        os.pwrite(files[0], b"x" * length, offset)
    regions = list(copying.data_regions(files[0], 16 * MIB))
    copying.copy_file(*files, 16 * MIB)

    assert (tmp_path / "from").read_bytes() == (tmp_path / "to").read_bytes()
    assert list(copying.data_regions(files[1], 16 * MIB)) == regions
    assert len(regions) == len(layout)


def test_regions_where_holes_are_unknown(files: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that knows no holes gives one region, and a size below the file's cuts the last one."""
    os.write(files[0], b"x" * 100)

    assert list(copying.data_regions(files[0], 60)) == [(0, 60)]

    def unknown(*_arguments: object) -> int:
        raise OSError(errno.EINVAL, "unknown")

    monkeypatch.setattr(os, "lseek", unknown)

    assert list(copying.data_regions(files[0], 100)) == [(0, 100)]


def test_source_that_shrank(files: tuple[int, int]) -> None:
    """A file shorter than promised is an error, never a file of zeros."""
    os.write(files[0], b"x" * 100)
    with pytest.raises(OSError, match="changed"):
        copying.copy_file(*files, 200)
    with pytest.raises(OSError, match="changed"):
        copying.copy_file(files[1], files[0], MIB)


def test_source_without_the_content_it_promises(files: tuple[int, int]) -> None:
    """A file that says it has bytes and gives none is an error, not an endless loop."""
    liar = os.open("/sys/kernel/uevent_seqnum", os.O_RDONLY)
    with pytest.raises(OSError, match="changed"):
        copying.copy_file(liar, files[1], os.fstat(liar).st_size)
    os.close(liar)


def test_clone_says_no(files: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that cannot share blocks is a no; a broken one is an error."""

    def fail(code: int) -> Callable[..., int]:
        def call(*_arguments: object) -> int:
            raise OSError(code, "failed")

        return call

    for code in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY):
        monkeypatch.setattr(fcntl, "ioctl", fail(code))

        assert copying.clone(*files) is False

    monkeypatch.setattr(fcntl, "ioctl", fail(errno.EIO))
    with pytest.raises(OSError, match="failed"):
        copying.clone(*files)


def test_reflinks(tmp_path: pathlib.Path, root: None) -> None:
    """Where blocks can be shared (XFS on a loop device), a copied tree takes no room for its contents."""
    del root
    image, place = tmp_path / "image", tmp_path / "xfs"
    place.mkdir()
    with open(image, "wb") as file:
        file.truncate(320 * MIB)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, place], check=False, capture_output=True).returncode:
        pytest.skip("needs loop devices")
    try:
        (place / "from").mkdir()
        for number in range(40):
            (place / "from" / str(number)).write_bytes(os.urandom(MIB))
        os.sync()
        before = os.statvfs(place).f_bfree
        copy(place / "from", place / "to")
        os.sync()

        assert snapshot(place / "from") == snapshot(place / "to")
        assert (before - os.statvfs(place).f_bfree) * os.statvfs(place).f_frsize < 2 * MIB
    finally:
        mounts.detach(str(place), lazy=True)
