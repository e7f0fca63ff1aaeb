"""Other users of the machine: they reach nothing of a store, and cannot lead anybody into one that they have made."""

import ctypes
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import pytest
from cases import OUTSIDE, file, folder, layer, symlink
from stage import isolated, put_canary, state
from storetools import layout_of
from test_store_permissions import NOBODY, reachable

from graphdrivers import errors, open_store
from graphdrivers.linux.libc import check, function

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs other users")

OTHER = 65533
_CLONE_NEWNS = 0x20000
OPEN = layer(
    folder(b".", mode=b"0000777\0"),
    folder(b"d", mode=b"0000777\0"),
    file(b"d/su", b"#!/bin/sh\nid\n", mode=b"0004777\0"),
    symlink(b"out", OUTSIDE),
)
"""A layer that everybody may enter, with a program that would run as its owner."""


@pytest.fixture
def public() -> Iterator[pathlib.Path]:
    """A folder like ``/tmp``: everybody may enter and write, nobody may take away what belongs to others."""
    root = pathlib.Path(tempfile.mkdtemp(dir="/var/tmp", prefix="graphdrivers-public-"))
    root.chmod(0o1777)
    yield root
    shutil.rmtree(root)


def become(user: int) -> None:
    """Be another user from now on, without any privilege, who can read this Python and this library all the same."""
    show(*{sys.prefix, sys.base_prefix, *(path for path in sys.path if os.path.isdir(path))})
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def show(*paths: str) -> None:
    """Make folders visible below ones that others cannot enter (``/root``), in a mount namespace of our own."""
    check(function("unshare", ctypes.c_int)(_CLONE_NEWNS), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    doors = {path: door for path in map(os.path.realpath, paths) if (door := closed(path))}
    hold = tempfile.mkdtemp(dir="/tmp")
    subprocess.run(["mount", "-t", "tmpfs", "hold", hold], check=True)
    for number, path in enumerate(doors):
        os.mkdir(f"{hold}/{number}")
        subprocess.run(["mount", "--rbind", path, f"{hold}/{number}"], check=True)
    for door in set(doors.values()):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "door", door], check=True)
    for number, path in enumerate(doors):
        os.makedirs(path, exist_ok=True)
        subprocess.run(["mount", "--rbind", f"{hold}/{number}", path], check=True)
    subprocess.run(["umount", "--lazy", hold], check=True)
    os.rmdir(hold)


def closed(path: str) -> str | None:
    """Give the topmost folder on the way to a path that others cannot enter."""
    above = [str(folder) for folder in reversed(pathlib.Path(path).parents)]
    return next((folder for folder in above if not os.stat(folder).st_mode & 0o001), None)


def as_user(user: int, work: Callable[[], object]) -> object:
    """Do something as another user."""

    def run() -> object:
        become(user)
        return work()

    return isolated(run)


def used(root: pathlib.Path, driver: str, image: pathlib.Path) -> str:
    """Fill a store with all that it can hold, and leave it."""
    with open_store(root, driver) as store:
        store.import_image(image, name="open:1")
        box = store.create("open:1", name="web")
        with box.mounted() as place:
            (place / "d/new").write_text("x")
        box.checkpoint("one")
        return str(box.layers()[0].name)


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_nobody_else_reaches_a_store(driver: str, umask: int, public: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Whatever the umask: ledger, records, locks, mount points and layers can be neither seen nor entered by others."""
    image = layout_of(tmp_path / "image", OPEN)
    before = os.umask(umask)
    try:
        used(public / "store", driver, image)
    finally:
        os.umask(before)
    paths = [os.path.join(at, name) for at, dirs, files in os.walk(public) for name in (*dirs, *files)]

    assert len(paths) > 20
    assert isolated(lambda: reachable(paths)) == [str(public / "store")]
    assert stat.S_IMODE(os.stat(public / "store").st_mode) == 0o700


def test_users_do_not_see_each_others_stores(public: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Two plain users with a store each, in a folder of all: neither opens nor reads the other's, and both work."""
    image = layout_of(public / "image", OPEN)
    shutil.copytree(image, tmp_path / "copy")
    for user in (NOBODY, OTHER):
        as_user(user, lambda user=user: used(public / str(user), "vfs", image))
    for user, other in ((NOBODY, OTHER), (OTHER, NOBODY)):
        theirs = public / str(other)
        below = [os.path.join(at, name) for at, dirs, files in os.walk(theirs) for name in (*dirs, *files)]

        def look(theirs: pathlib.Path = theirs, below: list[str] = below) -> list[str]:
            with pytest.raises((errors.UnsafeStore, PermissionError)):
                open_store(theirs)
            return [path for path in below if os.path.lexists(path)]

        assert len(below) > 10
        assert as_user(user, look) == []


def test_a_root_of_somebody_else_is_refused(public: pathlib.Path) -> None:
    """Who waits for root in a folder that everybody knows gets nothing: it is refused, and nothing is made in it."""
    trap = public / "store"
    for mode in (0o700, 0o755, 0o777):
        trap.mkdir()
        trap.chmod(mode)
        os.chown(trap, NOBODY, NOBODY)
        with pytest.raises(errors.UnsafeStore, match=f"belongs to user {NOBODY}") as caught:
            open_store(trap, "vfs")
        assert str(caught.value).isprintable()
        assert list(trap.iterdir()) == []
        trap.rmdir()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777, 0o775, 0o2770])
def test_a_root_that_others_may_write_to_is_refused(mode: int, public: pathlib.Path) -> None:
    """It is refused as it is: nothing is made in it, and its mode stays, for others may need it (``--root /tmp``)."""
    root = public / "store"
    root.mkdir()
    root.chmod(mode)
    with pytest.raises(errors.UnsafeStore, match="other users may write"):
        open_store(root, "vfs")
    assert list(root.iterdir()) == []
    assert stat.S_IMODE(root.stat().st_mode) == mode


@pytest.mark.parametrize("name", ["store", "store/records", "mounts", "vfs"])
@pytest.mark.parametrize("how", ["link", "foreign", "writable"])
def test_a_part_that_somebody_else_made_is_refused(
    name: str, how: str, public: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Folders of the store that were put there while others could: a link, another's folder, one open to others."""
    root, victim = public / "store", tmp_path / "victim"
    put_canary(str(victim))
    os.chown(victim, NOBODY, NOBODY)
    before = state(str(victim))
    root.mkdir(0o700)
    place = root / name
    place.parent.mkdir(mode=0o700, exist_ok=True)
    if how == "link":
        place.symlink_to(victim)
    else:
        place.mkdir(0o700)
        os.chown(place, *((NOBODY, NOBODY) if how == "foreign" else (0, 0)))
        place.chmod(0o700 if how == "foreign" else 0o777)
    with pytest.raises(errors.UnsafeStore) as caught:
        open_store(root, "vfs")
    assert str(caught.value).isprintable()
    assert state(str(victim)) == before


def test_a_file_is_no_root(tmp_path: pathlib.Path) -> None:
    """A root that is a file is told as such, and stays."""
    (tmp_path / "store").write_text("mine")
    with pytest.raises(NotADirectoryError):
        open_store(tmp_path / "store")
    assert (tmp_path / "store").read_text() == "mine"


def test_told_at_the_command_line(public: pathlib.Path) -> None:
    """One line that says what to do, for the commands of images and for those of layers."""
    for command in (["images"], ["layer", "ls"]):
        done = subprocess.run(
            [sys.executable, "-m", "graphdrivers", "--root", str(public), "--driver", "vfs", *command],
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == errors.UnsafeStore.exit_code, done
        assert done.stderr.count("\n") == 1
        assert "chmod go-w" in done.stderr
    assert list(public.iterdir()) == []


def test_a_ledger_of_somebody_else_is_not_opened(public: pathlib.Path) -> None:
    """Commands that only look (``doctor``, ``layer ls``, ``status``) touch nothing through links that wait for them."""
    root, victim = public / "store", public / "victim"
    with open_store(root, "vfs"):
        pass
    victim.write_text("of the host")
    (root / "store/room").unlink(missing_ok=True)
    (root / "store/room").symlink_to(victim)
    for path in (root / "store", root):
        os.chown(path, NOBODY, NOBODY)
    for command in ("doctor", "status", "layer ls", "layer rm x", "images", "check"):
        done = subprocess.run(
            [sys.executable, "-m", "graphdrivers", "--root", str(root), *command.split()],
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode != 0
        assert f"belongs to user {NOBODY}" in " ".join((done.stdout + done.stderr).split()), done  # it may be wrapped
        assert "Traceback" not in done.stderr
    assert victim.read_text() == "of the host"
