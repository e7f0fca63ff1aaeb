"""A store's whole life without root: as a plain user, and as root of a user namespace that anybody can make."""

import ctypes
import io
import os
import pathlib
import shutil
import tarfile
import tempfile
import warnings
from collections.abc import Callable, Iterator

import pytest
from cases import device, file, folder, hardlink, layer, symlink, whiteout
from stage import isolated
from storetools import layout_of, whole
from test_store_permissions import NOBODY
from test_store_strangers import become

from graphdrivers import errors, open_store
from graphdrivers.linux.libc import check, function

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users")

_CLONE_NEWUSER, _CLONE_NEWNS, _PR_SET_DUMPABLE = 0x10000000, 0x20000, 4

BASE = layer(
    folder(b"etc"),
    file(b"etc/passwd", b"root:x:0:0::/root:/bin/sh\n"),
    file(b"etc/shadow", b"secret", mode=b"0000000\0"),
    folder(b"root", mode=b"0000700\0"),
    file(b"bin/su", b"#!", mode=b"0004755\0", uid=b"0000000\0", gid=b"0000000\0"),
    hardlink(b"bin/su2", b"bin/su"),
    symlink(b"sh", b"bin/su"),
    file(b"gone"),
)
TOP = layer(whiteout(b"gone"), file(b"app", b"1"))


@pytest.fixture
def theirs() -> Iterator[pathlib.Path]:
    """Give a folder of the plain user's, with an image in it."""
    root = pathlib.Path(tempfile.mkdtemp(dir="/var/tmp", prefix="graphdrivers-user-"))
    layout_of(root / "image", BASE, TOP)
    for path in (root, *root.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    yield root
    shutil.rmtree(root)


def plain(work: Callable[[], object]) -> object:
    """Do something as a user without any privilege."""

    def run() -> object:
        become(NOBODY)
        return work()

    return isolated(run, seconds=120)


def namespaced(work: Callable[[], object]) -> object:
    """Do something as root of a user namespace with one id, which that user has made."""

    def run() -> object:
        become(NOBODY)
        # Who has changed its ids may not write its own maps until it is as any other process again.
        function("prctl", ctypes.c_int, ctypes.c_ulong)(_PR_SET_DUMPABLE, 1)
        check(function("unshare", ctypes.c_int)(_CLONE_NEWUSER | _CLONE_NEWNS), "unshare")
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {NOBODY} 1"), ("gid_map", f"0 {NOBODY} 1")):
            pathlib.Path(f"/proc/self/{name}").write_text(text)
        assert os.geteuid() == 0
        return work()

    return isolated(run, seconds=120)


def life(place: pathlib.Path, driver: str, **options: str) -> None:
    """Do everything that a store can do, and leave it empty."""
    root = place / "store"
    with open_store(root, driver, options=options, durability="none") as store:
        image = store.import_image(place / "image", name="base:1")
        with store.open_layer(image.layers[0]) as tar:
            assert tar.read() == BASE
        box = store.create("base:1", name="box")
        assert list(box.changes()) == []
        with box.mounted() as tree:
            (tree / "new").write_text("1")
            (tree / "app").unlink()
        assert [(change.path, change.kind.letter) for change in box.changes()] == [("/app", "D"), ("/new", "A")]
        box.checkpoint("one")
        with box.mounted() as tree:
            (tree / "new").write_text("22")
        twin = box.fork("twin")
        box.rollback("one")
        with box.mounted() as tree:
            assert (tree / "new").read_text() == "1"
        with twin.mounted() as tree:
            assert (tree / "new").read_text() == "22"
        committed = store.commit(twin, "base:2")
        assert _names(store.export("base:2").read()) >= {"new", "etc/shadow", "root", "bin/su2"}
        with store.export("base:1") as tar, tarfile.open(fileobj=io.BytesIO(tar.read())) as members:
            assert members.getmember("bin/su").mode == 0o4755
            assert members.getmember("bin/su").uid == 0
        saved = io.BytesIO()
        store.save(["base:1", "base:2"], saved)
        assert saved.tell() > 10_000
        assert list(store.check(deep=True)) == []
        store.repair([])
        box.remove()
        twin.remove()
        store.remove_image(committed)
        store.remove_image("base:1")
        assert store.collect().resisted == ()
        assert list(store.driver.layers()) == []
        whole(store)
    with open_store(root) as store:
        assert store.problems == ()
        assert list(store.check()) == []


def _names(tar: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as members:
        return {member.name for member in members}


@pytest.mark.parametrize("driver", ["vfs", "aufs engine=copy"])
def test_life_of_a_plain_user(driver: str, theirs: pathlib.Path) -> None:
    """Without any privilege all works, with the owners and modes that the image says."""
    name, *options = driver.split()
    plain(lambda: life(theirs, name, **dict(option.split("=") for option in options)))


@pytest.mark.parametrize("driver", ["overlay", "vfs", "aufs engine=overlay-shadow", "aufs engine=copy"])
def test_life_in_a_user_namespace(driver: str, theirs: pathlib.Path) -> None:
    """As root of a namespace too, where overlays can be mounted."""
    name, *options = driver.split()
    namespaced(lambda: life(theirs, name, **dict(option.split("=") for option in options)))


def test_what_a_plain_user_cannot_have(theirs: pathlib.Path) -> None:
    """A driver that mounts, a mount elsewhere: refused in one line that says what to do, and nothing is left."""

    def work() -> list[str]:
        with pytest.raises(errors.DriverUnavailable) as caught:
            open_store(theirs / "other", "overlay")
        said = [str(caught.value)]
        with open_store(theirs / "store", "vfs") as store:
            store.import_image(theirs / "image", name="base:1")
            box = store.create("base:1", name="box")
            (theirs / "mnt").mkdir()
            with pytest.raises(OSError, match="ermi") as refused:
                box.mount(theirs / "mnt")
            assert box.mounts() == []
            box.remove()
            whole(store)
        return [*said, str(refused.value)]

    for text in plain(work):  # type: ignore[attr-defined]
        assert text.isprintable()
        assert "\n" not in text


def test_the_driver_that_is_chosen(theirs: pathlib.Path) -> None:
    """By itself a store of a plain user takes a driver that works, and says that it is not the best."""

    def work() -> str:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with open_store(theirs / "store") as store:
                assert told
                return store.driver.name

    assert plain(work) == "vfs"


def test_devices_are_refused_by_name(theirs: pathlib.Path) -> None:
    """A layer with a device cannot be kept without privilege: the error names the member, and nothing is left."""
    layout_of(theirs / "devices", layer(file(b"f"), device(b"dev/null", b"3", 1, 3)))
    for path in (theirs / "devices", *(theirs / "devices").rglob("*")):
        os.chown(path, NOBODY, NOBODY)

    def work() -> str:
        with open_store(theirs / "store", "vfs") as store:
            with pytest.raises(errors.UnsupportedEntry) as caught:
                store.import_image(theirs / "devices")
            assert list(store.driver.layers()) == []
            whole(store)
            return caught.value.member

    assert plain(work) == "dev/null"
