"""Plain root file systems that are hostile: tars of the corpus, and folders with links, pipes, devices and mounts."""

import os
import pathlib
import socket
import stat
import tempfile
from collections.abc import Callable

import pytest
from cases import Refused
from corpus import all_cases
from stage import assert_outcome, canaries, expected_of, isolated, put_canary, state
from storetools import whole
from test_store_hostile_layers import DRIVERS, Outcome, emptied, looked_at, stores

from graphdrivers import Store, errors
from graphdrivers.linux import mounts
from graphdrivers.model import Mount

__all__ = ["stores"]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and whiteouts need root")

TARS = {name: case for name, case in all_cases().items() if not case.parents}


def brought(store: Store, path: pathlib.Path, name: str) -> Outcome:
    """Import a tar as a root file system among canaries; look at what became of it, and leave the store empty."""
    case = TARS[name]
    emptied(store)
    with canaries(store.driver.home) as places:
        before = [state(place) for place in places]
        try:
            image = store.import_image(path, kind="rootfs", name="hostile:1", limits=case.limits)
        except errors.ArchiveError as error:
            limit = error.limit if isinstance(error, errors.LimitExceeded) else ""
            outcome = Outcome(type(error), error.member, error.offset, limit, str(error))
            assert store.images() == []
        else:
            outcome = looked_at(store, image, case.tar)
        assert [state(place) for place in places] == before, "something outside of the layer was touched"
    assert list(store.check(deep=True)) == []
    emptied(store)
    return outcome


@pytest.mark.parametrize("name", TARS)
def test_hostile_tar_as_a_root_file_system(name: str, stores: list[Store], tmp_path: pathlib.Path) -> None:
    """The same as by the driver alone: refused by the same error without a trace, or stored to the byte."""
    case = TARS[name]
    path = tmp_path / "root.tar"
    path.write_bytes(case.tar)
    store = stores[DRIVERS.index("overlay")]
    outcome = isolated(
        lambda: brought(store, path, name), writable=(os.path.dirname(store.root), tempfile.gettempdir())
    )
    assert_outcome(expected_of(case, store.driver), outcome, store.driver.name)
    assert isinstance(case.outcome, Refused) or not outcome.message


def linked_top(root: pathlib.Path, victim: pathlib.Path) -> None:
    """Make a root whose top directories are links to the host."""
    for name in ("etc", "usr", "var", "bin"):
        (root / name).symlink_to(victim)
    (root / "tmp").mkdir()


def linked_deep(root: pathlib.Path, victim: pathlib.Path) -> None:
    """Make links of all kinds below true directories."""
    (root / "etc").mkdir()
    (root / "etc/shadow").symlink_to(victim / "secret")
    (root / "etc/loop").symlink_to("loop")
    (root / "etc/magic").symlink_to("/proc/self/root")
    (root / "etc/up").symlink_to("../" * 40)


def special(root: pathlib.Path, _victim: pathlib.Path) -> None:
    """Make a FIFO that nobody writes to, a socket, and devices."""
    (root / "etc").mkdir()
    os.mkfifo(root / "etc/pipe")
    os.mknod(root / "etc/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(root / "etc/disk", 0o600 | stat.S_IFBLK, os.makedev(7, 99))
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    os.chdir(root / "etc")  # a socket's address is short
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket")
    os.fchdir(here)
    os.close(here)


def odd_names(root: pathlib.Path, _victim: pathlib.Path) -> None:
    """Make names that mean something to others."""
    (root / "etc").mkdir()
    for name in (b"\xff\xfe", b"\x1b[2J", b"a\nb", b"-rf", b"..."):
        (pathlib.Path(os.fsdecode(os.fsencode(root / "etc") + b"/" + name))).write_text("x")


FOLDERS: dict[str, tuple[Callable[[pathlib.Path, pathlib.Path], None], dict[str, int]]] = {
    "top directories are links": (linked_top, {"etc": stat.S_IFLNK, "bin": stat.S_IFLNK, "tmp": stat.S_IFDIR}),
    "links of all kinds": (linked_deep, {"etc/shadow": stat.S_IFLNK, "etc/loop": stat.S_IFLNK, "etc/up": stat.S_IFLNK}),
    "FIFOs, sockets and devices": (
        special,
        {"etc/pipe": stat.S_IFIFO, "etc/null": stat.S_IFCHR, "etc/disk": stat.S_IFBLK},
    ),
    "odd names": (odd_names, {"etc/a\nb": stat.S_IFREG, "etc/...": stat.S_IFREG, "etc/\udcff\udcfe": stat.S_IFREG}),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_hostile_folder(name: str, stores: list[Store], tmp_path: pathlib.Path) -> None:
    """What is in it is taken as it is: no link is followed, no pipe waited for, no device opened."""
    make, expected = FOLDERS[name]
    root, victim = tmp_path / "root", tmp_path / "victim"
    root.mkdir()
    put_canary(str(victim))
    before = state(str(victim))
    make(root, victim)
    for store in stores:
        emptied(store)
        image = store.import_image(root, name="folder:1")
        with mounts.opened(store.driver.mounts(store.layer_of(image), view=True)) as merged:
            kinds = {path: os.stat(path, dir_fd=merged, follow_symlinks=False).st_mode for path in expected}
        assert {path: stat.S_IFMT(mode) for path, mode in kinds.items()} == expected
        with store.open_layer(image.layers[0]) as tar:
            assert b"of the host" not in tar.read()
        assert list(store.check(deep=True)) == []
        emptied(store)
    assert state(str(victim)) == before


def test_a_name_that_means_a_deletion_is_refused(stores: list[Store], tmp_path: pathlib.Path) -> None:
    """A true file called ``.wh.x`` has no place in a layer: it is told by its name, and nothing is left."""
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/.wh.x").write_text("x")
    for store in stores:
        with pytest.raises(errors.GraphDriverError, match=r"\.wh\.x"):
            store.import_image(tmp_path / "root", name="folder:1")
        emptied(store)


def test_a_folder_with_a_mount_in_it_is_refused(stores: list[Store], tmp_path: pathlib.Path) -> None:
    """Another file system's files are never taken for the root's."""
    root, victim = tmp_path / "root", tmp_path / "victim"
    (root / "etc/inner").mkdir(parents=True)
    put_canary(str(victim))
    mounts.attach((Mount("bind", str(victim)),), str(root / "etc/inner"))
    try:
        for store in stores:
            with pytest.raises(errors.InvalidManifest, match="something is mounted in it"):
                store.import_image(root, name="folder:1")
            whole(store)
    finally:
        mounts.detach(str(root / "etc/inner"))
