"""Trees of every kind of entry go through a produced tar and come back the same, whoever reads it."""

import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphdrivers.archive.apply import Target, apply
from graphdrivers.archive.compare import compare
from graphdrivers.archive.plain import EmptyTree, PlainTree
from graphdrivers.archive.produce import produce
from graphdrivers.archive.whiteouts import PLAIN
from graphdrivers.model import Capabilities

ROOT = os.geteuid() == 0
NS = 1_000_000_000
ALL = Capabilities(
    ownership=ROOT,
    devices=ROOT,
    char_0_0=ROOT,
    user_xattrs=True,
    trusted_xattrs=ROOT,
    security_xattrs=ROOT,
    posix_acls=True,
)

AWKWARD = [b"a", b"b", b"new\nline", "é".encode(), b"\xff", b"-f", b"\\", b" ", b"n" * 101, b"\xe9" * 60, b"w" * 255]
names = st.one_of(
    st.sampled_from(AWKWARD),
    st.binary(min_size=1, max_size=9).filter(
        lambda name: name not in {b".", b".."} and not set(b"/\0") & set(name) and not name.startswith(b".wh.")
    ),
)
owners = st.sampled_from([(0, 0), (1000, 1000), (0o7777777, 0o10000000), (2**31, 2**32 - 2)] if ROOT else [(-1, -1)])
pieces = st.tuples(st.sampled_from([b"\0", b"x"]), st.sampled_from([1, 511, 4096, 65_536, 70_000]))
contents = st.lists(pieces, max_size=4)
xattrs = st.dictionaries(
    st.sampled_from(["user.a", "user.ü", "user.100%25", *(["trusted.t", "user.x=y"] if ROOT else [])]),
    st.binary(max_size=50),
    max_size=2,
)


@attrs.frozen
class Item:
    """One entry to make; ``payload`` is its content in pieces, target, device or (a directory's) entries."""

    kind: str
    payload: object
    mode: int
    owner: tuple[int, int]
    mtime: int
    xattrs: dict[str, bytes]
    others: tuple[bytes, ...]
    """More names in the same directory."""


def items(kind: str, payload: st.SearchStrategy[object]) -> st.SearchStrategy[Item]:
    """Entries of one kind."""
    return st.builds(
        Item,
        st.just(kind),
        payload,
        st.sampled_from([0o644, 0o755, 0o4711, 0o600, 0o1777] if kind != "directory" else [0o755, 0o700, 0o2775]),
        owners,
        st.integers(-(2**31), 2**33).map(lambda time: time * NS) | st.integers(0, 2**33 * NS),
        xattrs if kind in {"file", "directory"} else st.just({}),
        st.lists(names, max_size=1).map(tuple) if kind != "directory" else st.just(()),
    )


leaves = st.one_of(
    items("file", contents),
    items("symlink", st.sampled_from([b"a", b"/etc/passwd", b"\xff", b"t" * 101, b"../" * 50])),
    items("fifo", st.none()),
    *([items("device", st.sampled_from([(1, 3), (0, 0), (0xFFF, 0xFFFFF)]))] if ROOT else []),
)
trees = items(
    "directory",
    st.dictionaries(
        names,
        st.recursive(
            leaves,
            lambda inner: items("directory", st.dictionaries(names, inner, max_size=4)),
            max_leaves=8,
        ),
        max_size=5,
    ),
)


def build(item: Item, path: bytes) -> None:
    """Make an entry with its attributes; a directory may be there already."""
    parent = os.path.dirname(path)
    make(item, path)
    for other in item.others:
        if not os.path.lexists(parent + b"/" + other):
            os.link(path, parent + b"/" + other, follow_symlinks=False)
    os.chown(path, *item.owner, follow_symlinks=False)
    for name, value in item.xattrs.items():
        os.setxattr(path, name, value)
    if item.kind != "symlink":
        os.chmod(path, item.mode)
    os.utime(path, ns=(item.mtime, item.mtime), follow_symlinks=False)


def make(item: Item, path: bytes) -> None:
    """Make an entry and what is in it."""
    payload: Any = item.payload
    if item.kind == "directory":
        os.makedirs(path, exist_ok=True)
        for name, inner in payload.items():
            if not os.path.lexists(path + b"/" + name):
                build(inner, path + b"/" + name)
    elif item.kind == "file":
        Path(os.fsdecode(path)).write_bytes(b"".join(byte * count for byte, count in payload))
    elif item.kind == "symlink":
        os.symlink(payload, path)
    elif item.kind == "fifo":
        os.mkfifo(path)
    else:
        os.mknod(path, stat.S_IFCHR, os.makedev(*payload))


def build_root(item: Item, path: bytes) -> None:
    """Make a tree whose root is not like the one that layers start with, so that the tar has it."""
    build(attrs.evolve(item, mtime=item.mtime | 1), path)


def snapshot(root: bytes) -> dict[bytes, tuple[object, ...]]:
    """All that a layer carries, by path; hard links by their first path."""
    found: dict[bytes, tuple[object, ...]] = {}
    first: dict[int, bytes] = {}
    waiting = [b""]
    while waiting:
        path = waiting.pop()
        full = root + b"/" + path
        status = os.lstat(full)
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            waiting += sorted((path + b"/" + name if path else name for name in os.listdir(full)), reverse=True)
        regular, link = stat.S_ISREG(mode), stat.S_ISLNK(mode)
        found[path] = (
            oct(mode),
            (status.st_uid, status.st_gid),
            status.st_mtime_ns,
            status.st_rdev,
            Path(os.fsdecode(full)).read_bytes() if regular else os.readlink(full) if link else b"",
            {
                name: os.getxattr(full, name, follow_symlinks=False)
                for name in os.listxattr(full, follow_symlinks=False)
            },
            path if stat.S_ISDIR(mode) else first.setdefault(status.st_ino, path),
        )
    return found


@contextmanager
def places(*names: str) -> Iterator[list[bytes]]:
    """Fresh directories."""
    with tempfile.TemporaryDirectory() as base:
        for name in names:
            os.mkdir(f"{base}/{name}")
        yield [os.fsencode(f"{base}/{name}") for name in names]


def diff(upper: bytes, lower: bytes | None = None) -> bytes:
    """Produce the tar between two directories."""
    fds = [os.open(path, os.O_RDONLY) for path in (upper, lower) if path is not None]
    try:
        old = PlainTree(fds[1]) if lower else EmptyTree()
        with PlainTree(fds[0]) as new, produce(compare(old, new)) as stream:
            return stream.read()
    finally:
        for fd in fds:
            os.close(fd)


def apply_here(tar: bytes, target: bytes) -> None:
    """Apply to a flat tree."""
    fd = os.open(target, os.O_RDONLY)
    try:
        with tempfile.TemporaryFile() as stream:
            stream.write(tar)
            stream.seek(0)
            apply(stream, Target(fd, PLAIN, None, ALL))
    finally:
        os.close(fd)


def need(tool: str) -> None:
    """Fail where a tool that is promised is missing; skip where the caller says that it may be."""
    if shutil.which(tool) is None:
        if os.environ.get("GRAPHDRIVERS_OPTIONAL_TOOLS") == "1":
            pytest.skip(f"{tool} is not installed and GRAPHDRIVERS_OPTIONAL_TOOLS is set")
        pytest.fail(f"{tool} is missing")


GNU_TAR = [
    "tar",
    "--warning=no-unknown-keyword",
    "--xattrs",
    "--xattrs-include=*",
    "--acls",
    "--numeric-owner",
    "-xpf",
    "-",
]
REMARKS_ON_TIMES = re.compile(
    rb"tar: .*?: (implausibly old time stamp [-0-9.: ]+|time stamp [-0-9.: ]+ is [0-9.]+ s in the future)\n", re.DOTALL
)
"""GNU tar makes them whatever it is told about warnings, and restores the times."""
BSDTAR = ["bsdtar", "-P", "--numeric-owner", "-xpf", "-"]  # without -P it takes a backslash for a root


def unpack_with(command: list[str]) -> Callable[[bytes, bytes], None]:
    """Unpack with another tool, which must have nothing to say."""

    def run(tar: bytes, target: bytes) -> None:
        done = subprocess.run([*command, "-C", target], input=tar, capture_output=True, check=False)
        remarks = REMARKS_ON_TIMES.sub(b"", done.stderr)

        assert (done.returncode, remarks) == (0, b"")

    return run


@settings(max_examples=25, deadline=None)
@given(trees)
def test_apply_gives_back_what_was_produced(tree: Item) -> None:
    """Every attribute, every hole, every hard link; and the tar made of the copy has the same bytes."""
    with places("upper", "copy") as (upper, copy):
        build_root(tree, upper)
        tar = diff(upper)
        apply_here(tar, copy)

        assert snapshot(copy) == snapshot(upper)
        assert diff(copy) == tar


@settings(max_examples=25, deadline=None)
@given(trees, trees)
def test_diff_of_two_trees_makes_one_the_other(old: Item, new: Item) -> None:
    """Applied to a copy of the lower tree, the diff gives the upper one."""
    with places("lower", "upper") as (lower, upper):
        build(old, lower)
        build(new, upper)
        tar = diff(upper, lower)
        apply_here(tar, lower)

        assert snapshot(lower) == snapshot(upper)
        assert diff(upper, lower) == bytes(1024), "and nothing is left to do"


@pytest.mark.skipif(not ROOT, reason="only root can make GNU tar restore owners")
@settings(max_examples=12, deadline=None)
@given(trees)
def test_gnu_tar_unpacks_everything(tree: Item) -> None:
    """GNU tar restores all but the xattrs that its own format cannot name."""
    need("tar")
    with places("upper", "copy") as (upper, copy):
        build_root(without_xattrs(tree, "user.x=y", "user.100%25"), upper)
        unpack_with(GNU_TAR)(diff(upper), copy)

        assert snapshot(copy) == snapshot(upper)


@pytest.mark.skipif(not ROOT, reason="only root can make bsdtar restore owners")
@settings(max_examples=12, deadline=None)
@given(trees)
def test_bsdtar_unpacks_everything(tree: Item) -> None:
    """Libarchive understands all records, the quoted xattr names too."""
    need("bsdtar")
    with places("upper", "copy") as (upper, copy):
        build_root(tree, upper)
        unpack_with(BSDTAR)(diff(upper), copy)

        copied, original = snapshot(copy), snapshot(upper)
        del copied[b""], original[b""]  # bsdtar does not restore the time of the directory it works in
        assert copied == original


def without_xattrs(item: Item, *keys: str) -> Item:
    """Leave some xattrs out of a tree."""
    payload = item.payload
    if isinstance(payload, dict):
        payload = {name: without_xattrs(inner, *keys) for name, inner in payload.items()}
    return attrs.evolve(
        item, payload=payload, xattrs={key: value for key, value in item.xattrs.items() if key not in keys}
    )


@pytest.mark.skipif(not ROOT, reason="only root can make umoci restore owners")
def test_go_readers_unpack_everything(tmp_path: Path) -> None:
    """Go's reader, through umoci: every kind, odd names, holes, capabilities, ns times and whiteouts in two layers."""
    need("umoci")
    lower, upper, image = (os.fsencode(tmp_path / name) for name in ("lower", "upper", "image"))
    owner, time = (70_000, 3_000_000_000), 1_700_000_000 * NS + 123_456_789
    entry = Item("file", [(b"x", 5), (b"\0", 200_000), (b"y", 7)], 0o4711, owner, time, {"user.a": b"1"}, (b"link",))
    entries = {
        b"sparse": entry,
        b"\xff": attrs.evolve(entry, others=()),
        "é".encode() * 60: attrs.evolve(entry, payload=[(b"z", 10)], others=(b"l" * 200,)),
        b"fifo": Item("fifo", None, 0o600, owner, time, {}, ()),
        b"null": Item("device", (1, 3), 0o666, owner, time, {}, ()),
        b"symlink": Item("symlink", b"t" * 120, 0o777, owner, time, {}, ()),
    }
    folder = Item("directory", entries, 0o1777, owner, time, {"user.d": b"2"}, ())
    build(Item("directory", {b"d": folder, b"gone": folder, b"old": entry}, 0o755, (0, 0), time, {}, ()), lower)
    build(Item("directory", {b"d": folder, b"old": folder}, 0o755, (0, 0), time, {}, ()), upper)
    for number, tar in enumerate((diff(lower), diff(upper, lower))):
        (tmp_path / f"{number}.tar").write_bytes(tar)
    reference = os.fsdecode(image) + ":latest"
    for command in (
        ["init", "--layout", os.fsdecode(image)],
        ["new", "--image", reference],
        ["raw", "add-layer", "--image", reference, str(tmp_path / "0.tar")],
        ["raw", "add-layer", "--image", reference, str(tmp_path / "1.tar")],
        ["raw", "unpack", "--image", reference, str(tmp_path / "rootfs")],
    ):
        subprocess.run(["umoci", *command], check=True, capture_output=True)

    assert snapshot(os.fsencode(tmp_path / "rootfs")) == snapshot(upper)
