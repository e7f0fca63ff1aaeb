"""Archives of GNU tar and bsdtar, read and compared with what they packed."""

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from rawtars import Seen, tool

from graphdrivers.archive.entries import Entry

GNU_FORMATS = {
    "v7": ["--format=v7"],
    "oldgnu": ["--format=oldgnu"],
    "gnu": ["--format=gnu"],
    "ustar": ["--format=ustar"],
    "posix": ["--format=posix"],
    "oldgnu-sparse": ["--format=oldgnu", "--sparse"],
    "gnu-sparse": ["--format=gnu", "--sparse"],
    "posix-sparse-0.0": ["--format=posix", "--sparse", "--sparse-version=0.0"],
    "posix-sparse-0.1": ["--format=posix", "--sparse", "--sparse-version=0.1"],
    "posix-sparse-1.0": ["--format=posix", "--sparse", "--sparse-version=1.0", "--xattrs", "--xattrs-include=*"],
}
BSD_FORMATS = ["pax", "ustar", "gnutar", "v7"]

EXACT = {"posix", "posix-sparse-0.0", "posix-sparse-0.1", "posix-sparse-1.0", "pax"}
"""Formats that keep nanoseconds."""

SHORT = {"v7", "ustar"}
"""Formats without long names, large numbers and old times."""


def make_tree(root: Path, *, plain: bool) -> None:
    """Make files of every kind an ordinary user can make; odd names and numbers unless ``plain``."""
    root.mkdir()
    (root / "empty").write_bytes(b"")
    (root / "block").write_bytes(b"x" * 512)
    (root / "large").write_bytes(bytes(range(256)) * 1000)
    (root / "link").symlink_to("some/where")
    os.link(root / "block", root / "other name")
    os.mkfifo(root / "fifo")
    (root / "setuid").write_bytes(b"#!")
    (root / "setuid").chmod(0o4755)
    (root / "sub").mkdir(mode=0o1777)
    (root / "sub" / ("p" * 90)).mkdir()
    (root / "sub" / ("p" * 90) / ("n" * 90)).write_bytes(b"prefix")
    with (root / "holes").open("wb") as holes:
        for number in range(60):  # more regions than one GNU header and one extension block hold
            holes.seek(number << 16)
            holes.write(b"data %d" % number)
        holes.truncate(80 << 16)
    with (root / "hole").open("wb") as hole:
        hole.truncate(1 << 20)
    if plain:
        return
    Path(os.fsdecode(os.path.join(os.fsencode(root), b"new\nline \xff\xe9"))).write_bytes(b"odd")
    (root / ("d" * 200)).mkdir()
    (root / ("d" * 200) / ("f" * 200)).write_bytes(b"deep")
    (root / "long link").symlink_to("t" * 3000)
    os.utime(root / "empty", ns=(0, -1_500_000_000))
    os.utime(root / "block", ns=(0, 9_000_000_000_123_456_789))  # more seconds than 11 octal digits hold
    if os.geteuid() == 0:
        os.chown(root / "empty", 3_000_000, 2**32 - 2)
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(root / "disk", stat.S_IFBLK | 0o600, os.makedev(259, 70000))


def pack(command: list[str], root: Path) -> bytes:
    """Run a tar program over ``root`` and return the archive."""
    return subprocess.run([*command, "-C", str(root), "-cf", "-", "."], check=True, stdout=subprocess.PIPE).stdout


def same_member(entry: Entry, path: bytes, *, exact: bool) -> None:
    """Compare an entry's attributes with a file's."""
    status = os.lstat(path)
    kinds = {stat.S_IFDIR: b"5", stat.S_IFLNK: b"2", stat.S_IFCHR: b"3", stat.S_IFBLK: b"4", stat.S_IFIFO: b"6"}
    if entry.kind == b"1":
        linked = os.lstat(os.path.join(os.path.dirname(path), os.path.basename(entry.linkname)))
        assert linked.st_ino == status.st_ino
    else:
        assert kinds.get(stat.S_IFMT(status.st_mode), b"0") == entry.kind
    assert entry.mode == stat.S_IMODE(status.st_mode)
    assert (entry.uid, entry.gid) == (status.st_uid, status.st_gid)
    assert entry.mtime == (status.st_mtime_ns if exact else status.st_mtime_ns // 10**9 * 10**9)
    if entry.kind in {b"3", b"4"}:
        assert entry.device == (os.major(status.st_rdev), os.minor(status.st_rdev))
    if entry.kind == b"2":
        assert entry.linkname == os.readlink(path)


def check(tar: bytes, root: Path, *, exact: bool) -> Seen:
    """Compare everything in ``tar`` with the tree it was made of; both ways."""
    seen = Seen.of(tar)
    for number, entry in enumerate(seen.entries, 1):
        path = os.path.join(os.fsencode(root), entry.name).rstrip(b"/")
        same_member(entry, path, exact=exact)
        if entry.kind == b"0":
            assert seen.files[b"%d" % number] == Path(os.fsdecode(path)).read_bytes()
    wanted = {os.path.join(d, n) for d, names, files in os.walk(os.fsencode(root)) for n in names + files}
    found = {os.path.normpath(os.path.join(os.fsencode(root), e.name)) for e in seen.entries}
    assert wanted | {os.fsencode(root)} == found
    assert seen.tapped == tar
    assert seen.recording.tar(seen.files) == tar
    return seen


@pytest.mark.parametrize("name", GNU_FORMATS)
def test_gnu_tar(name: str, tmp_path: Path) -> None:
    """Every format of GNU tar gives back the tree that it packed."""
    root = tmp_path / "tree"
    make_tree(root, plain=name in SHORT)
    if name == "v7":
        (root / "sub" / ("p" * 90) / ("n" * 90)).unlink()
        (root / "fifo").unlink()
    seen = check(pack([tool("tar"), *GNU_FORMATS[name]], root), root, exact=name in EXACT)

    sparse = {entry.name: entry.sparse for entry in seen.entries if entry.sparse is not None}
    assert set(sparse) == ({b"./holes", b"./hole"} if "sparse" in name else set())


@pytest.mark.parametrize("name", BSD_FORMATS)
def test_bsdtar(name: str, tmp_path: Path) -> None:
    """Every tar format of libarchive gives back the tree that it packed."""
    root = tmp_path / "tree"
    make_tree(root, plain=name in SHORT)
    if name == "v7":
        (root / "sub" / ("p" * 90) / ("n" * 90)).unlink()
        (root / "fifo").unlink()

    os.utime(root / "block", ns=(0, 8_000_000_000_123_456_789))  # libarchive caps later times in GNU's format,
    os.utime(root / "empty", ns=(0, 500_000_000))  # and writes fractions before 1970 wrongly
    check(pack([tool("bsdtar"), "--no-read-sparse", f"--format={name}"], root), root, exact=name in EXACT)


@pytest.mark.parametrize(
    "command", [["tar", "--format=posix", "--xattrs", "--xattrs-include=*"], ["bsdtar", "--xattrs"]]
)
def test_extended_attributes(command: list[str], tmp_path: Path) -> None:
    """Extended attributes come back as they were, binary and empty ones too."""
    tool(command[0])
    root = tmp_path / "tree"
    root.mkdir()
    (root / "f").write_bytes(b"")
    wanted = {"user.plain": b"value", "user.binary": bytes(range(256)) + b"\n", "user.empty": b"", "user.Ünï": b"1"}
    for name, value in wanted.items():
        os.setxattr(root / "f", name, value)

    entries = {entry.name: entry for entry in Seen.of(pack(command, root)).entries}

    assert {name: entries[b"./f"].xattrs.get(name) for name in wanted} == wanted


def test_any_chunking_reads_the_same(tmp_path: Path) -> None:
    """Where the chunks are cut makes no difference."""
    root = tmp_path / "tree"
    make_tree(root, plain=False)
    (root / "large").write_bytes(b"l" * 70_000)
    tar = pack([tool("tar"), *GNU_FORMATS["posix-sparse-1.0"]], root)
    whole = Seen.of(tar)

    for chunk in (100, 512, 4096 + 7):
        parts = Seen.of(tar, chunk=chunk)
        assert parts.files == whole.files
        assert [e.name for e in parts.entries] == [e.name for e in whole.entries]
        assert parts.recording.tar(parts.files) == tar


def test_standard_library_agrees() -> None:
    """An archive of a package reads as ``tarfile`` reads it."""
    library = Path(os.__file__).parent / "json"
    tar = pack([tool("tar"), "--format=gnu"], library)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        expected = [(os.fsencode(m.name), m.size, m.mode, m.mtime * 10**9) for m in archive]

    assert expected == [
        (entry.name.rstrip(b"/"), entry.size, entry.mode, entry.mtime) for entry in Seen.of(tar).entries
    ]
