"""Which engine is chosen and why, for root, in a user namespace and for a plain user; marks and engines that last."""

import io
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

import pytest
from aufstools import ENGINES, Opener, as_plain_user, in_child, make, names, shown, written

from graphdrivers import errors
from graphdrivers.archive.restore import restore
from graphdrivers.backends.aufs.driver import AufsDriver
from graphdrivers.conformance.workbench import layer_tar
from graphdrivers.linux import mounts

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root, and so does becoming another user")


def probed(home: pathlib.Path | str, **options: str) -> AufsDriver:
    """Try, and open."""
    return AufsDriver(str(home), options, AufsDriver.probe(str(home), options))


@pytest.fixture
def theirs() -> Iterator[pathlib.Path]:
    """Give a folder of a plain user, outside of root's own; ``TMPDIR`` has to let others pass."""
    place = pathlib.Path(tempfile.mkdtemp(prefix="graphdrivers-"))
    os.chown(place, 65534, 65534)
    yield place
    shutil.rmtree(place)


def use(driver: AufsDriver) -> list[str]:
    """Live through a stack with deletions of all sorts; give what it shows in the end."""
    driver.create("base")
    written(driver, "base", lambda root: make(pathlib.Path(root), "gone", "kept", "dir/old", "dir/sub/old"))
    driver.settle("base")
    driver.seal("base")
    driver.create("middle", "base")
    written(driver, "middle", lambda root: (os.unlink(f"{root}/gone"), shutil.rmtree(f"{root}/dir")))
    written(driver, "middle", lambda root: make(pathlib.Path(root), "dir/new"))
    driver.settle("middle")
    driver.seal("middle")
    driver.create("top", "middle")
    written(driver, "top", lambda root: make(pathlib.Path(root), "gone/again"))
    driver.settle("top")
    driver.seal("top")
    return sorted(shown(driver, "top"))


def refusals(driver: AufsDriver) -> dict[str, str]:
    """Give the engines that were refused, and why, as the facts of the driver tell it."""
    told = [value for key, value in driver.facts().items() if key.startswith("refused")]
    return {text.split()[1]: text.partition(" is not used: ")[2] for text in told}


USED = [".", "dir", "dir/new", "gone", "gone/again", "kept"]
LEFT = {
    "overlay-shadow": [".wh.gone", "dir", "dir/.wh..wh..opq", "dir/new"],
    "copy": [".wh.gone", "dir", "dir/.wh.old", "dir/.wh.sub", "dir/new"],
}
"""What of the middle layer lies on disk: a comparison says what is gone, overlay that a directory is new."""


def test_root_gets_overlay(tmp_path: pathlib.Path) -> None:
    """The first engine that lives through its trial is taken, and nothing of the trials is left."""
    if "aufs" in pathlib.Path("/proc/filesystems").read_text():
        pytest.skip("this kernel has aufs, which comes first")
    driver = probed(tmp_path / "home")

    assert driver.support.engine.startswith("overlay-shadow (kernel overlayfs over shadow branches, ")
    assert driver.facts()["engine"] == "overlay-shadow"
    assert driver.support.capabilities.max_depth == 250
    assert refusals(driver) == {"aufs": "this kernel has no aufs"}
    assert os.listdir(tmp_path / "home/tmp") == []
    assert json.loads((tmp_path / "home/driver.json").read_text())["options"]["marks"] == "trusted"
    assert use(driver) == USED
    assert names(tmp_path / "home/diff/middle") == LEFT[driver.facts()["engine"]]


def test_an_engine_can_be_asked_for(tmp_path: pathlib.Path, engine: str) -> None:
    """The engine of the option is taken whatever comes before it, and no other home-wide choice is made by it."""
    driver = probed(tmp_path / "home", engine=engine)

    assert driver.facts() == {"engine": engine}
    assert use(driver) == USED
    assert names(tmp_path / "home/diff/middle") == LEFT[driver.facts()["engine"]]
    assert probed(tmp_path / "home").facts()["engine"] == "overlay-shadow"


@pytest.mark.parametrize(("key", "value"), [("engine", "warp"), ("engine", ""), ("motor", "copy")])
def test_what_is_no_option_is_refused(tmp_path: pathlib.Path, key: str, value: str) -> None:
    """An unknown engine and an unknown key are refused, and what is known is named."""
    with pytest.raises(errors.InvalidOption, match="engine"):
        AufsDriver.probe(str(tmp_path / "home"), {key: value})


def test_a_file_system_that_overlay_refuses(tmp_path: pathlib.Path, opened: Opener) -> None:
    """On an overlay, which cannot be an upper directory, the copy engine is taken, and told why."""
    outer = opened(tmp_path / "outer")
    outer.create("base")
    outer.seal("base")
    outer.create("layer", "base")
    (tmp_path / "place").mkdir()
    mounts.attach(outer.mounts("layer"), str(tmp_path / "place"))
    try:
        driver = probed(tmp_path / "place/home")
        assert driver.facts()["engine"] == "copy"
        assert refusals(driver)["overlay-shadow"].startswith("overlay: ")
        assert set(driver.support.notes) > {value for key, value in driver.facts().items() if key.startswith("refused")}
        with pytest.raises(errors.IncompatibleFilesystem):
            AufsDriver.probe(str(tmp_path / "place/home"), {"engine": "overlay-shadow"})
        assert use(driver) == USED
    finally:
        mounts.detach(str(tmp_path / "place"))


def test_a_plain_user_gets_copies(theirs: pathlib.Path) -> None:
    """Without any privilege the copy engine works, and says what the other would need."""

    def act() -> None:
        driver = probed(theirs / "home")
        assert driver.facts()["engine"] == "copy"
        assert "mounting needs root" in refusals(driver)["overlay-shadow"]
        assert use(driver) == USED
        assert names(theirs / "home/diff/middle") == LEFT[driver.facts()["engine"]]
        with pytest.raises(errors.PrerequisiteMissing, match="unshare"):
            AufsDriver.probe(str(theirs / "home"), {"engine": "overlay-shadow"})

    as_plain_user(act)


def test_a_user_namespace_gets_overlay(theirs: pathlib.Path) -> None:
    """A plain user who is root of a namespace mounts overlays with user xattrs, and at rest all is as everywhere."""

    def act() -> None:
        driver = probed(theirs / "home")
        assert driver.support.engine.endswith("user xattrs)")
        assert driver.facts()["engine"] == "overlay-shadow"
        assert use(driver) == USED
        assert names(theirs / "home/diff/middle") == LEFT[driver.facts()["engine"]]
        driver.create("live", "middle")
        written(driver, "live", lambda root: shutil.rmtree(f"{root}/dir"))
        written(driver, "live", lambda root: make(pathlib.Path(root), "dir/x"))
        assert os.getxattr(theirs / "home/diff/live/dir", "user.overlay.opaque") == b"y"
        driver.settle("live")
        assert os.listxattr(theirs / "home/diff/live/dir") == []

    as_plain_user(act, namespace=True)
    assert json.loads((theirs / "home/driver.json").read_text())["options"]["marks"] == "user"


@pytest.mark.parametrize("first", [True, False])
def test_marks_last(theirs: pathlib.Path, first: bool) -> None:  # noqa: FBT001
    """Root works on a user's home with the user's marks, also in layers that the user left live."""

    def begin() -> None:
        driver = probed(theirs / "home")
        use(driver)
        driver.create("live", "top")
        written(driver, "live", lambda root: (os.unlink(f"{root}/kept"), shutil.rmtree(f"{root}/gone")))
        written(driver, "live", lambda root: make(pathlib.Path(root), "gone/new"))
        os.setxattr(theirs / "home/diff/base/kept", "user.overlay.overlay.note", b"content")

    as_plain_user(begin, namespace=True)
    driver = probed(theirs / "home")
    assert driver.facts()["engine"] == "overlay-shadow"
    assert shown(driver, "top")["kept"].xattrs == {"user.overlay.note": b"content"}
    if first:
        driver.settle("live")
    else:
        written(driver, "live", lambda root: make(pathlib.Path(root), "root was here"))
        driver.settle()
        driver.settle("live")
    expected = [".wh.kept", "gone", "gone/.wh..wh..opq", "gone/new", *([] if first else ["root was here"])]
    assert names(theirs / "home/diff/live") == expected
    assert [os.listxattr(theirs / "home/diff/live" / path) for path in ("", "gone")] == [[], []]


def test_a_trusted_home_is_no_place_for_a_namespace(theirs: pathlib.Path) -> None:
    """In a namespace, where trusted xattrs cannot be had, a home that was made with them is served by copies."""
    home = theirs / "home"
    as_plain_user(lambda: probed(home, engine="copy"))
    text = (home / "driver.json").read_text().replace('"user"', '"trusted"')
    (home / "driver.json").write_text(text)

    def act() -> None:
        driver = probed(home)
        assert driver.facts()["engine"] == "copy", driver.facts()
        assert use(driver) == USED

    as_plain_user(act, namespace=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_live_layer_keeps_its_engine(memory: pathlib.Path, opened: Opener, engine: str) -> None:
    """Opened with another engine, a home brings a live layer to rest by the one that it was mounted with."""
    other = ENGINES[1 - ENGINES.index(engine)]
    first, second = opened(memory / "home", engine), opened(memory / "home", other)
    first.create("base")
    written(first, "base", lambda root: make(pathlib.Path(root), "gone", "kept"))
    first.seal("base")
    first.create("layer", "base")
    in_child(lambda: written(first, "layer", lambda root: os.unlink(f"{root}/gone")))

    assert second.facts("layer")["engine"] == engine
    assert [change.path for change in second.changes("layer")] == ["/gone"]
    written(second, "layer", lambda root: make(pathlib.Path(root), "new"))
    assert second.facts("layer")["dialect"] == f"{engine}, live"
    second.settle("layer")
    assert names(memory / "home/diff/layer") == [".wh.gone", "new"]
    assert second.facts("layer")["engine"] == other
    written(second, "layer", lambda root: make(pathlib.Path(root), "more"))
    assert first.facts("layer")["dialect"] == f"{other}, live"
    first.seal("layer")
    assert sorted(shown(first, "layer")) == sorted(shown(second, "layer")) == [".", "kept", "more", "new"]


def test_the_facts_of_a_layer(memory: pathlib.Path, opened: Opener, engine: str) -> None:
    """Engine, form, folders, and each branch with its role, as aufs would list them."""
    home = memory / "home"
    driver = opened(home, engine)
    driver.create("base")
    written(driver, "base", lambda root: make(pathlib.Path(root), "file"))
    driver.seal("base")
    driver.create("layer", "base")
    driver.mounts("layer")
    facts = driver.facts("layer")
    writable = [f"{home}/diff/layer=rw"] if engine != "copy" else [f"{home}/mnt/layer=rw", f"{home}/diff/layer=ro+wh"]

    assert facts["dialect"] == f"{engine}, live"
    assert (facts["diff"], facts["mnt"]) == (f"{home}/diff/layer", f"{home}/mnt/layer")
    assert [facts[f"br{n}"] for n in range(len(writable) + 1)] == [*writable, f"{home}/diff/base=ro+wh"]
    driver.seal("layer")
    facts = driver.facts("layer")
    assert facts["dialect"] == "wh"
    assert [facts[key] for key in facts if key.startswith("br")] == [
        f"{home}/diff/layer=ro+wh",
        f"{home}/diff/base=ro+wh",
    ]


REPLACING = layer_tar(["dir/", "dir/file", "dir/sub/", "dir/sub/file", "dir"])
"""A directory with content that a file of the same layer replaces."""


def given_back(driver: AufsDriver, diff: pathlib.Path, tar: bytes) -> bytes:
    """Unpack a tar into a new layer and give it back from the layer and the header record."""
    headers = io.BytesIO()
    driver.create("tarred")
    driver.apply("tarred", io.BytesIO(tar), headers=headers)
    headers.seek(0)
    with restore(headers, lambda path: os.open(os.path.join(os.fsencode(diff), path), os.O_RDONLY)) as stream:
        return stream.read()


@pytest.mark.parametrize("fs_type", ["xfs", "btrfs"])
def test_other_file_systems(tmp_path: pathlib.Path, fs_type: str) -> None:
    """On XFS and Btrfs both engines work, a copied tree takes no room for its contents, and tars come back."""
    image, place = tmp_path / "image", tmp_path / fs_type
    place.mkdir()
    image.touch()
    os.truncate(image, 400 << 20)
    subprocess.run([f"mkfs.{fs_type}", "-q", image], check=True, capture_output=True)
    if subprocess.run(["mount", "-o", "loop", image, place], check=False, capture_output=True).returncode:
        pytest.skip("needs loop devices")
    try:
        assert use(probed(place / "overlay", engine="overlay-shadow")) == USED
        driver = probed(place / "home", engine="copy")
        assert driver.support.engine == "copy (shared blocks (FICLONE), no mount)"
        assert use(driver) == USED
        driver.create("layer", "top")
        written(driver, "layer", lambda root: pathlib.Path(root, "large").write_bytes(os.urandom(32 << 20)))
        driver.seal("layer")
        driver.create("child", "layer")
        os.sync()
        before = os.statvfs(place).f_bfree
        written(driver, "child", lambda root: make(pathlib.Path(root), "small"))
        driver.settle("child")
        assert shown(driver, "layer")["large"].size == 32 << 20
        assert given_back(driver, place / "home/diff/tarred", REPLACING) == REPLACING
        os.sync()
        taken = (before - os.statvfs(place).f_bfree) * os.statvfs(place).f_frsize
        assert taken < 8 << 20
    finally:
        subprocess.run(["umount", "-l", place], check=True)
