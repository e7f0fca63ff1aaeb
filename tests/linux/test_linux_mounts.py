"""Plans performed, with the new mount API and with the old one."""

import errno
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from linuxtools import fail_with, mounts_from, overlay

from graphdrivers.errors import SyscallError
from graphdrivers.linux import mountapi, mountinfo, mounts
from graphdrivers.model import Mount

Run = Callable[[int, Callable[[], object]], None]

ODD = "od,d:\\ \\, '\"=\n{}\udcff%"

pytestmark = pytest.mark.usefixtures("api")


def bind(source: object, **more: object) -> Mount:
    """Plan a bind."""
    return Mount("bind", str(source), **more)  # type: ignore[arg-type] # passed on


@pytest.mark.parametrize("names", ["layer-{}", ODD, "n" * 200 + "/" + "m" * 90 + "-{}"])
@pytest.mark.parametrize("upper", [True, False])
def test_overlay(target: str, tmp_path: pathlib.Path, names: str, *, upper: bool) -> None:
    """Directories of any name and length become one tree, which is gone after unmounting."""
    mount = overlay(tmp_path, 3, names, upper=upper)
    mounts.attach((mount,), target)

    assert sorted(os.listdir(target)) == ["file-0", "file-1", "file-2"]
    if upper:
        pathlib.Path(target, "new").touch()
        assert os.listdir(dict(mount.options)["upperdir"] or "") == ["new"]

    mounts.detach(target)

    assert os.listdir(target) == []


def test_nearest_parent_wins(target: str, tmp_path: pathlib.Path) -> None:
    """The first lower directory of a plan hides those after it."""
    mount = overlay(tmp_path, 3)
    for number in range(3):
        (tmp_path / f"layer-{number}" / "same").write_text(str(number))
    mounts.attach((mount,), target)

    assert pathlib.Path(target, "same").read_text() == "0"


def test_many_layers(target: str, tmp_path: pathlib.Path) -> None:
    """As many lower directories as the kernel takes, far beyond the page that mount(2) has for options."""
    where = os.getcwd()
    mount = overlay(tmp_path, 500, "0123456789abcdef0123456789abcdef0123456789abcdef-{}")
    mounts.attach((mount,), target)

    assert len(os.listdir(target)) == 500
    assert os.getcwd() == where
    upper = dict(mount.options)["upperdir"] or ""
    assert [user.target for user in mountinfo.users_of(upper)] == [target]


def test_too_many_layers(target: str, tmp_path: pathlib.Path) -> None:
    """One more is refused, and nothing is mounted."""
    with pytest.raises(SyscallError):
        mounts.attach((overlay(tmp_path, 501, "l{}"),), target)

    assert mountinfo.mounted_at(target) is None


@pytest.mark.parametrize("upper", [True, False])
def test_readonly_overlay(target: str, tmp_path: pathlib.Path, *, upper: bool) -> None:
    """A read-only plan refuses writes with EROFS."""
    mount = overlay(tmp_path, 2, upper=upper)
    mounts.attach((Mount(mount.type, mount.source, mount.options, readonly=True),), target)
    with pytest.raises(OSError, match="Read-only") as caught:
        pathlib.Path(target, "new").touch()

    assert caught.value.errno == errno.EROFS


def test_bind(target: str, tmp_path: pathlib.Path) -> None:
    """A bind shows its source; a read-only one refuses writes, and only there."""
    source = tmp_path / ODD
    source.mkdir()
    mounts.attach((bind(source),), target)
    pathlib.Path(target, "new").touch()
    mounts.detach(target)
    mounts.attach((bind(source, readonly=True),), target)

    assert os.listdir(target) == ["new"]
    with pytest.raises(OSError, match="Read-only"):
        pathlib.Path(target, "other").touch()
    (source / "other").touch()


def test_mount_flags(target: str, tmp_path: pathlib.Path) -> None:
    """Flags that belong to a mount are set there, whatever its type."""
    flags = (("nosuid", None), ("nodev", None), ("noexec", None), ("noatime", None), ("ro", None))
    layers = overlay(tmp_path, 2, upper=False)
    for mount in (
        bind(tmp_path, options=flags),
        Mount("tmpfs", "t", flags),
        Mount("overlay", "o", flags + layers.options),
    ):
        mounts.attach((mount,), target)
        found = mountinfo.mounted_at(target)
        mounts.detach(target)

        assert found is not None
        assert {key for key, _ in flags} <= set(found.options)


def test_bind_has_no_other_options(target: str, tmp_path: pathlib.Path) -> None:
    """An option that a bind cannot have is refused, not ignored."""
    with pytest.raises(ValueError, match="size"):
        mounts.attach((bind(tmp_path, options=(("size", "1"),)),), target)


def test_no_value_is_cut_at_a_null_byte(target: str, tmp_path: pathlib.Path) -> None:
    """A directory's name with a NUL byte in it is refused, and nothing is mounted."""
    lower = str(tmp_path)
    with pytest.raises(ValueError, match="null byte"):
        mounts.attach([Mount("overlay", "label", (("lowerdir+", lower), ("lowerdir+", f"{lower}\0cut")))], target)
    with pytest.raises(OSError, match="Invalid argument"):
        mounts.detach(target)


def test_other_file_systems(target: str) -> None:
    """Any type of the kernel can be in a plan, its options passed on."""
    mounts.attach((Mount("tmpfs", "label", (("size", "64k"), ("mode", "0711"))),), target)
    found = mountinfo.mounted_at(target)

    assert found is not None
    assert (found.source, found.option("size"), os.stat(target).st_mode & 0o777) == ("label", "64k", 0o711)


def test_mounts_below(target: str, tmp_path: pathlib.Path) -> None:
    """A later mount of a plan may lie below the first, which was made by the plan itself."""
    (tmp_path / "a" / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").touch()
    mounts.attach((bind(tmp_path / "a"), bind(tmp_path / "b", target="sub/deep")), target)

    assert os.listdir(f"{target}/sub/deep") == ["file"]
    assert os.listdir(tmp_path / "a" / "sub" / "deep") == []


def test_symbolic_links_below_are_refused(target: str, tmp_path: pathlib.Path) -> None:
    """A plan never mounts through a link inside a layer, and what it had mounted before is undone."""
    (tmp_path / "a").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "a" / "sub").symlink_to(tmp_path / "outside")
    with pytest.raises(SyscallError) as caught:
        mounts.attach((bind(tmp_path / "a"), bind(tmp_path / "a", target="sub")), target)

    assert caught.value.errno == errno.ELOOP
    assert mountinfo.mounted_below(str(tmp_path)) == []


def test_all_or_nothing(target: str, tmp_path: pathlib.Path) -> None:
    """When the last mount of a plan fails, the earlier ones are undone."""
    (tmp_path / "sub").mkdir()
    plan = (bind(tmp_path), bind(tmp_path, target="sub"), bind(tmp_path / "missing", target="sub"))
    with pytest.raises(FileNotFoundError):
        mounts.attach(plan, target)

    assert mountinfo.mounted_below(str(tmp_path)) == []


def test_no_descriptor_is_left(target: str, tmp_path: pathlib.Path) -> None:
    """Neither success nor failure leaks a descriptor."""
    plan = (overlay(tmp_path, 3, ODD),)
    before = os.listdir("/proc/self/fd")
    mounts.attach(plan, target)
    mounts.detach(target)
    with mounts.opened(plan):
        pass
    for bad in (bind("/nowhere"), Mount("overlay", "x", (("bogus", "1"),)), Mount("no-such-type", "x")):
        with pytest.raises(OSError):  # noqa: PT011 - of several kinds
            mounts.attach((bad,), target)

    assert os.listdir("/proc/self/fd") == before


def test_opened_is_out_of_sight(tmp_path: pathlib.Path, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The merged tree can be read while the mount table shows nothing, and its directories are free afterwards.

    Programs of other users and device nodes in it have no power.
    """
    plan = (overlay(tmp_path, 2),)
    monkeypatch.setattr(mounts, "_SCRATCH", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    with mounts.opened(plan) as root:
        assert mounts_from(tmp_path) == []
        assert os.listdir(tmp_path / "scratch") == []
        assert sorted(os.listdir(root)) == ["file-0", "file-1"]
        assert not (os.ST_NOSUID | os.ST_NODEV) & ~os.statvfs(root).f_flag
        os.mkdir("new", dir_fd=root)
    with pytest.raises(OSError, match="Bad file"):
        os.listdir(root)

    assert (tmp_path / "layer-upperdir" / "new").is_dir()
    assert mounts_from(tmp_path) == []
    mounts.attach(plan, target)
    assert [mount.target for mount in mounts_from(tmp_path)] == [target]


def test_opened_directory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that is one writable directory is opened without a mount."""
    for call in ("_open_tree", "_mount"):
        monkeypatch.setattr(mountapi, call, fail_with(errno.EIO))
    with mounts.opened((bind(tmp_path),)) as root:
        assert os.path.samestat(os.fstat(root), tmp_path.stat())


def test_opened_readonly(tmp_path: pathlib.Path) -> None:
    """Through a read-only plan nothing can be written."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with mounts.opened((bind(tmp_path, readonly=True),)) as root, pytest.raises(OSError, match="Read-only"):
        os.mkdir("new", dir_fd=root)


@pytest.mark.usefixtures("root")
def test_opened_several(tmp_path: pathlib.Path, api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan of several mounts is assembled somewhere, and leaves no trace either; an old kernel cannot."""
    (tmp_path / "a" / "sub").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").touch()
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(mounts, "_SCRATCH", str(tmp_path / "scratch"))
    plan = (bind(tmp_path / "a"), bind(tmp_path / "b", target="sub"))
    if api == "new":
        with mounts.opened(plan) as merged:
            assert os.stat("sub/file", dir_fd=merged)
            assert mounts_from(tmp_path) == []
    else:
        with pytest.raises(SyscallError, match="open_tree"), mounts.opened(plan):
            pass

    assert mounts_from(tmp_path) == []


def test_opened_without_privilege(tmp_path: pathlib.Path, run_as: Run) -> None:
    """Who may not mount can still read a view of one directory; an overlay is refused."""
    (tmp_path / "file").touch()
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_mode & 0o055 != 0o055:
            directory.chmod(directory.stat().st_mode | 0o055)

    def check() -> None:
        with mounts.opened((bind(tmp_path, readonly=True),)) as root:
            assert os.listdir(root) == ["file"]
        with pytest.raises(PermissionError), mounts.opened((Mount("overlay", "x"),)):
            pass

    run_as(65534, check)


def test_detach(target: str, tmp_path: pathlib.Path) -> None:
    """Busy mounts are refused or, lazily, taken out of sight; the topmost goes first."""
    mounts.attach((bind(tmp_path),), target)
    opened = os.open(target, os.O_RDONLY)
    with pytest.raises(SyscallError) as caught:
        mounts.detach(target)
    assert caught.value.errno == errno.EBUSY
    mounts.detach(target, lazy=True)

    assert mountinfo.mounted_at(target) is None
    assert "target" in os.listdir(opened)
    os.close(opened)
    with pytest.raises(SyscallError) as caught:
        mounts.detach(target)
    assert caught.value.errno == errno.EINVAL


def test_detach_does_not_follow(target: str, tmp_path: pathlib.Path) -> None:
    """A symbolic link to a mount is not unmounted."""
    mounts.attach((bind(tmp_path),), target)
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(SyscallError):
        mounts.detach(str(link))

    assert mountinfo.mounted_at(target)


def test_threads(tmp_path: pathlib.Path, root: None) -> None:
    """Threads mount at the same time without disturbing each other."""
    del root
    failures: list[str] = []

    def work(number: int) -> None:
        base = tmp_path / str(number)
        plan = (overlay(base, 60, "x" * 80 + "{}"),)
        (base / "target").mkdir()
        for _ in range(5):
            mounts.attach(plan, str(base / "target"))
            if len(os.listdir(base / "target")) != 60:
                failures.append(f"thread {number}")
            mounts.detach(str(base / "target"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert mountinfo.mounted_below(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("plan", "plain"),
    [
        ((Mount("bind", "/x"),), "/x"),
        ((Mount("bind", "/x", readonly=True),), None),
        ((Mount("bind", "/x", target="sub"),), None),
        ((Mount("bind", "/x", (("nosuid", None),)),), None),
        ((Mount("tmpfs", "/x"),), None),
        ((Mount("bind", "/x"), Mount("bind", "/y", target="y")), None),
        ((), None),
    ],
)
def test_plain_directory(plan: tuple[Mount, ...], plain: str | None) -> None:
    """Only one writable bind on the target itself needs no mount."""
    assert mounts.plain_directory(plan) == plain


IN_NAMESPACE = """
import os, sys, pathlib
sys.path.insert(0, sys.argv[2])
from linuxtools import overlay
from graphdrivers.linux import mountapi, mounts, mountinfo, probe
from graphdrivers.model import Mount
if sys.argv[3] == "legacy":
    probe.has_new_mount_api = probe.has_lowerdir_append = lambda: False
base = pathlib.Path(sys.argv[1])
(base / "target").mkdir()
mount = overlay(base, 3)
plan = (Mount("overlay", "test", (*mount.options, ("userxattr", None))),)
with mounts.opened(plan) as root:
    assert len(os.listdir(root)) == 3
mounts.attach(plan, str(base / "target"))
os.unlink(base / "target" / "file-0")
assert os.stat(base / "layer-upperdir" / "file-0").st_rdev == 0
assert len(mountinfo.users_of(str(base / "layer-upperdir"))) == 1
mounts.detach(str(base / "target"))
# A bind of what has flags that this namespace may not clear.
mounts.attach((Mount("bind", "/proc", readonly=True),), str(base / "target"))
assert "ro" in mountinfo.mounted_at(str(base / "target")).options
"""


def test_user_namespace(tmp_path: pathlib.Path, api: str) -> None:
    """All of it works for root of a user namespace, without any privilege outside."""
    if subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs permission to create user namespaces")
    command = [sys.executable, "-c", IN_NAMESPACE, str(tmp_path), os.path.dirname(__file__), api]
    subprocess.run(["unshare", "-Urm", *command], check=True)
