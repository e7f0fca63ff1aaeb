"""One directory between its two forms: what an upper directory of overlay can hold, and what a resting layer does."""

import contextlib
import os
import pathlib
import random
import stat
from collections.abc import Iterator

import attrs
import pytest
from aufstools import long_marker, make, merged, names, visible

from graphdrivers.archive.plain import EmptyTree
from graphdrivers.archive.union import Branch, Union
from graphdrivers.archive.whiteouts import AUFS_ESCAPED, AUFS_ESCAPED_USER, OVERLAY, OVERLAY_USER, Dialect
from graphdrivers.backends.aufs import translate
from graphdrivers.conformance import observe
from graphdrivers.linux import mounts
from graphdrivers.model import Mount

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="devices and trusted xattrs need root")

TIME = 1_700_000_000_987_654_321
LONG = "l" * 255


class Layer:
    """A layer's directory over one that it changes."""

    def __init__(self, root: pathlib.Path) -> None:
        """Make both, empty."""
        self.diff, self.base = root / "diff", root / "base"
        self.diff.mkdir()
        self.base.mkdir()

    @contextlib.contextmanager
    def lower(self) -> Iterator[Union]:
        """Give what is below."""
        with Union([Branch(str(self.base), AUFS_ESCAPED)]) as union:
            yield union

    def to_rest(self, overlay: Dialect = OVERLAY, rest: Dialect = AUFS_ESCAPED) -> bool:
        """Bring it to rest; say whether it holds markers."""
        with self.lower() as lower:
            return translate.to_rest(str(self.diff), lower, overlay, rest)

    def to_overlay(self, overlay: Dialect = OVERLAY) -> None:
        """Make it an upper directory."""
        with self.lower() as lower:
            translate.to_overlay(str(self.diff), lower, overlay)

    def whiteout(self, *paths: str) -> None:
        """Put whiteout devices."""
        for path in paths:
            (self.diff / path).parent.mkdir(parents=True, exist_ok=True)
            os.mknod(self.diff / path, stat.S_IFCHR, os.makedev(0, 0))

    def opaque(self, *paths: str, namespace: str = "trusted.overlay.") -> None:
        """Make directories opaque."""
        for path in paths:
            (self.diff / path).mkdir(parents=True, exist_ok=True)
            os.setxattr(self.diff / path, f"{namespace}opaque", b"y")

    def times(self) -> dict[str, int]:
        """Give the modification times of all directories."""
        found = observe.snapshot(str(self.diff))
        return {path: item.mtime for path, item in found.items() if item.kind == stat.S_IFDIR}

    def set_times(self) -> None:
        """Give all directories a time."""
        for path, item in observe.snapshot(str(self.diff)).items():
            if item.kind == stat.S_IFDIR:
                os.utime(self.diff / path, ns=(7, TIME))


@pytest.fixture
def layer(memory: pathlib.Path) -> Layer:
    """A layer over a base with files and directories."""
    made = Layer(memory)
    make(made.base, "a", "b", LONG, "dir/a", "dir/sub/a", "opaque/a", "opaque/sub/a", "was file", "gone/a", "n/m/a")
    return made


def residue(layer: Layer) -> None:
    """Leave what an upper directory can hold after use."""
    layer.whiteout("a", LONG, "dir/a", "gone", "n/m/a", "new/nothing", "opaque/a", "was file/x")
    make(layer.diff, "dir/sub/")
    layer.opaque("opaque", "was file", "new", "n/m")
    make(layer.diff, "file", "opaque/own", "opaque/sub/own", "new/own", "was file/own")
    for number, mark in enumerate(("origin", "impure", "nlink", "uuid", "upper", "protattr", "redirect", "metacopy")):
        os.setxattr(layer.diff / ("file", "dir", "opaque/sub", ".")[number % 4], f"trusted.overlay.{mark}", b"y")
    os.symlink("target", layer.diff / "symlink")
    os.setxattr(layer.diff / "symlink", "trusted.overlay.origin", b"y", follow_symlinks=False)
    os.setxattr(layer.diff / "dir", "trusted.overlay.overlay.opaque", b"content")
    os.setxattr(layer.diff / "file", "user.overlay.opaque", b"content")
    os.mknod(layer.diff / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(layer.diff / "block", stat.S_IFBLK | 0o600, os.makedev(0, 0))
    os.link(layer.diff / "a", layer.diff / "b")  # whiteouts of overlay are links of one another
    layer.set_times()


RESTED = {
    *(
        ".wh.a",
        ".wh.b",
        long_marker(LONG),
        ".wh.gone",
        "dir",
        "dir/.wh.a",
        "dir/sub",
        "file",
        "symlink",
        "null",
        "block",
    ),
    *("n", "n/m", "n/m/.wh..wh..opq", "new", "new/own", "opaque", "opaque/.wh..wh..opq", "opaque/own", "opaque/sub"),
    *("opaque/sub/own", "was file", "was file/.wh..wh..opq", "was file/own"),
}


def test_all_that_an_upper_directory_holds(layer: Layer) -> None:
    """Marks become markers where they hide something, private xattrs go, content and times of directories stay."""
    residue(layer)
    assert layer.to_rest()

    tree = observe.snapshot(str(layer.diff))
    assert set(tree) - {"."} == RESTED
    assert {path: item.xattrs for path, item in tree.items() if item.xattrs} == {
        "dir": {"trusted.overlay.overlay.opaque": b"content"},
        "file": {"user.overlay.opaque": b"content"},
    }
    assert set(layer.times().values()) == {TIME}
    markers = [item for path, item in tree.items() if os.path.basename(path).startswith(".wh.")]
    assert {(item.kind, item.mode) for item in markers} == {(stat.S_IFREG, 0o444)}
    assert (layer.diff / long_marker(LONG)).read_text() == LONG
    assert (tree["null"].device, tree["block"].kind) == (os.makedev(1, 3), stat.S_IFBLK)


def test_to_rest_twice_is_once(layer: Layer) -> None:
    """What is at rest already is left as it is."""
    residue(layer)
    layer.to_rest()
    before = observe.snapshot(str(layer.diff))
    assert layer.to_rest()

    assert observe.differences(before, observe.snapshot(str(layer.diff))) == []


def timeless(layer: Layer) -> dict[str, observe.Item]:
    """Look at the layer's directory, markers without their times."""
    tree = observe.snapshot(str(layer.diff))
    return {
        path: attrs.evolve(item, mtime=0) if os.path.basename(path).startswith(".wh.") else item
        for path, item in tree.items()
    }


def test_there_and_back(layer: Layer) -> None:
    """The two directions undo each other, to the xattr and the time, and no marker is left in the upper directory."""
    residue(layer)
    layer.to_rest()
    before = timeless(layer)
    layer.to_overlay()
    between = observe.snapshot(str(layer.diff))
    assert not any(os.path.basename(path).startswith(".wh.") for path in between)
    assert {path for path, item in between.items() if item.xattrs.get("trusted.overlay.opaque") == b"y"} == {
        *("n/m", "opaque", "was file"),
    }
    layer.to_overlay()
    assert observe.differences(between, observe.snapshot(str(layer.diff))) == []
    layer.to_rest()

    assert observe.differences(before, timeless(layer)) == []


def test_a_marker_of_nothing_becomes_no_device(layer: Layer) -> None:
    """What no ancestor has, no device deletes: overlayfs would list it where it merges nothing."""
    make(layer.diff, ".wh.nothing", "dir/.wh.nothing", "new/.wh.nothing", "was file/.wh.x", "dir/.wh.a")
    make(layer.diff, "opaque/.wh..wh..opq", "opaque/.wh.a", "opaque/sub/.wh.a")
    layer.to_overlay()

    assert names(layer.diff) == ["dir", "dir/a", "new", "opaque", "opaque/sub", "was file"]


def test_both_forms_at_once_are_one(layer: Layer) -> None:
    """Marker and device of one name, marker and xattr of one directory: what a kill leaves means what each does."""
    layer.whiteout("a", "dir/a")
    make(layer.diff, "opaque/own", "dir/sub/own")
    layer.opaque("opaque")
    for marker in (".wh.a", ".wh.b", "dir/.wh.a", "opaque/.wh..wh..opq"):
        (layer.diff / marker).touch()
    layer.set_times()
    assert layer.to_rest()

    assert names(layer.diff) == sorted(
        [".wh.a", ".wh.b", "dir", "dir/.wh.a", "dir/sub", "dir/sub/own", "opaque", "opaque/.wh..wh..opq", "opaque/own"]
    )
    assert set(layer.times().values()) == {TIME}


def test_a_cut_marker_of_a_long_name_is_made_anew(layer: Layer) -> None:
    """An empty marker says nothing: beside the device of its name it is replaced by one with content."""
    layer.whiteout(LONG)
    (layer.diff / long_marker(LONG)).touch()
    layer.to_rest()

    assert (layer.diff / long_marker(LONG)).read_text() == LONG


def test_a_directory_whose_xattrs_are_full(tmp_path: pathlib.Path) -> None:
    """Where no xattr more has room, on ext4, a directory is translated and keeps its times all the same."""
    layer = Layer(tmp_path)
    make(layer.base, "dir/a")
    layer.whiteout("dir/a")
    with contextlib.suppress(OSError):
        for number in range(4000):
            os.setxattr(layer.diff / "dir", f"user.{number}", b"x" * 20)
    layer.set_times()
    for _ in range(2):
        assert layer.to_rest()
        assert names(layer.diff) == ["dir", "dir/.wh.a"]
        layer.to_overlay()
    assert set(layer.times().values()) == {TIME}
    assert len(os.listxattr(layer.diff / "dir")) > 20


def test_bookkeeping_of_aufs_goes(layer: Layer) -> None:
    """What aufs keeps in its branches is not in the way of overlay, and no content."""
    make(
        layer.diff,
        ".wh..wh.plnk/1.2",
        ".wh..wh.orph/x/y",
        ".wh..wh.aufs",
        ".wh..wh.a.01ff/deep/er",
        "dir/.wh..wh.x",
        ".wh.",
    )
    (layer.diff / ".wh.a").symlink_to("b")
    make(layer.diff, ".wh.b/in/side", ".wh...", ".wh..", "dir/kept")
    layer.to_overlay()

    assert {path: item.device for path, item in observe.snapshot(str(layer.diff)).items() if path != "."} == {
        "a": 0,
        "b": 0,
        "dir": 0,
        "dir/kept": 0,
    }
    assert stat.S_ISCHR(os.lstat(layer.diff / "a").st_mode)


def test_markers_beside_entries(layer: Layer) -> None:
    """An entry wins over its own layer's marker; a directory becomes opaque by it, and nothing inside is a whiteout."""
    make(
        layer.diff, "a", ".wh.a", ".wh.dir", "dir/own", "dir/.wh.a", "dir/sub/.wh.a", "n/.wh.m", "n/m/.wh.a", "n/m/own"
    )
    layer.to_overlay()

    tree = observe.snapshot(str(layer.diff))
    assert set(tree) - {"."} == {"a", "dir", "dir/own", "dir/sub", "n", "n/m", "n/m/own"}
    assert [path for path, item in tree.items() if item.xattrs] == ["dir", "n/m"]


def test_an_empty_layer_has_no_marks(layer: Layer) -> None:
    """`has_marks` looks for what would become a marker, and for nothing else."""
    make(layer.diff, "dir/own")
    os.setxattr(layer.diff / "dir", "trusted.overlay.impure", b"y")
    assert not translate.has_marks(str(layer.diff), OVERLAY)
    assert not layer.to_rest()
    layer.whiteout("dir/sub")
    assert translate.has_marks(str(layer.diff), OVERLAY)
    (layer.diff / "dir/sub").unlink()
    layer.opaque("dir/deep/er")
    assert translate.has_marks(str(layer.diff), OVERLAY)
    assert not translate.has_marks(str(layer.diff), OVERLAY_USER)


def test_without_a_parent_nothing_is_hidden(layer: Layer) -> None:
    """In a base layer every mark is a mark of nothing."""
    residue(layer)
    assert not translate.to_rest(str(layer.diff), EmptyTree(), OVERLAY, AUFS_ESCAPED)

    assert not any(os.path.basename(name).startswith(".wh.") for name in names(layer.diff))
    assert set(layer.times().values()) == {TIME}


def test_marks_for_users(layer: Layer) -> None:
    """With user xattrs the other namespace is content."""
    layer.opaque("opaque", namespace="user.overlay.")
    os.setxattr(layer.diff / "opaque", "trusted.overlay.opaque", b"y")
    os.setxattr(layer.diff / "opaque", "user.overlay.overlay.opaque", b"content")
    layer.to_rest(OVERLAY_USER, AUFS_ESCAPED_USER)

    assert names(layer.diff) == ["opaque", "opaque/.wh..wh..opq"]
    assert set(os.listxattr(layer.diff / "opaque")) == {"trusted.overlay.opaque", "user.overlay.overlay.opaque"}


@pytest.mark.parametrize("seed", range(6))
def test_random_layers_keep_their_meaning(layer: Layer, seed: int) -> None:
    """Random marks: as an upper directory, at rest, and as an upper directory again, the layer shows the same."""
    dice = random.Random(seed)
    for folder in ("dir", "dir/sub", "opaque", "opaque/sub", "n", "n/m", "fresh"):
        if dice.random() < 0.7:
            (layer.diff / folder).mkdir(parents=True, exist_ok=True)
            if dice.random() < 0.4:
                layer.opaque(folder)
    for path in ("a", "b", LONG, "dir/a", "dir/sub/a", "opaque/a", "opaque/sub/a", "n/m/a", "gone", "was file"):
        if (layer.diff / path).parent.is_dir() and dice.random() < 0.6:
            if dice.random() < 0.6:
                layer.whiteout(path)
            else:
                make(layer.diff, path)
    layer.set_times()
    layer.to_rest()  # what hides nothing, and overlayfs would list, is gone now
    expected = visible(merged([layer.diff, layer.base]))
    layer.to_overlay()
    assert observe.differences(expected, mounted(layer)) == []
    layer.to_rest()

    assert observe.differences(expected, visible(merged([layer.diff, layer.base]))) == []


def mounted(layer: Layer) -> dict[str, observe.Item]:
    """Look at the layer through overlayfs, it being the upper directory."""
    work = layer.diff.parent / "work"
    work.mkdir(exist_ok=True)
    options = (("lowerdir+", str(layer.base)), ("upperdir", str(layer.diff)), ("workdir", str(work)))
    with mounts.opened((Mount("overlay", "test", options),)) as root:
        return observe.snapshot(root)
