"""Shadow branches, to the entry: what is built above and below each layer, what is left out, and how deep it goes."""

import os
import pathlib
import stat

import pytest
from aufstools import Opener, docker_home, long_marker, make, shown, written

from graphdrivers import errors
from graphdrivers.backends.aufs import overlaid
from graphdrivers.conformance import observe
from graphdrivers.model import Mount

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def structure(root: pathlib.Path) -> dict[str, str]:
    """Say what a shadow holds: ``-`` for a whiteout, ``/`` for a directory, ``=`` for an opaque one."""
    found = {}
    for path, item in observe.snapshot(str(root)).items():
        if path == ".":
            continue
        if item.kind == stat.S_IFDIR:
            found[path] = "=" if item.xattrs.get("trusted.overlay.opaque") == b"y" else "/"
        else:
            assert (item.kind, item.device) == (stat.S_IFCHR, 0), path
            found[path] = "-"
    return found


def lowers(plan: tuple[Mount, ...], home: pathlib.Path) -> list[str]:
    """Give the lower directories of a plan, relative to the home."""
    return [os.path.relpath(value, home) for key, value in plan[0].options if key == "lowerdir+" and value is not None]


def built(home: pathlib.Path, layer: str) -> dict[str, dict[str, str]]:
    """Say what shadows a layer has."""
    found = {kind: home / "state" / layer / kind for kind in ("above", "below")}
    return {kind: structure(place) for kind, place in found.items() if place.exists()}


def test_above_hides_and_below_carries_out(tmp_path: pathlib.Path, opened: Opener) -> None:
    """Markers become whiteouts of themselves above, and of what they delete below, united with the parent's own."""
    home = tmp_path / "home"
    base, middle, top = docker_home(home, ["base", "middle", "top"])
    (home / "layers/last").write_text("top\nmiddle\nbase\n")
    (home / "diff/last").mkdir()
    make(base, "a", "dir/b", ".wh.never")
    make(middle, ".wh.a", "dir/.wh.b", "dir/c", "opaque/.wh..wh..opq", "opaque/in/.wh.x", "plain/deep/er/")
    make(top, ".wh.dir", "dir/.wh.c", "dir/d", "opaque/.wh.e", "other/f/.wh.g")
    driver = opened(home)

    assert lowers(driver.mounts("last"), home) == [
        "state/top/above",
        "diff/top",
        "state/top/below",
        "diff/middle",
        "state/middle/below",
        "diff/base",
    ]
    markers = {".wh.dir": "-", "dir": "/", "dir/.wh.c": "-", "opaque": "/", "opaque/.wh.e": "-"}
    assert built(home, "top") == {
        "above": {**markers, "other": "/", "other/f": "/", "other/f/.wh.g": "-"},
        # Nothing of the middle layer below "dir", which is whiteouted: it cannot show.
        "below": {
            **dict.fromkeys(["dir", ".wh.a", "opaque/e", "other/f/g", "opaque/.wh..wh..opq", "opaque/in/.wh.x"], "-"),
            **dict.fromkeys(["opaque", "opaque/in", "other", "other/f"], "/"),
        },
    }
    assert built(home, "middle") == {
        "below": {"a": "-", "dir": "/", "dir/b": "-", "opaque": "=", ".wh.never": "-"},
    }
    assert built(home, "base") == {}
    assert sorted(path for path in shown(driver, "top") if path != ".") == sorted(
        ["dir", "dir/d", "opaque", "opaque/in", "other", "other/f", "plain", "plain/deep", "plain/deep/er"]
    )


def test_directories_above_are_dressed(tmp_path: pathlib.Path, opened: Opener) -> None:
    """Directories of the shadow above have owner, mode, xattrs and times of the layer's own, which it covers."""
    home = tmp_path / "home"
    base, middle, _ = docker_home(home, ["base", "middle", "top"])
    make(base, "dir/sub/gone")
    make(middle, "dir/sub/.wh.gone", "dir/file")
    for number, path in enumerate(("dir/sub", "dir", ".")):
        place = middle / path
        os.chown(place, 10 + number, 20 + number)
        place.chmod(0o2700 + number)
        os.setxattr(place, "user.number", b"%d" % number)
        os.setxattr(place, "trusted.overlay.overlay.opaque", b"content")
        os.utime(place, ns=(5, 1_234_567_890_123_456_789 + number))
    tree = shown(opened(home), "middle")

    for number, path in enumerate(("dir/sub", "dir", ".")):
        item = tree[path]
        assert (item.mode, item.uid, item.gid) == (0o2700 + number, 10 + number, 20 + number)
        assert item.mtime == 1_234_567_890_123_456_789 + number
        assert item.xattrs == {"user.number": b"%d" % number, "trusted.overlay.opaque": b"content"}


def test_unmarked_layers_have_no_shadow(tmp_path: pathlib.Path, opened: Opener) -> None:
    """Of layers without deletions nothing is built, and the lower directories are the layers."""
    driver = opened(tmp_path / "home")
    parent = None
    for layer in ("a", "b", "c", "d"):
        driver.create(layer, parent)
        if layer != "d":
            written(driver, layer, lambda root, layer=layer: make(pathlib.Path(root), layer))  # type: ignore[misc]
            if layer == "c":
                written(driver, layer, lambda root: os.unlink(f"{root}/a"))
            driver.settle(layer)
            driver.seal(layer)
        parent = layer

    assert lowers(driver.mounts("b", view=True), tmp_path / "home") == ["diff/b", "diff/a"]
    assert lowers(driver.mounts("d"), tmp_path / "home") == [
        "state/c/above",
        "diff/c",
        "state/c/below",
        "diff/b",
        "diff/a",
    ]
    assert [built(tmp_path / "home", layer) for layer in ("a", "b", "d")] == [{}, {}, {}]
    assert built(tmp_path / "home", "c") == {"above": {".wh.a": "-"}, "below": {"a": "-"}}


def test_shadows_are_built_once_and_go_with_the_layer(tmp_path: pathlib.Path, opened: Opener) -> None:
    """A second mount uses the same directories; removing the layer removes them."""
    home = tmp_path / "home"
    base, middle, _ = docker_home(home, ["base", "middle", "top"])
    make(base, "a")
    make(middle, ".wh.a")
    driver = opened(home)
    driver.mounts("top")
    before = [(home / "state/middle" / kind).stat().st_ino for kind in ("above", "below")]
    again = opened(home)
    again.mounts("top")

    assert [(home / "state/middle" / kind).stat().st_ino for kind in ("above", "below")] == before
    again.remove("top")
    again.remove("middle")
    assert sorted(os.listdir(home / "state")) == ["base"]
    assert os.listdir(home / "tmp") == []


@pytest.mark.parametrize("where", [0, 1, 2])
def test_an_opaque_root_ends_the_stack(tmp_path: pathlib.Path, opened: Opener, where: int) -> None:
    """Nothing below a layer whose root is opaque is mounted, on whichever layer that is."""
    home = tmp_path / "home"
    folders = docker_home(home, ["a", "b", "c", "top"])
    for folder in folders[:3]:
        make(folder, folder.name)
    (folders[where] / ".wh..wh..opq").touch()
    driver = opened(home)

    assert sorted(shown(driver, "c")) == [".", *"abc"[where:]]
    assert lowers(driver.mounts("c", view=True), home)[-1] == f"diff/{'abc'[where]}"
    with pytest.raises(errors.LayerSealed):
        driver.mounts("c")


def test_a_writable_layer_with_an_opaque_root(tmp_path: pathlib.Path, opened: Opener, engine: str) -> None:
    """A leaf of Docker's whose root is opaque hides all below, when mounted and at rest again."""
    home = tmp_path / "home"
    base, leaf = docker_home(home, ["base", "leaf"])
    make(base, "file", "dir/old", "both/old", "both/sub/old", "nested/in/old")
    make(leaf, ".wh..wh..opq", "own", "both/new", "both/sub/.wh.old", "both/.wh.old", "nested/in/.wh.old")
    driver = opened(home, engine)
    expected = [".", "both", "both/new", "both/sub", "nested", "nested/in", "own"]
    tree: list[str] = []
    for _ in range(2):
        written(driver, "leaf", lambda root: tree.extend(sorted(observe.snapshot(root))))
        driver.settle("leaf")
    assert tree == expected * 2
    written(driver, "leaf", lambda root: (os.rmdir(f"{root}/nested/in"), os.rmdir(f"{root}/both/sub")))
    driver.seal("leaf")
    assert sorted(shown(driver, "leaf")) == [".", "both", "both/new", "nested", "own"]


def test_markers_beside_their_entries(tmp_path: pathlib.Path, opened: Opener, engine: str) -> None:
    """The entries of a layer win over its own markers (N1, N2, N3), and a file hides older directories (N4)."""
    home = tmp_path / "home"
    base, middle, top, _ = docker_home(home, ["base", "middle", "top", "last"])
    make(base, "file", "dir/old", "deep/dir/old", "over/old", "kept/x")
    make(
        middle,
        ".wh.file",
        "file",
        ".wh.dir",
        "dir/new",
        "deep/.wh.dir",
        "deep/dir/sub/.wh.y",
        "deep/dir/.wh.old",
        "over",
    )
    make(top, "over/new", ".wh.none", "nowhere/.wh.x")
    tree = shown(opened(home, engine), "top")

    assert sorted(tree) == sorted(
        [
            ".",
            "file",
            "dir",
            "dir/new",
            "deep",
            "deep/dir",
            "deep/dir/sub",
            "over",
            "over/new",
            "kept",
            "kept/x",
            "nowhere",
        ]
    )


def test_long_names_are_deleted(tmp_path: pathlib.Path, opened: Opener) -> None:
    """The marker of a long name acts by its content; one whose content does not fit, or is no file, does nothing."""
    home = tmp_path / "home"
    base, middle, _ = docker_home(home, ["base", "middle", "top"])
    deleted, kept, linked = "d" * 252, "k" * 255, "s" * 254
    make(base, deleted, kept, linked, f"{deleted[:-1]}e/in")
    (middle / long_marker(deleted)).write_text(deleted)
    (middle / long_marker(kept)).write_text("no such name")
    (middle / long_marker(linked)).symlink_to(linked)
    (middle / ".wh..wh.long-dir").mkdir()
    driver = opened(home)

    assert sorted(shown(driver, "middle")) == sorted([".", kept, linked, f"{deleted[:-1]}e", f"{deleted[:-1]}e/in"])
    assert built(home, "middle")["below"] == {deleted: "-"}


def test_the_deepest_stack(memory: pathlib.Path, opened: Opener) -> None:
    """250 layers with markers in each, 500 lower directories, are mounted and shown; one more is ChainTooDeep."""
    depth = overlaid.MAX_DEPTH
    home = memory / "home"
    layers = [f"{number:064}" for number in range(depth)]
    for number, folder in enumerate(docker_home(home, layers)):
        make(folder, f"{number}", f".wh.{number - 2}")
    driver = opened(home)
    driver.seal(layers[-1])

    plan = driver.mounts(layers[-1], view=True)
    assert len(lowers(plan, home)) == 500
    assert sorted(shown(driver, layers[-1])) == sorted([".", str(depth - 2), str(depth - 1)])
    with pytest.raises(errors.ChainTooDeep):
        driver.create("one more", layers[-1])
    driver.remove(layers[-1])
    driver.create("instead", layers[-2])
    written(driver, "instead", lambda root: os.unlink(f"{root}/{depth - 2}"))
    driver.seal("instead")
    assert sorted(shown(driver, "instead")) == sorted([".", str(depth - 3)])


def test_two_processes_build_one_shadow(memory: pathlib.Path, opened: Opener) -> None:
    """Who comes second keeps what is there; nothing is left in ``tmp``."""
    home = memory / "home"
    base, middle, _ = docker_home(home, ["base", "middle", "top"])
    make(base, "a")
    make(middle, ".wh.a")
    driver = opened(home)
    children = []
    for _ in range(4):
        child = os.fork()
        if not child:
            os._exit(0 if sorted(shown(driver, "middle")) == ["."] else 1)
        children.append(child)

    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert os.listdir(home / "tmp") == []
