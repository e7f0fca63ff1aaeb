"""What counts as a change, in which order, and that looking at one layer finds what comparing whole trees finds."""

import contextlib
import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import treetools
from treetools import FEATURES, branches, fill, make_file, overlay, tmpfs

from graphdrivers.archive.compare import compare, compare_layer, compare_layers
from graphdrivers.archive.entries import Difference, Node
from graphdrivers.archive.equality import Proof
from graphdrivers.archive.plain import EmptyTree, PlainTree
from graphdrivers.archive.union import Branch, Union
from graphdrivers.archive.whiteouts import AUFS, OVERLAY
from graphdrivers.linux import trees

Told = list[tuple[str, str, bool]]
"""Path, kind and whether it is listed, of each difference."""


def tell(differences: Iterator[Difference]) -> Told:
    """Put differences in a comparable form."""
    return [(os.fsdecode(found.path), found.kind.letter, found.listed) for found in differences]


@contextlib.contextmanager
def plain(*roots: Path | bytes) -> Iterator[list[PlainTree]]:
    """Open real trees."""
    with contextlib.ExitStack() as stack:
        opened = []
        for root in roots:
            fd = os.open(root, os.O_RDONLY)
            stack.callback(os.close, fd)
            opened.append(stack.enter_context(PlainTree(fd)))
        yield opened


def compare_dirs(lower: Path | bytes, upper: Path | bytes, unchanged: Proof | None = None) -> Told:
    """Compare two real directories."""
    with plain(lower, upper) as (old, new):
        return tell(compare(old, new, unchanged=unchanged))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Make a small tree and an exact copy of it."""
    lower = fill(tmp_path / "lower", {"a/b/c/file": "content", "a/x": "x", "dir/": "", "link": "-> a", "z": "z"})
    os.mkfifo(lower / "fifo")
    os.link(lower / "z", lower / "a/z2")
    os.setxattr(lower / "a/x", "user.note", b"1")
    subprocess.run(["cp", "-a", lower, tmp_path / "upper"], check=True)
    return lower, tmp_path / "upper"


def _times(path: Path, *, of: Path | None = None) -> None:
    """Give ``path`` the times of another file, its own copy in the lower tree by default."""
    status = os.lstat(of or str(path).replace("/upper", "/lower", 1))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _same_size(upper: Path) -> None:
    (upper / "a/b/c/file").write_text("CONTENT")
    _times(upper / "a/b/c/file")


def _retarget(upper: Path) -> None:
    (upper / "link").unlink()
    os.symlink("z", upper / "link")
    _times(upper / "link")
    _times(upper)


def _delete(upper: Path) -> None:
    (upper / "a/b/c/file").unlink()
    _times(upper / "a/b/c")


def _delete_tree(upper: Path) -> None:
    subprocess.run(["rm", "-r", upper / "a/b"], check=True)
    _times(upper / "a")


def _file_to_directory(upper: Path) -> None:
    (upper / "a/x").unlink()
    fill(upper, {"a/x/new/deep": "d"})
    _times(upper / "a")


def _directory_to_file(upper: Path) -> None:
    subprocess.run(["rm", "-r", upper / "a/b"], check=True)
    make_file(os.fsencode(upper / "a/b"))
    _times(upper / "a")


def _add_tree(upper: Path) -> None:
    fill(upper, {"dir/new/b": "1", "dir/new/a/x": "2"})
    _times(upper / "dir")


# the edit, and what is told of it: kind and path, in lower case what is not listed
_CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda _: None, ""),
    "access time": (lambda upper: (upper / "z").read_text(), ""),
    "content of the same size and time": (_same_size, "c:a c:a/b c:a/b/c C:a/b/c/file"),
    "ns time": (lambda upper: os.utime(upper / "fifo", ns=(0, 10**18 + 1)), "C:fifo"),
    "mode": (lambda upper: os.chmod(upper / "fifo", 0o400), "C:fifo"),
    "directory mode": (lambda upper: os.chmod(upper / "a/b", 0o500), "c:a C:a/b"),
    "directory time": (lambda upper: os.utime(upper / "a", ns=(0, 5)), "C:a"),
    "xattr": (lambda upper: os.setxattr(upper / "a/x", "user.note", b"2"), "c:a C:a/x"),
    "xattr gone": (lambda upper: os.removexattr(upper / "a/x", "user.note"), "c:a C:a/x"),
    "link target": (_retarget, "C:link"),
    "root time": (lambda upper: os.utime(upper, ns=(0, 5)), "c:"),
    "both names of a file": (lambda upper: os.chmod(upper / "z", 0o600), "c:a C:a/z2 C:z"),
    "deleted": (_delete, "c:a c:a/b c:a/b/c D:a/b/c/file"),
    "deleted tree": (_delete_tree, "c:a D:a/b"),
    "one name deleted": (lambda upper: ((upper / "z").unlink(), _times(upper)), "D:z"),
    "file to directory": (_file_to_directory, "c:a C:a/x A:a/x/new A:a/x/new/deep"),
    "directory to file": (_directory_to_file, "c:a C:a/b"),
    "added tree": (_add_tree, "c:dir A:dir/new A:dir/new/a A:dir/new/a/x A:dir/new/b"),
    "another name of an unchanged file": (
        lambda upper: (os.link(upper / "a/x", upper / "dir/y"), _times(upper / "dir")),
        "c:a c:a/x c:dir A:dir/y",
    ),
    "a third name of two": (
        lambda upper: (os.link(upper / "z", upper / "dir/y"), _times(upper / "dir")),
        "c:a c:a/z2 c:dir A:dir/y c:z",
    ),
    "a renamed name of two": (
        lambda upper: (os.rename(upper / "z", upper / "zz"), _times(upper)),
        "D:z c:a c:a/z2 A:zz",
    ),
}


@pytest.mark.parametrize("case", list(_CASES))
def test_what_counts_as_a_change(case: str, pair: tuple[Path, Path]) -> None:
    """Each attribute and each content counts, and only what changed (with the directories above it) is told."""
    lower, upper = pair
    edit, expected = _CASES[case]
    edit(upper)
    told = compare_dirs(lower, upper)

    assert " ".join(f"{kind if listed else kind.lower()}:{path}" for path, kind, listed in told) == expected


@treetools.needs_root
def test_owner_and_device_number_count(tmp_path: Path) -> None:
    """A changed owner, group, or device number is a change; so is a file that is another kind of file."""
    for side, owner, device, kind in [("lower", 0, (7, 8), stat.S_IFIFO), ("upper", 1, (7, 9), stat.S_IFSOCK)]:
        root = fill(tmp_path / side, {"uid": "", "gid": ""})
        os.chown(root / "uid", owner, 0)
        os.chown(root / "gid", 0, owner)
        os.mknod(root / "device", stat.S_IFCHR | 0o600, os.makedev(*device))
        os.mknod(root / "kind", kind | 0o600)
        for name in ("device", "kind", "uid", "gid", ""):
            os.utime(root / name, ns=(5, 5))

    assert compare_dirs(tmp_path / "lower", tmp_path / "upper") == [
        (name, "C", True) for name in ("device", "gid", "kind", "uid")
    ]


def test_siblings_come_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    """In each directory deletions first, then entries, by name bytes; directories before what is in them."""
    lower = fill(tmp_path / "lower", {"d/old2": "", "d/old1": "", "gone/x": "", "a-": ""})
    upper = fill(tmp_path / "upper", {"d/\udcff": "", "d/B": "", "d/a": "", "a-": "new", "a/x": "", "Z": ""})
    with plain(lower, upper) as (old, new):
        told = [(found.path, found.kind.letter) for found in compare(old, new) if found.path]

    assert told == [
        (b"gone", "D"), (b"Z", "A"), (b"a", "A"), (b"a/x", "A"), (b"a-", "C"),
        (b"d", "C"), (b"d/old1", "D"), (b"d/old2", "D"), (b"d/B", "A"), (b"d/a", "A"), (b"d/\xff", "A"),
    ]  # fmt: skip


def test_an_empty_baseline_has_an_empty_plain_root(tmp_path: Path) -> None:
    """Against nothing everything is added, sockets too; the root counts when it is not 0755, 0:0, time 0."""
    root = fill(tmp_path / "root", {"d/x": ""})
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(root / "sock"))
    assert stat.S_IMODE(root.stat().st_mode) == 0o755
    os.utime(root, ns=(0, 0))
    added = [("d", "A", True), ("d/x", "A", True), ("sock", "A", True)]
    with plain(root) as (tree,):
        told = tell(compare(EmptyTree(), tree))
        assert told == (added if os.geteuid() == 0 else [("", "C", False), *added])
        os.chmod(root, 0o700)
        assert tell(compare(EmptyTree(), tree)) == [("", "C", False), *added]
        assert tell(compare(EmptyTree(), EmptyTree())) == []
        assert tell(compare(tree, EmptyTree())) == [("", "C", False), ("d", "D", True), ("sock", "D", True)]


def test_proof_spares_reading(pair: tuple[Path, Path]) -> None:
    """What is proven unchanged is not read; what visibly changed is a change whatever the proof says."""
    lower, upper = pair
    _same_size(upper)
    os.setxattr(upper / "a/x", "user.note", b"2")
    asked: list[bytes] = []

    def proof(old: Node, new: Node) -> bool:
        assert old.name == new.name
        asked.append(new.name)
        return True

    assert compare_dirs(lower, upper, proof) == []
    assert {b"file", b"x", b"fifo", b"a", b""} <= set(asked)
    os.chmod(upper / "fifo", 0o400)
    assert compare_dirs(lower, upper, proof) == [("fifo", "C", True)]


@pytest.mark.parametrize("offset", [0, 5 << 20, (64 << 20) - 1])
def test_holes_are_compared_without_being_read(offset: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two large sparse files differ by one byte, wherever it is; a written zero equals a hole."""
    read: list[int] = []
    pread = os.pread

    def counted(fd: int, length: int, position: int) -> bytes:
        read.append(position)
        return pread(fd, length, position)

    monkeypatch.setattr(os, "pread", counted)
    for side in ("lower", "upper"):
        root = fill(tmp_path / side, {"sparse": ""})
        os.truncate(root / "sparse", 64 << 20)
        with open(root / "sparse", "r+b") as file:
            file.seek(10 << 20)
            file.write(b"common")
            file.seek(offset)
            file.write(b"\0" if side == "lower" else b"")
        os.utime(root / "sparse", ns=(5, 5))
        os.utime(root, ns=(5, 5))
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    assert compare_dirs(lower, upper) == []
    assert len(read) <= 2 * 4
    with open(upper / "sparse", "r+b") as file:
        file.seek(offset)
        file.write(b"\1")
    os.utime(upper / "sparse", ns=(5, 5))

    assert compare_dirs(lower, upper) == [("sparse", "C", True)]


def test_nodes_can_be_read_while_they_are_given(pair: tuple[Path, Path]) -> None:
    """Both sides of a difference can be opened; the side that is missing is None."""
    lower, upper = pair
    _same_size(upper)
    (upper / "fifo").unlink()
    (upper / "new").write_text("new")
    contents = {}
    with plain(lower, upper) as (old, new):
        for found in compare(old, new):
            for side, node in (("lower", found.lower), ("upper", found.upper)):
                if node is None or not stat.S_ISREG(node.stat.st_mode):
                    contents[found.path, side] = None if node is None else b"-"
                else:
                    with open(node.open(), "rb") as file:
                        contents[found.path, side] = file.read()

    assert contents[b"a/b/c/file", "lower"] == b"content"
    assert contents[b"a/b/c/file", "upper"] == b"CONTENT"
    assert contents[b"fifo", "upper"] is contents[b"new", "lower"] is None
    assert contents[b"new", "upper"] == b"new"


def test_closing_early_releases_everything(pair: tuple[Path, Path]) -> None:
    """An iterator that is given up in the middle of a deep directory leaves no descriptor open."""
    lower, upper = pair
    _same_size(upper)
    before = sorted(os.listdir("/proc/self/fd"))
    with plain(lower, upper) as (old, new):
        differences = compare(old, new)
        next(differences)
        assert len(os.listdir("/proc/self/fd")) > len(before) + 4
        differences.close()  # type: ignore[attr-defined]
    with Union([Branch(os.fsencode(lower), AUFS)]) as below:
        differences = compare_layer(Branch(os.fsencode(upper), AUFS), below)
        next(differences)
        differences.close()  # type: ignore[attr-defined]

    assert sorted(os.listdir("/proc/self/fd")) == before


def _replay(lower: dict[bytes, treetools.Look], differences: Iterator[Difference]) -> dict[bytes, treetools.Look]:
    """Do to a picture of the lower tree what the differences say, as unpacking their tar would."""
    seen = dict(lower)
    for found in differences:
        old, new = found.lower, found.upper
        merges = old and new and stat.S_ISDIR(old.stat.st_mode) and stat.S_ISDIR(new.stat.st_mode)
        if old is not None and not merges:
            for path in [path for path in seen if path == found.path or path.startswith(found.path + b"/")]:
                del seen[path]
        if new is not None:
            assert found.path not in seen or old is not None
            seen[found.path] = treetools.look_at_node(new)
    return seen


def _compare_every_way(place: Path, layers: list[Path], features: str) -> None:
    dialect, options = FEATURES[features]
    stack = branches(dialect, layers)
    with Union(stack[1:] or [Branch(os.fsencode(place), AUFS)]) as lower, Union(stack) as upper:
        below = lower if len(stack) > 1 else EmptyTree()
        expected = tell(compare(below, upper))
        assert tell(compare_layer(stack[0], below)) == expected
        for count in range(2, len(stack) + 1):
            with Union(stack[count:] or [Branch(os.fsencode(place), AUFS)]) as rest:
                base = rest if count < len(stack) else EmptyTree()
                together = tell(compare_layers(stack[:count], base))
                assert (count, together) == (count, tell(compare(base, upper)))
        assert tell(compare_layers([], below)) == []
        before = treetools.look_at_tree(below)
        assert _replay(before, compare_layer(stack[0], below)) == treetools.look_at_tree(upper)
        for found in compare(below, upper):
            if found.lower and found.upper and not stat.S_ISDIR(found.upper.stat.st_mode):
                same = treetools.look_at_node(found.lower) == treetools.look_at_node(found.upper)
                assert same != found.listed
    if features != "redirects" and len(stack) > 1:
        with (
            overlay(place / "1", layers[1:], None, *options) as old,
            overlay(place / "2", layers, None, *options) as new,
        ):
            assert compare_dirs(old, new) == expected


@treetools.needs_root
@pytest.mark.parametrize("features", list(FEATURES))
def test_one_layer_tells_what_whole_trees_tell_for_random_layers(features: str, tmp_path: Path) -> None:
    """Layers with any mark anywhere: reading the layer, comparing unions, and comparing mounts agree."""
    with tmpfs(tmp_path / "fs") as place:
        for seed in range(12):
            layers = treetools.random_layers(place / str(seed), seed, features)
            _compare_every_way(place / str(seed), layers, features)


@treetools.needs_root
@pytest.mark.parametrize("features", list(FEATURES))
def test_one_layer_tells_what_whole_trees_tell_after_real_edits(features: str, tmp_path: Path) -> None:
    """The same for what programs leave in an upper directory, renamed directories and hard links included."""
    with tmpfs(tmp_path / "fs") as place:
        for seed in range(12):
            layers = treetools.edited_layers(place / str(seed), seed, features)
            _compare_every_way(place / str(seed), layers, features)


@treetools.needs_root
def test_a_renamed_directory_is_told_without_what_its_files_share_below(tmp_path: Path) -> None:
    """All in a directory that overlay renamed is new; other names of its files, in the layers below, are not told."""
    with tmpfs(tmp_path / "fs") as place:
        lower = fill(place / "lower", {"d/f": "f", "d/s/g": "g"})
        os.link(lower / "d/f", lower / "other")
        upper = place / "upper"
        upper.mkdir()
        with overlay(place, [lower], upper, *FEATURES["redirects"][1]) as merged:
            os.rename(merged + b"/d", merged + b"/e")
        stack = branches(OVERLAY, [upper, lower])
        with Union(stack[1:]) as below, Union(stack) as whole:
            told = [found[:2] for found in tell(compare_layer(stack[0], below)) if found[2]]
            assert tell(compare(below, whole)) == tell(compare_layer(stack[0], below))

    assert told == [("d", "D"), ("e", "A"), ("e/f", "A"), ("e/s", "A"), ("e/s/g", "A")]


def test_one_wh_layer_tells_what_whole_trees_tell(tmp_path: Path) -> None:
    """In the ``.wh.`` dialect too: markers of nothing tell nothing, opaque directories tell what they hide."""
    lower = fill(tmp_path / "lower", {"d/s/u": "", "d/x": "", "e/y": "", "f": "", "g": "same", "h/1": "", "h/2": ""})
    upper = fill(
        tmp_path / "upper",
        {"d/.wh..wh..opq": "", "d/s/t": "", ".wh.e": "", ".wh.no": "", "g": "same", ".wh.f": "", "f": "new",
         ".wh.h": "", "h/2": "", "h/3": ""},
    )  # fmt: skip
    os.utime(lower, ns=(5, 5))
    os.utime(upper, ns=(5, 5))
    for name in ("d", "d/s", "h"):
        _times(upper / name)
    with Union(branches(AUFS, [lower])) as below, Union(branches(AUFS, [upper, lower])) as merged:
        told = tell(compare_layer(Branch(os.fsencode(upper), AUFS), below))
        assert tell(compare(below, merged)) == told

    assert told == [
        ("e", "D", True),
        ("d", "C", False), ("d/x", "D", True), ("d/s", "C", False), ("d/s/u", "D", True), ("d/s/t", "A", True),
        ("f", "C", True),
        ("h", "C", False), ("h/1", "D", True), ("h/3", "A", True),
    ]  # fmt: skip


@treetools.needs_root
def test_an_opaque_root_of_wh_hides_everything_and_one_of_overlay_nothing(tmp_path: Path) -> None:
    """An opaque layer root deletes all that is below it; overlay's own mark on a root means nothing."""
    with tmpfs(tmp_path / "fs") as place:
        lower = fill(place / "lower", {"a": "", "b/c": ""})
        for dialect, expected in (
            (AUFS, [("a", "D", True), ("b", "D", True), ("n", "A", True)]),
            (OVERLAY, [("n", "A", True)]),
        ):
            upper = fill(place / dialect.title, {"n": ""})
            fd = os.open(upper, os.O_RDONLY)
            dialect.write_opaque(fd)
            os.close(fd)
            os.utime(upper, ns=(5, 5))
            os.utime(lower, ns=(5, 5))
            with Union(branches(dialect, [lower])) as below:
                assert tell(compare_layer(Branch(os.fsencode(upper), dialect), below)) == expected


def test_very_deep_trees_are_walked(tmp_path: Path) -> None:
    """Depth costs neither recursion nor descriptors, whether trees are compared or one layer is read."""
    depth = 1500
    for side in ("lower", "upper"):
        (tmp_path / side).mkdir()
        fd = os.open(tmp_path / side, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir("d", dir_fd=fd)
            os.mkfifo("z", dir_fd=fd)
            os.utime("z", ns=(5, 5), dir_fd=fd)
            inner = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.utime(fd, ns=(5, 5))
            os.close(fd)
            fd = inner
        os.utime(fd, ns=(5, 5 if side == "lower" else 6))
        os.close(fd)
    try:
        lower, upper = os.fsencode(tmp_path / "lower"), os.fsencode(tmp_path / "upper")
        deepest = b"/".join([b"d"] * depth)
        with plain(lower, upper) as (old, new):
            assert [found.path for found in compare(old, new)][-1] == deepest
            assert sum(1 for _ in compare(EmptyTree(), new)) == 2 * depth + 1
        with Union([Branch(lower, AUFS)]) as below:
            paths = [found.path for found in compare_layer(Branch(upper, AUFS), below)]
            assert (len(paths), paths[-1]) == (depth, deepest)
    finally:
        fd = os.open(tmp_path, os.O_RDONLY)
        for side in (b"lower", b"upper"):
            trees.remove_tree(fd, side)
        os.close(fd)
