"""Limits on the size of layers on real file systems: who claims them, whose numbers they have, what a crash leaves."""

import errno
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest

from graphdrivers import errors, loading
from graphdrivers.driver import Driver
from graphdrivers.kit import quotas
from graphdrivers.linux import mounts, quota
from graphdrivers.model import LayerSpec

MIB = 1 << 20
SIZE = 16 * MIB
DRIVERS = ("overlay", "vfs", "aufs")
STATE = {"overlay": "layers", "vfs": "layers", "aufs": "state"}


def opened(name: str, home: pathlib.Path, **options: str) -> Driver:
    """Open a home."""
    return loading.load_driver(name, str(home), options)


def limiting(name: str, home: pathlib.Path) -> Driver:
    """Open a home with limits."""
    driver = opened(name, home)
    if not driver.support.capabilities.quota:
        pytest.skip("tests of claims say why not")
    return driver


def state(driver: Driver, layer: str = "layer") -> str:
    """Give the path of a layer's own folder."""
    return os.path.join(driver.home, STATE[driver.name], layer)


def number(driver: Driver, layer: str = "layer") -> int:
    """Give the project of a layer."""
    return quota.project_of(state(driver, layer)).number


def limit(driver: Driver, layer: str = "layer") -> int:
    """Give what the kernel lets a layer take."""
    return quota.quota_of(driver.home, number(driver, layer)).limit


def write(driver: Driver, layer: str, name: str, size: int) -> None:
    """Write to a layer through its mount."""
    with mounts.opened(driver.mounts(layer)) as root:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=root)
        try:
            piece = os.urandom(64 << 10)
            for _ in range(size // len(piece)):
                os.write(fd, piece)
        finally:
            os.close(fd)
    driver.settle(layer)


def free(place: pathlib.Path) -> bool:
    """Say whether no project of ours is left."""
    # Freezing waits until xfs has forgotten the files that were deleted.
    for step in ("--freeze", "--unfreeze"):
        subprocess.run(["fsfreeze", step, place], check=True)
    return all(quota.quota_of(str(place), quotas.FIRST + n) == quota.Quota() for n in range(256))


def in_child(action: Callable[[], object]) -> int:
    """Run in a child process; give its exit status."""
    child = os.fork()
    if not child:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("name", DRIVERS)
def test_who_claims_it(limited: pathlib.Path, name: str) -> None:
    """Limits are claimed where they hold: not for plain directories on ext4, which binds no privileged process."""
    driver = opened(name, limited / "home")
    bound = name != "vfs" or limited.name == "xfs"

    assert driver.support.capabilities.quota == bound
    assert free(limited)
    if not bound:
        with pytest.raises(errors.NotSupported, match="CAP_SYS_RESOURCE") as caught:
            driver.create("layer", None, LayerSpec(size=SIZE))
        assert "use driver overlay" in caught.value.advice


def test_a_bound_process_claims_it(limited: pathlib.Path) -> None:
    """Without the capability that passes limits, also vfs keeps them on ext4."""
    code = """
import errno, os, sys
from graphdrivers import loading
from graphdrivers.model import LayerSpec
driver = loading.load_driver("vfs", sys.argv[1], {})
assert driver.support.capabilities.quota
driver.create("layer", None, LayerSpec(size=1 << 20))
try:
    open(os.path.join(driver.mounts("layer")[0].source, "file"), "wb").write(bytes(2 << 20))
except OSError as error:
    sys.exit(error.errno not in {errno.EDQUOT, errno.ENOSPC})
sys.exit(2)
"""
    without = ["setpriv", "--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource"]
    done = subprocess.run([*without, sys.executable, "-c", code, limited / "home"], check=False, capture_output=True)

    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize("size", [0, -1])
def test_sizes_that_are_none(limited: pathlib.Path, name: str, size: int) -> None:
    """No bytes at all are no size."""
    driver = opened(name, limited / "home")
    with pytest.raises(errors.NotSupported, match="no size"):
        driver.create("layer", None, LayerSpec(size=size))


@pytest.mark.parametrize("name", DRIVERS)
def test_a_home_in_a_project(limited: pathlib.Path, name: str) -> None:
    """Where somebody counts all of the home, layers do not get out of it."""
    place = limited / "counted"
    place.mkdir()
    quota.set_project(str(place), quota.Project(7, inherited=True))
    driver = opened(name, place / "home")

    assert not driver.support.capabilities.quota
    with pytest.raises(errors.NotSupported, match="the home is in project 7"):
        driver.create("layer", None, LayerSpec(size=SIZE))


@pytest.mark.parametrize(("fs_type", "fix"), [("xfs", "-o prjquota"), ("ext4", "tune2fs -O project"), ("tmpfs", "xfs")])
@pytest.mark.parametrize("name", DRIVERS)
def test_reasons(tmp_path: pathlib.Path, name: str, fs_type: str, fix: str) -> None:
    """Where project quotas are off, or unknown, one line says so and what to do; nothing is made."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    image, place = tmp_path / "image", tmp_path / "place"
    place.mkdir()
    image.touch()
    os.truncate(image, 320 << 20)
    source = ["-t", "tmpfs", "none"] if fs_type == "tmpfs" else ["-o", "loop", image]
    if fs_type != "tmpfs":
        subprocess.run([f"mkfs.{fs_type}", "-q", image], check=True, capture_output=True)
    if subprocess.run(["mount", *source, place], check=False, capture_output=True).returncode:
        pytest.skip("needs loop devices")
    try:
        driver = opened(name, place / "home")
        assert not driver.support.capabilities.quota
        with pytest.raises(errors.NotSupported, match="project quotas") as caught:
            driver.create("layer", None, LayerSpec(size=SIZE))
        assert fix in caught.value.advice
        assert "\n" not in str(caught.value)
        assert list(driver.layers()) == []
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.parametrize("name", DRIVERS)
def test_quotas_that_came_and_went(limited: pathlib.Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a probe found may have become wrong either way: both are said when a layer is made."""
    driver = limiting(name, limited / "home")
    driver.create("layer", None, LayerSpec(size=SIZE))
    monkeypatch.setattr(quota, "_call", lambda *_: (_ for _ in ()).throw(OSError(errno.ESRCH, "off")))
    for verb in (lambda: driver.create("other", None, LayerSpec(size=SIZE)), lambda: driver.mounts("layer")):
        with pytest.raises(errors.NotSupported, match="not switched on"):
            verb()
    late = opened(name, limited / "late")
    monkeypatch.undo()
    with pytest.raises(errors.NotSupported, match="can be now"):
        late.create("layer", None, LayerSpec(size=SIZE))

    driver.remove("layer")
    assert list(driver.layers()) == []


@pytest.mark.parametrize("name", DRIVERS)
def test_removal_needs_no_quotas(limited: pathlib.Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer can be removed, and read, where quotas were switched off."""
    driver = limiting(name, limited / "home")
    driver.create("layer", None, LayerSpec(size=SIZE))
    write(driver, "layer", "file", MIB)
    monkeypatch.setattr(quota, "_call", lambda *_: (_ for _ in ()).throw(OSError(errno.ESRCH, "off")))
    driver.settle()
    driver.settle("layer")
    assert driver.usage("layer").bytes == MIB
    driver.seal("layer")
    driver.remove("layer")

    assert list(driver.layers()) == []


@pytest.mark.parametrize("name", DRIVERS)
def test_each_layer_has_a_number(limited: pathlib.Path, name: str) -> None:
    """Numbers of all homes on a file system differ, also from those that others took; removal gives them back."""
    taken = limited / "taken"
    taken.mkdir()
    quota.set_project(str(taken), quota.Project(quotas.FIRST + 1))
    quota.set_limit(str(taken), quotas.FIRST + 2, MIB)
    drivers = [limiting(name, limited / home) for home in ("one", "two")]
    numbers = []
    for driver in drivers:
        for layer in range(24):
            driver.create(str(layer), None, LayerSpec(size=SIZE))
            numbers.append(number(driver, str(layer)))
            assert limit(driver, str(layer)) == SIZE
    assert len({*numbers, quotas.FIRST + 1, quotas.FIRST + 2}) == 50
    for driver in drivers:
        for layer in range(24):
            driver.remove(str(layer))
    quota.set_project(str(taken), quota.Project())
    quota.set_limit(str(taken), quotas.FIRST + 2, 0)

    assert free(limited)


def test_processes_agree(limited: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that make layers at once, in homes of their own, get different numbers from a range that is short."""
    monkeypatch.setattr(quotas, "_FEW", 8)
    drivers = [limiting("overlay", limited / str(home)) for home in range(4)]

    def create(driver: Driver) -> None:
        for layer in range(12):
            driver.create(str(layer), None, LayerSpec(size=SIZE))

    children = []
    for driver in drivers:
        child = os.fork()
        if not child:
            code = 1
            try:
                create(driver)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    numbers = [number(driver, str(layer)) for driver in drivers for layer in range(12)]
    assert len(set(numbers)) == len(numbers)
    assert all(limit(driver, str(layer)) == SIZE for driver in drivers for layer in range(12))


def test_a_number_that_two_took(limited: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds that a number is taken in the same moment takes another."""
    driver = limiting("overlay", limited / "home")
    other = limited / "other"
    other.mkdir()
    set_project = quota.set_project

    def both(directory: str, project: quota.Project) -> None:
        if directory.endswith(quotas.TRIAL) and not quota.project_of(str(other)).number:
            set_project(str(other), project)
        set_project(directory, project)

    monkeypatch.setattr(quota, "set_project", both)
    driver.create("layer", None, LayerSpec(size=SIZE))

    assert quota.project_of(str(other)).number
    assert number(driver) != quota.project_of(str(other)).number


@pytest.mark.parametrize("name", DRIVERS)
def test_a_killed_creation_leaves_no_limit(limited: pathlib.Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the layer is there, it leaves a folder, which is swept with its limit."""
    driver = limiting(name, limited / "home")

    def create() -> None:
        monkeypatch.setattr(quotas, "keep", lambda *_, **__: os._exit(9))
        driver.create("layer", None, LayerSpec(size=SIZE))

    assert in_child(create) == 9
    assert not free(limited)
    opened(name, limited / "home").settle()

    assert free(limited)
    assert list(driver.layers()) == []


@pytest.mark.parametrize("name", DRIVERS)
def test_a_failed_creation_leaves_no_limit(limited: pathlib.Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error on the way takes the limit back at once."""
    driver = limiting(name, limited / "home")
    monkeypatch.setattr(os, "rename", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"):
        driver.create("layer", None, LayerSpec(size=SIZE))
    monkeypatch.undo()

    assert free(limited)


@pytest.mark.parametrize("name", DRIVERS)
def test_a_killed_removal_is_finished(limited: pathlib.Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while a layer's files are deleted, the rest goes when the home is settled."""
    driver = limiting(name, limited / "home")
    driver.create("layer", None, LayerSpec(size=SIZE))
    write(driver, "layer", "file", MIB)

    def remove() -> None:
        monkeypatch.setattr("graphdrivers.linux.trees.remove_tree", lambda *_: os._exit(9))
        driver.remove("layer")

    assert in_child(remove) == 9
    assert not free(limited)
    driver.settle()

    assert free(limited)


@pytest.mark.parametrize("name", DRIVERS)
def test_a_limit_that_was_lost_comes_back(limited: pathlib.Path, name: str) -> None:
    """The next mount sets what is recorded; a limit that somebody made larger stays."""
    driver = limiting(name, limited / "home")
    driver.create("layer", None, LayerSpec(size=SIZE))
    quota.set_limit(driver.home, number(driver), 0)
    driver.mounts("layer")
    assert limit(driver) == SIZE
    quota.set_limit(driver.home, number(driver), 2 * SIZE)
    driver.mounts("layer")

    assert limit(driver) == 2 * SIZE


@pytest.mark.parametrize("name", DRIVERS)
def test_a_copied_home(limited: pathlib.Path, name: str) -> None:
    """Numbers are not copied with files: a layer without its own is not mounted as if it were limited."""
    driver = limiting(name, limited / "home")
    driver.create("layer", None, LayerSpec(size=SIZE))
    subprocess.run(["cp", "-a", driver.home, limited / "copy"], check=True)
    copy = opened(name, limited / "copy")
    with pytest.raises(errors.NotSupported, match="was copied"):
        copy.mounts("layer")
    copy.remove("layer")

    assert limit(driver) == SIZE


@pytest.mark.parametrize("text", [b"", b"many\n", b"0\n", b"-5\n"])
def test_a_damaged_size(limited: pathlib.Path, text: bytes) -> None:
    """A record that is no size is damage, not a layer without limit."""
    driver = limiting("overlay", limited / "home")
    driver.create("layer", None, LayerSpec(size=SIZE))
    pathlib.Path(state(driver), quotas.LIMIT).write_bytes(text)
    with pytest.raises(errors.StoreCorrupt, match="size of its limit"):
        driver.mounts("layer")


@pytest.mark.parametrize("name", ["overlay", "aufs"])
def test_a_full_layer_is_mounted_again(limited: pathlib.Path, name: str) -> None:
    """What overlayfs needs for a mount is found beyond the limit, some times; then an error says what is wrong."""
    driver = limiting(name, limited / "home")
    driver.create("base")
    driver.seal("base")
    driver.create("layer", "base", LayerSpec(size=4 * MIB))
    with pytest.raises(OSError, match=r"quota|space"):
        write(driver, "layer", "filler", 8 * MIB)
    for turn in range(3):
        with mounts.opened(driver.mounts("layer")) as root:
            os.close(os.open(f"empty{turn}", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=root))
        driver.settle("layer")
    with pytest.raises(OSError, match=r"quota|space|too full"):  # noqa: PT012 - some turn of them
        for turn in range(200):
            write(driver, "layer", f"more{turn}", 8 * MIB)
    assert driver.usage("layer").disk < 4 * MIB + 17 * 256 * 4096

    driver.seal("layer")
    driver.remove("layer")


def test_vfs_counts_what_is_added(limited: pathlib.Path) -> None:
    """A child that is a copy may take its size beyond what was copied."""
    driver = limiting("vfs", limited / "home")
    driver.create("base")
    write(driver, "base", "large", 24 * MIB)
    driver.seal("base")
    driver.create("layer", "base", LayerSpec(size=SIZE))
    write(driver, "layer", "fits", 12 * MIB)
    with pytest.raises(OSError, match=r"quota|space"):
        write(driver, "layer", "does not", 12 * MIB)


def test_the_copy_engine_keeps_no_limit(limited: pathlib.Path) -> None:
    """An engine that could not keep the limit of a layer does not mount it; it can be read, sealed and removed."""
    driver = limiting("aufs", limited / "home")
    driver.create("layer", None, LayerSpec(size=SIZE))
    write(driver, "layer", "file", MIB)
    copying = opened("aufs", limited / "home", engine="copy")

    assert not copying.support.capabilities.quota
    with pytest.raises(errors.NotSupported, match="engine copy does not limit"):
        copying.create("other", None, LayerSpec(size=SIZE))
    with pytest.raises(errors.NotSupported, match="has a limit"):
        copying.mounts("layer")
    copying.facts("layer")
    copying.seal("layer")
    with mounts.opened(copying.mounts("layer", view=True)) as root:
        assert os.listdir(root) == ["file"]
    copying.remove("layer")


@pytest.mark.parametrize("name", DRIVERS)
def test_reserved_names_are_put_aside(limited: pathlib.Path, name: str) -> None:
    """What leaves a limited tree for another folder of the layer moves there as from any other tree."""
    driver = limiting(name, limited / "home")
    driver.create("base")
    driver.seal("base")
    driver.create("layer", "base", LayerSpec(size=SIZE))
    with mounts.opened(driver.mounts("layer")) as root:
        os.mkdir(".wh.folder", dir_fd=root)
        os.mkdir("kept", dir_fd=root)
    with pytest.raises(errors.ReservedNameError):
        driver.settle("layer")

    assert [change.path for change in driver.changes("layer")] == ["/kept"]
    assert os.listdir(os.path.join(state(driver), "reserved", "0000")) == [".wh.folder"]


@pytest.mark.parametrize("name", DRIVERS)
def test_nobody_lifts_the_limit_of_another_layer(limited: pathlib.Path, name: str) -> None:
    """Root in a mount may give its files away to another project; that costs the other layer neither limit nor name."""
    driver = limiting(name, limited / "home")
    for layer in ("layer", "victim"):
        driver.create(layer, None, LayerSpec(size=SIZE))
    with mounts.opened(driver.mounts("layer")) as root:
        quota.set_project(f"/proc/self/fd/{root}/.", quota.Project(number(driver, "victim")))
    driver.settle("layer")
    driver.mounts("layer")
    driver.settle("layer")
    driver.remove("layer")
    driver.settle()

    assert limit(driver, "victim") == SIZE


@pytest.mark.parametrize("name", DRIVERS)
def test_a_mount_takes_a_tree_back(limited: pathlib.Path, name: str) -> None:
    """A tree whose project root in a mount has changed is in its own again from the next mount on."""
    driver = limiting(name, limited / "home")
    driver.create("layer", None, LayerSpec(size=SIZE))
    with mounts.opened(driver.mounts("layer")) as root:
        quota.set_project(f"/proc/self/fd/{root}/.", quota.Project())
    driver.settle("layer")
    with mounts.opened(driver.mounts("layer")) as root:
        os.mkdir("new", dir_fd=root)
        assert quota.project_of(f"/proc/self/fd/{root}/new").number == number(driver)


def test_who_may_not_ask(limited: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a user namespace, and where a sandbox forbids the call, the driver works and claims no limits; it says why."""
    with monkeypatch.context() as patch:
        patch.setattr(quotas.namespaces, "in_initial_user_namespace", lambda: False)
        found = quotas.refused("vfs", str(limited), lambda *_: pytest.fail("nothing is to be tried"))
        assert found is not None
        assert "root outside of user namespaces" in found.reason
    error = PermissionError(errno.EPERM, "forbidden")
    monkeypatch.setattr(quota, "_call", lambda *_: (_ for _ in ()).throw(error))
    driver = opened("overlay", limited / "home")

    assert not driver.support.capabilities.quota
    with pytest.raises(errors.NotSupported, match="cannot be asked") as caught:
        driver.create("layer", None, LayerSpec(size=SIZE))
    assert "permit quotactl" in caught.value.advice
