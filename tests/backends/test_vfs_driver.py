"""What is special about vfs: copies, and the proof that they are unchanged."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest

from graphdrivers import errors
from graphdrivers.archive import equality
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.kit import baseline
from graphdrivers.linux import copying, mounts
from graphdrivers.model import Change, ChangeKind, Support


@pytest.fixture
def driver(tmp_path: pathlib.Path) -> VfsDriver:
    """The driver on a new home."""
    home = str(tmp_path / "home")
    return VfsDriver(home, {}, VfsDriver.probe(home, {}))


def tree(driver: VfsDriver, layer: str) -> pathlib.Path:
    """The directory of a writable layer."""
    directory = mounts.plain_directory(driver.mounts(layer))
    assert directory is not None
    return pathlib.Path(directory)


def base(driver: VfsDriver, files: int = 50) -> None:
    """Make a sealed base layer with files."""
    driver.create("base")
    for number in range(files):
        (tree(driver, "base") / f"file{number}").write_text("content")
    driver.seal("base")


def wait_for_tick(folder: pathlib.Path) -> None:
    """Come back when the file system's clock has moved on."""
    probe = folder / "tick"
    probe.touch()
    before = probe.stat().st_ctime_ns
    while probe.stat().st_ctime_ns == before:
        probe.chmod(0o600)
    probe.unlink()


def test_probing_leaves_nothing(tmp_path: pathlib.Path) -> None:
    """A probe makes no home and leaves no file, before the home exists and after."""
    home = tmp_path / "home"
    VfsDriver.probe(str(home), {})
    assert list(tmp_path.iterdir()) == []
    VfsDriver(str(home), {}, VfsDriver.probe(str(home), {}))
    VfsDriver.probe(str(home), {})
    assert sorted(path.name for path in home.rglob("*")) == ["driver.json", "layers", "support.json", "tmp"]


class Renamed(VfsDriver):
    """The driver as somebody derives from it."""

    name: ClassVar[str] = "renamed"


def test_a_home_belongs_to_its_class(tmp_path: pathlib.Path) -> None:
    """A class derived from the driver, with a name of its own, finds its home again, and no other does."""
    home = str(tmp_path / "home")
    for _ in range(2):
        Renamed(home, {}, Renamed.probe(home, {}))

    with pytest.raises(errors.PriorDriverState):
        VfsDriver.probe(home, {})


def test_options_are_refused(tmp_path: pathlib.Path) -> None:
    """There are no options."""
    with pytest.raises(errors.InvalidOption, match="'size'"):
        VfsDriver.probe(str(tmp_path / "home"), {"size": "1"})


def test_a_folder_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    """Where nothing can be made the reason names the folder and the fix is another root."""
    (tmp_path / "file").touch()
    with pytest.raises(errors.PrerequisiteMissing, match=r"file.*choose a --root"):
        VfsDriver.probe(str(tmp_path / "file" / "home"), {})


def test_old_copies_are_not_read(driver: VfsDriver, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies that are older than a tick are known to be unchanged without opening them."""
    base(driver)
    copy_tree = copying.copy_tree

    def slowly(source: int, target: int, *, record: Callable[[int, int], object]) -> None:
        copy_tree(source, target, record=record)
        wait_for_tick(tmp_path)

    monkeypatch.setattr(copying, "copy_tree", slowly)
    driver.create("child", "base")
    monkeypatch.setattr(equality, "same_content", lambda *_: pytest.fail("read"))

    assert list(driver.changes("child")) == []


def test_copies_of_the_last_tick_prove_nothing(
    driver: VfsDriver, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies made in the tick in which the copying ended are left out: a later edit could leave no trace on them."""
    base(driver)
    copy_tree = copying.copy_tree

    def in_one_tick(source: int, target: int, *, record: Callable[[int, int], object]) -> None:
        inodes: list[int] = []
        copy_tree(source, target, record=lambda inode, _: inodes.append(inode))
        for inode in inodes:
            record(inode, time.time_ns() + 10**12)

    monkeypatch.setattr(copying, "copy_tree", in_one_tick)
    driver.create("child", "base")

    assert (tmp_path / "home/layers/child/baseline").stat().st_size == 32
    assert list(driver.changes("child")) == []


@pytest.mark.parametrize("damage", [b"", b"another format!!" + bytes(32), b"vfs-baseline-2\n\0" + bytes(33)])
def test_a_damaged_baseline_proves_nothing(driver: VfsDriver, tmp_path: pathlib.Path, damage: bytes) -> None:
    """Without a baseline that can be understood everything is compared by content, to the same result."""
    base(driver)
    driver.create("child", "base")
    (tmp_path / "home/layers/child/baseline").write_bytes(damage)
    target = tree(driver, "child") / "file7"
    times = target.stat()
    target.write_text("CONTENT")
    os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert list(driver.changes("child")) == [Change("/file7", ChangeKind.MODIFIED)]


@pytest.mark.parametrize("sealed", [False, True])
def test_after_a_restart_of_the_machine(driver: VfsDriver, tmp_path: pathlib.Path, *, sealed: bool) -> None:
    """A power cut may take a ctime and leave the content: only a layer that was sealed before keeps its proof."""
    base(driver)
    driver.create("child", "base")
    record, target = tmp_path / "home/layers/child/baseline", tree(driver, "child") / "file7"
    times = target.stat()
    target.write_text("CONTENT")
    os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
    record.unlink()
    wait_for_tick(tmp_path)
    baseline.write(str(record), [(target.stat().st_ino, target.stat().st_ctime_ns)])
    assert list(driver.changes("child")) == []  # it is believed
    if sealed:
        driver.seal("child")
    text = record.read_bytes()
    record.write_bytes(text[:16] + bytes(16) + text[32:])

    assert [change.path for change in driver.changes("child")] == ([] if sealed else ["/file7"])
    driver.seal("child")
    assert [change.path for change in driver.changes("child")] == ([] if sealed else ["/file7"])


def test_a_home_copied_elsewhere_is_still_right(driver: VfsDriver, tmp_path: pathlib.Path) -> None:
    """Restored from a backup, with other inodes, the changes are found all the same."""
    base(driver)
    driver.create("child", "base")
    (tree(driver, "child") / "new").touch()
    subprocess.run(["cp", "-a", str(tmp_path / "home"), str(tmp_path / "restored")], check=True)
    restored = VfsDriver(str(tmp_path / "restored"), {}, driver.support)

    assert list(restored.changes("child")) == list(driver.changes("child")) == [Change("/new", ChangeKind.ADDED)]


@pytest.fixture
def nobodys() -> Iterator[str]:
    """A folder of user 65534 that this user can reach, which none of pytest's own is."""
    folder = tempfile.mkdtemp(prefix="graphdrivers-test-")
    os.chown(folder, 65534, 65534)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_an_unprivileged_user(nobodys: str) -> None:
    """Without privileges the driver works, claims no ownership, counts lost owners; the changes hold no surprise."""
    script = f"""
        import io, os, tarfile
        from graphdrivers.backends.vfs import VfsDriver
        home = {nobodys + "/home"!r}
        driver = VfsDriver(home, {{}}, VfsDriver.probe(home, {{}}))
        print(driver.support.capabilities.ownership, driver.support.capabilities.devices)
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            member = tarfile.TarInfo("file")
            member.uid = 5
            archive.addfile(member)
            link = tarfile.TarInfo("link")
            link.type, link.linkname, link.uid = tarfile.SYMTYPE, "file", 5
            archive.addfile(link)
        driver.create("base")
        print(driver.apply("base", io.BytesIO(tar.getvalue())).notes)
        driver.seal("base")
        driver.create("child", "base")
        os.chmod(driver.mounts("child")[0].source + "/file", 0o600)
        print([change.path for change in driver.changes("child")])
        driver.remove("child")
    """
    command = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=+dac_read_search",  # the interpreter may lie in a folder of root's
        "--ambient-caps=+dac_read_search",
        sys.executable,
        "-c",
        textwrap.dedent(script),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd="/")

    assert done.stdout.splitlines() == [
        "False False",
        "('1 x owner not kept: only regular files and directories can carry a record of it',)",
        "['/file']",
    ], done.stderr


def test_size_limits_are_refused_before_anything_is_copied(driver: VfsDriver) -> None:
    """What cannot be enforced is an error that names the driver."""
    support: Support = driver.support
    assert not support.capabilities.quota
    assert "copy of its parent's whole tree" in support.notes[0]
