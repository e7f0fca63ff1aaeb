"""The init layer has what the image lacks, and leaves alone what it has."""

import io
import os
import pathlib
import stat
import tarfile
from collections.abc import Callable, Iterator

import pytest

from graphdrivers import errors
from graphdrivers.driver import Driver
from graphdrivers.images.initlayer import init_tar
from graphdrivers.linux import mounts
from graphdrivers.loading import load_driver

ALL = [
    *("dev", "dev/console", "dev/pts", "dev/shm", "etc", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"),
    *("proc", "sys"),
]
DIRECTORIES = {"dev", "dev/pts", "dev/shm", "etc", "proc", "sys"}


def made(root: pathlib.Path, *directories: str) -> dict[str, tarfile.TarInfo]:
    """Give the members of the layer for a tree."""
    opened = os.open(root, os.O_RDONLY)
    try:
        tar = init_tar(opened, directories)
    finally:
        os.close(opened)
    with tarfile.open(fileobj=io.BytesIO(tar)) as members:
        return {member.name: member for member in members}


def test_nothing_there(tmp_path: pathlib.Path) -> None:
    """For an image without anything it has everything, each directory before what is in it."""
    members = made(tmp_path)

    assert list(members) == ALL
    assert {name for name, member in members.items() if member.isdir()} == DIRECTORIES
    assert members["etc/mtab"].linkname == "/proc/mounts"
    for member in members.values():
        assert (member.uid, member.gid, member.mtime, member.size) == (0, 0, 0, 0)
    assert (members["etc"].mode, members["etc/hosts"].mode) == (0o755, 0o644)


def test_everything_there(tmp_path: pathlib.Path) -> None:
    """For an image with everything it is empty."""
    for name in ALL:
        (tmp_path / name).mkdir() if name in DIRECTORIES else (tmp_path / name).touch()

    assert made(tmp_path) == {}


@pytest.mark.parametrize("name", [name for name in ALL if name not in {"dev", "etc"}])
@pytest.mark.parametrize("kind", ["file", "directory", "fifo", "dangling", "loop"])
def test_existing_is_left_alone(tmp_path: pathlib.Path, name: str, kind: str) -> None:
    """Whatever has one of the names keeps it, and the others are made."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    {
        "file": path.touch,
        "directory": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "dangling": lambda: path.symlink_to("/nowhere/at/all"),
        "loop": lambda: path.symlink_to(path.name),
    }[kind]()

    assert set(made(tmp_path)) == set(ALL) - {name, name.partition("/")[0] if "/" in name else name}


@pytest.mark.parametrize("kind", ["file", "fifo", "dangling", "loop", "climbing", "through-a-file", "too-long"])
def test_no_directory_in_the_way_is_replaced(tmp_path: pathlib.Path, kind: str) -> None:
    """Where ``etc`` is no directory, nothing is put into it: that would take it away."""
    path = tmp_path / "etc"
    (tmp_path / "file").touch()
    {
        "file": path.touch,
        "fifo": lambda: os.mkfifo(path),
        "dangling": lambda: path.symlink_to("missing/../usr/etc"),
        "loop": lambda: path.symlink_to("etc/etc"),
        "climbing": lambda: path.symlink_to("../../../../missing"),
        "through-a-file": lambda: path.symlink_to("file/etc"),
        "too-long": lambda: path.symlink_to("x" * 300),
    }[kind]()

    assert set(made(tmp_path)) == {name for name in ALL if not name.startswith("etc")}


@pytest.mark.parametrize("target", ["usr/etc", "/usr/etc", "../../../usr/etc", "/usr/lib/../etc"])
def test_linked_parent(tmp_path: pathlib.Path, target: str) -> None:
    """A link to a directory leads there, inside the image, whatever the host has at the same path."""
    (tmp_path / "usr/etc").mkdir(parents=True)
    (tmp_path / "usr/lib").mkdir()
    (tmp_path / "usr/etc/hosts").touch()
    (tmp_path / "etc").symlink_to(target)

    assert {name for name in made(tmp_path) if name.startswith("etc")} == {
        *("etc/hostname", "etc/mtab", "etc/resolv.conf"),
    }


def test_more_directories(tmp_path: pathlib.Path) -> None:
    """Directories asked for are made with the parents that are lacking."""
    (tmp_path / "srv").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("srv")

    members = made(tmp_path, "/srv/a/b", "//srv/./c/", "/", "/file/x", "/link/y", "/etc/hosts/x", "/dev/pts")

    assert set(members) == {*ALL, "srv/a", "srv/a/b", "srv/c", "link/y"}
    assert all(members[name].isdir() for name in ("srv/a", "srv/a/b", "srv/c", "link/y"))


@pytest.mark.parametrize(
    "path", ["", "x", "../x", "/x/../../y", "/x\0", "/x/.wh.y", "/.wh..wh..opq", "/.wh.x/y", "/\ud800"]
)
def test_directories_that_are_refused(tmp_path: pathlib.Path, path: str) -> None:
    """A directory is an absolute path, and none of its names is a whiteout: the image's settings delete nothing."""
    with pytest.raises(errors.InvalidRunOption):
        made(tmp_path, path)


def test_reproducible(tmp_path: pathlib.Path) -> None:
    """The same image gives the same bytes, whatever the order and the time."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    os.utime(tmp_path / "b", (1, 1))
    opened = [os.open(tmp_path / name, os.O_RDONLY) for name in ("a", "b")]
    try:
        first, second = init_tar(opened[0], ["/x", "/y/z"]), init_tar(opened[1], ["/y/z", "/x", "/y/z"])
    finally:
        for fd in opened:
            os.close(fd)

    assert first == second
    assert len(first) % 512 == 0


@pytest.fixture(params=["vfs", "overlay", "aufs engine=overlay-shadow", "aufs engine=copy"])
def driver(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Driver]:
    """Each driver."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    name, *options = request.param.split()
    driver = load_driver(name, tmp_path / "home", dict(option.split("=") for option in options))
    yield driver
    for record in list(driver.layers()):
        driver.remove(record.name)
    driver.close()


def image_tar() -> bytes:
    """Pack an image whose ``etc`` is a link, with directories of uncommon attributes and one file of the list."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, mode, link in (
            ("usr", tarfile.DIRTYPE, 0o711, ""),
            ("usr/etc", tarfile.DIRTYPE, 0o2750, ""),
            ("usr/etc/hosts", tarfile.REGTYPE, 0o600, ""),
            ("etc", tarfile.SYMTYPE, 0o777, "usr/etc"),
            ("dev", tarfile.DIRTYPE, 0o1777, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.linkname, member.mtime = kind, mode, link, 1234567890
            member.uid, member.gid = 7, 8
            tar.addfile(member)
    return packed.getvalue()


def look(driver: Driver, layer: str, see: Callable[[int], object]) -> object:
    """Look at the merged tree of a layer."""
    with mounts.opened(driver.mounts(layer, view=True)) as root:
        return see(root)


def attributes(root: int) -> dict[str, tuple[object, ...]]:
    """Give kind, mode, owner and time of what the image has."""
    seen = {}
    for name in ("usr", "usr/etc", "usr/etc/hosts", "etc", "dev"):
        facts = os.stat(name, dir_fd=root, follow_symlinks=False)
        size = 0 if stat.S_ISDIR(facts.st_mode) else facts.st_size  # that of a directory is its file system's affair
        seen[name] = (facts.st_mode, facts.st_uid, facts.st_gid, facts.st_mtime_ns, size)
    return seen


def test_applied(driver: Driver) -> None:
    """On every driver the layer adds its names and changes nothing else; a second one would be empty."""
    driver.create("image")
    driver.apply("image", io.BytesIO(image_tar()))
    driver.seal("image")
    before = look(driver, "image", attributes)
    tar = look(driver, "image", init_tar)
    assert isinstance(tar, bytes)
    driver.create("init", parent="image")
    driver.apply("init", io.BytesIO(tar))
    driver.seal("init")

    def present(root: int) -> dict[str, int]:
        return {name: stat.S_IFMT(os.stat(name, dir_fd=root, follow_symlinks=False).st_mode) for name in ALL}

    assert look(driver, "init", attributes) == before
    kinds = look(driver, "init", present)
    assert kinds == dict.fromkeys(ALL, stat.S_IFREG) | dict.fromkeys(DIRECTORIES, stat.S_IFDIR) | {
        "etc": stat.S_IFLNK,
        "etc/mtab": stat.S_IFLNK,
    }
    assert look(driver, "init", init_tar) == bytes(1024)
