"""The home that vfs and overlay share: records, leftovers, foreign and damaged files."""

import json
import os
import pathlib
import signal
import stat
import subprocess
import sys
import textwrap

import pytest

from graphdrivers import errors
from graphdrivers.kit import layerdirs
from graphdrivers.kit.layerdirs import LayerDirs, LayerFile
from graphdrivers.linux import mounts
from graphdrivers.model import Mount

NAME = "made-up"


@pytest.fixture
def dirs(tmp_path: pathlib.Path) -> LayerDirs:
    """A new home."""
    return LayerDirs(str(tmp_path / "home"), NAME, {"colour": "blue"})


def make(dirs: LayerDirs, layer: str, parent: str | None = None) -> None:
    """Create a sealed layer."""
    with dirs.making(layer, dirs.check_new(layer, parent, None)) as folder:
        (pathlib.Path(folder) / "content").touch()
    dirs.seal(layer)


def test_everything_is_private_whatever_the_umask(tmp_path: pathlib.Path) -> None:
    """The home and its folders are 0700 with a umask of 0 and of 0777, and inherit no ACL."""
    for umask in (0, 0o777):
        before = os.umask(umask)
        try:
            home = LayerDirs(str(tmp_path / f"home{umask}"), NAME, {}).home
        finally:
            os.umask(before)
        folders = [home, os.path.join(home, "layers"), os.path.join(home, "tmp")]
        assert [stat.S_IMODE(os.stat(folder).st_mode) for folder in folders] == [0o700] * 3


def test_options_are_recorded_once(dirs: LayerDirs) -> None:
    """The options of a home are those that it was made with."""
    LayerDirs(dirs.home, NAME, {"colour": "red"})

    assert layerdirs.recorded_options(dirs.home, NAME) == {"colour": "blue"}


def test_a_home_of_another_driver_is_refused(dirs: LayerDirs) -> None:
    """A driver does not open what another one made, and names that one."""
    with pytest.raises(errors.PriorDriverState) as caught:
        LayerDirs(dirs.home, "other", {})

    assert caught.value.found == (NAME,)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"", errors.StoreCorrupt),
        (b"\xff\xfe", errors.StoreCorrupt),
        (b"[]", errors.StoreCorrupt),
        (b'{"version": "1"}', errors.StoreCorrupt),
        (b'{"version": 1}', errors.StoreCorrupt),
        (b'{"version": 2, "driver": "made-up", "options": {}}', errors.StoreVersion),
        (b'{"version": 1, "driver": "made-up", "options": []}', errors.StoreCorrupt),
    ],
)
def test_a_damaged_driver_file(dirs: LayerDirs, text: bytes, error: type[Exception]) -> None:
    """A file that is no longer ours, or of a newer release, is an error and never overwritten."""
    path = pathlib.Path(dirs.home, "driver.json")
    path.write_bytes(text)
    with pytest.raises(error):
        LayerDirs(dirs.home, NAME, {})

    assert path.read_bytes() == text


@pytest.mark.parametrize(
    "text",
    [
        *(b"", bytes(60), b"{", b"{}", b'{"version": 1}', b'{"version": 1, "ancestors": 5}'),
        *(b'{"version": 1, "ancestors": [5]}', b'{"version": 1, "ancestors": ["../../etc"]}', None),
    ],
)
def test_a_damaged_layer_file(dirs: LayerDirs, text: bytes | None) -> None:
    """A layer whose record is damaged or gone is listed with the others, and can be removed; not used."""
    make(dirs, "layer")
    make(dirs, "whole")
    path = pathlib.Path(dirs.path("layer", "layer.json"))
    path.unlink() if text is None else path.write_bytes(text)

    assert [(record.name, record.parent) for record in dirs.records()] == [("layer", None), ("whole", None)]
    with pytest.raises((errors.StoreCorrupt, errors.InvalidName, errors.LayerNotFound), match=r"layer|name"):
        dirs.read("layer")
    dirs.remove("layer")
    assert [record.name for record in dirs.records()] == ["whole"]


def test_a_newer_layer_file(dirs: LayerDirs) -> None:
    """A layer of a newer release is no damage: nothing is listed that could be taken for it."""
    make(dirs, "layer")
    pathlib.Path(dirs.path("layer", "layer.json")).write_text('{"version": 99, "ancestors": []}')

    with pytest.raises(errors.StoreVersion):
        list(dirs.records())


def test_a_file_among_the_layers(dirs: LayerDirs) -> None:
    """What is no folder is no layer, and does not keep the others from being listed."""
    make(dirs, "layer")
    pathlib.Path(dirs.path("stray")).touch()

    assert [record.name for record in dirs.records()] == ["layer"]


def test_names_on_disk_are_checked_too(dirs: LayerDirs) -> None:
    """An ancestor that could be no name of a layer never becomes part of a path."""
    make(dirs, "layer")
    record = {"version": 1, "parent": "../../etc", "ancestors": ["../../etc"]}
    pathlib.Path(dirs.path("layer", "layer.json")).write_text(json.dumps(record))

    with pytest.raises(errors.InvalidName):
        dirs.read("layer")


def test_ancestors_are_nearest_first(dirs: LayerDirs) -> None:
    """One file names the whole stack."""
    for layer, parent in (("a", None), ("b", "a"), ("c", "b")):
        make(dirs, layer, parent)

    assert dirs.read("c") == LayerFile(("b", "a"))
    assert [record.name for record in dirs.records()] == ["c", "b", "a"]


def test_an_error_while_making_leaves_nothing(dirs: LayerDirs) -> None:
    """A layer that could not be filled never existed."""
    with pytest.raises(FileNotFoundError), dirs.making("layer", LayerFile()) as folder:
        pathlib.Path(folder, "no such directory", "half").touch()

    assert (dirs.names(), os.listdir(os.path.join(dirs.home, "tmp"))) == ([], [])


def test_the_faster_of_two_makers_wins(dirs: LayerDirs) -> None:
    """A name taken while the layer was being filled is refused, and the other's layer stays."""
    with pytest.raises(errors.LayerExists), dirs.making("layer", LayerFile()):
        make(dirs, "layer")

    assert os.path.exists(dirs.path("layer", "content"))
    assert os.listdir(os.path.join(dirs.home, "tmp")) == []


@pytest.mark.parametrize("moment", ["making", "removing"])
def test_a_killed_process_leaves_what_sweep_deletes(dirs: LayerDirs, moment: str) -> None:
    """A kill in the middle of a creation or removal leaves no layer, and rubbish that only its death frees."""
    make(dirs, "doomed")
    script = f"""
        import sys, time
        from graphdrivers.kit.layerdirs import LayerDirs, LayerFile
        from graphdrivers.linux import trees
        def wait(*args):
            print("ready", flush=True)
            time.sleep(60)
        dirs = LayerDirs({dirs.home!r}, {NAME!r}, {{}})
        if {moment!r} == "making":
            with dirs.making("layer", LayerFile()):
                wait()
        trees.remove_tree = wait
        dirs.remove("doomed")
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        dirs.sweep()
        busy = os.listdir(os.path.join(dirs.home, "tmp"))
        process.send_signal(signal.SIGKILL)
    dirs.sweep()
    dirs.sweep()

    assert len(busy) == 1
    assert os.listdir(os.path.join(dirs.home, "tmp")) == []
    assert dirs.names() == (["doomed"] if moment == "making" else [])


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_leftovers_that_resist(dirs: LayerDirs) -> None:
    """Those in which something is mounted stay and are told, each of them; all others are deleted."""
    tmp = pathlib.Path(dirs.home, "tmp")
    for name in ("old-1", "old-2", "old-3", "old-4"):
        (tmp / name / "place").mkdir(parents=True)
    busy = [str(tmp / name / "place") for name in ("old-1", "old-3")]
    for place in busy:
        mounts.attach((Mount("tmpfs", "tests"),), place)
    try:
        with pytest.raises(OSError, match="old-1") as caught:
            dirs.sweep()
        assert sorted(os.listdir(tmp)) == ["old-1", "old-3"]
    finally:
        for place in busy:
            mounts.detach(place)
    dirs.sweep()

    assert ["old-3" in note for note in caught.value.__notes__] == [True]
    assert os.listdir(tmp) == []


def test_labels_fit_the_kernel() -> None:
    """A label is the folder, or a digest of it where the kernel's 255 bytes are not enough."""
    assert layerdirs.label("/home/layers/é") == "/home/layers/é"
    assert layerdirs.label("/" + "x" * 254) == "/" + "x" * 254
    long = {layerdirs.label("/" + letter * 255) for letter in "xy"}
    assert len(long) == 2
    assert all(len(label) < 100 for label in long)
