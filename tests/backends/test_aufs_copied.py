"""The copy engine: what was changed in the copy is folded into the layer, exactly that, and the copy goes."""

import os
import pathlib
import shutil
from collections.abc import Callable

import pytest
from aufstools import Opener, make, merged, names, shown, written

from graphdrivers.backends.aufs.driver import AufsDriver
from graphdrivers.conformance import observe
from graphdrivers.kit import baseline
from graphdrivers.linux import mounts

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and mounts need root")


@pytest.fixture
def home(memory: pathlib.Path) -> pathlib.Path:
    """Where the driver works."""
    return memory / "home"


def base_tree(root: str) -> None:
    """Fill the base."""
    here = pathlib.Path(root)
    make(here, "file", "other", "dir/file", "dir/sub/file", "empty/", "moved/a", "moved/b/c")
    os.link(here / "file", here / "linked")
    (here / "symlink").symlink_to("file")
    os.mkfifo(here / "fifo")
    os.setxattr(here / "dir/file", "user.note", b"1")
    os.setxattr(here / "dir/file", "trusted.overlay.opaque", b"content")


@pytest.fixture
def driver(home: pathlib.Path, opened: Opener) -> AufsDriver:
    """The driver on a home with a sealed base and a writable layer, which was copied once, over it."""
    made = opened(home, "copy")
    made.create("root")
    made.seal("root")
    made.create("base", "root")
    written(made, "base", base_tree)
    made.settle("base")
    made.seal("base")
    made.create("layer", "base")
    made.mounts("layer")
    return made


def test_an_untouched_tree_folds_to_nothing(driver: AufsDriver, home: pathlib.Path) -> None:
    """Reading changes nothing; the layer stays empty, the copy goes, and the root keeps its times."""
    before = shown(driver, "base")
    written(
        driver, "layer", lambda root: [path.is_file() and path.read_bytes() for path in pathlib.Path(root).rglob("*")]
    )
    driver.settle("layer")

    assert names(home / "diff/layer") == []
    assert os.listdir(home / "mnt/layer") == []
    assert sorted(os.listdir(home / "state/layer")) == []
    assert list(driver.changes("layer")) == []
    driver.seal("layer")
    assert observe.differences(before, shown(driver, "layer")) == []


def _again(place: pathlib.Path) -> None:
    """Replace a file by one that differs in nothing but its times."""
    content, mode = place.read_bytes(), place.stat().st_mode
    place.unlink()
    place.write_bytes(content)
    place.chmod(mode)


CHANGES: dict[str, tuple[Callable[[pathlib.Path], object], list[str]]] = {
    "mode": (lambda root: (root / "other").chmod(0o600), ["other"]),
    "owner": (lambda root: os.chown(root / "dir/sub/file", 3, 4), ["dir", "dir/sub", "dir/sub/file"]),
    "owner of a link": (lambda root: os.chown(root / "symlink", 3, 4, follow_symlinks=False), ["symlink"]),
    "xattr": (lambda root: os.setxattr(root / "dir/file", "user.note", b"2"), ["dir", "dir/file"]),
    "xattr gone": (lambda root: os.removexattr(root / "dir/file", "trusted.overlay.opaque"), ["dir", "dir/file"]),
    "time": (lambda root: os.utime(root / "fifo", ns=(0, 0)), ["fifo"]),
    "mode of a directory": (lambda root: (root / "empty").chmod(0o700), ["empty"]),
    "one of two names": (lambda root: (root / "linked").unlink(), [".wh.linked"]),
    "one more name": (lambda root: os.link(root / "other", root / "new"), ["new", "other"]),
    "through one of two names": (lambda root: (root / "linked").write_text("x" * 4), ["file", "linked"]),
    "moved": (
        lambda root: (root / "moved").rename(root / "empty/m"),
        [".wh.moved", "empty", "empty/m", "empty/m/a", "empty/m/b", "empty/m/b/c"],
    ),
    "replaced by its like": (lambda root: _again(root / "other"), ["other"]),
    "made and gone": (lambda root: (make(root, "x/y"), shutil.rmtree(root / "x")), []),
    "gone and made": (lambda root: (shutil.rmtree(root / "empty"), make(root, "empty/")), ["empty"]),
    "file to directory": (
        lambda root: ((root / "other").unlink(), make(root, "other/x")),
        ["other", "other/.wh..wh..opq", "other/x"],
    ),
    "directory to file": (lambda root: (shutil.rmtree(root / "moved"), make(root, "moved")), ["moved"]),
    "link to file": (lambda root: ((root / "symlink").unlink(), make(root, "symlink")), ["symlink"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_is_found(driver: AufsDriver, home: pathlib.Path, change: str) -> None:
    """Of each kind of change the layer gets what is needed to show it, and nothing else."""
    act, expected = CHANGES[change]
    written(driver, "layer", lambda root: act(pathlib.Path(root)))
    with mounts.opened(driver.mounts("layer")) as root:
        wanted = observe.snapshot(root)
    driver.settle("layer")

    assert names(home / "diff/layer") == expected
    driver.seal("layer")
    assert observe.differences(wanted, shown(driver, "layer")) == []


def test_an_edit_that_hides_itself(driver: AufsDriver, home: pathlib.Path) -> None:
    """Same size, same times, in place: the inode's ctime, which nobody can set, gives it away."""

    def act(root: str) -> None:
        for path in ("other", "dir/sub/file"):
            place = pathlib.Path(root, path)
            facts = place.stat()
            with place.open("r+b") as file:
                file.write(b"X")
            os.utime(place, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    for _ in range(2):  # the second time on a copy that was made in the same tick of the clock
        written(driver, "layer", act)
        driver.settle("layer")
        assert names(home / "diff/layer") == ["dir", "dir/sub", "dir/sub/file", "other"]
        assert (home / "diff/layer/other").read_text() == "Xther"


def test_what_was_changed_before_stays_changed(driver: AufsDriver, home: pathlib.Path) -> None:
    """Untouched in a later copy, what the layer itself has is no proof of being what the parent has."""

    def act(root: str) -> None:
        place = pathlib.Path(root, "other")
        facts = place.stat()
        place.write_text("OTHER")
        os.utime(place, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        make(pathlib.Path(root), *[f"then/{number}" for number in range(400)])  # to copy them takes several ticks

    written(driver, "layer", act)
    driver.settle("layer")
    driver.mounts("layer")
    assert len(baseline.read(str(home / "state/layer/baseline"))) > 5
    driver.settle("layer")

    assert (home / "diff/layer/other").read_text() == "OTHER"


def test_what_the_layer_had_goes_with_it(driver: AufsDriver, home: pathlib.Path) -> None:
    """Over several folds: kept, changed again, and back to what the parent shows, which leaves nothing."""
    written(driver, "layer", lambda root: make(pathlib.Path(root), "new/file", "new/other"))
    driver.settle("layer")
    written(
        driver, "layer", lambda root: (pathlib.Path(root, "new/file").unlink(), pathlib.Path(root, "other").unlink())
    )
    driver.settle("layer")
    assert names(home / "diff/layer") == [".wh.other", "new", "new/other"]
    written(driver, "layer", lambda root: shutil.rmtree(f"{root}/new"))
    driver.settle("layer")
    assert names(home / "diff/layer") == [".wh.other"]
    assert (home / "state/layer/marked").exists()
    written(driver, "layer", lambda root: shutil.copy2(home / "diff/base/other", f"{root}/other"))
    driver.settle("layer")
    assert names(home / "diff/layer") == []
    assert not (home / "state/layer/marked").exists()


def test_escaped_xattrs_are_kept_escaped(driver: AufsDriver, home: pathlib.Path) -> None:
    """In the copy an xattr has the name that the image gave it, in the layer the one that overlay unescapes."""

    def act(root: str) -> None:
        pathlib.Path(root, "dir/file").write_text("changed")
        make(pathlib.Path(root), "new")
        os.setxattr(f"{root}/new", "trusted.overlay.whiteout", b"")

    written(driver, "layer", act)
    driver.settle("layer")

    assert set(os.listxattr(home / "diff/layer/dir/file")) == {"trusted.overlay.overlay.opaque", "user.note"}
    assert os.listxattr(home / "diff/layer/new") == ["trusted.overlay.overlay.whiteout"]
    assert (home / "state/layer/escapes").exists()
    driver.seal("layer")
    assert set(shown(driver, "layer")["dir/file"].xattrs) == {"trusted.overlay.opaque", "user.note"}


def test_a_fold_copies_no_content(driver: AufsDriver, home: pathlib.Path) -> None:
    """Files of the copy become those of the layer: the same inodes."""
    written(driver, "layer", lambda root: make(pathlib.Path(root), "new", "dir/also"))
    inodes = {path: (home / "mnt/layer" / path).stat().st_ino for path in ("new", "dir/also")}
    driver.settle("layer")

    assert {path: (home / "diff/layer" / path).stat().st_ino for path in inodes} == inodes
    assert {(home / "diff/layer" / path).stat().st_nlink for path in inodes} == {1}


def test_copies_as_young_as_the_record_prove_nothing(tmp_path: pathlib.Path) -> None:
    """What changes in the tick of its own copy keeps its ctime, so such copies are left out of a baseline."""
    record = str(tmp_path / "record")
    baseline.write(record, [(1, 5), (2, 2**62), (3, -1), (4, 0)])

    assert baseline.read(record) == {(1, 5), (4, 0)}


def test_a_damaged_baseline_only_costs_time(driver: AufsDriver, home: pathlib.Path) -> None:
    """Without proof everything is compared, and what was not changed is found to be so."""
    (home / "state/layer/baseline").write_bytes(b"nonsense")
    assert baseline.read(str(home / "state/layer/baseline")) == set()
    written(driver, "layer", lambda root: make(pathlib.Path(root), "new"))
    driver.settle("layer")

    assert names(home / "diff/layer") == ["new"]


def test_the_copy_of_a_sealed_layer_stays(driver: AufsDriver, home: pathlib.Path) -> None:
    """Views share one copy, made for the first of them, and it goes with the layer."""
    driver.seal("layer")
    first = shown(driver, "layer")
    inode = (home / "mnt/layer/file").stat().st_ino
    assert shown(driver, "layer") == first
    assert (home / "mnt/layer/file").stat().st_ino == inode
    driver.remove("layer")
    assert sorted(os.listdir(home / "mnt")) == ["base", "root"]


def test_the_layer_is_read_while_it_is_live(driver: AufsDriver, home: pathlib.Path) -> None:
    """Changes, diff and usage are those of the copy, before and after the fold."""
    written(driver, "layer", lambda root: (make(pathlib.Path(root), "new/file"), os.unlink(f"{root}/other")))
    live = [list(driver.changes("layer")), driver.diff("layer").read(), driver.usage("layer").bytes]
    assert names(home / "diff/layer") == []
    driver.settle("layer")

    assert [list(driver.changes("layer")), driver.diff("layer").read(), driver.usage("layer").bytes] == live
    raw = merged([home / "diff" / layer for layer in ("layer", "base", "root")])
    assert "new/file" in raw
    assert "other" not in raw
