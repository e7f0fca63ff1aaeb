"""Names that are markers: a user's own are put aside; names that are too long for a marker can be deleted."""

import io
import os
import pathlib
import tarfile

import pytest
from aufstools import Opener, long_marker, make, names, shown, written

from graphdrivers import errors
from graphdrivers.backends.aufs.driver import AufsDriver
from graphdrivers.conformance.workbench import layer_tar, names_in, whiteout

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

LENGTHS = (251, 252, 253, 254, 255)
LONG = [letter * length for letter, length in zip("abcde", LENGTHS, strict=True)]


@pytest.fixture
def home(memory: pathlib.Path) -> pathlib.Path:
    """Where the driver works."""
    return memory / "home"


@pytest.fixture
def driver(home: pathlib.Path, opened: Opener, engine: str) -> AufsDriver:
    """A driver on a home with a sealed base and a writable layer over it."""
    made = opened(home, engine)
    made.create("base")
    written(made, "base", lambda root: make(pathlib.Path(root), *LONG, "file", "dir/file", "sub/file", "other"))
    made.settle("base")
    made.seal("base")
    made.create("layer", "base")
    return made


def users_names(root: str) -> None:
    """Make names that mean deletions in a layer, of each kind and in each form."""
    here = pathlib.Path(root)
    make(here, ".wh.file", "dir/.wh..wh..opq", ".wh.dir/deep/.wh.in", f"sub/{long_marker('x' * 253)}", ".wh.")
    (here / long_marker(LONG[4])).write_text(LONG[4])
    (here / ".wh.other").symlink_to("other")
    os.mkfifo(here / "sub/.wh.file")
    make(here, ".WH.file", ".whfile", "sub/wh.")


USERS = sorted(
    [
        *("/.wh.", "/.wh.file", "/.wh.dir", "/.wh.other", "/dir/.wh..wh..opq", "/sub/.wh.file"),
        *(f"/{long_marker(LONG[4])}", f"/sub/{long_marker('x' * 253)}"),
    ]
)
SHOWN = sorted([".", *LONG, "file", "dir", "dir/file", "sub", "sub/file", "other", ".WH.file", ".whfile", "sub/wh."])


def test_a_users_markers_are_put_aside(driver: AufsDriver, home: pathlib.Path) -> None:
    """All are told at once, once; nothing that lower layers have vanishes, and nothing of the user's is deleted."""
    written(driver, "layer", users_names)
    times = [os.stat(home / "diff/layer" / path).st_mtime_ns for path in ("dir", "sub")] if _in_diff(driver) else []
    with pytest.raises(errors.ReservedNameError) as caught:
        driver.settle("layer")

    assert sorted(caught.value.paths) == USERS
    driver.settle("layer")
    driver.settle()
    assert driver.facts("layer")["reserved"] == str(home / "state/layer/reserved")
    shelf = home / "state/layer/reserved"
    assert sorted(path.name for path in shelf.glob("*/*")) == sorted(os.path.basename(path) for path in USERS)
    assert next(shelf.glob("*/.wh.file")).lstat()
    assert next(shelf.glob("*/.wh.dir/deep/.wh.in")).read_text() == ".wh.dir/deep/.wh.in"
    assert [os.readlink(path) for path in shelf.glob("*/*") if path.name == ".wh.other"] == ["other"]
    if times:
        assert [os.stat(home / "diff/layer" / path).st_mtime_ns for path in ("dir", "sub")] == times
    driver.seal("layer")
    assert sorted(shown(driver, "layer")) == SHOWN
    assert not any("/.wh." in f"/{name}" for name in names_in(_diff(driver, "layer")))
    driver.remove("layer")
    assert not shelf.exists()


def _in_diff(driver: AufsDriver) -> bool:
    return driver.facts("layer")["engine"] == "overlay-shadow"


def _diff(driver: AufsDriver, layer: str) -> bytes:
    with driver.diff(layer) as stream:
        return stream.read()


@pytest.mark.parametrize("verb", ["seal", "apply"])
def test_each_verb_that_needs_rest_tells(driver: AufsDriver, verb: str) -> None:
    """Sealing, and unpacking into, a layer with such names says so first; the second time it works."""
    written(driver, "layer", users_names)
    act = {"seal": lambda: driver.seal("layer"), "apply": lambda: _apply(driver, "layer", "new")}[verb]
    with pytest.raises(errors.ReservedNameError):
        act()
    act()

    if verb == "apply":
        driver.seal("layer")
    assert sorted(shown(driver, "layer")) == sorted([*SHOWN, *(["new"] if verb == "apply" else [])])


def _apply(driver: AufsDriver, layer: str, *members: str) -> None:
    driver.apply(layer, io.BytesIO(layer_tar(members)))


def test_names_in_a_layer_without_parent(home: pathlib.Path, opened: Opener, engine: str) -> None:
    """A base layer, which is mounted as the directory that it is, is searched as well."""
    driver = opened(home, engine)
    driver.create("layer")
    written(driver, "layer", users_names)
    with pytest.raises(errors.ReservedNameError) as caught:
        driver.settle("layer")

    assert sorted(caught.value.paths) == USERS
    assert names(home / "diff/layer") == [".WH.file", ".whfile", "dir", "sub", "sub/wh."]


def test_names_in_a_plain_directory_of_kernel_aufs(home: pathlib.Path, opened: Opener) -> None:
    """A layer that kernel aufs does not mount, for it is its merged tree already, is searched as well."""
    driver = opened(home)
    driver.create("layer")
    engine = driver._engines["aufs"]
    (plan,) = engine.writable("layer", ())
    users_names(plan.source)
    with pytest.raises(errors.ReservedNameError) as caught:
        driver.settle("layer")

    assert sorted(caught.value.paths) == USERS
    assert len(list((home / "state/layer/reserved").glob("*"))) == len(USERS)
    assert names(home / "diff/layer") == [".WH.file", ".whfile", "dir", "sub", "sub/wh."]


def test_settling_a_home_tells_nobody(driver: AufsDriver, home: pathlib.Path) -> None:
    """There is nobody to tell when a home is opened: the names are put aside, and the facts say where."""
    written(driver, "layer", users_names)
    entry = home / "phase/layer"
    text = os.readlink(entry)
    entry.unlink()
    entry.symlink_to(":".join([*text.split(":")[:2], "0", "1", "1"]))
    driver.settle()

    assert driver.facts("layer")["dialect"] == "wh"
    assert driver.facts("layer")["reserved"] == str(home / "state/layer/reserved")
    driver.settle("layer")


@pytest.mark.parametrize("by", ["mount", "tar"])
def test_long_names_are_deleted_and_come_again(driver: AufsDriver, home: pathlib.Path, by: str) -> None:
    """Names of 251 to 255 bytes: deleted, made again, deleted again, layer by layer; the diffs say so with ``.wh.``."""
    if by == "mount":
        written(driver, "layer", lambda root: [os.unlink(os.path.join(root, name)) for name in LONG])
        driver.settle("layer")
    else:
        driver.apply("layer", io.BytesIO(layer_tar([whiteout(name) for name in LONG])))
    assert names(home / "diff/layer") == sorted([f".wh.{LONG[0]}", *map(long_marker, LONG[1:])])
    driver.seal("layer")
    driver.create("again", "layer")
    if by == "mount":
        written(driver, "again", lambda root: make(pathlib.Path(root), *LONG))
        driver.settle("again")
    else:
        _apply(driver, "again", *LONG)
    driver.seal("again")
    driver.create("gone", "again")
    written(driver, "gone", lambda root: [os.unlink(os.path.join(root, name)) for name in LONG[1:]])
    driver.settle("gone")
    written(driver, "gone", lambda root: make(pathlib.Path(root), LONG[4]))
    driver.settle("gone")
    written(driver, "gone", lambda root: os.unlink(os.path.join(root, LONG[4])))
    driver.seal("gone")

    rest = [".", "dir", "dir/file", "file", "other", "sub", "sub/file"]
    assert [sorted(shown(driver, layer)) for layer in ("layer", "again", "gone")] == [
        rest,
        sorted([*rest, *LONG]),
        sorted([*rest, LONG[0]]),
    ]
    deletions = [name for name in names_in(_diff(driver, "gone")) if name.startswith(".wh.")]
    assert deletions == [f".wh.{name}" for name in LONG[1:]]
    assert {change.path: change.kind.letter for change in driver.changes("gone")} == {
        f"/{name}": "D" for name in LONG[1:]
    }


def test_long_deletions_go_round(driver: AufsDriver) -> None:
    """The diff of a layer that deletes long names, applied to the same parent, gives the same layer and diff."""
    written(driver, "layer", lambda root: [os.unlink(os.path.join(root, name)) for name in (*LONG, "dir/file")])
    driver.seal("layer")
    diff = _diff(driver, "layer")
    driver.create("copy", "base")
    driver.apply("copy", io.BytesIO(diff))
    driver.seal("copy")

    assert _diff(driver, "copy") == diff
    assert shown(driver, "copy") == shown(driver, "layer")
    with tarfile.open(fileobj=io.BytesIO(diff)) as archive:
        assert {len(member.name) for member in archive if member.name.startswith(".wh.")} == {255, 256, 257, 258, 259}


def test_a_tar_cannot_bring_a_long_marker(driver: AufsDriver, home: pathlib.Path) -> None:
    """In a tar a name like that of a long marker is bookkeeping of aufs, and deletes nothing."""
    _apply(driver, "layer", long_marker(LONG[4]), "new")
    driver.seal("layer")

    assert names(home / "diff/layer") == ["new"]
    assert LONG[4] in shown(driver, "layer")
