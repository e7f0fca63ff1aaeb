"""Root file systems are told from images, and read as the one layer they are, from tars, pipes and folders."""

import bz2
import contextlib
import gzip
import hashlib
import io
import json
import lzma
import os
import pathlib
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator

import pytest
import zstandard
from layouts import Archive, Layout, layer_tar, packed
from outgoing_images import outgoing_image

from graphdrivers import errors
from graphdrivers.archive.apply import Target, apply
from graphdrivers.archive.whiteouts import PLAIN
from graphdrivers.images.image import Image
from graphdrivers.images.opening import open_source
from graphdrivers.images.rootfs import PEEKED, Kind, RootFS
from graphdrivers.images.saving import save_docker, save_oci
from graphdrivers.model import Capabilities

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


def tar_of(*names: str, content: bytes = b"content") -> bytes:
    """Make a tar of files, in the order given; a name that ends in ``/`` is a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in names:
            member = tarfile.TarInfo(name.rstrip("/") or name)
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


EVERYTHING = Capabilities(ownership=True, devices=True, user_xattrs=True, trusted_xattrs=True, security_xattrs=True)

quick_ones = pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])

ROOTFS = tar_of("./", "./bin/", "./etc/", "./etc/passwd", "./usr/", "./usr/bin/tool")


def layer_of(path: str | os.PathLike[str], **options: object) -> bytes:
    """Open what must be a root file system, and read its layer."""
    with open_source(path, **options) as found:  # type: ignore[arg-type]
        assert isinstance(found, RootFS)
        return b"".join(iter(lambda: found.layer.read(1 << 20), b""))


@pytest.fixture
def piped(tmp_path: pathlib.Path) -> Iterator[Callable[[bytes], pathlib.Path]]:
    """Give a function that sends bytes through a FIFO."""
    threads: list[threading.Thread] = []

    def send(content: bytes) -> pathlib.Path:
        path = tmp_path / f"pipe{len(threads)}"
        os.mkfifo(path)

        def write() -> None:
            with contextlib.suppress(BrokenPipeError):
                path.write_bytes(content)

        threads.append(threading.Thread(target=write))
        threads[-1].start()
        return path

    yield send
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("compression", PACKERS)
def test_tar(compression: str, tmp_path: pathlib.Path, piped: Callable[[bytes], pathlib.Path]) -> None:
    """A tar of a root, however compressed, is its own layer, byte for byte; nothing is copied to disk."""
    content = PACKERS[compression](ROOTFS)
    (tmp_path / "rootfs").write_bytes(content)
    assert layer_of(tmp_path / "rootfs", scratch="/nonexistent") == ROOTFS
    assert layer_of(piped(content), scratch="/nonexistent") == ROOTFS
    assert layer_of(tmp_path / "rootfs", kind=Kind.ROOTFS, scratch="/nonexistent") == ROOTFS


@quick_ones
def test_large_tar(compression: str, tmp_path: pathlib.Path, piped: Callable[[bytes], pathlib.Path]) -> None:
    """What comes behind the part that is looked at comes too."""
    tar = tar_of("etc/", "etc/big", "usr/", content=os.urandom(PEEKED + 12345))
    content = PACKERS[compression](tar)
    (tmp_path / "rootfs").write_bytes(content)
    assert layer_of(tmp_path / "rootfs") == tar
    assert layer_of(piped(content)) == tar


@quick_ones
def test_single_layer(compression: str, tmp_path: pathlib.Path, piped: Callable[[bytes], pathlib.Path]) -> None:
    """Any tar that is no image is a layer, also one that shows nothing of a root."""
    tar = layer_tar("hello", b"x" * (2 * PEEKED))
    (tmp_path / "layer").write_bytes(PACKERS[compression](tar))
    assert layer_of(tmp_path / "layer") == tar
    assert layer_of(piped(PACKERS[compression](tar))) == tar


def test_padding_is_part_of_the_layer(tmp_path: pathlib.Path) -> None:
    """What lies behind the end of a tar belongs to its digest, so it comes too."""
    for name, tar in (("rootfs", ROOTFS), ("layer", layer_tar("hello"))):
        padded = tar + bytes(30000)
        (tmp_path / name).write_bytes(padded)
        assert layer_of(tmp_path / name) == padded


def test_sparse_members(tmp_path: pathlib.Path) -> None:
    """A root with sparse members, which no image archive may have, is one."""
    (tmp_path / "tree" / "etc").mkdir(parents=True)
    with (tmp_path / "tree" / "etc" / "hole").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"data")
    subprocess.run(["tar", "-cSf", tmp_path / "rootfs.tar", "-C", tmp_path / "tree", "."], check=True)
    assert layer_of(tmp_path / "rootfs.tar") == (tmp_path / "rootfs.tar").read_bytes()


def make_image(form: str, folder: pathlib.Path) -> pathlib.Path:
    """Make an image in one of the forms there are."""
    if form == "layout":
        layout = Layout(folder)
        layout.add(layout.manifest(layer_tar("etc/passwd")))
    elif form == "archive":
        Archive(folder).add({"one/layer.tar": layer_tar("etc/passwd")}, "app:1")
    else:
        save = {"saved-oci": save_oci, "saved-docker": save_docker}[form]
        with folder.open("wb") as file:
            save([outgoing_image(layer_tar("etc/passwd", os.urandom(2 * PEEKED)))], file)
    return folder


@quick_ones
@pytest.mark.parametrize("form", ["layout", "archive", "saved-oci", "saved-docker"])
def test_images_stay_images(
    form: str, compression: str, tmp_path: pathlib.Path, piped: Callable[[bytes], pathlib.Path]
) -> None:
    """Images are opened as images: packed in any order, compressed or not, through a pipe or from a folder."""
    path = make_image(form, tmp_path / "image")
    tar = packed(path) if path.is_dir() else path
    content = PACKERS[compression](tar.read_bytes())
    (tmp_path / "compressed").write_bytes(content)
    for source in (path, tmp_path / "compressed", piped(content)):
        with open_source(source) as found:
            assert isinstance(found, Image)
            assert len(found.layers) == 1


def tree(folder: pathlib.Path) -> pathlib.Path:
    """Make a folder with a root in it."""
    (folder / "etc").mkdir(parents=True)
    (folder / "usr/bin").mkdir(parents=True)
    (folder / "etc/passwd").write_text("root\n")
    (folder / "usr/bin/tool").write_bytes(os.urandom(300_000))
    (folder / "usr/bin/same").hardlink_to(folder / "usr/bin/tool")
    (folder / "bin").symlink_to("usr/bin")
    (folder / "etc/passwd").chmod(0o640)
    os.mkfifo(folder / "etc/fifo")
    os.setxattr(folder / "etc/passwd", "user.note", b"kept")
    with (folder / "etc/hole").open("wb") as file:
        file.truncate(1 << 20)
    os.utime(folder / "etc", ns=(0, 1_234_567_890_123_456_789))
    return folder


def seen(folder: pathlib.Path) -> dict[str, tuple[object, ...]]:
    """Describe all that is in a folder."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        facts: tuple[object, ...] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
        if path.is_symlink():
            facts += (os.readlink(path),)
        elif path.is_file():
            xattrs = {name: os.getxattr(path, name) for name in os.listxattr(path) if name.startswith("user.")}
            facts += (path.read_bytes(), status.st_nlink, status.st_blocks > 0, xattrs)
        found[str(path.relative_to(folder))] = facts
    return found


def test_folder(tmp_path: pathlib.Path) -> None:
    """A folder becomes a layer that holds all of it: times, xattrs, links and holes; twice the same bytes."""
    source = tree(tmp_path / "source")
    layer = layer_of(source)
    assert layer_of(source, kind=Kind.ROOTFS) == layer
    (tmp_path / "target").mkdir()
    descriptor = os.open(tmp_path / "target", os.O_RDONLY)
    try:
        apply(io.BytesIO(layer), Target(descriptor, PLAIN, None, EVERYTHING))
    finally:
        os.close(descriptor)
    assert seen(tmp_path / "target") == seen(source)


def test_folder_with_epoch(tmp_path: pathlib.Path) -> None:
    """Times later than the chosen one become it, so that the same tree made again gives the same layer."""
    digests = set()
    for name in ("one", "two"):
        source = tree(tmp_path / name)
        (source / "usr/bin/tool").write_bytes(b"same")
        digests.add(hashlib.sha256(layer_of(source, source_date_epoch=1_600_000_000)).hexdigest())
    assert len(digests) == 1


def opened_below(folder: pathlib.Path) -> list[str]:
    """List the files in a folder that this process has open."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [path for path in found if path.startswith(os.fspath(folder))]


def test_closed_unread(tmp_path: pathlib.Path) -> None:
    """A source that is closed unread or half read lets go of its descriptors, twice if asked."""
    (tmp_path / "gz").write_bytes(gzip.compress(tar_of("etc/x", content=os.urandom(8 << 20))))
    for source in (tree(tmp_path / "source"), tmp_path / "gz"):
        for _ in range(2):
            found = open_source(source)
            assert opened_below(source) != []
            found.close()
            found.close()
            assert opened_below(source) == []
    with open_source(tmp_path / "gz") as found:
        assert isinstance(found, RootFS)
        assert found.layer.read(10) == tar_of("etc/x")[:10]
    assert opened_below(tmp_path / "gz") == []


def test_reference_is_refused(tmp_path: pathlib.Path) -> None:
    """A root file system has no images to choose from."""
    (tmp_path / "rootfs").write_bytes(ROOTFS)
    with pytest.raises(errors.InvalidReference, match="holds no image called 'app'"):
        open_source(tmp_path / "rootfs", reference="app")


NEITHER: dict[str, tuple[bytes, type[errors.GraphDriverError], str]] = {
    "empty file": (b"", errors.InvalidManifest, "it holds nothing"),
    "empty tar": (bytes(10240), errors.InvalidManifest, "it holds nothing"),
    "only the root": (tar_of("./"), errors.InvalidManifest, "it holds nothing"),
    "text": (b"hello world\n" * 100, errors.MalformedArchive, "neither a tar nor a folder"),
    "short text": (b"hello", errors.MalformedArchive, "neither a tar nor a folder"),
    "a lot of text": (b"hello world\n" * PEEKED, errors.MalformedArchive, "neither a tar nor a folder"),
    "cut": (layer_tar("hello", bytes(9999))[:5000], errors.MalformedArchive, "ends inside a member"),
    "part of a layout": (tar_of("blobs/", "blobs/sha256/"), errors.InvalidManifest, "no OCI layout"),
    "index alone": (tar_of("index.json"), errors.InvalidManifest, "no OCI layout"),
    "too old": (tar_of("repositories"), errors.InvalidManifest, "before 1.10"),
    "no manifest": (tar_of("manifest.json"), errors.InvalidManifest, "not strict JSON"),
    "both": (tar_of("etc/passwd", "manifest.json"), errors.InvalidManifest, r"manifest\.json.*etc.*say which"),
    "both, turned": (tar_of("manifest.json", "etc/passwd"), errors.InvalidManifest, r"manifest\.json.*etc.*say which"),
    "layout in a root": (
        tar_of("oci-layout", "index.json", "blobs/x", "usr/x"),
        errors.InvalidManifest,
        r"oci-layout, index\.json.*usr",
    ),
}


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("case", NEITHER)
def test_neither(case: str, compression: str, tmp_path: pathlib.Path, piped: Callable[[bytes], pathlib.Path]) -> None:
    """What is neither, or could be both, is refused in one line that says why, wherever it comes from."""
    content, kind, words = NEITHER[case]
    (tmp_path / "source").write_bytes(PACKERS[compression](content))
    for path in (tmp_path / "source", piped(PACKERS[compression](content))):
        with pytest.raises(kind, match=words):
            open_source(path).close()


def test_both_can_be_told(tmp_path: pathlib.Path) -> None:
    """What could be both is what the caller says it is; a root may hold files that images have."""
    folder = tmp_path / "both"
    Archive(folder).add({"one/layer.tar": layer_tar("etc/passwd")}, "app:1")
    (folder / "etc").mkdir()
    for path in (folder, packed(folder)):
        with pytest.raises(errors.InvalidManifest, match="say which"):
            open_source(path)
        with open_source(path, kind=Kind.ROOTFS) as found:
            assert isinstance(found, RootFS)
        with open_source(path, kind=Kind.IMAGE) as found:
            assert isinstance(found, Image)


def test_manifest_far_behind(tmp_path: pathlib.Path) -> None:
    """A root that shows itself at once is one, whatever files come far behind: no copy of it was kept to look again."""
    tar = tar_of("etc/", "etc/big", "manifest.json", content=os.urandom(2 * PEEKED))
    for compression in ("none", "gzip"):
        (tmp_path / compression).write_bytes(PACKERS[compression](tar))
        assert layer_of(tmp_path / compression) == tar


def test_folders_that_are_neither(tmp_path: pathlib.Path) -> None:
    """A folder of other things is refused, for it may hold images rather than be one."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "debian.tar").write_bytes(ROOTFS)
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "index.json").write_text(json.dumps({}))
    for name, words in (("empty", "it holds nothing"), ("images", "'debian.tar'"), ("part", "no OCI layout")):
        with pytest.raises(errors.InvalidManifest, match=words):
            open_source(tmp_path / name)
    with open_source(tmp_path / "images", kind=Kind.ROOTFS) as found:
        assert isinstance(found, RootFS)


def test_mounted_folder(tmp_path: pathlib.Path) -> None:
    """A folder with something mounted in it is refused: what would be read is another file system."""
    if os.geteuid():
        pytest.skip("mounting needs root")
    source = tree(tmp_path / "source")
    (source / "proc").mkdir()
    subprocess.run(["mount", "-t", "proc", "proc", source / "proc"], check=True)
    try:
        with pytest.raises(errors.InvalidManifest, match=r"something is mounted in it, at .*proc"):
            open_source(source)
    finally:
        subprocess.run(["umount", source / "proc"], check=True)
    layer_of(source)


def test_reserved_names(tmp_path: pathlib.Path) -> None:
    """A name that means a deletion in a layer stops the reading; nothing comes that looks like the end."""
    source = tree(tmp_path / "source")
    (source / "etc/.wh.passwd").write_text("")
    with open_source(source) as found:
        assert isinstance(found, RootFS)
        for _ in range(2):
            with pytest.raises(errors.UnsupportedEntry, match=r"\.wh\."):
                found.layer.read()


def test_damaged_stream(tmp_path: pathlib.Path) -> None:
    """A compressed root that was cut or damaged is refused while it is read, or at once."""
    content = gzip.compress(tar_of("etc/x", content=os.urandom(4 << 20)))
    for name, damaged in (("cut", content[:-1000]), ("more", content + b"more")):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(errors.MalformedArchive):
            layer_of(tmp_path / name)


def test_devices_are_refused() -> None:
    """What is neither a file nor a folder nor a pipe is not read."""
    with pytest.raises(errors.InvalidManifest, match="neither a folder nor a file"):
        open_source("/dev/null")
