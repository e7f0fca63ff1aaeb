# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""The processes that serve mounts: when they end, when they are killed, who waits for them."""

import errno
import os
import pathlib

import pytest
from fusetools import attached, kill, opened, run, servers, with_base, write
from graphdrivers_fuse_overlayfs import driver as under_test

from graphdrivers import errors
from graphdrivers.errors import SyscallError
from graphdrivers.linux import mountinfo, mounts


def test_a_killed_server_can_be_cleared_away(tmp_path: pathlib.Path) -> None:
    """Where its process is killed a mount answers nothing; it is unmounted, settled, mounted again, and removed."""
    driver = with_base(tmp_path / "home")
    with attached(driver, "layer", tmp_path / "place") as place:
        (place / "new").write_text("kept")
        (place / "file").unlink()
        kill(driver, "layer")
        with pytest.raises(OSError, match="connect") as caught:
            os.listdir(place)
        assert caught.value.errno in {errno.ENOTCONN, errno.ECONNABORTED}
        with pytest.raises(errors.LayerInUse, match="place"):
            driver.remove("layer")
    driver.settle("layer")

    assert [change.path for change in driver.changes("layer")] == ["/file", "/new"]
    with mounts.opened(driver.mounts("layer")) as root:
        assert sorted(os.listdir(root)) == ["dir", "new"]
    driver.remove("layer")
    assert [record.name for record in driver.layers()] == ["base"]


def test_a_server_ends_with_its_mount(tmp_path: pathlib.Path) -> None:
    """It goes when the last descriptor of a private mount is closed, and when an attached one is unmounted."""
    driver = with_base(tmp_path / "home")
    with mounts.opened(driver.mounts("layer")):
        assert len(servers(driver, "layer")) == 1
    driver.settle("layer")
    assert servers(driver, "layer") == []
    with attached(driver, "layer", tmp_path / "place"):
        assert len(servers(driver, "layer")) == 1
    driver.settle("layer")
    assert servers(driver, "layer") == []


def test_nobody_sees_a_private_mount(tmp_path: pathlib.Path) -> None:
    """The mount table does not change while a stack is read."""
    driver = with_base(tmp_path / "home")
    with mounts.opened(driver.mounts("layer")) as root:
        assert os.listdir(root)
        assert not [one for one in mountinfo.read() if one.source.startswith(driver.home)]


def test_two_mounts_at_once(tmp_path: pathlib.Path) -> None:
    """Two children of one layer, and views of it, are mounted beside each other and see nothing of each other."""
    driver = with_base(tmp_path / "home")
    driver.create("child", "base")
    driver.create("other", "base")
    with mounts.opened(driver.mounts("child")) as one, mounts.opened(driver.mounts("other")) as two:
        write(one, "file", "one")
        write(two, "file", "two")
        os.unlink("dir/inner", dir_fd=two)
        with mounts.opened(driver.mounts("child", view=True)) as view:
            assert os.listdir(view)
        assert os.listdir(f"/proc/self/fd/{one}/dir") == ["inner"]
    driver.settle("child")
    driver.settle("other")

    assert [change.path for change in driver.changes("child")] == ["/file"]
    assert [change.path for change in driver.changes("other")] == ["/dir", "/dir/inner", "/file"]


def test_a_layer_is_written_to_by_one_mount(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second writable mount is refused, in whatever mount namespace the first one is."""
    monkeypatch.setattr("graphdrivers.linux.fuse_mount._PATIENCE", 0.1)
    driver = with_base(tmp_path / "home")
    with mounts.opened(driver.mounts("layer")):
        with pytest.raises(SyscallError) as caught, mounts.opened(driver.mounts("layer")):
            pass
        assert caught.value.errno == errno.EBUSY


def test_what_is_open_somewhere_is_left_alone(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that a process has in use where the mount table does not show it is neither settled nor removed."""
    monkeypatch.setattr(under_test, "_PATIENCE", 0.1)
    driver = with_base(tmp_path / "home")
    with mounts.opened(driver.mounts("layer")) as root:
        os.mkdir("new", dir_fd=root)
        driver.settle("layer")
        os.mkdir("newer", dir_fd=root)
        for verb in (driver.seal, driver.remove):
            with pytest.raises(errors.LayerInUse, match="another mount namespace"):
                verb("layer")
    monkeypatch.undo()
    driver.seal("layer")

    assert [change.path for change in driver.changes("layer")] == ["/new", "/newer"]


def test_a_server_outlives_who_mounted(tmp_path: pathlib.Path) -> None:
    """What one process mounted, another reads and unmounts."""
    driver = with_base(tmp_path / "home")
    place = tmp_path / "place"
    place.mkdir()
    run(f"""
        from graphdrivers_fuse_overlayfs.driver import FuseOverlayDriver as Driver
        from graphdrivers.linux import mounts
        driver = Driver({driver.home!r}, {{}}, Driver.probe({driver.home!r}, {{}}))
        mounts.attach(driver.mounts("layer"), {str(place)!r})
    """)
    assert (place / "file").read_text() == "old"
    (place / "file").write_text("new")
    mounts.detach(str(place))
    driver.settle("layer")

    assert [change.path for change in driver.changes("layer")] == ["/file"]


def test_a_store_mounts_through_it(tmp_path: pathlib.Path) -> None:
    """Two commands of a store mount and unmount a layer; a dead mount is unmounted, and the layer removed."""
    begin = ("-m", "graphdrivers", "--root", str(tmp_path / "store"), "--driver", "fuse-overlayfs")

    def graphdriver(*words: str) -> str:
        return run(f"""
            import subprocess, sys
            sys.exit(subprocess.run([sys.executable, *{[*begin, *words]!r}]).returncode)
        """).strip()

    graphdriver("layer", "create", "base")
    graphdriver("layer", "seal", "base")
    graphdriver("layer", "create", "layer", "--parent", "base")
    place = pathlib.Path(graphdriver("layer", "mount", "layer"))
    (place / "new").write_text("kept")
    graphdriver("layer", "umount", "layer")
    assert graphdriver("layer", "changes", "layer") == "A /new"
    graphdriver("layer", "mount", "layer")
    (home,) = (tmp_path / "store").rglob("driver.json")
    kill(opened(home.parent), place.name)
    graphdriver("layer", "umount", "layer")
    graphdriver("layer", "rm", "layer")

    assert not [one for one in mountinfo.read() if str(tmp_path) in one.target]
