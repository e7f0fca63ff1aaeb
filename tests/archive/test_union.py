"""The union without a mount shows what kernel overlayfs shows, and what the OCI rules say of ``.wh.`` layers."""

import errno
import os
import random
import stat
from pathlib import Path

import pytest
import treetools
from treetools import FEATURES, branches, fill, look_at_mount, look_at_tree, overlay, tmpfs

from graphdrivers.archive.union import Branch, Union
from graphdrivers.archive.whiteouts import AUFS, OVERLAY, PLAIN, Dialect


def _same_as_kernel(place: Path, layers: list[Path], features: str) -> dict[bytes, treetools.Look]:
    """Compare both ways of reading a union with a mount of the same layers."""
    dialect, options = FEATURES[features]
    with overlay(place, layers, None, *options) as merged:
        expected = look_at_mount(merged)
    with Union(branches(dialect, layers), open_limit=3) as union:
        assert look_at_tree(union) == expected
        assert look_at_tree(union, by_lookup=True) == expected
        for path, look in expected.items():
            node = union.find(path)
            assert node is not None
            assert oct(node.stat.st_mode) == look[0]
            assert (union.directory(path) is not None) == stat.S_ISDIR(node.stat.st_mode)
    return expected


@treetools.needs_root
@pytest.mark.parametrize("features", list(FEATURES))
def test_random_layers_merge_as_in_the_kernel(features: str, tmp_path: Path) -> None:
    """Layers with every mark in every odd place: names, attributes, xattrs and contents are the kernel's."""
    with tmpfs(tmp_path / "fs") as place:
        for seed in range(20):
            layers = treetools.random_layers(place / str(seed), seed, features)
            _same_as_kernel(place / str(seed), layers, features)


@treetools.needs_root
@pytest.mark.parametrize("features", list(FEATURES))
def test_layers_left_by_mounts_merge_as_in_the_kernel(features: str, tmp_path: Path) -> None:
    """Upper directories that the kernel wrote: renamed directories, metadata-only copies, escapes and all."""
    with tmpfs(tmp_path / "fs") as place:
        for seed in range(8):
            layers = treetools.edited_layers(place / str(seed), seed, features)
            _same_as_kernel(place / str(seed), layers, features)


@treetools.needs_root
def test_a_renamed_directory_and_a_metadata_copy_are_followed(tmp_path: Path) -> None:
    """A directory renamed twice shows its old content; a chmod of a big file below it costs no copy and loses none."""
    with tmpfs(tmp_path / "fs") as place:
        base = fill(place / "base", {"d/e/big": "B" * 100_000, "d/e/small": "s"})
        for number, (old, new) in enumerate([("d", "moved"), ("moved/e", "out"), ("out/big", "out/renamed")]):
            upper = place / f"upper{number}"
            upper.mkdir()
            lowers = [place / f"upper{below}" for below in reversed(range(number))]
            with overlay(place, [*lowers, base], upper, *FEATURES["redirects"][1]) as merged:
                os.rename(merged + b"/" + old.encode(), merged + b"/" + new.encode())
                if number == 2:
                    os.chmod(merged + b"/out/renamed", 0o600)
        layers = [place / f"upper{number}" for number in (2, 1, 0)]
        copy = layers[0] / "out/renamed"
        assert copy.stat().st_blocks * 512 < 100_000
        expected = _same_as_kernel(place, [*layers, base], "redirects")

        assert expected[b"out/renamed"][7] == b"B" * 100_000


@treetools.needs_root
@pytest.mark.parametrize(
    "marks",
    [
        {"p": ("opaque", b"y"), "p/q": ("redirect", b"/x")},
        {"p": ("redirect", b"/x/y"), "p/q": ("redirect", b"/a")},
        {"p": ("redirect", b"x"), "p/q": ("redirect", b"b")},
        {"p": ("opaque", b"x"), "p/q": ("redirect", b"/x")},
    ],
)
def test_redirects_and_opaque_parents_combine_as_in_the_kernel(
    marks: dict[str, tuple[str, bytes]], tmp_path: Path
) -> None:
    """A redirect out of an opaque directory is followed; the layer in between may redirect parts of the path again."""
    below = {"x/y/q/1": "1", "x/b/2": "2", "x/3": "3", "a/4": "4", "b/5": "5", "p/q/6": "6", "x/q/7": "7", "a/y/8": "8"}
    with tmpfs(tmp_path / "fs") as place:
        top = fill(place / "top", {"p/q/own": "own"})
        for path, (mark, value) in marks.items():
            os.setxattr(top / path, OVERLAY.xattr(mark), value)
        for turn, (path, value) in enumerate([("x", b"a"), ("x/y", b"b"), ("x/y", b"/a"), ("x", b"/p")]):
            middle = fill(place / f"middle{turn}", {"x/y/m": "m"})
            os.setxattr(middle / path, OVERLAY.xattr("redirect"), value)
            _same_as_kernel(place / str(turn), [top, middle, fill(place / f"bottom{turn}", below)], "redirects")
            if b"opaque" not in {mark.encode() for mark, _ in marks.values()}:
                os.setxattr(middle / "x", OVERLAY.xattr("opaque"), b"y")
                _same_as_kernel(place / f"{turn}o", [top, middle, place / f"bottom{turn}"], "redirects")


@treetools.needs_root
@pytest.mark.parametrize("target", [b"..", b"a/b", b"/../../etc", b"/a//b", b"/a/.", b"/", b""])
def test_a_redirect_that_leads_nowhere_good_is_refused(target: bytes, tmp_path: Path) -> None:
    """A redirect can name one sibling or an absolute path of plain names; nothing in a layer leads out of it."""
    with tmpfs(tmp_path / "fs") as place:
        top, bottom = fill(place / "top", {"d/x": "x"}), fill(place / "bottom", {"d/y": "y"})
        os.setxattr(top / "d", OVERLAY.xattr("redirect"), target)
        with (
            Union(branches(OVERLAY, [top, bottom])) as union,
            pytest.raises(OSError, match="invalid redirect") as caught,
        ):
            union.directory(b"d")

        assert caught.value.errno == errno.EINVAL


@treetools.needs_root
def test_a_metadata_copy_without_content_is_an_error(tmp_path: Path) -> None:
    """The zeros of a copy whose content is nowhere are never given as content."""
    with tmpfs(tmp_path / "fs") as place:
        top, bottom = fill(place / "top", {"f": "zeros"}), fill(place / "bottom", {"g": "g"})
        os.setxattr(top / "f", OVERLAY.xattr("metacopy"), b"")
        for layers in ([top, bottom], [top]):
            with Union(branches(OVERLAY, layers)) as union:
                node = union.find(b"f")
                assert node is not None
                with pytest.raises(OSError, match="no layer has the content") as caught:
                    node.open()
                assert caught.value.errno == errno.EIO


@treetools.needs_root
def test_names_of_one_file_stay_one_file(tmp_path: Path) -> None:
    """Hard links of one layer are the same inode in the merged view."""
    with tmpfs(tmp_path / "fs") as place:
        top, bottom = fill(place / "top", {"a": "a"}), fill(place / "bottom", {"d/b": "b"})
        os.link(top / "a", top / "c")
        os.link(bottom / "d/b", bottom / "e")
        with Union(branches(OVERLAY, [top, bottom])) as union:
            for one, other in [(b"a", b"c"), (b"d/b", b"e")]:
                first, second = union.find(one), union.find(other)
                assert first is not None
                assert second is not None
                assert (first.stat.st_ino, first.stat.st_nlink) == (second.stat.st_ino, 2)


# what a stack of .wh. layers, bottom first, shows: paths, with contents where they matter
_MERGES: dict[str, tuple[list[dict[str, str | None]], dict[str, str]]] = {
    "W1 each kind": ([{"f": "", "d/x/y": "", "l": "-> f"}, {".wh.f": "", ".wh.d": "", ".wh.l": ""}], {}),
    "W1 link target stays": ([{"f": "f", "l": "-> f"}, {".wh.l": ""}], {"f": "f"}),
    "W2 entry beside its marker": ([{"f": "old"}, {".wh.f": "", "f": "new"}], {"f": "new"}),
    "W3 directory beside its marker": ([{"d/old": ""}, {".wh.d": "", "d/new": "n"}], {"d/": "", "d/new": "n"}),
    "W4 nothing to delete": ([{"f": "f"}, {".wh.no": "", "d/.wh.no": "", "f/": ""} | {}], {"d/": "", "f/": ""}),
    "W5 opaque": (
        [{"d/s/u": "", "d/x": "", "e": "e"}, {"d/.wh..wh..opq": "", "d/.wh.x": "", "d/s/t": "t"}],
        {"d/": "", "d/s/": "", "d/s/t": "t", "e": "e"},
    ),
    "W6 opaque without lower": ([{"e": "e"}, {"d/.wh..wh..opq": "", "d/x": "x"}], {"d/": "", "d/x": "x", "e": "e"}),
    "W6 opaque root": ([{"e": "e"}, {".wh..wh..opq": "", "x": "x"}, {"y": "y"}], {"x": "x", "y": "y"}),
    "W7 opaque over a file": ([{"d": "file"}, {"d/.wh..wh..opq": "", "d/x": "x"}], {"d/": "", "d/x": "x"}),
    "W8 file over directory": ([{"d/x": ""}, {"d": "file"}], {"d": "file"}),
    "W8 directory over file": ([{"d": "file"}, {"d/x": "x"}], {"d/": "", "d/x": "x"}),
    "W8 link under a directory": (
        [{"t/x": "x", "d": "-> t"}, {"d/y": "y"}],
        {"d/": "", "d/y": "y", "t/": "", "t/x": "x"},
    ),
    "N4 a file blocks older directories": ([{"d/old": ""}, {"d": "file"}, {"d/x": "x"}], {"d/": "", "d/x": "x"}),
    "N5 opaque twice": (
        [{"c/1": ""}, {"c/.wh..wh..opq": "", "c/2": ""}, {"c/.wh..wh..opq": "", "c/3": "3"}],
        {"c/": "", "c/3": "3"},
    ),
    "W9 deleted and made again": ([{"d/x": ""}, {".wh.d": ""}, {"d/y": "y"}], {"d/": "", "d/y": "y"}),
    "W9 and emptied": ([{"d/x": ""}, {".wh.d": ""}, {"d/y": "y"}, {"d/.wh.y": ""}], {"d/": ""}),
    "W10 marker of the parent": (
        [{"d/x": "", "d/z": ""}, {".wh.d": "", "d/.wh.x": "", "d/n": "n"}],
        {"d/": "", "d/n": "n"},
    ),
    "W14 odd targets": (
        [{".hidden": "", ".opq": "", "d/wh.foo": "k"}, {".wh..hidden": "", ".wh..opq": "", "d/.wh..wh.foo": ""}],
        {"d/": "", "d/wh.foo": "k"},
    ),
    "W15 a marker of any kind": (
        [{"a": "", "b": "", "c": ""}, {".wh.a/": "", ".wh.a/in": "", ".wh.b": "-> a", ".wh.c": "not empty"}],
        {},
    ),
    "W16 bookkeeping": ([{"f": "f"}, {".wh..wh.aufs": "", ".wh..wh.plnk/1.2": "", ".wh..wh.orph/": ""}], {"f": "f"}),
    "W19 look-alikes": ([{"f": "f"}, {".WH.f": "1", ".whf": "2"}], {"f": "f", ".WH.f": "1", ".whf": "2"}),
    "W20 the longest that fits": ([{"n" * 251: "", "m" * 255: "m"}, {".wh." + "n" * 251: ""}], {"m" * 255: "m"}),
    "W21 one name of two": ([{"a": "a", "b": "b"}, {".wh.a": ""}], {"b": "b"}),
}


@pytest.mark.parametrize("name", list(_MERGES))
def test_wh_layers_merge_by_the_oci_rules(name: str, tmp_path: Path) -> None:
    """Markers act on lower layers only, before the layer's own entries, and are never visible."""
    layers, expected = _MERGES[name]
    paths = [fill(tmp_path / str(number), files) for number, files in reversed(list(enumerate(layers)))]
    with Union(branches(AUFS, paths)) as union:
        for by_lookup in (False, True):
            seen = look_at_tree(union, by_lookup=by_lookup)
            shown = {
                os.fsdecode(path) + ("/" if str(look[0]).startswith("0o4") else ""): os.fsdecode(bytes(look[7]))  # type: ignore[arg-type]
                for path, look in seen.items()
                if path
            }
            assert shown == expected


def test_upper_directory_attributes_replace_the_lower_ones(tmp_path: Path) -> None:
    """W11: mode and xattrs of a merged directory are those of the topmost layer that has it, none merged."""
    top, bottom = fill(tmp_path / "top", {"d/x": ""}), fill(tmp_path / "bottom", {"d/y": ""})
    os.setxattr(bottom / "d", "user.lower", b"1")
    os.setxattr(top / "d", "user.upper", b"2")
    os.chmod(bottom / "d", 0o700)
    os.chmod(top / "d", 0o500)
    with Union(branches(AUFS, [top, bottom])) as union:
        node = union.find(b"d")
        assert node is not None

        assert stat.S_IMODE(node.stat.st_mode) == 0o500
        assert node.xattrs() == {"user.upper": b"2"}


def _merge(lower: dict[str, object], layer: Path) -> dict[str, object]:
    """Merge one ``.wh.`` layer over a tree of nested dictionaries, literally as OCI's layer.md says."""
    names = sorted(os.listdir(layer))
    result = {} if ".wh..wh..opq" in names else dict(lower)
    for name in names:
        if name.startswith(".wh."):
            result.pop(name.removeprefix(".wh."), None)
    for name in names:
        if not name.startswith(".wh."):
            path = layer / name
            below = result.get(name)
            result[name] = _merge(below if isinstance(below, dict) else {}, path) if path.is_dir() else path.read_text()
    return result


def _random_wh_layer(rng: random.Random, layer: Path, depth: int = 0) -> None:
    layer.mkdir(parents=True)
    for name in "abc":
        if rng.random() < 0.25:
            (layer / f".wh.{name}").touch()
        draw = rng.random()
        if draw < 0.3:
            (layer / name).write_text(str(rng.random()))
        elif draw < 0.7 and depth < 3:
            _random_wh_layer(rng, layer / name, depth + 1)
    if rng.random() < 0.15:
        (layer / ".wh..wh..opq").touch()


def test_random_wh_layers_merge_by_the_oci_rules(tmp_path: Path) -> None:
    """Un-normalised layers, markers beside entries and opaque marks anywhere: the merge is that of a simple model."""
    for seed in range(60):
        rng = random.Random(seed)
        layers = [tmp_path / f"{seed}-{number}" for number in range(rng.randint(1, 5))]
        expected: dict[str, object] = {}
        for layer in layers:
            _random_wh_layer(rng, layer)
            expected = _merge(expected, layer)
        with Union(branches(AUFS, layers[::-1])) as union:
            for by_lookup in (False, True):
                seen = look_at_tree(union, by_lookup=by_lookup)
                files = {path: look[7] for path, look in seen.items() if str(look[0]).startswith("0o1")}
                assert files == {path: text for path, text in _flatten(expected).items() if text is not None}
                assert {path for path in seen if path} == set(_flatten(expected))


def _flatten(tree: dict[str, object], prefix: str = "") -> dict[bytes, bytes | None]:
    flat: dict[bytes, bytes | None] = {}
    for name, value in tree.items():
        path = prefix + name
        flat[path.encode()] = None if isinstance(value, dict) else str(value).encode()
        if isinstance(value, dict):
            flat.update(_flatten(value, path + "/"))
    return flat


def test_paths_are_taken_literally(tmp_path: Path) -> None:
    """No symbolic link is followed on the way, the last one included; what is no directory has nothing below it."""
    top = fill(tmp_path / "top", {"link": "-> real", "file": "f"})
    bottom = fill(tmp_path / "bottom", {"real/x": "x"})
    with Union(branches(PLAIN, [top, bottom])) as union:
        link = union.find(b"link")
        assert link is not None
        assert link.readlink() == b"real"
        assert union.find(b"real/x") is not None
        for missing in (b"link/x", b"file/x", b"no", b"no/x", b"real/x/y", b"n" * 256, b"real/" + b"n" * 300):
            assert union.find(missing) is None
        assert union.directory(b"link") is None
        assert union.directory(b"real") is union.directory(b"real")
        root = union.find(b"")
        assert root is not None
        assert root.stat.st_ino == os.stat(top).st_ino


@pytest.mark.parametrize("dialect", [PLAIN, AUFS])
def test_what_marks_mean_depends_on_the_dialect(dialect: Dialect, tmp_path: Path) -> None:
    """In a plain tree a ``.wh.`` name is a name like any other."""
    top, bottom = fill(tmp_path / "top", {".wh.f": ""}), fill(tmp_path / "bottom", {"f": ""})
    with Union(branches(dialect, [top, bottom])) as union:
        assert (union.find(b"f") is None) == (dialect is AUFS)
        assert (union.find(b".wh.f") is None) == (dialect is AUFS)


@treetools.needs_root
def test_a_device_is_a_whiteout_only_where_overlay_wrote_it(tmp_path: Path) -> None:
    """W18: character device 0:0 in a plain tree or a ``.wh.`` layer is that device."""
    with tmpfs(tmp_path / "fs") as place:
        top, bottom = fill(place / "top", {"f": None}), fill(place / "bottom", {"f": ""})
        for dialect, shown in ((PLAIN, stat.S_IFCHR), (AUFS, stat.S_IFCHR), (OVERLAY, None)):
            with Union(branches(dialect, [top, bottom])) as union:
                node = union.find(b"f")
                assert (node and stat.S_IFMT(node.stat.st_mode)) == shown


def test_many_layers_need_few_descriptors(tmp_path: Path) -> None:
    """The number of layers does not decide how many descriptors a union holds."""
    layers = [fill(tmp_path / str(number), {f"d/{number}": ""}) for number in range(300)]
    before = len(os.listdir("/proc/self/fd"))
    with Union(branches(AUFS, layers)) as union:
        directory = union.directory(b"d")
        assert directory is not None
        assert len(directory.scan()) == 300
        assert union.find(b"d/299") is not None
        assert len(os.listdir("/proc/self/fd")) < before + 200


def test_branches_can_be_descriptors(tmp_path: Path) -> None:
    """A branch given as an ``O_PATH`` descriptor is read without taking or moving it; closing releases all others."""
    fill(tmp_path / "layer", {"d/f": "content"})
    descriptor = os.open(tmp_path / "layer", os.O_PATH)
    before = sorted(os.listdir("/proc/self/fd"))
    with Union([Branch(descriptor, PLAIN)]) as union:
        assert look_at_tree(union)[b"d/f"][7] == b"content"
        assert union.root().scan()
        assert len(os.listdir("/proc/self/fd")) > len(before)
    union.close()
    os.fstat(descriptor)

    assert sorted(os.listdir("/proc/self/fd")) == before
    os.close(descriptor)


def test_a_node_of_another_tree_is_no_node_of_this_one(tmp_path: Path) -> None:
    """Entering with a foreign node is a mistake that shows at once."""
    fill(tmp_path / "layer", {"d/f": ""})
    descriptor = os.open(tmp_path / "layer", os.O_RDONLY)
    with Union([Branch(descriptor, PLAIN)]) as union, union.root() as root:
        foreign = treetools.plain_node(descriptor, b"d")
        with pytest.raises(TypeError, match="no node of a union"):
            root.enter(foreign)
    os.close(descriptor)
