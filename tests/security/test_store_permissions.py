"""What the host is exposed to by a home full of hostile layers: nobody else enters, and deleting stays inside."""

import contextlib
import fcntl
import io
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import pytest
from cases import OUTSIDE, file, folder, layer, opaque, symlink, whiteout
from stage import assert_clean, forget, isolated, put_canary, state

from graphdrivers import errors, loading
from graphdrivers.driver import Driver
from graphdrivers.linux import mounts
from graphdrivers.model import Mount

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs other users, and mounts")

NOBODY = 65534
OPEN = layer(
    folder(b".", mode=b"0000777\0"),
    folder(b"d", mode=b"0000777\0"),
    file(b"d/su", b"#!/bin/sh\nid\n", mode=b"0004777\0"),
    file(b"su", b"#!/bin/sh\nid\n", mode=b"0006777\0"),
    symlink(b"out", OUTSIDE),
)
"""A layer that everybody may enter, with programs that would run as root."""

NAMES = ("", ".", "..", "/", "../x", "/../..", "a/b", "a\0b", "n" * 201, "\ud800")


@pytest.fixture
def public() -> Iterator[pathlib.Path]:
    """A folder that everybody may enter, so that only a home's own permissions keep others out."""
    root = pathlib.Path(tempfile.mkdtemp(dir="/var/tmp", prefix="graphdrivers-public-"))
    root.chmod(0o755)
    (root / "control").write_text("readable")
    yield root
    shutil.rmtree(root)


def reachable(paths: list[str]) -> list[str]:
    """Try every path as another user: look at it, list it, read it, run it, write to it."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    found = []
    for path in paths:
        for attempt in (
            os.lstat,
            os.listdir,
            lambda name: os.close(os.open(name, os.O_RDONLY | os.O_NONBLOCK)),
            os.chdir,
        ):
            try:
                attempt(path)
            except (PermissionError, NotADirectoryError):
                continue
            found.append(path)
    return found


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_nobody_else_reaches_anything(umask: int, public: pathlib.Path, drivers: list[Driver]) -> None:
    """As uid 65534 nothing in a home can be looked at, entered or run, whatever the umask (CVE-2021-41091)."""
    before = os.umask(umask)
    try:
        for name in [driver.name for driver in drivers]:
            driver = loading.load_driver(name, public / name)
            for one, parent in (("base", None), ("child", "base")):
                driver.create(one, parent)
                driver.apply(one, io.BytesIO(OPEN))
                driver.seal(one)
            driver.create("writable", "child")
            driver.mounts("writable")
    finally:
        os.umask(before)
    inner = [os.path.join(at, name) for at, dirs, files in os.walk(public) for name in (*dirs, *files)]
    homes = [str(public / driver.name) for driver in drivers]

    assert len(inner) > 10 * len(homes)
    assert set(isolated(lambda: reachable(inner))) == {*homes, str(public / "control")}
    assert [os.stat(home).st_mode & 0o7777 for home in homes] == [0o700] * len(homes)


def test_removing_follows_no_link(tmp_path: pathlib.Path, drivers: list[Driver]) -> None:
    """A layer's links to the host are removed, not what they mean; nor is anything chmodded on the way."""
    place = str(tmp_path / "victim")
    put_canary(place)
    before = state(place)
    tar = layer(
        folder(b"closed", mode=b"0000000\0"),
        symlink(b"closed/l", os.fsencode(place)),
        symlink(b"l", os.fsencode(place)),
        symlink(b"f", os.fsencode(place) + b"/hello"),
    )
    for driver in drivers:
        forget(driver)
        driver.create("base")
        driver.apply("base", io.BytesIO(tar))
        driver.seal("base")
        driver.create("child", "base")
        driver.apply("child", io.BytesIO(layer(whiteout(b"l"), whiteout(b"f"), opaque(b"closed"), file(b"l"))))
        forget(driver)
        assert_clean(driver)

        assert state(place) == before, driver.name


def test_removing_crosses_no_mount(tmp_path: pathlib.Path, drivers: list[Driver]) -> None:
    """With something mounted inside a layer its removal is refused, and what is mounted keeps all it has."""
    place = str(tmp_path / "victim")
    put_canary(place)
    before = state(place)
    for driver in drivers:
        forget(driver)
        driver.create("base")
        driver.apply("base", io.BytesIO(layer(folder(b"d"))))
        tree = mounts.plain_directory(driver.mounts("base"))
        assert tree is not None, "a base layer is a directory in every driver here"
        mounts.attach((Mount("bind", place),), os.path.join(tree, "d"))
        try:
            with pytest.raises((errors.LayerInUse, OSError)):
                driver.remove("base")
            driver.settle()
            assert state(place) == before, driver.name
        finally:
            mounts.detach(os.path.join(tree, "d"))
        forget(driver)
        assert_clean(driver)


def test_sweeping_crosses_no_mount(tmp_path: pathlib.Path, drivers: list[Driver]) -> None:
    """What a dead process left is not deleted while something is mounted in it, nor is what is mounted there."""
    place = str(tmp_path / "victim")
    put_canary(place)
    before = state(place)
    swept = [driver for driver in drivers if os.path.isdir(os.path.join(driver.home, "tmp"))]
    assert swept, "no driver here makes its layers in a folder of its own"
    for driver in swept:
        left = os.path.join(driver.home, "tmp", "new-left", "d")
        os.makedirs(left)
        mounts.attach((Mount("bind", place),), left)
        try:
            with contextlib.suppress(OSError):
                driver.settle()
            assert state(place) == before, driver.name
        finally:
            mounts.detach(left)
        forget(driver)
        assert_clean(driver)


@pytest.mark.parametrize("name", NAMES)
def test_names_make_no_paths(name: str, drivers: list[Driver]) -> None:
    """CVE-2014-9358: whatever verb gets a name that is a path refuses it before it looks at the disk."""
    for driver in drivers:
        forget(driver)
        driver.create("base")
        verbs = (
            lambda driver=driver: driver.create(name),
            lambda driver=driver: driver.create("child", name),
            lambda driver=driver: driver.apply(name, io.BytesIO(OPEN)),
            lambda driver=driver: driver.seal(name),
            lambda driver=driver: driver.mounts(name),
            lambda driver=driver: driver.mounts(name, view=True),
            lambda driver=driver: list(driver.changes(name)),
            lambda driver=driver: driver.diff(name).read(),
            lambda driver=driver: driver.usage(name),
            lambda driver=driver: driver.remove(name),
            lambda driver=driver: driver.settle(name),
        )
        for verb in verbs:
            with pytest.raises(errors.InvalidName):
                verb()
        forget(driver)
        assert_clean(driver)


def test_nothing_leaks_to_programs_started_meanwhile(drivers: list[Driver]) -> None:
    """CVE-2024-21626, CVE-2019-14271: no descriptor is inherited, root and working directory stay, in mid-apply too."""
    tar = layer(*(file(b"d%d/f" % at) for at in range(600)))
    for driver in drivers:
        forget(driver)
        driver.create("base")
        start = (os.getcwd(), os.stat("/").st_ino, os.stat(".").st_ino)
        inherited: list[str] = []
        seen = 0

        def look(_consumed: int) -> None:
            nonlocal seen, inherited
            seen += 1
            assert (os.getcwd(), os.stat("/").st_ino, os.stat(".").st_ino) == start  # noqa: B023 - called in this round
            inherited += [fd for fd in os.listdir("/proc/self/fd") if int(fd) > 2 and not closes(int(fd))]

        before = [fd for fd in os.listdir("/proc/self/fd") if int(fd) > 2 and not closes(int(fd))]
        driver.apply("base", io.BytesIO(tar), progress=look)
        forget(driver)

        assert seen > 2
        assert set(inherited) <= set(before), driver.name


def closes(fd: int) -> bool:
    """Tell whether a descriptor is closed in programs that are started; one that is gone already is."""
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC)
    except OSError:
        return True


def test_no_temporary_folder_is_needed(drivers: list[Driver], monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2020-27534: layers are made inside the home, not in a place that others can guess or fill."""
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    for driver in drivers:
        forget(driver)
        for one, parent in (("base", None), ("child", "base")):
            driver.create(one, parent)
            driver.apply(one, io.BytesIO(OPEN))
            driver.seal(one)
        forget(driver)
        assert_clean(driver)
