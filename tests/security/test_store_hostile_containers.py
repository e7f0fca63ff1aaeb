"""Containers of hostile images: whatever stands where a container needs files and folders, nothing outside is touched.

The class of CVE-2015-3629, CVE-2022-23648, CVE-2024-9676, CVE-2025-52881 and
their kin: mount points, accounts and working directories that are links,
pipes, devices or files, or that lie outside.
"""

import io
import json
import os
import pathlib
import tarfile
import tempfile
from collections.abc import Iterator, Sequence

import attrs
import pytest
from cases import OUTSIDE, device, fifo, file, folder, hardlink, layer, symlink, whiteout
from layouts import Layout
from stage import isolated, put_canary, state
from storetools import whole

from graphdrivers import Store, errors, open_store
from graphdrivers.api.containers import Container
from graphdrivers.images.run_options import RunOptions
from graphdrivers.linux import mountinfo, mounts
from graphdrivers.store import images as records

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="canaries belong to somebody else, and mounting needs root")

NAMES = (b"etc", b"dev", b"proc", b"sys")
FILES = (b"etc/hosts", b"etc/hostname", b"etc/resolv.conf", b"etc/mtab", b"dev/console", b"etc/passwd", b"etc/group")
LONG = b"/".join([b"d"] * 1500)


@attrs.frozen(kw_only=True)
class Image:
    """A hostile image: its layer, and what its configuration says."""

    members: Sequence[bytes] = attrs.field(repr=False)
    config: dict[str, object] = attrs.Factory(dict)
    refused: bool = False
    """Its bundle is refused: who runs it cannot be found out, or would be led astray."""


def every(make: object, names: Sequence[bytes] = NAMES, **more: object) -> list[bytes]:
    """Make the same of each name."""
    return [make(name, **more) for name in names]  # type: ignore[operator]


def inside(make: object) -> list[bytes]:
    """Make the same of each file that containers get, in true directories."""
    return [*(folder(name) for name in NAMES), *every(make, FILES)]


RUN = RunOptions(args=("/bin/sh",))
IMAGES = {
    "folders are links to the host": Image(members=every(lambda name: symlink(name, OUTSIDE))),
    "folders are links that climb": Image(members=every(lambda name: symlink(name, b"../../../../.." + OUTSIDE))),
    "folders are links to links": Image(
        members=[symlink(b"a", b"b"), symlink(b"b", OUTSIDE), *every(lambda name: symlink(name, b"a"))]
    ),
    "folders are links to themselves": Image(members=every(lambda name: symlink(name, name))),
    "folders are links to nothing": Image(members=every(lambda name: symlink(name, b"/nowhere/at/all"))),
    "folders are magic links": Image(members=every(lambda name: symlink(name, b"/proc/self/root" + OUTSIDE))),
    "folders are files": Image(members=every(file)),
    "folders are FIFOs": Image(members=every(fifo)),
    "folders are devices": Image(members=every(lambda name: device(name, b"3", 1, 3))),
    "folders are closed": Image(members=every(lambda name: folder(name, mode=b"0000000\0"))),
    "files are links to the host": Image(members=inside(lambda name: symlink(name, OUTSIDE + b"/secret"))),
    "files are links that climb": Image(
        members=inside(lambda name: symlink(name, b"../" * 40 + OUTSIDE[1:] + b"/secret"))
    ),
    "files are links to themselves": Image(members=inside(lambda name: symlink(name, os.path.basename(name)))),
    "files are links to magic links": Image(members=inside(lambda name: symlink(name, b"/proc/self/fd/0"))),
    "files are FIFOs": Image(members=inside(fifo), refused=True),
    "files are devices": Image(members=inside(lambda name: device(name, b"3", 1, 5)), refused=True),
    "files are disks": Image(members=inside(lambda name: device(name, b"4", 254, 0)), refused=True),
    "files are folders": Image(members=inside(folder), refused=True),
    "files are one file": Image(members=[*every(folder), file(b"x"), *every(lambda name: hardlink(name, b"x"), FILES)]),
    "accounts without end": Image(
        members=[folder(b"etc"), file(b"etc/passwd", b"x:x:1:1::/:\n" * 100_000)], refused=True
    ),
    "accounts in one line": Image(members=[folder(b"etc"), file(b"etc/passwd", b"a" * (1 << 19))], refused=True),
    "working directory climbs": Image(
        members=[file(b"f")], config={"WorkingDir": "/../../.." + os.fsdecode(OUTSIDE)}, refused=True
    ),
    "working directory through a link": Image(members=[symlink(b"w", OUTSIDE)], config={"WorkingDir": "/w/new/folder"}),
    "working directory is a whiteout": Image(
        members=[folder(b"etc"), file(b"etc/x")], config={"WorkingDir": "/.wh.etc"}
    ),
    "working directory is an opaque mark": Image(members=[folder(b"etc")], config={"WorkingDir": "/etc/.wh..wh..opq"}),
    "working directory is relative": Image(members=[file(b"f")], config={"WorkingDir": "../../victim"}, refused=True),
    "working directory has NUL": Image(members=[file(b"f")], config={"WorkingDir": "/a\0b"}, refused=True),
    "working directory has a surrogate": Image(members=[file(b"f")], config={"WorkingDir": "/\ud800"}, refused=True),
    "working directory is a file": Image(members=[file(b"f")], config={"WorkingDir": "/f/x"}),
    "working directory is deep": Image(members=[file(b"f")], config={"WorkingDir": "/" + LONG.decode()}),
    "volumes outside": Image(
        members=[symlink(b"v", OUTSIDE)],
        config={"Volumes": {"/v/x": {}, "/../../etc": {}, "/proc": {}}},
    ),
    "a user that is a path": Image(members=[file(b"f")], config={"User": "../../etc"}, refused=True),
    "a layer of whiteouts": Image(members=[whiteout(b"etc"), whiteout(b"dev"), whiteout(b"x")]),
}
"""``refused`` images still become containers, which are mounted, compared, committed and exported."""


@pytest.fixture(scope="module", params=["vfs", "overlay", "aufs"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Open a store with each driver, used by all tests."""
    with open_store(tmp_path_factory.mktemp("store") / "root", request.param, durability="none") as opened:
        yield opened


@pytest.fixture
def victim() -> Iterator[str]:
    """Give what is outside, at the path that images know."""
    place = os.fsdecode(OUTSIDE)
    put_canary(place)
    yield place
    for path in ("hello", "other", "setuid", "secret", "link"):
        os.unlink(os.path.join(place, path))
    os.rmdir(os.path.join(place, "empty"))
    os.rmdir(place)


def life(store: Store, path: pathlib.Path, work: pathlib.Path, case: Image) -> None:
    """Do all that can be done with a container of an image."""
    forget(store)
    image = store.import_image(path, name="hostile:1")
    box = store.create(image, name="box")
    assert list(box.changes()) == [], "an init layer shows as a change"
    with box.mounted() as place:
        (place / "new").write_text("x")
    assert [change.path for change in box.changes()] == ["/new"]
    with box.diff() as tar, tarfile.open(fileobj=tar, mode="r|") as members:
        assert [member.name for member in members] == [".", "new"]
    with store.export("box") as tar:
        assert b"of the host" not in tar.read()
    committed = store.commit(box, "hostile:2")
    assert len(committed.layers) == 2
    point = box.checkpoint("one")
    box.fork("twin")
    box.rollback(point.point)
    _bundle(box, work / "bundle", refused=case.refused)
    with open(work / "saved.tar", "wb") as sink:
        store.save(["hostile:1", "hostile:2"], sink)
    assert list(store.check(deep=True)) == []
    forget(store)
    assert list(store.driver.layers()) == []
    whole(store)


def forget(store: Store) -> None:
    """Remove all; what one image leaves behind that failed is no reason for the next one to fail."""
    for box in store.containers():
        box.unmount()
        box.remove()
    for image in store.images():
        store.remove_image(image)
    store.collect()


def _bundle(box: Container, place: pathlib.Path, *, refused: bool) -> None:
    """Make a bundle, or see that it is refused in one line and leaves no mount."""
    if refused:
        with pytest.raises((errors.InvalidManifest, errors.InvalidRunOption, errors.UserNotFound)) as caught:
            box.bundle(place, RUN)
        assert str(caught.value).isprintable()
        assert box.mounts() == []
        return
    box.bundle(place, RUN)
    try:
        text = (place / "config.json").read_text()
        assert "of the host" not in text
        assert json.loads(text)["root"]["path"] == "rootfs"
    finally:
        box.unmount()


@pytest.mark.parametrize("name", IMAGES)
def test_life_of_a_container(name: str, store: Store, victim: str, tmp_path: pathlib.Path) -> None:
    """It is made, mounted, compared, committed, exported and bundled; the host is neither read nor written."""
    case = IMAGES[name]
    layout = Layout(tmp_path / "image")
    tar = layer(*case.members)
    layout.add(layout.manifest(tar, config=layout.config(tar, config=case.config)), "1")
    before = state(victim)
    places = (os.path.dirname(store.root), tempfile.gettempdir(), str(tmp_path))
    isolated(lambda: life(store, layout.folder, tmp_path, case), writable=places, seconds=60)

    assert state(victim) == before
    assert mountinfo.mounted_below(str(tmp_path)) == []


@pytest.mark.parametrize("target", ["link", "link/", "link/empty", "loop", "nowhere", "file"])
def test_targets_that_are_links(target: str, store: Store, victim: str, tmp_path: pathlib.Path) -> None:
    """A target is what it is at this moment: a link is followed once, recorded as where it led, and unmounted there."""
    layout = Layout(tmp_path / "image")
    layout.add(layout.manifest(layer(file(b"f"))), "1")
    (tmp_path / "link").symlink_to(victim)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("x")
    before = state(victim)
    store.import_image(layout.folder, name="a:1")
    box = store.create("a:1", name="box")
    try:
        if target.startswith("link"):
            box.mount(str(tmp_path / target), keep=True)
            real = os.path.realpath(tmp_path / target)
            (tmp_path / "link").unlink()
            (tmp_path / "link").symlink_to("/")
            assert box.unmount() == [real]
        else:
            with pytest.raises(OSError, match=target):
                box.mount(str(tmp_path / target), keep=True)
        assert box.mounts() == []
        assert mounts.plain_directory(box.plan()) is None or state(victim) == before
        assert state(victim) == before
    finally:
        box.remove()
        store.remove_image("a:1")


def test_the_host_decides_nothing(store: Store, victim: str, tmp_path: pathlib.Path) -> None:
    """Init layer and account of an image are the same, whatever the host has where the image's links would lead."""
    inner = OUTSIDE[1:]
    names = [name for name in (b"etc", b"dev", b"w") if not inner.startswith(name + b"/")]  # the folder may be in /dev
    tar = layer(*(symlink(name, OUTSIDE) for name in names), folder(inner), file(inner + b"/x"))
    layout = Layout(tmp_path / "image")
    layout.add(layout.manifest(tar, config=layout.config(tar, config={"WorkingDir": "/w/work"})), "1")
    host = {"hosts": "", "passwd": "root:x:0:4242::/leaked:/bin/sh\n", "pts": None, "work": None}
    seen = []
    for present in (False, True):
        for name, text in host.items() if present else ():
            place = pathlib.Path(victim, name)
            place.mkdir() if text is None else place.write_text(text)
        forget(store)
        image = store.import_image(layout.folder, name="hostile:1")
        box = store.create(image, name="box")
        box.bundle(tmp_path / f"bundle{present}", RUN)
        box.unmount()
        config = (tmp_path / f"bundle{present}" / "config.json").read_text()
        seen.append((records.init_tar_of(store.site, image.image_id), config))
    for name, text in host.items():
        place = pathlib.Path(victim, name)
        place.rmdir() if text is None else place.unlink()
    forget(store)

    assert seen[0] == seen[1]
    assert "leaked" not in seen[1][1]
    with tarfile.open(fileobj=io.BytesIO(seen[0][0] or b"")) as members:
        assert {"etc/hosts", "dev/pts", "w/work"} <= {member.name for member in members}
