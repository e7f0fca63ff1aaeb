"""Inside a mount: names come, move and go as on any file system, whichever layer they are from."""

import ctypes
import errno
import os
import pathlib
import stat
import subprocess
import sys

import pytest

from graphdrivers.conformance.beside import Action, attached, check_action, fails
from graphdrivers.conformance.workbench import Workbench
from graphdrivers.edits import Chmod, Chown, Create, Edit, Link, Mkdir, Mknod, SetXattr, Symlink
from graphdrivers.linux import durable, libc

_BASE: list[Edit] = [
    Create("file", b"of the parent", 0o640),
    Create("other", b"other"),
    Mkdir("dir", 0o711),
    Create("dir/a", b"a"),
    Create("dir/b", b"b"),
    Mkdir("dir/sub"),
    Create("dir/sub/x", b"x"),
    Mkdir("bare", 0o700),
    Mkdir("target"),
    Create("target/old", b"old"),
    Symlink("link", "file"),
    Symlink("way", "dir/sub"),
    Mknod("fifo"),
]

_ACL = bytes.fromhex("0200000001000700ffffffff020005000000000004000500ffffffff10000700ffffffff20000000ffffffff")
"""A default ACL: one named user besides the owner, nothing for others (kernel, posix_acl_xattr.h)."""

_EXCHANGE = 2
"""``RENAME_EXCHANGE`` (kernel, include/uapi/linux/fs.h)."""


def _create(root: str, path: str, content: str = "new") -> None:
    with open(os.path.join(root, path), "x", encoding="ascii") as file:
        file.write(content)


def _mkdir(root: str, path: str) -> None:
    os.mkdir(os.path.join(root, path))


def _unlink(root: str, *paths: str) -> None:
    for path in paths:
        os.unlink(os.path.join(root, path))


def _rmdir(root: str, *paths: str) -> None:
    for path in paths:
        os.rmdir(os.path.join(root, path))


def _rename(root: str, old: str, new: str) -> None:
    os.rename(os.path.join(root, old), os.path.join(root, new))


def _link(root: str, old: str, new: str) -> int:
    os.link(os.path.join(root, old), os.path.join(root, new), follow_symlinks=False)
    return os.lstat(os.path.join(root, new)).st_nlink


def _append(root: str, path: str) -> None:
    with open(os.path.join(root, path), "ab") as file:
        file.write(b" and more")


def _rename_noreplace(root: str, old: str, new: str) -> None:
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        durable.rename_noreplace(directory, old, directory, new)
    finally:
        os.close(directory)


def _exchange(root: str, one: str, two: str) -> None:
    call = libc.function("renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    paths = [os.fsencode(os.path.join(root, path)) for path in (one, two)]
    libc.check(call(libc.AT_FDCWD, paths[0], libc.AT_FDCWD, paths[1], _EXCHANGE), "renameat2", *paths)


def _several(*actions: Action) -> Action:
    return lambda root: [action(root) for action in actions]


def _emptied(root: str) -> None:
    """Empty a directory of the parent from inside."""
    _unlink(root, "dir/a", "dir/b", "dir/sub/x")
    _rmdir(root, "dir/sub")


_RENAMES: dict[str, Action] = {
    "over a new file": _several(lambda r: _create(r, "new"), lambda r: _rename(r, "file", "new")),
    "over a parent's file": lambda r: _rename(r, "file", "dir/a"),
    "a new file over a parent's": _several(lambda r: _create(r, "new"), lambda r: _rename(r, "new", "dir/a")),
    "and make it again": _several(lambda r: _rename(r, "file", "moved"), lambda r: _create(r, "file")),
    "there and back": _several(lambda r: _rename(r, "file", "dir/f"), lambda r: _rename(r, "dir/f", "file")),
    "over what was deleted": _several(lambda r: _unlink(r, "dir/a"), lambda r: _rename(r, "file", "dir/a")),
    "a link": lambda r: _rename(r, "link", "dir/link"),
    "a fifo": lambda r: _rename(r, "fifo", "dir/b"),
    "onto itself": lambda r: _rename(r, "file", "file"),
    "onto its other name": _several(lambda r: _link(r, "file", "twin"), lambda r: _rename(r, "file", "twin")),
    "a file onto a directory": fails(errno.EISDIR, lambda r: _rename(r, "file", "dir")),
    "a directory onto a file": _several(
        lambda r: _mkdir(r, "new"), fails(errno.ENOTDIR, lambda r: _rename(r, "new", "file"))
    ),
    "onto a directory with content": _several(
        # rename(2) allows both; xfs says EEXIST.
        lambda r: _mkdir(r, "new"),
        fails(errno.ENOTEMPTY, lambda r: _rename(r, "new", "dir"), errno.EEXIST),
    ),
    "onto a directory that was emptied": _several(
        _emptied, lambda r: _mkdir(r, "new"), lambda r: _create(r, "new/in"), lambda r: _rename(r, "new", "dir")
    ),
    "a directory into itself": _several(
        lambda r: _mkdir(r, "new"), fails(errno.EINVAL, lambda r: _rename(r, "new", "new/below"))
    ),
    "a new directory under a deleted name": _several(
        _emptied,
        lambda r: _rmdir(r, "dir"),
        lambda r: _mkdir(r, "new"),
        lambda r: _rename(r, "new", "dir"),
        lambda r: _create(r, "dir/a"),
    ),
    "unlink, mkdir, rename": _several(
        lambda r: _unlink(r, "file"), lambda r: _mkdir(r, "file"), lambda r: _rename(r, "file", "n")
    ),
    "NOREPLACE": lambda r: _rename_noreplace(r, "file", "dir/free"),
    "NOREPLACE onto a deleted name": _several(
        lambda r: _unlink(r, "dir/a"), lambda r: _rename_noreplace(r, "file", "dir/a")
    ),
    "NOREPLACE onto a file": fails(errno.EEXIST, lambda r: _rename_noreplace(r, "file", "dir/a")),
    "EXCHANGE of files": lambda r: _exchange(r, "file", "dir/a"),
    "EXCHANGE of kinds": lambda r: _exchange(r, "file", "link"),
    "EXCHANGE of new directories": _several(
        lambda r: _mkdir(r, "n1"),
        lambda r: _mkdir(r, "n2"),
        lambda r: _create(r, "n1/in"),
        lambda r: _exchange(r, "n1", "n2"),
    ),
    "EXCHANGE with nothing": fails(errno.ENOENT, lambda r: _exchange(r, "file", "nothing")),
}


@pytest.mark.parametrize("what", _RENAMES)
def test_names_move(bench: Workbench, what: str) -> None:
    """Every kind of rename gives what it gives elsewhere, the error too."""
    if what == "onto its other name":
        bench.needs("stable_inodes")  # without, the kernel takes the two for different files, and says ESTALE
    check_action(bench, _BASE, _RENAMES[what])


_REMOVALS: dict[str, Action] = {
    "a directory with content": fails(errno.ENOTEMPTY, lambda r: _rmdir(r, "dir")),
    "a directory emptied from inside": _several(_emptied, lambda r: _rmdir(r, "dir")),
    "a directory with new content": _several(
        lambda r: _create(r, "bare/new"), fails(errno.ENOTEMPTY, lambda r: _rmdir(r, "bare"))
    ),
    "an empty directory": lambda r: _rmdir(r, "bare"),
    "and make it again": _several(_emptied, lambda r: _rmdir(r, "dir"), lambda r: _mkdir(r, "dir")),
    "a new directory under a deleted name": _several(
        lambda r: _rmdir(r, "bare"), lambda r: _mkdir(r, "bare"), lambda r: _rmdir(r, "bare")
    ),
    "a file as a directory": fails(errno.ENOTDIR, lambda r: _rmdir(r, "file")),
    "a directory as a file": fails(errno.EISDIR, lambda r: _unlink(r, "dir")),
    "twice": _several(lambda r: _unlink(r, "file"), fails(errno.ENOENT, lambda r: _unlink(r, "file"))),
    "what is not there": fails(errno.ENOENT, lambda r: _unlink(r, "dir/nothing")),
    "a link to a directory": lambda r: _unlink(r, "way"),
    "mkdir on a parent's name": fails(errno.EEXIST, lambda r: _mkdir(r, "dir")),
    "mkdir on a deleted file": _several(lambda r: _unlink(r, "file"), lambda r: _mkdir(r, "file")),
    "a file on a deleted directory": _several(lambda r: _rmdir(r, "bare"), lambda r: _create(r, "bare")),
    "list, then look at what is hidden": _several(
        lambda r: _unlink(r, "dir/a"),
        lambda r: sorted(os.listdir(r)),
        lambda r: sorted(os.listdir(os.path.join(r, "dir"))),
        fails(errno.ENOENT, lambda r: os.stat(os.path.join(r, "dir/a"))),
    ),
}


@pytest.mark.parametrize("what", _REMOVALS)
def test_names_go(bench: Workbench, what: str) -> None:
    """Every kind of removal, and every making where something was removed, gives what it gives elsewhere."""
    check_action(bench, _BASE, _REMOVALS[what])


_LINKS: dict[str, Action] = {
    "to a parent's file": lambda r: _link(r, "file", "dir/new"),
    "many": lambda r: [_link(r, "file", f"dir/new{number}") for number in range(20)],
    "and write through one": _several(lambda r: _link(r, "file", "new"), lambda r: _append(r, "new")),
    "and write through the old": _several(lambda r: _link(r, "file", "new"), lambda r: _append(r, "file")),
    "and remove the old": _several(lambda r: _link(r, "file", "new"), lambda r: _unlink(r, "file")),
    "and rename": _several(lambda r: _link(r, "file", "new"), lambda r: _rename(r, "new", "dir/a")),
    "under a deleted name": _several(lambda r: _unlink(r, "dir/a"), lambda r: _link(r, "file", "dir/a")),
    "again after removal": _several(
        lambda r: _link(r, "file", "new"), lambda r: _unlink(r, "new"), lambda r: _link(r, "file", "new")
    ),
    "chown, unlink, link": _several(
        lambda r: os.chown(os.path.join(r, "file"), -1, os.getegid()),
        lambda r: _link(r, "file", "new"),
        lambda r: _unlink(r, "file"),
        lambda r: _link(r, "new", "file"),
    ),
    "to a link": lambda r: _link(r, "link", "dir/link"),
    "to a fifo": lambda r: _link(r, "fifo", "dir/fifo"),
    "onto a name": fails(errno.EEXIST, lambda r: _link(r, "file", "other")),
    "to a directory": fails(errno.EPERM, lambda r: _link(r, "dir", "new")),
    "to nothing": fails(errno.ENOENT, lambda r: _link(r, "nothing", "new")),
}


@pytest.mark.parametrize("what", _LINKS)
def test_names_are_linked(bench: Workbench, what: str) -> None:
    """Hard links to a parent's files are one file with the right count, whatever is done to either name."""
    check_action(bench, _BASE, _LINKS[what])


_SYMLINKS: dict[str, Action] = {
    "relative": lambda r: os.symlink("dir/a", os.path.join(r, "new")),
    "absolute": lambda r: os.symlink("/etc/passwd", os.path.join(r, "new")),
    "as long as can be": lambda r: _longest_link(os.path.join(r, "new")),
    "of any bytes": lambda r: os.symlink("new\nline\udcff", os.path.join(r, "new")),
    "on a parent's name": fails(errno.EEXIST, lambda r: os.symlink("t", os.path.join(r, "file"))),
    "on a deleted directory": _several(lambda r: _rmdir(r, "bare"), lambda r: os.symlink("t", os.path.join(r, "bare"))),
    "made through a link": lambda r: _create(r, "way/new"),
    "removed through a link": lambda r: _unlink(r, "way/x"),
    "written through a link": lambda r: _append(r, "link"),
    "renamed through a link": lambda r: _rename(r, "way/x", "way/y"),
}


def _longest_link(path: str) -> int:
    """Make a symbolic link with the longest target that Linux takes, or xfs."""
    try:
        os.symlink("t" * 4095, path)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        os.symlink("t" * 1023, path)
    return len(os.readlink(path))


@pytest.mark.parametrize("what", _SYMLINKS)
def test_symbolic_links(bench: Workbench, what: str) -> None:
    """Symbolic links hold any target, and a parent's links lead to where they lead elsewhere."""
    check_action(bench, _BASE, _SYMLINKS[what])


def _set(root: str, path: str, name: str, value: bytes, flags: int = 0) -> list[str]:
    os.setxattr(os.path.join(root, path), name, value, flags)
    return sorted(os.listxattr(os.path.join(root, path)))


_MARKED: list[Edit] = [*_BASE, SetXattr("file", "user.old", b"1"), SetXattr("dir", "user.old", b"2")]

_XATTRS: dict[str, Action] = {
    "added": lambda r: _set(r, "file", "user.new", b"2"),
    "replaced": lambda r: _set(r, "file", "user.old", b"longer than before"),
    "large": lambda r: _set(r, "file", "user.large", b"v" * 3000),
    "of a directory": lambda r: _set(r, "dir", "user.new", b"v"),
    "removed": lambda r: os.removexattr(os.path.join(r, "file"), "user.old"),
    "removed from a directory": lambda r: os.removexattr(os.path.join(r, "dir"), "user.old"),
    "kept by a copy up": lambda r: _append(r, "file"),
    "kept by a rename": lambda r: _rename(r, "file", "dir/file"),
    "XATTR_CREATE": fails(errno.EEXIST, lambda r: _set(r, "file", "user.old", b"v", os.XATTR_CREATE)),
    "XATTR_REPLACE": fails(errno.ENODATA, lambda r: _set(r, "file", "user.new", b"v", os.XATTR_REPLACE)),
    "missing": fails(errno.ENODATA, lambda r: os.getxattr(os.path.join(r, "file"), "user.new")),
    "of a fifo": fails(errno.EPERM, lambda r: _set(r, "fifo", "user.new", b"v")),
    "after a deletion": _several(_emptied, lambda r: sorted(os.listxattr(os.path.join(r, "dir")))),
    "of a directory made again": _several(
        _emptied,
        lambda r: _rmdir(r, "dir"),
        lambda r: _mkdir(r, "dir"),
        lambda r: sorted(os.listxattr(os.path.join(r, "dir"))),
    ),
}


@pytest.mark.parametrize("what", _XATTRS)
def test_extended_attributes(bench: Workbench, what: str) -> None:
    """Xattrs are set, listed and removed as elsewhere; marks of the engine are never among them."""
    bench.needs("user_xattrs")
    check_action(bench, _MARKED, _XATTRS[what])


def test_a_mark_of_the_engine_is_content(bench: Workbench) -> None:
    """An overlay mark that somebody sets inside a mount is refused or kept; in no case does it hide anything."""
    bench.needs("trusted_xattrs")
    bench.layer("base", None, _BASE)
    bench.driver.create("child", "base")
    with bench.writing("child") as root:
        try:
            os.setxattr(os.path.join(root, "dir"), "trusted.overlay.opaque", b"y")
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EINVAL}:
                raise
    bench.driver.seal("child")

    for layer in ("child", bench.layer("grandchild", "child")):
        assert bench.contents(layer) == bench.contents("base")


def _make_in_group(root: str) -> list[tuple[int, int]]:
    _mkdir(root, "dir/made")
    _create(root, "dir/new")
    found = [os.stat(os.path.join(root, path)) for path in ("dir/made", "dir/new")]
    return [(status.st_gid, stat.S_IMODE(status.st_mode)) for status in found]


def test_a_group_is_inherited(bench: Workbench) -> None:
    """What is made in a parent's set-group-ID directory gets its group, and a directory the bit."""
    bench.needs("ownership")
    check_action(bench, [*_BASE, Chown("dir", 7, 8), Chmod("dir", 0o2775)], _make_in_group)


def test_a_default_acl_is_inherited(bench: Workbench) -> None:
    """What is made in a parent's directory with a default ACL gets it, and not what the umask says."""
    bench.needs("posix_acls")
    check_action(bench, [*_BASE, SetXattr("dir", "system.posix_acl_default", _ACL)], _make_in_group)


def test_a_directory_is_read_while_it_changes(bench: Workbench) -> None:
    """Names that stay are read exactly once while others come and go."""
    base: list[Edit] = [Mkdir("dir"), *(Create(f"dir/old{number:04}") for number in range(600))]
    bench.layer("base", None, base)
    bench.driver.create("child", "base")
    with bench.writing("child") as root:
        place = os.path.join(root, "dir")
        for number in range(600):
            _create(root, f"dir/new{number:04}")
        seen = []
        with os.scandir(place) as entries:
            for number, entry in enumerate(entries):
                seen.append(entry.name)
                if number < 300:
                    _unlink(root, f"dir/old{number:04}", f"dir/new{number:04}")
                    _create(root, f"dir/late{number:04}")
        after = sorted(os.listdir(place))
    staying = [f"{kind}{number:04}" for kind in ("new", "old") for number in range(300, 600)]

    assert sorted(name for name in seen if name in staying) == staying
    assert after == sorted([*staying, *(f"late{number:04}" for number in range(300))])
    bench.driver.seal("child")
    assert sorted(bench.contents("child")) == ["dir", *(f"dir/{name}" for name in after)]


def test_a_directory_is_read_from_a_position(bench: Workbench) -> None:
    """A position in a merged directory can be gone back to, and to its beginning."""
    names = [f"{'n' * 100}{number:04}" for number in range(900)]
    bench.layer("base", None, [Create(name) for name in names[::2]])
    child = bench.layer("child", "base", [Create(name) for name in names[1::2]])
    with bench.viewing(child) as root:
        directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with os.scandir(directory) as entries:
            next(entries)
            position = os.lseek(directory, 0, os.SEEK_CUR)
        os.lseek(directory, 0, os.SEEK_SET)
        whole = os.listdir(directory)
        os.lseek(directory, position, os.SEEK_SET)
        rest = os.listdir(directory)
        os.close(directory)

    assert sorted(whole) == names
    assert 0 < len(rest) < len(whole)
    assert whole[-len(rest) :] == rest


def test_the_file_system_is_described(bench: Workbench) -> None:
    """Statfs tells of room, and of names as long as claimed."""
    bench.layer("base", None, _BASE)
    bench.driver.create("child", "base")
    with bench.writing("child") as root:
        facts = os.statvfs(root)
        _create(root, "n" * bench.can.name_max)

        assert (facts.f_blocks > 0, facts.f_bavail > 0) == (True, True)
        assert facts.f_namemax >= bench.can.name_max


def test_a_removed_working_directory(bench: Workbench, tmp_path: pathlib.Path) -> None:
    """A process in a removed directory of the parent learns that it has none, and can leave it (moby#19082)."""
    bench.layer("base", None, _BASE)
    bench.driver.create("child", "base")
    script = (
        "import os\nos.chdir('bare')\nos.rmdir('../bare')\n"
        "try:\n    print(os.getcwd())\nexcept FileNotFoundError:\n    print('gone')\n"
        "print(os.listdir('.'))\nos.chdir('/')\nprint(os.getcwd())\n"
    )
    with attached(bench, "child", tmp_path) as place:
        done = subprocess.run([sys.executable, "-c", script], check=True, cwd=place, capture_output=True, text=True)
    bench.driver.settle("child")
    bench.driver.seal("child")

    assert done.stdout.splitlines() == ["gone", "[]", "/"]
    assert "bare" not in bench.contents("child")


def test_programs_run(bench: Workbench, tmp_path: pathlib.Path) -> None:
    """A parent's program runs, through a changed mode and after a copy up too (docker-machine#3327)."""
    text = b"#!/bin/sh\nexit 7\n"
    bench.layer("base", None, [Create("program", text, 0o755), Create("later", text, 0o644)])
    bench.driver.create("child", "base")
    with attached(bench, "child", tmp_path) as place:
        with pytest.raises(PermissionError):
            subprocess.run([os.path.join(place, "later")], check=False)
        os.chmod(os.path.join(place, "later"), 0o700)
        codes = [subprocess.run([os.path.join(place, name)], check=False).returncode for name in ("program", "later")]
    bench.driver.settle("child")

    assert codes == [7, 7]


def test_hard_linked_names_of_a_parent(bench: Workbench) -> None:
    """Writing through one name and removing the other loses nothing, over mounts (fuse-overlayfs lost the write)."""
    bench.layer("base", None, [Create("b", b"old"), Link("b", "c")])
    bench.driver.create("child", "base")
    steps: list[Action] = [lambda r: _append(r, "b"), lambda r: _unlink(r, "c"), lambda r: _append(r, "b")]
    for step in steps:
        with bench.writing("child") as root:
            step(root)
    bench.driver.seal("child")

    assert bench.contents("child") == {"b": "old and more and more"}
