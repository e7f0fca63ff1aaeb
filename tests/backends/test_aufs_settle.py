"""Settling a whole home: what others use is left alone, what they left is finished, and no layer blocks the others."""

import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest
from aufstools import Opener, in_child, make, names, written

from graphdrivers import errors
from graphdrivers.backends.aufs.driver import AufsDriver
from graphdrivers.linux import mounts

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

START = """
import os, sys
from graphdrivers.backends.aufs.driver import AufsDriver
from graphdrivers.linux import mounts
home, engine, place = sys.argv[1:]
driver = AufsDriver(home, {"engine": engine}, AufsDriver.probe(home, {"engine": engine}))
"""

Holder = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def home(memory: pathlib.Path) -> pathlib.Path:
    """Where the driver works."""
    return memory / "home"


@pytest.fixture
def driver(home: pathlib.Path, opened: Opener, engine: str) -> AufsDriver:
    """A driver on a home with a sealed base that holds ``file``."""
    made = opened(home, engine)
    made.create("base")
    written(made, "base", lambda root: make(pathlib.Path(root), "file"))
    made.settle("base")
    made.seal("base")
    return made


@pytest.fixture
def hold(home: pathlib.Path, engine: str, tmp_path: pathlib.Path) -> Iterator[Holder]:
    """Run a script in a mount namespace of its own until it has printed a line; it lives until the test ends."""
    started: list[subprocess.Popen[str]] = []
    (tmp_path / "place").mkdir()

    def run(script: str) -> "subprocess.Popen[str]":
        command = ["unshare", "--mount", sys.executable, "-c", START + script]
        arguments = [str(home), engine, str(tmp_path / "place")]
        started.append(
            subprocess.Popen([*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        output = started[-1].stdout
        assert output is not None
        assert output.readline() == "ready\n"
        return started[-1]

    yield run
    for process in started:
        process.communicate()


HELD = {
    "attached": """
driver.create("layer", "base")
mounts.attach(driver.mounts("layer"), place)
os.unlink(place + "/file")
print("ready", flush=True)
sys.stdin.read()
""",
    "detached": """
driver.create("layer", "base")
with mounts.opened(driver.mounts("layer")) as root:
    os.unlink("file", dir_fd=root)
    print("ready", flush=True)
    sys.stdin.read()
""",
    "inherited": """
driver.create("layer", "base")
with mounts.opened(driver.mounts("layer")) as root:
    if not os.fork():
        os.unlink("file", dir_fd=root)
        print("ready", flush=True)
        sys.stdin.read()
    os._exit(0)  # who planned the mount is gone
""",
}


@pytest.mark.parametrize("how", HELD)
def test_what_others_use_is_left_alone(
    driver: AufsDriver, home: pathlib.Path, opened: Opener, hold: Holder, how: str
) -> None:
    """A layer that is mounted in another mount namespace, attached or not, stays as it is, its planner dead or not."""
    hold(HELD[how])
    before = names(home / "diff/layer"), os.readlink(home / "phase/layer")
    for other in ("overlay-shadow", "copy"):
        opened(home, other).settle()

    assert (names(home / "diff/layer"), os.readlink(home / "phase/layer")) == before
    assert driver.facts("layer")["dialect"].endswith(", live")


def test_what_the_killed_left_is_brought_to_rest(
    driver: AufsDriver, home: pathlib.Path, opened: Opener, engine: str, hold: Holder
) -> None:
    """The mount of a killed process is gone, so its layer comes to rest: at once where the kernel can be asked."""
    process = hold(HELD["detached"])
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    opened(home, "overlay-shadow").settle()

    if engine == "copy":  # a tree may be used by anybody, until the machine has started anew
        assert driver.facts("layer")["dialect"] == "copy, live"
        reboot(home, "layer")
        driver.settle()
    assert driver.facts("layer")["dialect"] == "wh"
    assert names(home / "diff/layer") == [".wh.file"]
    assert os.listdir(home / "phase") == []


def reboot(home: pathlib.Path, layer: str) -> None:
    """Make a phase that of an earlier boot."""
    entry = home / "phase" / layer
    engine, step, _, pid, start = os.readlink(entry).split(":")
    entry.unlink()
    entry.symlink_to(f"{engine}:{step}:01234567-89ab:{pid}:{start}")


def test_after_a_reboot_everything_comes_to_rest(driver: AufsDriver, home: pathlib.Path) -> None:
    """A process of this boot with the same pid does not keep a layer of an earlier one from its rest."""
    driver.create("layer", "base")
    written(driver, "layer", lambda root: os.unlink(f"{root}/file"))
    driver.settle()
    assert driver.facts("layer")["dialect"].endswith("live"), "this process lives"
    reboot(home, "layer")
    driver.settle()

    assert names(home / "diff/layer") == [".wh.file"]
    assert os.listdir(home / "phase") == []


def test_several_settle_a_home_at_once(driver: AufsDriver, home: pathlib.Path, opened: Opener, engine: str) -> None:
    """After a crash many open the home, settle it and begin to use its layers: each layer is moved by one at a time."""
    files = [f"d{number}/f{inner}" for number in range(6) for inner in range(6)]
    layers = [f"l{number}" for number in range(8)]

    def left() -> None:
        driver.create("wide", "base")
        written(driver, "wide", lambda root: make(pathlib.Path(root), *files))
        driver.seal("wide")
        for layer in layers:
            driver.create(layer, "wide")
            written(driver, layer, lambda root: [os.unlink(f"{root}/{path}") for path in files[::2]])

    def use() -> None:
        mine = opened(home, engine)
        for layer in layers[::2]:
            written(mine, layer, lambda root: make(pathlib.Path(root), "new"))
            mine.settle(layer)

    in_child(left)
    for layer in layers:
        reboot(home, layer)
    settlers = [lambda: opened(home, engine).settle()] * 3
    assert together([*settlers, use, lambda: [opened(home, engine).remove(layer) for layer in layers[1::4]]]) == [0] * 5

    markers = [f"{os.path.dirname(path)}/.wh.{os.path.basename(path)}" for path in files[::2]]
    folders = sorted({os.path.dirname(path) for path in files})
    for layer in layers[::2]:
        assert names(home / "diff" / layer) == sorted([*markers, *folders, "new"])
    for layer in layers[3::4]:
        assert names(home / "diff" / layer) == sorted([*markers, *folders])
    driver.settle()
    assert os.listdir(home / "phase") == []
    assert sorted(os.listdir(home / "diff")) == sorted(["base", "wide", *layers[::2], *layers[3::4]])
    assert os.listdir(home / "tmp") == []


def together(actions: list[Callable[[], object]]) -> list[int]:
    """Do things at once, each in a process of its own; give how they ended."""
    children = [os.fork() or in_this_child(action) for action in actions]
    return [os.waitpid(child, 0)[1] for child in children]


def in_this_child(action: Callable[[], object]) -> NoReturn:
    """Do something in this process, which ends with it."""
    try:
        in_child(action)
    finally:
        os._exit(int(sys.exc_info()[0] is not None))


def test_what_is_mounted_here_is_left_alone(driver: AufsDriver, home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A mount in this namespace keeps its layer, whatever its phase says of boot and process."""
    (tmp_path / "here").mkdir()
    in_child(lambda: (driver.create("layer", "base"), mounts.attach(driver.mounts("layer"), str(tmp_path / "here"))))
    try:
        (tmp_path / "here/file").unlink()
        reboot(home, "layer")
        driver.settle()
        driver.settle("layer")
        assert names(home / "diff/layer") != [".wh.file"]
        make(tmp_path / "here", "new")
    finally:
        mounts.detach(str(tmp_path / "here"))
    driver.settle()

    assert names(home / "diff/layer") == [".wh.file", "new"]


@pytest.mark.parametrize("alive", [True, False])
def test_who_moves_a_layer_is_not_disturbed(driver: AufsDriver, home: pathlib.Path, alive: bool) -> None:  # noqa: FBT001
    """A layer on its way is finished when who moves it is dead, and only then."""

    def act() -> None:
        driver.create("layer", "base")
        written(driver, "layer", lambda root: os.unlink(f"{root}/file"))

    act() if alive else in_child(act)
    entry = home / "phase/layer"
    text = os.readlink(entry).replace(":live:", ":moving:")
    entry.unlink()
    entry.symlink_to(text)
    driver.settle()

    assert os.path.lexists(entry) == alive


DAMAGES = {
    "nonsense": lambda entry: entry.symlink_to("nonsense"),
    "an empty file": lambda entry: entry.touch(),
    "a directory": lambda entry: entry.mkdir(),
    "no such step": lambda entry: entry.symlink_to("copy:flying:01234567-89ab:1:2"),
    "no number": lambda entry: entry.symlink_to("copy:live:01234567-89ab:one:2"),
    "no such engine": lambda entry: entry.symlink_to("warp:live:01234567-89ab:1:2"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_and_blocks_nothing(driver: AufsDriver, home: pathlib.Path, opened: Opener, damage: str) -> None:
    """An entry that cannot be understood is one clear error; all other layers come to rest, and the layer can go."""
    for layer in ("a", "b", "bad", "c"):
        in_child(lambda layer=layer: (driver.create(layer, "base"), driver.mounts(layer)))  # type: ignore[misc]
        reboot(home, layer)
    (home / "phase/bad").unlink()
    DAMAGES[damage](home / "phase/bad")

    for attempt in (
        driver.settle,
        lambda: driver.settle("bad"),
        lambda: driver.mounts("bad"),
        lambda: driver.seal("bad"),
        lambda: driver.facts("bad"),
        lambda: driver.usage("bad"),
        lambda: list(driver.changes("bad")),
    ):
        with pytest.raises(errors.StoreCorrupt, match="phase of layer 'bad'"):
            attempt()
    assert os.listdir(home / "phase") == ["bad"]
    assert len(list(driver.layers())) == 5
    driver.remove("bad")
    opened(home).settle()
    assert os.listdir(home / "phase") == []


def test_damage_in_several_places_is_told_whole(driver: AufsDriver, home: pathlib.Path) -> None:
    """The first error is raised, the others are notes of it."""
    for layer in ("a", "b"):
        driver.create(layer, "base")
        (home / "phase" / layer).unlink()
        (home / "phase" / layer).symlink_to("nonsense")
    with pytest.raises(errors.StoreCorrupt) as caught:
        driver.settle()

    assert len(caught.value.__notes__) == 1


def test_entries_of_no_layer_go(driver: AufsDriver, home: pathlib.Path) -> None:
    """A phase without a layer, also one in the making, is rubbish."""
    for name in ("nobody", "-" * 201, "x" * 240):
        (home / "phase" / name).symlink_to("copy:live::0:0")
    driver.settle()

    assert os.listdir(home / "phase") == []


def test_a_new_layer_stays_new(driver: AufsDriver, home: pathlib.Path) -> None:
    """A layer that was never mounted has nothing to be brought to rest, and costs no look."""
    in_child(lambda: driver.create("layer", "base"))
    before = os.readlink(home / "phase/layer")
    driver.settle()

    assert os.readlink(home / "phase/layer") == before
