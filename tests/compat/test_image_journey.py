"""The whole way of a real image: in, a container, changed, committed, out by every door, in again, and run."""

import contextlib
import datetime as dt
import hashlib
import json
import os
import pathlib
import subprocess
from collections.abc import Iterator
from typing import BinaryIO

import pytest
from containers import HIDE_HYBRID
from registries import run, running_registry

import graphdrivers
from graphdrivers import naivediff
from graphdrivers.api.description import Description
from graphdrivers.archive.compare import compare
from graphdrivers.archive.plain import PlainTree
from graphdrivers.images.run_options import RunOptions
from graphdrivers.model import Change

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "debian-image"
FOLDER = "GRAPHDRIVERS_DEBIAN_IMAGE"

DRIVERS = os.environ.get("GRAPHDRIVERS_JOURNEY_DRIVERS", "overlay vfs aufs").split()
"""With options behind commas (``zfs,dataset=tank/layers``)."""

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="root is needed for owners and device nodes"),
    pytest.mark.skipif(
        FOLDER not in os.environ, reason=f"set {FOLDER} to a folder; the image is downloaded into it, once"
    ),
]

DESCRIPTION = Description(
    created=dt.datetime(2026, 1, 1, tzinfo=dt.UTC), changes=('CMD ["cat", "/etc/motd"]',), comment="edited"
)


@pytest.fixture(scope="module")
def layout() -> str:
    """The image's layout, built unless it is there."""
    folder = os.environ[FOLDER]
    subprocess.run([SCRIPT, folder], check=True)
    return os.path.join(folder, "layout")


@pytest.fixture(scope="module", params=DRIVERS)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[graphdrivers.Store]:
    """A store on each driver; the one that copies whole trees does not wait for the disk each time."""
    durability = "none" if request.param == "vfs" else "layer"
    with opened(tmp_path_factory.mktemp("root"), request.param, durability) as store:
        yield store


def opened(root: pathlib.Path, driver: str, durability: str = "layer") -> graphdrivers.Store:
    """Open a store with a driver and its options."""
    name, *options = driver.split(",")
    chosen = dict(one.split("=", 1) for one in options)
    return graphdrivers.open_store(root, name, options=chosen, durability=durability)


@pytest.fixture(scope="module")
def image(store: graphdrivers.Store, layout: str) -> graphdrivers.Image:
    """The image, imported."""
    return store.import_image(layout, name="debian:test")


def edit(rootfs: pathlib.Path) -> None:
    """Change what a package manager would: add, change, replace, link, remove and make anew, with times of our own."""
    (rootfs / "etc/motd").write_text("hello from a container\n")
    (rootfs / "usr/local/bin/tool").write_text("#!/bin/sh\n")
    (rootfs / "usr/local/bin/tool").chmod(0o4755)
    os.link(rootfs / "usr/local/bin/tool", rootfs / "usr/local/bin/tool2")
    subprocess.run(["rm", "-rf", rootfs / "usr/share/doc"], check=True)
    (rootfs / "usr/share/doc").mkdir()
    (rootfs / "usr/share/doc/new").write_text("new\n")
    (rootfs / "etc/debian_version").unlink()
    os.symlink("motd", rootfs / "etc/issue.link")
    os.setxattr(rootfs / "etc/motd", "user.note", b"kept")
    for name in ("etc/motd", "etc/issue.link", "usr/local/bin/tool", "usr/share/doc/new", "usr/share/doc"):
        os.utime(rootfs / name, ns=(10**18, 10**18), follow_symlinks=False)
    for name in ("etc", "usr/local/bin", "usr/share", "usr/local", "usr", ""):
        os.utime(rootfs / name, ns=(10**18, 10**18))


def unpacked(layout: str, tag: str, folder: pathlib.Path) -> pathlib.Path:
    """Let umoci unpack an image."""
    run("umoci", "unpack", "--image", f"{layout}:{tag}", folder)
    return folder / "rootfs"


@contextlib.contextmanager
def tree(folder: pathlib.Path) -> Iterator[PlainTree]:
    """Open a folder to compare it."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        with PlainTree(opened) as found:
            yield found
    finally:
        os.close(opened)


def differences(lower: pathlib.Path, upper: pathlib.Path) -> list[Change]:
    """Compare two folders, file by file."""
    with tree(lower) as before, tree(upper) as after:
        return list(naivediff.listed(compare(before, after)))


@pytest.fixture(scope="module")
def expected(layout: str, tmp_path_factory: pytest.TempPathFactory) -> list[Change]:
    """What the edits change, found without any driver: in a copy of what umoci unpacks."""
    folder = tmp_path_factory.mktemp("umoci")
    rootfs = unpacked(layout, "debian", folder / "before")
    run("cp", "-a", rootfs, folder / "after")
    edit(folder / "after")
    return differences(rootfs, folder / "after")


@pytest.fixture(scope="module")
def identities() -> set[str]:
    """IDs of the images that the drivers made of the same edits."""
    return set()


@pytest.fixture(scope="module")
def committed(
    store: graphdrivers.Store, image: graphdrivers.Image, expected: list[Change], identities: set[str]
) -> graphdrivers.Image:
    """An image of a container with the edits, which every driver tells alike."""
    with store.create(image, name="box") as box:
        with box.mounted() as rootfs:
            edit(rootfs)
        assert list(box.changes()) == expected
        made = store.commit(box, "edited:test", description=DESCRIPTION)
    assert store.containers() == []
    identities.add(made.image_id)
    return made


@pytest.fixture(scope="module")
def saved(
    store: graphdrivers.Store, committed: graphdrivers.Image, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    """The image as one file."""
    path = tmp_path_factory.mktemp("saved") / "edited.tar"
    with path.open("wb") as sink:
        store.save([committed], sink)
    return path


def test_imported_as_it_was(image: graphdrivers.Image, layout: str) -> None:
    """An imported image has the DiffIDs that other tools see."""
    seen = json.loads(run("skopeo", "inspect", "--config", f"oci:{layout}:debian"))

    assert [layer.diff_id for layer in image.layers] == seen["rootfs"]["diff_ids"]
    assert image.familiar_names == ("debian:test",)


def test_committed_alike(committed: graphdrivers.Image, identities: set[str]) -> None:
    """The same edits on the same image give the same image, to the byte, whichever driver has it."""
    assert identities == {committed.image_id}


def test_other_tools_take_it(
    store: graphdrivers.Store, committed: graphdrivers.Image, saved: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """What is saved is accepted by skopeo and umoci, and is the tree that is mounted here."""
    seen = json.loads(run("skopeo", "inspect", "--config", f"oci-archive:{saved}"))
    run("skopeo", "copy", "-q", f"oci-archive:{saved}", f"oci:{tmp_path}/layout:edited")
    rootfs = unpacked(f"{tmp_path}/layout", "edited", tmp_path / "bundle")

    assert seen["rootfs"]["diff_ids"] == [layer.diff_id for layer in committed.layers]
    with store.mount_image(committed) as view:
        # Directories that no member of a layer names get their time from whoever unpacks.
        assert {change.path for change in differences(view.path, rootfs)} <= {"/opt", "/opt/new", "/opt/new/deep"}


def test_by_way_of_a_registry(
    store: graphdrivers.Store, committed: graphdrivers.Image, tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    """Pushed, then pulled into an empty store, it is the same image with the same layers."""
    with running_registry(tmp_path) as registry:
        name = f"{registry.host}/team/edited:1"
        pushed = store.push(committed, name)
        with opened(tmp_path / "empty", request.node.callspec.params["store"]) as other:
            pulled = other.pull(name)
            names = pulled.names
            tars = [sha256_of(other.open_layer(layer)) for layer in pulled.layers]
        again = store.push(committed, name)

    assert pulled.image_id == committed.image_id
    assert tars == [layer.diff_id for layer in committed.layers]
    assert names == (name,)
    assert again.manifest_digest == pushed.manifest_digest
    assert {layer.state for layer in again.layers} == {"exists"}


def test_it_runs(store: graphdrivers.Store, committed: graphdrivers.Image, tmp_path: pathlib.Path) -> None:
    """A container of it is a bundle that crun runs as it is; what it wrote is in the container's changes."""
    box = store.create(committed)
    box.bundle(tmp_path / "bundle", RunOptions(args=("/bin/sh", "-c", "cat /etc/motd; echo here > /root/made")))
    script = f"{HIDE_HYBRID}; exec crun --root {tmp_path}/state run --bundle {tmp_path}/bundle journey-{os.getpid()}"
    printed = run("unshare", "--mount", "sh", "-c", script)
    assert box.unmount() == [os.fspath(tmp_path / "bundle/rootfs")]
    changed = [change.path for change in box.changes()]
    box.remove()

    assert printed == "hello from a container\n"
    assert "/root/made" in changed


def test_nothing_is_left(store: graphdrivers.Store, image: graphdrivers.Image, committed: graphdrivers.Image) -> None:
    """At the end every layer is sound to the last file, and after removing the images nothing is left on disk."""
    assert list(store.check(deep=True)) == []
    store.remove_image(committed)
    store.remove_image(image)

    assert list(store.driver.layers()) == []
    assert os.listdir(os.path.join(store.root, "store", "records")) == []
    assert list(store.check()) == []


def sha256_of(stream: BinaryIO) -> str:
    """Hash a stream, and close it."""
    with stream:
        return f"sha256:{hashlib.sha256(stream.read()).hexdigest()}"
