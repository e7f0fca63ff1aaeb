"""What is special about overlay: probing, its private marks, its work directory, long and odd homes."""

import io
import os
import pathlib
import stat
import subprocess
import sys
import tarfile
import textwrap

import pytest

from graphdrivers import errors
from graphdrivers.backends.overlay import support
from graphdrivers.backends.overlay.driver import OverlayDriver
from graphdrivers.linux import mounts
from graphdrivers.model import Mount, Usage

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def opened(home: pathlib.Path, **options: str) -> OverlayDriver:
    """Open the driver on a home."""
    return OverlayDriver(str(home), options, OverlayDriver.probe(str(home), options))


@pytest.fixture
def driver(tmp_path: pathlib.Path) -> OverlayDriver:
    """The driver on a new home, with a sealed base layer that holds ``file`` and ``dir/inner``."""
    made = opened(tmp_path / "home")
    made.create("base")
    with mounts.opened(made.mounts("base")) as root:
        os.mkdir("dir", dir_fd=root)
        for name in ("file", "dir/inner"):
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=root))
    made.seal("base")
    return made


def in_namespace(script: str) -> str:
    """Run a script as root of a new user namespace; give what it prints."""
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout


def test_probing_leaves_nothing(tmp_path: pathlib.Path) -> None:
    """A probe makes no home, and leaves neither files nor mounts."""
    found = support.probed(str(tmp_path / "home"), {})

    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in pathlib.Path("/proc/self/mountinfo").read_text()
    assert found.engine.startswith("kernel overlayfs")
    assert found.capabilities.max_depth == 500


def test_a_home_on_overlay_is_refused(driver: OverlayDriver, tmp_path: pathlib.Path) -> None:
    """On a file system that cannot be an upper directory the reason names it and the fix is another root."""
    driver.create("layer", "base")
    place = tmp_path / "place"
    place.mkdir()
    mounts.attach(driver.mounts("layer"), str(place))
    try:
        with pytest.raises(errors.IncompatibleFilesystem, match=r"overlay below .*place.*put --root on"):
            support.probed(str(place / "home"), {})
        assert sorted(os.listdir(place)) == ["dir", "file"]
    finally:
        mounts.detach(str(place))


def test_without_privileges_the_fix_is_told(tmp_path: pathlib.Path) -> None:
    """A user who may not mount is told how to become one."""
    script = f"""
        from graphdrivers import errors
        from graphdrivers.backends.overlay.support import probed
        try:
            probed({str(tmp_path / "home")!r}, {{}})
        except errors.PrerequisiteMissing as error:
            print(error)
    """
    # The interpreter may lie in a folder of root's; nothing else about the user is special.
    reading = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *reading, sys.executable, "-c"]
    done = subprocess.run([*command, textwrap.dedent(script)], check=True, capture_output=True, text=True, cwd="/")

    assert "mounting needs root" in done.stdout
    assert "unshare --user --map-root-user --mount" in done.stdout


def test_a_user_namespace_uses_its_own_marks(tmp_path: pathlib.Path) -> None:
    """As root of a user namespace the driver works with user xattrs and refuses what the kernel refuses there."""
    script = f"""
        import os
        from graphdrivers import errors
        from graphdrivers.backends.overlay.driver import OverlayDriver
        from graphdrivers.linux import mounts
        home = {str(tmp_path / "home")!r}
        try:
            OverlayDriver.probe(home, {{"redirect_dir": "on"}})
        except errors.NotSupported as error:
            print(error.reason)
        driver = OverlayDriver(home, {{}}, OverlayDriver.probe(home, {{}}))
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
        print(os.getxattr(home + "/layers/layer/diff/dir", "user.overlay.opaque"))
        driver.settle("layer")
        print(sorted(change.path for change in driver.changes("layer")), driver.support.capabilities.trusted_xattrs)
    """
    lines = in_namespace(script).splitlines()

    assert "only outside of user namespaces" in lines[0]
    assert lines[1:] == ["b'y'", "['/dir', '/dir/old'] False"]


def test_options_last(tmp_path: pathlib.Path) -> None:
    """A home made with redirects is opened with them again, and not without."""
    opened(tmp_path / "home", redirect_dir="on")

    assert opened(tmp_path / "home").support.capabilities.rename_directories
    with pytest.raises(errors.InvalidOption, match="cannot change"):
        OverlayDriver.probe(str(tmp_path / "home"), {"redirect_dir": "off"})


@pytest.mark.parametrize("folder", ["a:b,c\\d=e", 'sp ace"quote', "new\nline", "/".join(["x" * 100] * 6), "\udcff"])
def test_any_home_will_do(tmp_path: pathlib.Path, folder: str) -> None:
    """No byte in the path of a home, and no length, disturbs a mount, its discovery, or a removal."""
    home = tmp_path / folder
    home.parent.mkdir(parents=True, exist_ok=True)
    driver = opened(home)
    for layer, parent in (("a", None), ("b", "a"), ("c", "b")):
        driver.create(layer, parent)
        driver.seal(layer)
    driver.create("top", "c")
    place = tmp_path / "place"
    place.mkdir()
    for layer, view in (("top", False), ("c", True)):
        mounts.attach(driver.mounts(layer, view=view), str(place))
        try:
            with pytest.raises(errors.LayerInUse):
                driver.remove(layer)
        finally:
            mounts.detach(str(place))
    driver.remove("top")


def test_settling_cleans_the_work_directory(driver: OverlayDriver, tmp_path: pathlib.Path) -> None:
    """What a crash left in the work directory goes, with directories that nobody may enter."""
    driver.create("layer", "base")
    driver.mounts("layer")
    left = tmp_path / "home/layers/layer/work/work"
    (left / "#3a" / "deep").mkdir(parents=True)
    (left / "#3b").touch()
    (left / "#3a").chmod(0)
    left.chmod(0)
    driver.settle("layer")

    assert sorted(os.listdir(tmp_path / "home/layers/layer")) == ["diff", "layer.json"]
    with mounts.opened(driver.mounts("layer")) as root:
        assert sorted(os.listdir(root)) == ["dir", "file"]


def test_the_work_directory_stays_for_the_next_mount(driver: OverlayDriver, tmp_path: pathlib.Path) -> None:
    """Settling leaves what an unmount left, empty; sealing takes it away."""
    driver.create("layer", "base")
    folder = tmp_path / "home/layers/layer"
    for number in range(2):
        with mounts.opened(driver.mounts("layer")) as root:
            os.mkdir(f"made-{number}", dir_fd=root)
        driver.settle("layer")

        assert sorted(os.listdir(folder)) == ["diff", "layer.json", "touched", "work"]
        assert os.listdir(folder / "work/work") == []
    driver.seal("layer")

    assert sorted(os.listdir(folder)) == ["diff", "layer.json", "sealed"]


def test_settling_leaves_a_mounted_layer_alone(driver: OverlayDriver, tmp_path: pathlib.Path) -> None:
    """Reserved names and what is in the work directory stay while a mount may use them, and go after it."""
    driver.create("layer", "base")
    place = tmp_path / "place"
    place.mkdir()
    folder = tmp_path / "home/layers/layer"
    mounts.attach(driver.mounts("layer"), str(place))
    try:
        (place / ".wh.mine").touch()
        (folder / "work/work/#1").touch()
        driver.settle("layer")
        during = os.listdir(place), os.listdir(folder / "work/work")
    finally:
        mounts.detach(str(place))

    assert ".wh.mine" in during[0]
    assert during[1] == ["#1"]
    with pytest.raises(errors.ReservedNameError):
        driver.settle("layer")
    assert sorted(os.listdir(folder)) == ["diff", "layer.json", "reserved"]


def test_an_untouched_layer_is_not_searched(driver: OverlayDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealing what was only unpacked looks at none of its files."""
    driver.create("layer", "base")
    monkeypatch.setattr("graphdrivers.kit.reserved.put_aside", lambda *_: pytest.fail("searched"))
    driver.seal("layer")


def test_a_layer_takes_its_parents_root(driver: OverlayDriver, tmp_path: pathlib.Path) -> None:
    """Mode, owner, times and xattrs of the root are inherited, the kernel's own marks are not."""
    driver.create("layer", "base")
    diff = tmp_path / "home/layers/layer/diff"
    with mounts.opened(driver.mounts("layer")) as root:
        os.fchown(root, 5, 6)
        os.fchmod(root, 0o1711)
        os.setxattr(root, "trusted.note", b"kept")
    os.setxattr(diff, "trusted.overlay.overlay.opaque", b"content")
    os.utime(diff, ns=(1, 123_456_789))
    driver.settle("layer")
    driver.seal("layer")
    driver.create("child", "layer")
    child = tmp_path / "home/layers/child/diff"
    facts = child.stat()

    assert (facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode), facts.st_mtime_ns) == (5, 6, 0o1711, 123_456_789)
    assert set(os.listxattr(child)) == {"trusted.note", "trusted.overlay.overlay.opaque"}


def test_whiteouts_do_not_count(driver: OverlayDriver) -> None:
    """Usage is that of the upper directory without its whiteouts."""
    driver.create("layer", "base")
    with mounts.opened(driver.mounts("layer")) as root:
        os.unlink("file", dir_fd=root)
        os.unlink("dir/inner", dir_fd=root)
    usage = driver.usage("layer")

    assert (usage.bytes, usage.inodes) == (0, 1)
    assert isinstance(usage, Usage)


def test_mounts_are_values_that_name_their_layer(driver: OverlayDriver, tmp_path: pathlib.Path) -> None:
    """A plan performs nothing, and its source says whose it is."""
    driver.create("layer", "base")
    (plan,) = driver.mounts("layer")

    assert isinstance(plan, Mount)
    assert plan.source == str(tmp_path / "home/layers/layer")


def test_a_stack_beyond_one_page_of_options(tmp_path: pathlib.Path) -> None:
    """Long names of many layers do not meet the limit of mount(2)'s one page."""
    driver = opened(tmp_path / "home")
    parent = None
    for number in range(100):
        name = f"{number:04}" + "x" * 190
        driver.create(name, parent)
        driver.seal(name)
        parent = name
    driver.create("top", parent)
    with mounts.opened(driver.mounts("top")) as root:
        assert os.listdir(root) == []


def test_changes_cost_what_changed(driver: OverlayDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories of the image that the layer did not touch are never listed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(300):
            member = tarfile.TarInfo(f"d{number}")
            member.type = tarfile.DIRTYPE
            archive.addfile(member)
            archive.addfile(tarfile.TarInfo(f"d{number}/file"))
    driver.create("image", "base")
    driver.apply("image", io.BytesIO(buffer.getvalue()))
    driver.seal("image")
    driver.create("layer", "image")
    with mounts.opened(driver.mounts("layer")) as root:
        os.chmod("d7/file", 0o600, dir_fd=root)
    listed = []
    scandir = os.scandir

    def counted(directory: int) -> object:
        listed.append(directory)
        return scandir(directory)

    monkeypatch.setattr(os, "scandir", counted)

    assert [change.path for change in driver.changes("layer")] == ["/d7", "/d7/file"]
    assert len(listed) < 10


def test_a_user_namespace_without_mounts_of_its_own(tmp_path: pathlib.Path) -> None:
    """Its root may not mount where others see it; the advice is the whole command."""
    program = (
        f"from graphdrivers.backends.overlay.driver import OverlayDriver; OverlayDriver.probe({str(tmp_path)!r}, {{}})"
    )
    ran = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 1
    assert "PrerequisiteMissing" in ran.stderr
    assert "'unshare --user --map-root-user --mount'" in ran.stderr
