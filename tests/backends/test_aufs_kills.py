"""The way between mount and rest, cut by SIGKILL: nothing is lost, nothing comes back, nobody is accused."""

import io
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
from aufstools import Opener, calls_of, in_child, killed_before, make, merged, names, shown, visible, whole, written

from graphdrivers import errors
from graphdrivers.backends.aufs import phases
from graphdrivers.backends.aufs.driver import AufsDriver
from graphdrivers.backends.aufs.home import AufsDirs
from graphdrivers.conformance import observe
from graphdrivers.conformance.workbench import layer_tar
from graphdrivers.linux import durable

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

STEP = int(os.environ.get("GRAPHDRIVERS_AUFS_KILL_STEP", "3"))
"""The dear ways are killed at every so many-th call, and their recovery at every 8th of those; 1 leaves out none."""

LONG = "l" * 253


def timed(root: str, *paths: str) -> None:
    """Give entries a fixed modification time."""
    for path in paths:
        os.utime(os.path.join(root, path), ns=(1, 1_700_000_000_123_456_789), follow_symlinks=path == ".")


def base_tree(root: str) -> None:
    """Fill a base layer."""
    here = pathlib.Path(root)
    make(here, "gone", "kept", "file", LONG, "dir/gone", "dir/kept", "dir/sub/deep", "all/one", "all/two/three")
    make(here, "replaced/old", "nested/inner/old", "nested/other", "turned")
    timed(root, *names(root), ".")


def edited(root: str) -> None:
    """Leave every kind of mark that an upper directory can hold."""
    here = pathlib.Path(root)
    for path in ("gone", "dir/gone", LONG, "turned"):
        (here / path).unlink()
    for path in ("all", "replaced", "nested/inner"):
        shutil.rmtree(here / path)
    make(here, "replaced/new", "nested/inner/new", "turned/now", "added/file", "dir/sub/more")
    (here / "kept").write_text("longer than before")
    (here / "dir/link").symlink_to("kept")
    os.link(here / "added/file", here / "added/again")
    os.setxattr(here / "dir", "trusted.overlay.opaque", b"content")
    os.chown(here / "dir/kept", 5, 6)
    timed(root, "replaced/new", "nested/inner/new", "turned/now", "added/file", "dir/sub/more", "kept", "dir/link")
    timed(root, "added", "dir/sub", "dir", "nested/inner", "nested", "turned", "replaced", ".")


def begun(driver: AufsDriver) -> None:
    """Make a base and a layer over it, live, by a process that is gone."""

    def act() -> None:
        driver.create("base")
        written(driver, "base", base_tree)
        driver.seal("base")
        driver.create("layer", "base")
        written(driver, "layer", edited)

    in_child(act)


def rested(driver: AufsDriver) -> None:
    """Make the same, and bring the layer to rest."""
    begun(driver)
    in_child(lambda: driver.settle("layer"))


@pytest.fixture
def expected(memory: pathlib.Path) -> dict[str, observe.Item]:
    """Make the same on a flat directory, and look at it."""
    (memory / "flat").mkdir()
    (memory / "flat").chmod(0o755)
    base_tree(str(memory / "flat"))
    edited(str(memory / "flat"))
    return observe.snapshot(str(memory / "flat"))


def check(driver: AufsDriver, home: pathlib.Path, expected: dict[str, observe.Item]) -> None:
    """Assert that the layer is at rest, whole, and as it was."""
    assert driver.facts("layer")["dialect"] == "wh"
    whole(home)
    assert not (home / "state/layer/reserved").exists()
    raw = visible(merged([home / "diff/layer", home / "diff/base"]))
    assert observe.differences(expected, raw) == []
    assert not any(item.kind == 0o020000 for item in observe.snapshot(str(home / "diff/layer")).values())


def each_kill(
    memory: pathlib.Path,
    start: Callable[[], AufsDriver],
    expected: dict[str, observe.Item],
    prepare: Callable[[AufsDriver], object],
    act: Callable[[AufsDriver], object],
) -> int:
    """Kill ``act`` on a new home each time, open again, settle (killed, too), and check; give the last number."""
    number = 1
    while True:
        driver = start()
        prepare(driver)
        if not killed_before(number, lambda: act(driver)):  # noqa: B023 - called at once
            return number - 1
        recover = (start().settle, lambda: start().settle("layer"))[number % 2]
        second = number % (8 * STEP) + 1
        while killed_before(second, recover):
            second += 8 * STEP
        start().settle()
        start().settle("layer")
        check(start(), memory / "home", expected)
        shutil.rmtree(memory / "home")
        number += STEP


@pytest.fixture
def start(memory: pathlib.Path, opened: Opener, engine: str) -> Callable[[], AufsDriver]:
    """Open the home, making it where it is missing."""
    return lambda: opened(memory / "home", engine)


def test_a_killed_way_to_rest(
    memory: pathlib.Path, start: Callable[[], AufsDriver], expected: dict[str, observe.Item]
) -> None:
    """SIGKILL before each call of settling a layer with every kind of mark, and again in the recovery from that."""
    assert each_kill(memory, start, expected, begun, lambda driver: driver.settle("layer")) > 40


def test_a_killed_way_to_the_mount(
    memory: pathlib.Path, start: Callable[[], AufsDriver], expected: dict[str, observe.Item]
) -> None:
    """SIGKILL before each call of making a layer with every kind of marker ready for its mount."""
    assert each_kill(memory, start, expected, rested, lambda driver: driver.mounts("layer")) > 20


def test_a_killed_copy_outlives_nothing(memory: pathlib.Path, opened: Opener) -> None:
    """SIGKILL before each call of copying a tree; what another engine and a tar do to the layer then is what counts."""
    driver = opened(memory / "home", "copy")
    driver.create("base")
    written(driver, "base", lambda root: make(pathlib.Path(root), "old"))
    driver.seal("base")
    number = 0
    while True:
        layer = f"layer{number}"
        driver.create(layer, "base")
        driver.settle(layer)
        if not killed_before(number := number + 1, lambda layer=layer: driver.mounts(layer)):  # type: ignore[misc]
            break
        if number % 2:
            opened(memory / "home").settle(layer)
            written(opened(memory / "home"), layer, lambda root: make(pathlib.Path(root), "new"))
        else:
            driver.apply(layer, io.BytesIO(layer_tar(["new"])))
        driver.seal(layer)
        assert sorted(shown(driver, layer)) == [".", "new", "old"], number
    assert number > 10


def test_a_users_names_are_told_from_markers(memory: pathlib.Path, start: Callable[[], AufsDriver]) -> None:
    """SIGKILL before each call of settling: what a user named ``.wh.`` is put aside, what was deleted stays deleted."""

    def act(root: str) -> None:
        (pathlib.Path(root) / "gone").unlink()
        make(pathlib.Path(root), ".wh.kept", "dir/.wh.kept", "dir/.wh..wh..opq")

    mine = {"/.wh.kept", "/dir/.wh.kept", "/dir/.wh..wh..opq"}
    number = 0
    told: list[set[str]] = []
    while True:
        driver = start()
        driver.create("base")
        written(driver, "base", lambda root: make(pathlib.Path(root), "gone", "kept", "dir/kept", "dir/more"))
        driver.seal("base")
        driver.create("layer", "base")
        written(driver, "layer", act)
        killed = killed_before(number := number + 1, lambda: _told(driver))  # noqa: B023 - called at once
        told.append(_told(start()))
        assert told[-1] <= mine
        assert len(list((memory / "home").glob("state/layer/reserved/*/.wh.*"))) == len(mine)
        assert sorted(name for name in names(memory / "home/diff/layer") if "/" not in name) == [".wh.gone", "dir"]
        assert sorted(shown(driver, "layer")) == [".", "dir", "dir/kept", "dir/more", "kept"]
        shutil.rmtree(memory / "home")
        if not killed:
            break
    assert told[0] == mine
    assert not told[-1]


def _told(driver: AufsDriver) -> set[str]:
    """Settle the layer; give the names that it complains about."""
    try:
        driver.settle("layer")
    except errors.ReservedNameError as error:
        return set(error.paths)
    return set()


def test_a_phase_comes_after_what_it_says(
    memory: pathlib.Path, opened: Opener, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done to a layer is durable before the phase that relies on it: no power cut can turn the order round."""
    driver = opened(memory / "home", engine)
    rested(driver)
    events: list[str] = []
    syncfs, write, rest = durable.syncfs, phases.write, AufsDirs.come_to_rest
    monkeypatch.setattr(durable, "syncfs", lambda fd: (events.append("sync"), syncfs(fd)))
    monkeypatch.setattr(phases, "write", lambda *args, **kwargs: (events.append(args[2].step), write(*args, **kwargs)))
    monkeypatch.setattr(AufsDirs, "come_to_rest", lambda self, layer: (events.append("rest"), rest(self, layer)))
    driver.mounts("layer")
    to_mount, events[:] = list(events), []
    driver.settle("layer")

    if engine == "copy":
        assert (to_mount, events) == (["live"], ["sync", "sync", "rest"])
    else:
        assert (to_mount, events) == (["moving", "sync", "live"], ["moving", "sync", "rest"])


def test_the_kills_miss_no_call(memory: pathlib.Path, opened: Opener) -> None:
    """What is counted here as calls that change the file system is what the kernel sees of them."""
    driver = opened(memory / "home")
    begun(driver)
    counted = calls_of(lambda: driver.settle("layer"))
    shutil.rmtree(memory / "home")
    begun(opened(memory / "home"))
    log = memory / "calls"
    script = (
        "import sys, os; from graphdrivers.backends.aufs.driver import AufsDriver as D; home = sys.argv[1]; "
        "driver = D(home, {}, D.probe(home, {})); os.access('/begin', 0); driver.settle('layer'); os.access('/end', 0)"
    )
    seen = (
        "chmod,fchmod,fchmodat,chown,fchown,fchownat,link,linkat,mkdir,mkdirat,mknod,mknodat,rename,renameat,renameat2"
    )
    seen += (
        ",rmdir,unlink,unlinkat,symlink,symlinkat,setxattr,lsetxattr,fsetxattr,removexattr,lremovexattr,fremovexattr"
    )
    seen += ",utimensat,fsync,syncfs,openat,access,faccessat,faccessat2,write"
    command = ["strace", "-f", "-qq", "-e", f"trace={seen}", "-o", log]
    done = subprocess.run([*command, sys.executable, "-c", script, memory / "home"], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    text = log.read_text()
    lines = text[text.index('"/begin"') : text.index('"/end"')].splitlines()[1:-1]
    changing = [line for line in lines if "access" not in line and ("openat(" not in line or "O_CREAT" in line)]

    assert len(changing) == counted, "\n".join(changing)
