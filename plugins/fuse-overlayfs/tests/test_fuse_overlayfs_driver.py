# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""Folders, marks, options and the probe."""

import ast
import io
import os
import pathlib
import tarfile
import time

import graphdrivers_fuse_overlayfs
import pytest
from fusetools import attached, opened, run, servers, with_base, write
from graphdrivers_fuse_overlayfs import deviations, support
from graphdrivers_fuse_overlayfs.driver import FuseOverlayDriver

from graphdrivers import errors, loading
from graphdrivers.linux import mounts
from graphdrivers.model import Mount

ROOMS = {"errors", "model", "linux", "archive", "driver", "naivediff", "kit"}


def test_it_imports_what_a_driver_may() -> None:
    """Of graphdrivers only the rooms below the backends are imported."""
    rooms = set()
    for file in pathlib.Path(graphdrivers_fuse_overlayfs.__file__).parent.glob("*.py"):
        found = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
        dotted = [f"{node.module}.{alias.name}" for node in found for alias in node.names]
        rooms |= {name.split(".")[1] for name in dotted if name.startswith("graphdrivers.")}

    assert rooms
    assert rooms <= ROOMS


def test_it_is_found(tmp_path: pathlib.Path) -> None:
    """The entry point leads to it, and it works here without being chosen by itself."""
    (entry,) = [one for one in loading.list_drivers(str(tmp_path)) if one.name == "fuse-overlayfs"]

    assert entry.usable
    assert FuseOverlayDriver.rank == 0


def test_probing_leaves_nothing(tmp_path: pathlib.Path) -> None:
    """A probe makes no home, and leaves neither files nor mounts."""
    found = FuseOverlayDriver.probe(str(tmp_path / "home"), {})

    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in pathlib.Path("/proc/self/mountinfo").read_text()
    assert found.engine.startswith("fuse-overlayfs 1.")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("fuse-overlayfs: version 1.10\nFUSE library version 3.14.0\n", (1, 10)),
        ("unknown argument ignored: lazytime\nfuse-overlayfs: version 1.7.1\n", (1, 7, 1)),
        ("fuse-overlayfs: version v1.16-dev\n", (1, 16)),
        ("fusermount3 version: 3.14.0\n", None),
        ("", None),
    ],
)
def test_versions_are_read(text: str, version: tuple[int, ...] | None) -> None:
    """Whatever else the program prints, its own version is found, or nothing is."""
    assert support.parse_version(text) == version


@pytest.mark.parametrize(
    ("program", "reason"),
    [("/nowhere/fuse-overlayfs", "there is no program"), ("/bin/true", "names no version")],
)
def test_a_program_that_will_not_do(tmp_path: pathlib.Path, program: str, reason: str) -> None:
    """A program that is missing, or is another, is named with the way to get the right one."""
    with pytest.raises(errors.PrerequisiteMissing, match=f"{reason}.*install"):
        FuseOverlayDriver.probe(str(tmp_path / "home"), {"program": program})


def test_without_the_device(tmp_path: pathlib.Path) -> None:
    """Where there is no /dev/fuse, as in many containers, both ways to get it are told."""
    said = run(
        f"""
        import os, stat
        from graphdrivers import errors
        from graphdrivers.linux import mounts
        from graphdrivers.model import Mount
        from graphdrivers_fuse_overlayfs.driver import FuseOverlayDriver
        mounts.attach((Mount("tmpfs", "tmpfs"),), "/dev")
        os.mknod("/dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        try:
            FuseOverlayDriver.probe({str(tmp_path / "home")!r}, {{}})
        except errors.PrerequisiteMissing as error:
            print(error)
        """,
        "unshare",
        "--mount",
    )

    assert "there is no /dev/fuse" in said
    assert "modprobe fuse" in said
    assert "--device /dev/fuse" in said


def test_without_privileges_the_fix_is_told(tmp_path: pathlib.Path) -> None:
    """A user who may not mount is told how to become one."""
    script = f"""
        from graphdrivers import errors
        from graphdrivers_fuse_overlayfs.driver import FuseOverlayDriver
        try:
            FuseOverlayDriver.probe({str(tmp_path / "home")!r}, {{}})
        except errors.PrerequisiteMissing as error:
            print(error)
    """
    reading = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    said = run(script, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *reading)

    assert "unshare --user --map-root-user --mount" in said


@pytest.mark.parametrize("key", ["uidmapping", "timeout", "noacl", "squash_to_root", "lowerdir", "redirect_dir"])
def test_options_that_are_refused(tmp_path: pathlib.Path, key: str) -> None:
    """Options that would make a mount show something else than the layers hold are refused, as unknown ones are."""
    with pytest.raises(errors.InvalidOption, match=key):
        FuseOverlayDriver.probe(str(tmp_path / "home"), {key: "1"})


def test_options_that_are_taken(tmp_path: pathlib.Path) -> None:
    """The program is started where it was said to be, and switches reach it."""
    driver = opened(tmp_path / "home", program="/usr/bin/fuse-overlayfs", static_nlink="on", volatile="off")
    driver.create("base")
    driver.seal("base")
    driver.create("layer", "base")
    with mounts.opened(driver.mounts("layer")):
        (server,) = servers(driver, "layer")
        words = pathlib.Path(f"/proc/{server}/cmdline").read_text().split("\0")

    assert words[0] == "/usr/bin/fuse-overlayfs"
    assert words[2].endswith(",writeback=0,static_nlink")
    with pytest.raises(errors.InvalidOption, match="on or off"):
        FuseOverlayDriver.probe(str(tmp_path / "home"), {"volatile": "yes"})


def test_a_user_namespace_uses_its_own_marks(tmp_path: pathlib.Path) -> None:
    """As root of a user namespace, without any other privilege, layers are written with user xattrs and read again."""
    script = f"""
        import os
        from graphdrivers_fuse_overlayfs.driver import FuseOverlayDriver
        from graphdrivers.linux import mounts
        home = {str(tmp_path / "home")!r}
        driver = FuseOverlayDriver(home, {{}}, FuseOverlayDriver.probe(home, {{}}))
        driver.create("base")
        with mounts.opened(driver.mounts("base")) as root:
            os.mkdir("dir", dir_fd=root)
            os.mkdir("dir/old", dir_fd=root)
        driver.seal("base")
        driver.create("layer", "base")
        with mounts.opened(driver.mounts("layer")) as root:
            os.rmdir("dir/old", dir_fd=root)
            os.rmdir("dir", dir_fd=root)
            os.mkdir("dir", dir_fd=root)
        print(os.getxattr(home + "/layers/layer/diff/dir", "user.fuseoverlayfs.opaque"))
        driver.settle("layer")
        print(sorted(change.path for change in driver.changes("layer")), driver.support.capabilities.trusted_xattrs)
    """
    lines = run(script, "unshare", "--user", "--map-root-user", "--mount").splitlines()

    assert lines == ["b'y'", "['/dir', '/dir/old'] False"]


def test_a_layer_at_rest_has_overlays_form(tmp_path: pathlib.Path) -> None:
    """What a mount leaves beside the marks goes when the layer settles, and no directory's time with it."""
    driver = with_base(tmp_path / "home")
    diff = tmp_path / "home/layers/layer/diff"
    with mounts.opened(driver.mounts("layer")) as root:
        os.mkdir("new", dir_fd=root)
        os.utime("new", ns=(1, 123_456_789), dir_fd=root)
        os.unlink("file", dir_fd=root)
    assert sorted(os.listdir(diff / "new")) == [".wh..opq", ".wh..wh..opq"]
    while_in_use = driver.diff("layer").read()
    driver.settle("layer")

    assert os.listdir(diff / "new") == []
    assert os.getxattr(diff / "new", "trusted.overlay.opaque") == b"y"
    assert (diff / "new").stat().st_mtime_ns == 123_456_789
    assert driver.diff("layer").read() == while_in_use
    assert sorted(os.listdir(tmp_path / "home/layers/layer")) == ["diff", "layer.json", "served"]


def test_names_that_a_user_made_are_put_aside(tmp_path: pathlib.Path) -> None:
    """A reserved name made in a mount deletes nothing, the daemon's own in a directory beside it are not reported."""
    driver = with_base(tmp_path / "home")
    with mounts.opened(driver.mounts("layer")) as root:
        os.mkdir("new", dir_fd=root)
        os.mkdir("new/.wh.x", dir_fd=root)
        os.mkdir(".wh.file", dir_fd=root)
    with pytest.raises(errors.ReservedNameError) as caught:
        driver.settle("layer")

    assert sorted(caught.value.paths) == ["/.wh.file", "/new/.wh.x"]
    assert [change.path for change in driver.changes("layer")] == ["/new"]


@pytest.mark.parametrize("name", ["trusted.overlay.opaque", "user.overlay.note", "user.fuseoverlayfs.origin"])
@pytest.mark.parametrize("again", [False, True])
def test_xattrs_that_no_mount_shows_are_refused(tmp_path: pathlib.Path, name: str, again: bool) -> None:  # noqa: FBT001
    """They would be lost without a word, so the member is refused by name; through the mount also."""
    driver = with_base(tmp_path / "home")
    if again:
        driver.apply("layer", io.BytesIO(_tar("first", {})))
    with pytest.raises(errors.UnsupportedEntry, match=name):
        driver.apply("layer", io.BytesIO(_tar("file", {f"SCHILY.xattr.{name}": "y"})))


def test_five_hundred_layers_with_long_names(tmp_path: pathlib.Path) -> None:
    """A stack of as many layers as are claimed is mounted, whatever the length of a command line."""
    driver = opened(tmp_path / "home")
    parent = None
    for number in range(driver.support.capabilities.max_depth or 0):
        name = f"{number:04}" + "x" * 190
        driver.create(name, parent)
        if number in {0, 250, 499}:
            pathlib.Path(driver.home, "layers", name, "diff", f"file{number}").touch()
        driver.seal(name)
        parent = name
    assert parent is not None
    with pytest.raises(errors.ChainTooDeep):
        driver.create("one-more", parent)
    with mounts.opened(driver.mounts(parent, view=True)) as root:
        assert sorted(os.listdir(root)) == ["file0", "file250", "file499"]


@pytest.mark.parametrize("folder", ["a:b,c\\d=e", "//double", "new\nline", "/".join(["x" * 100] * 6), "\udcff"])
def test_any_home_will_do(tmp_path: pathlib.Path, folder: str) -> None:
    """No byte in the path of a home, and no length, disturbs a mount, its discovery, or a removal."""
    home = pathlib.Path(f"{tmp_path}/{folder}")
    home.parent.mkdir(parents=True, exist_ok=True)
    driver = with_base(home)
    driver.create("c:o,l\\on", "base")
    for layer in ("layer", "c:o,l\\on"):
        with attached(driver, layer, tmp_path / "place") as place:
            (place / "file").write_text("new")
            (place / "dir" / "inner").unlink()
            with pytest.raises(errors.LayerInUse):
                driver.remove(layer)
        driver.settle(layer)
        assert [change.path for change in driver.changes(layer)] == ["/dir", "/dir/inner", "/file"]
        driver.remove(layer)


def test_a_full_disk_is_told_at_once(tmp_path: pathlib.Path) -> None:
    """Writing fails when there is no room, not later and silently as with the daemon's own default."""
    small = tmp_path / "small"
    small.mkdir()
    mounts.attach((Mount("tmpfs", "tmpfs", (("size", "4m"),)),), str(small))
    try:
        driver = with_base(small / "home")
        with mounts.opened(driver.mounts("layer")) as root:
            large = os.open("large", os.O_WRONLY | os.O_CREAT, dir_fd=root)
            with pytest.raises(OSError, match="No space left"):
                _write_much(large)
            os.close(large)
            os.unlink("large", dir_fd=root)
            while not os.statvfs(small).f_bavail:  # the program closes the file when it comes to it
                time.sleep(0.01)
            write(root, "file", "new")
        driver.settle("layer")
        assert [change.path for change in driver.changes("layer")] == ["/file"]
    finally:
        mounts.detach(str(small))


def test_what_is_told_of_versions() -> None:
    """The version that was checked is told its flaws, an older one the same, a newer one that it was not checked."""
    told = deviations.warnings(deviations.CHECKED)

    assert any("hard-linked" in one for one in told)
    assert deviations.warnings((1, 7, 1)) == told
    assert deviations.warnings((1, 16)) == (*told, "this version was not checked: it is taken for as wrong as 1.10 is")
    assert {one.check for one in deviations.known((1, 10))} == {
        check for one in deviations.FLAWS for check in one.checks
    }


def test_the_longest_names(tmp_path: pathlib.Path) -> None:
    """The warning is true: deleting such a name ends the process. Where it is not any more this test fails.

    The layer is not harmed: its name is deleted by a tar, and the mount is made again.
    """
    driver = opened(tmp_path / "home")
    long = "n" * 252
    driver.create("base")
    driver.apply("base", io.BytesIO(_tar(long, {})))
    driver.seal("base")
    driver.create("layer", "base")
    with mounts.opened(driver.mounts("layer")) as root:
        assert os.listdir(root) == [long]
        with pytest.raises(OSError, match="connect"):
            os.unlink(long, dir_fd=root)
    driver.settle("layer")
    driver.remove("layer")
    driver.create("layer", "base")
    driver.apply("layer", io.BytesIO(_tar(f".wh.{long}", {})))

    assert [(change.kind.letter, change.path) for change in driver.changes("layer")] == [("D", f"/{long}")]
    with mounts.opened(driver.mounts("layer")) as root:
        assert os.listdir(root) == []


def _write_much(file: int) -> None:
    """Write 8 MiB, each piece in a call of its own."""
    for _ in range(128):
        os.write(file, bytes(1 << 16))


def _tar(name: str, headers: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo(name)
        member.pax_headers = headers
        archive.addfile(member)
    return buffer.getvalue()
