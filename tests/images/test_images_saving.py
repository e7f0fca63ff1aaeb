"""Saved images are what they were: layouts and archives hold each thing once, always in the same bytes."""

import gzip
import io
import json
import os
import pathlib
import random
import stat
import subprocess
import tarfile
from collections.abc import Callable
from typing import Any, BinaryIO

import attrs
import pytest
import zstandard
from layouts import layer_tar
from outgoing_images import config_of, outgoing_image, outgoing_layer, sha256

from graphdrivers import errors
from graphdrivers.archive.compression import open_plain
from graphdrivers.images.descriptors import Descriptor
from graphdrivers.images.image import Image
from graphdrivers.images.opening import open_image
from graphdrivers.images.outgoing import OutgoingImage
from graphdrivers.images.saving import bytes_to_read, save_docker, save_folder, save_oci
from graphdrivers.model import Digest, Limits

BASE = layer_tar("base", random.Random(1).randbytes(3 << 20) + bytes(2 << 20))
TOP = layer_tar("top", b"top" * 100_000)
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

Saver = Callable[[list[OutgoingImage], pathlib.Path], None]


def as_tar(save: Callable[..., None], **options: Any) -> Saver:
    """Make a saver that writes a file."""

    def saver(images: list[OutgoingImage], path: pathlib.Path) -> None:
        with path.open("wb") as file:
            save(images, file, **options)

    return saver


SAVERS = {
    "oci": as_tar(save_oci),
    "oci-gzip": as_tar(save_oci, compression="gzip"),
    "oci-zstd": as_tar(save_oci, compression="zstd"),
    "docker": as_tar(save_docker),
    "folder": save_folder,
    "folder-gzip": lambda images, path: save_folder(images, path, compression="gzip"),
    "folder-zstd": lambda images, path: save_folder(images, path, compression="zstd"),
}
every_form = pytest.mark.parametrize("save", SAVERS.values(), ids=SAVERS)
every_tar = pytest.mark.parametrize("form", ["oci", "oci-gzip", "oci-zstd", "docker"])


def plain_layers(image: Image) -> list[bytes]:
    """Read all layers of an image, decompressed."""
    found = []
    for layer in image.layers:
        with image.open_layer(layer) as stored, open_plain(stored, Limits()) as plain:
            found.append(plain.read())
    return found


def members(path: pathlib.Path) -> dict[str, bytes | None]:
    """Read a tar: the files' content, ``None`` for what is none; a name that comes twice is a failure."""
    found: dict[str, bytes | None] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            assert member.name not in found
            file = tar.extractfile(member)
            found[member.name] = file.read() if file else None
    return found


@every_form
def test_round_trip(save: Saver, tmp_path: pathlib.Path) -> None:
    """Layers, configuration and names come back as they were, from every form."""
    image = outgoing_image(BASE, TOP, names=("docker.io/library/app:1", "example.org/app:2"))
    save([image], tmp_path / "saved")
    with open_image(tmp_path / "saved") as found:
        assert plain_layers(found) == [BASE, TOP]
        assert found.config.text == image.config
        assert found.config_digest == sha256(image.config)
    for name in ("app:1", "example.org/app:2"):
        open_image(tmp_path / "saved", reference=name).close()


@every_form
def test_several_images(save: Saver, tmp_path: pathlib.Path) -> None:
    """Several images, named and not, are told apart; one without layers is no exception."""
    images = [
        outgoing_image(BASE, names=("docker.io/library/one:latest",)),
        outgoing_image(BASE, TOP, names=("docker.io/library/two:latest",)),
        outgoing_image(TOP, TOP, BASE),
        outgoing_image(names=("docker.io/library/none:latest",)),
    ]
    save(images, tmp_path / "saved")
    for image, name in zip(images, ("one", "two", None, "none"), strict=True):
        with open_image(tmp_path / "saved", reference=name or unnamed(tmp_path / "saved", image)) as found:
            assert found.config.text == image.config


def unnamed(path: pathlib.Path, image: OutgoingImage) -> str:
    """Tell what an image without a name is called: in a layout by its manifest's digest, in an archive by its own."""
    if path.is_dir():
        index: bytes | None = (path / "index.json").read_bytes()
    else:
        index = members(path).get("index.json")
    if index is None:
        return sha256(image.config)
    (entry,) = (entry for entry in json.loads(index)["manifests"] if "annotations" not in entry)
    return str(entry["digest"])


@every_form
def test_shared_once(save: Saver, tmp_path: pathlib.Path) -> None:
    """What images share is written once, and an image that is given twice is one with all names."""
    first = outgoing_image(BASE, BASE, names=("docker.io/library/app:1",))
    again = attrs.evolve(first, names=("docker.io/library/app:2",))
    save([first, outgoing_image(BASE, comment="other"), again], tmp_path / "saved")
    if (tmp_path / "saved").is_dir():
        sizes = [path.stat().st_size for path in (tmp_path / "saved").rglob("*") if path.is_file()]
    else:
        sizes = [len(content) for content in members(tmp_path / "saved").values() if content is not None]
    assert len([size for size in sizes if size > 1 << 20]) == 1
    for name in ("app:1", "app:2"):
        with open_image(tmp_path / "saved", reference=name) as found:
            assert len(found.names) in {2, 4}
            assert found.config.text == first.config


@every_tar
def test_tar_is_reproducible(form: str, tmp_path: pathlib.Path) -> None:
    """A tar has nothing of this machine or moment in it."""
    images = [outgoing_image(BASE, TOP, names=("docker.io/library/app:1",)), outgoing_image(TOP)]
    SAVERS[form](images, tmp_path / "one")
    SAVERS[form](images, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with tarfile.open(tmp_path / "one") as tar:
        for member in tar:
            mode = 0o755 if member.isdir() else 0o644
            facts = (member.mode, member.uid, member.gid, member.uname, member.gname, member.mtime)
            assert facts == (mode, 0, 0, "", "", 0)
            assert member.pax_headers == {}
    names = list(members(tmp_path / "one"))
    control = [name for name in names if name in {"oci-layout", "index.json", "manifest.json"}]
    assert names[: len(control)] == control
    assert names[len(control) :] == sorted(names[len(control) :])


def test_source_date_epoch(tmp_path: pathlib.Path) -> None:
    """The time of the members can be chosen."""
    for name, save in (("oci", save_oci), ("docker", save_docker)):
        as_tar(save, source_date_epoch=1_700_000_000)([outgoing_image(TOP)], tmp_path / name)
        with tarfile.open(tmp_path / name) as tar:
            assert {member.mtime for member in tar} == {1_700_000_000}


def test_uncompressed_blobs_are_the_layers(tmp_path: pathlib.Path) -> None:
    """Without compression a blob is the identical tar, under its DiffID."""
    save_folder([outgoing_image(BASE, TOP)], tmp_path / "saved")
    for tar in (BASE, TOP):
        assert (tmp_path / "saved/blobs/sha256" / sha256(tar)[7:]).read_bytes() == tar


def test_index_annotations(tmp_path: pathlib.Path) -> None:
    """Names stand in the index as Docker and containerd write them; equal tags are told apart."""
    images = [
        outgoing_image(BASE, names=("docker.io/library/app:1", "docker.io/library/app:latest")),
        outgoing_image(TOP, names=("example.org:5000/x/app:latest", f"docker.io/library/app@sha256:{'0' * 64}")),
    ]
    save_folder(images, tmp_path / "saved")
    entries = json.loads((tmp_path / "saved/index.json").read_bytes())["manifests"]
    named = [tuple(entry["annotations"].values()) for entry in entries]
    assert named == [
        ("docker.io/library/app:1", "1"),
        ("docker.io/library/app:latest", "docker.io/library/app:latest"),
        ("example.org:5000/x/app:latest", "example.org:5000/x/app:latest"),
    ]
    assert all(entry["mediaType"] == MANIFEST for entry in entries)


def test_docker_index_in_a_layout(tmp_path: pathlib.Path) -> None:
    """A layout in a tar is a Docker archive too, with the names that people write."""
    images = [outgoing_image(BASE, TOP, names=("docker.io/library/app:1", "example.org/app:2")), outgoing_image(TOP)]
    SAVERS["oci-gzip"](images, tmp_path / "saved")
    files = members(tmp_path / "saved")
    items = json.loads(files["manifest.json"] or b"")
    assert [item["RepoTags"] for item in items] == [["app:1", "example.org/app:2"], None]
    assert [files[item["Config"]] for item in items] == [image.config for image in images]
    assert [gzip.decompress(files[name] or b"") for name in items[0]["Layers"]] == [BASE, TOP]
    assert "repositories" not in files


def test_docker_archive_form(tmp_path: pathlib.Path) -> None:
    """The old form has the files that Docker 1.10 to 24 wrote."""
    image = outgoing_image(BASE, names=("docker.io/library/app:1",))
    SAVERS["docker"]([image], tmp_path / "saved")
    digits = sha256(BASE)[7:]
    assert members(tmp_path / "saved") == {
        "manifest.json": json.dumps(
            [{"Config": f"{sha256(image.config)[7:]}.json", "Layers": [f"{digits}/layer.tar"], "RepoTags": ["app:1"]}],
            separators=(",", ":"),
        ).encode(),
        f"{sha256(image.config)[7:]}.json": image.config,
        digits: None,
        f"{digits}/layer.tar": BASE,
    }


def came(image: OutgoingImage, *layers: Descriptor, **more: Any) -> OutgoingImage:
    """Give an image the manifest that it came with."""
    blobs = [{"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size} for layer in layers]
    config = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": sha256(image.config),
        "size": len(image.config),
    }
    fields = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": blobs, **more}
    outgoing = tuple(attrs.evolve(layer, origin=origin) for layer, origin in zip(image.layers, layers, strict=True))
    manifest = json.dumps(fields, indent=3).encode()
    return attrs.evolve(image, layers=outgoing, manifest=manifest, manifest_type=MANIFEST)


def test_manifest_kept(tmp_path: pathlib.Path) -> None:
    """An image that came uncompressed keeps its manifest, byte for byte, and with it its digest."""
    blob = Descriptor(LAYER, Digest(sha256(TOP)), len(TOP))
    image = came(outgoing_image(TOP), blob, annotations={"a": "b"}, other=[1])
    save_folder([image], tmp_path / "saved")
    with open_image(tmp_path / "saved") as found:
        assert found.manifest == image.manifest


def test_manifest_written_anew(tmp_path: pathlib.Path) -> None:
    """An image that came compressed, or goes so, gets a new manifest that keeps the annotations."""
    stored = gzip.compress(TOP)
    packed = Descriptor(LAYER + "+gzip", Digest(sha256(stored)), len(stored))
    plain = Descriptor(LAYER, Digest(sha256(TOP)), len(TOP))
    for at, (blob, compression) in enumerate([(packed, "none"), (packed, "gzip"), (plain, "zstd")]):
        image = came(outgoing_image(TOP), blob, annotations={"a": "b"}, subject={"x": 1})
        save_folder([image], tmp_path / str(at), compression=compression)
        with open_image(tmp_path / str(at)) as found:
            fields = json.loads(found.manifest or b"")
            assert plain_layers(found) == [TOP]
        assert found.manifest != image.manifest
        assert fields["annotations"] == {"a": "b"}
        assert "subject" not in fields


def test_manifest_that_does_not_fit(tmp_path: pathlib.Path) -> None:
    """A manifest of another configuration, or one that calls a plain layer compressed, is not written again."""
    plain = Descriptor(LAYER, Digest(sha256(TOP)), len(TOP))
    image = outgoing_image(TOP)
    other = came(outgoing_image(TOP, comment="other"), plain)
    misnamed = came(image, attrs.evolve(plain, media_type=LAYER + "+gzip"))
    unnamed = attrs.evolve(came(image, plain), manifest_type="")
    for at, given in enumerate((attrs.evolve(other, config=image.config), misnamed, unnamed)):
        save_folder([given], tmp_path / str(at))
        with open_image(tmp_path / str(at)) as found:
            assert found.manifest != given.manifest
            assert found.config.text == image.config
            assert found.layers[0].media_type == LAYER


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressed_blobs(compression: str, tmp_path: pathlib.Path) -> None:
    """A compressed blob is the same in a tar and a folder, smaller, and says nothing of when it was made."""
    save_folder([outgoing_image(BASE)], tmp_path / "saved", compression=compression)
    SAVERS[f"oci-{compression}"]([outgoing_image(BASE)], tmp_path / "tar")
    blobs = {f"blobs/sha256/{path.name}": path.read_bytes() for path in (tmp_path / "saved/blobs/sha256").iterdir()}
    assert blobs.items() <= members(tmp_path / "tar").items()
    blob = max(blobs.values(), key=len)
    assert 1 << 20 < len(blob) < len(BASE) - (1 << 20)
    if compression == "gzip":
        assert blob[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    else:
        assert zstandard.frame_content_size(blob) == len(BASE)
        assert zstandard.get_frame_parameters(blob).has_checksum


def test_progress() -> None:
    """Progress rises to the bytes of all layers, each counted once, and can stop the work."""
    images = [outgoing_image(BASE, TOP), outgoing_image(TOP, TOP)]
    seen: list[int] = []
    save_oci(images, io.BytesIO(), compression="zstd", progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == bytes_to_read(images) == len(BASE) + len(TOP)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_docker(images, io.BytesIO(), progress=stop)


class Stingy(io.RawIOBase):
    """A raw stream that takes a few bytes at a time."""

    def __init__(self) -> None:
        self.taken = bytearray()

    def writable(self) -> bool:
        """Say yes."""
        return True

    def write(self, piece: Any, /) -> int:
        """Take up to 1000 bytes."""
        self.taken += bytes(piece[:1000])
        return min(1000, len(piece))


@pytest.mark.parametrize("save", [save_oci, save_docker])
def test_raw_sink(save: Callable[[list[OutgoingImage], Any], None]) -> None:
    """A sink that takes less than it is given still gets everything."""
    sink, whole = Stingy(), io.BytesIO()
    save([outgoing_image(TOP)], sink)
    save([outgoing_image(TOP)], whole)
    assert bytes(sink.taken) == whole.getvalue()


@every_form
@pytest.mark.parametrize(
    ("now", "size"), [(TOP[:-1] + b"!", None), (TOP + b"!", None), (TOP[:-512], None), (None, 5), (None, 1 << 30)]
)
def test_damaged_layer(save: Saver, now: bytes | None, size: int | None, tmp_path: pathlib.Path) -> None:
    """A layer that is not what it was stops everything, by name; no folder appears, no hidden one stays."""
    good = outgoing_image(BASE, TOP, names=("docker.io/library/app:1",))
    layers = (good.layers[0], outgoing_layer(TOP, size=size, now=now))
    with pytest.raises(errors.DigestMismatch, match=f"app:1: layer {sha256(TOP)}") as caught:
        save([attrs.evolve(good, layers=layers)], tmp_path / "saved")
    assert caught.value.expected in {sha256(TOP), f"{size} bytes", f"{len(TOP)} bytes"}
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


class TooLong(io.RawIOBase):
    """A layer of 32 MiB."""

    given = 0

    def read(self, size: int = -1, /) -> bytes:
        """Give zeros."""
        piece = bytes(max(0, min(size, (32 << 20) - self.given)))
        self.given += len(piece)
        return piece


@every_form
def test_layer_too_long(save: Saver, tmp_path: pathlib.Path) -> None:
    """A layer that goes on behind its size is not read on: it could go on until the disk is full."""
    good = outgoing_image(TOP)
    stream = TooLong()
    layer = attrs.evolve(good.layers[0], open=lambda: stream)
    with pytest.raises(errors.DigestMismatch, match="got more"):
        save([attrs.evolve(good, layers=(layer,))], tmp_path / "saved")
    assert stream.given <= 1 << 20


def test_many_layers(tmp_path: pathlib.Path) -> None:
    """An image of 300 layers is one like others."""
    tars = [layer_tar("file", b"%d" % number) for number in range(300)]
    SAVERS["oci"]([outgoing_image(*tars)], tmp_path / "saved")
    with open_image(tmp_path / "saved") as found:
        assert plain_layers(found) == tars


def test_full_disk(tmp_path: pathlib.Path) -> None:
    """On a disk that is full nothing is left of a folder, and of a tar nothing is believed to be written."""
    if os.geteuid():
        pytest.skip("mounting needs root")
    with pathlib.Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError, match="No space left"):
        save_oci([outgoing_image(BASE)], full)
    (tmp_path / "small").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path / "small"], check=True)
    try:
        for compression in ("none", "gzip", "zstd"):
            with pytest.raises(OSError, match="No space left"):
                save_folder([outgoing_image(BASE)], tmp_path / "small" / "saved", compression=compression)
            assert os.listdir(tmp_path / "small") == []
    finally:
        subprocess.run(["umount", tmp_path / "small"], check=True)


def test_folder_is_refused_where_something_is(tmp_path: pathlib.Path) -> None:
    """What is at the destination stays as it is: a folder, a file, a link to nowhere."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("folder", "folder/", "file", "link", "folder/.."):
        with pytest.raises(FileExistsError):
            save_folder([outgoing_image(TOP)], f"{tmp_path}/{name}")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "link"]
    assert (tmp_path / "file").read_text() == "kept"
    with pytest.raises(FileNotFoundError):
        save_folder([outgoing_image(TOP)], tmp_path / "missing" / "saved")


def test_folder_taken_meanwhile(tmp_path: pathlib.Path) -> None:
    """A destination that somebody makes while the image is written is left to them."""

    def intrude(_: int) -> None:
        (tmp_path / "saved").mkdir(exist_ok=True)

    with pytest.raises(FileExistsError):
        save_folder([outgoing_image(TOP)], tmp_path / "saved", progress=intrude)
    assert os.listdir(tmp_path) == ["saved"]
    assert os.listdir(tmp_path / "saved") == []


def test_folder_permissions(tmp_path: pathlib.Path) -> None:
    """The folder and what is in it have the permissions that the umask leaves new ones."""
    old = os.umask(0o027)
    try:
        save_folder([outgoing_image(TOP)], tmp_path / "saved")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "saved").stat().st_mode) == 0o750
    for path in (tmp_path / "saved").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o750 if path.is_dir() else 0o640)
    assert sorted(os.listdir(tmp_path / "saved")) == ["blobs", "index.json", "oci-layout"]


def test_scratch_is_left_clean(tmp_path: pathlib.Path) -> None:
    """Compressed blobs pass through an unnamed file in the folder that was named."""
    save_oci([outgoing_image(TOP)], io.BytesIO(), compression="gzip", scratch=os.fspath(tmp_path))
    assert os.listdir(tmp_path) == []
    with pytest.raises(FileNotFoundError):
        save_oci([outgoing_image(TOP)], io.BytesIO(), compression="gzip", scratch=f"{tmp_path}/missing")


def refusals() -> dict[str, tuple[type[Exception], list[OutgoingImage], str]]:
    """List what cannot be saved."""
    good = outgoing_image(TOP, names=("docker.io/library/app:1",))
    invalid = errors.InvalidManifest
    swapped = attrs.evolve(outgoing_image(BASE, TOP), config=config_of(TOP, BASE))
    doubled = good.config.replace(b'{"os"', b'{"os": "linux", "os"')
    return {
        "none": (ValueError, [], "no image"),
        "same name": (errors.InvalidReference, [good, outgoing_image(BASE, names=good.names)], "app:1"),
        "bad name": (errors.InvalidReference, [outgoing_image(TOP, names=("../x:1",))], "x:1"),
        "other layers": (invalid, [swapped], "other layers"),
        "fewer layers": (invalid, [attrs.evolve(good, layers=())], "1 diff_ids for 0 layers"),
        "not JSON": (invalid, [attrs.evolve(good, config=b"hello")], "not strict JSON"),
        "key twice": (invalid, [attrs.evolve(good, config=doubled)], "comes twice"),
        "too large": (invalid, [outgoing_image(TOP, comment="x" * (4 << 20))], "is the limit"),
        "broken manifest": (invalid, [attrs.evolve(good, manifest=b"[]", manifest_type=MANIFEST)], "manifest"),
    }


@pytest.mark.parametrize("case", refusals())
@pytest.mark.parametrize("form", ["oci", "folder"])
def test_refused(case: str, form: str, tmp_path: pathlib.Path) -> None:
    """What would make an archive that nobody can read, or that means two things, is refused before it is begun."""
    kind, images, words = refusals()[case]
    with pytest.raises(kind, match=words):
        SAVERS[form](images, tmp_path / "saved")
    assert not (tmp_path / "saved").exists() or (tmp_path / "saved").stat().st_size == 0


@pytest.mark.parametrize("compression", ["xz", "bzip2", "", "GZIP"])
def test_unknown_compression(compression: str, tmp_path: pathlib.Path) -> None:
    """A compression that manifests have no word for is refused, and what there is instead is named."""
    with pytest.raises(ValueError, match="none, gzip or zstd"):
        save_oci([outgoing_image(TOP)], io.BytesIO(), compression=compression)
    with pytest.raises(ValueError, match="none, gzip or zstd"):
        save_folder([outgoing_image(TOP)], tmp_path / "saved", compression=compression)


def test_layers_are_read_one_at_a_time(tmp_path: pathlib.Path) -> None:
    """Each distinct layer is opened once, and closed before the next is opened."""
    events: list[str] = []

    def watched(tar: bytes, name: str) -> Any:
        layer = outgoing_layer(tar)

        def opener() -> BinaryIO:
            events.append(f"open {name}")
            stream = layer.open()
            close = stream.close
            stream.close = lambda: (events.append(f"close {name}"), close())[1]  # type: ignore[method-assign]
            return stream

        return attrs.evolve(layer, open=opener)

    image = outgoing_image(BASE, TOP, TOP)
    layers = (watched(BASE, "base"), watched(TOP, "top"), watched(TOP, "top"))
    for compression in ("none", "gzip", "zstd"):
        events.clear()
        save_folder([attrs.evolve(image, layers=layers)], tmp_path / compression, compression=compression)
        opened = [event for event in events if event.startswith("open")]
        assert opened == ["open base", "open top"]
        assert events.index("close base") < events.index("open top")
