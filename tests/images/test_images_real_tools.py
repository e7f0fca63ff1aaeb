"""Images made by umoci, skopeo and GNU tar are read as those tools made them."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import threading

import pytest

from graphdrivers import errors
from graphdrivers.archive.compression import open_plain
from graphdrivers.images.image import Image
from graphdrivers.images.opening import open_image
from graphdrivers.model import Limits

LAYERS = ("one", "two")


def run(*command: str | os.PathLike[str]) -> None:
    """Run a program that this suite needs; its absence fails, unless tools were declared optional."""
    if shutil.which(command[0]) is None:
        if os.environ.get("GRAPHDRIVERS_OPTIONAL_TOOLS") == "1":
            pytest.skip(f"{command[0]} is not installed")
        pytest.fail(f"{command[0]} is not installed (GRAPHDRIVERS_OPTIONAL_TOOLS=1 skips what needs it)")
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Layer tars by GNU tar."""
    folder = tmp_path_factory.mktemp("tars")
    for name in LAYERS:
        (folder / name).write_text(name * 10_000)
        run("tar", "--create", "--directory", folder, "--file", folder / f"{name}.tar", name)
    return [(folder / f"{name}.tar").read_bytes() for name in LAYERS]


@pytest.fixture(scope="module")
def layout(tars: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A layout by umoci, whose layers are gzip-compressed, called ``app``."""
    folder = tmp_path_factory.mktemp("umoci")
    run("umoci", "init", "--layout", folder / "layout")
    run("umoci", "new", "--image", f"{folder}/layout:app")
    for name, tar in zip(LAYERS, tars, strict=True):
        (folder / name).write_bytes(tar)
        run("umoci", "raw", "add-layer", "--image", f"{folder}/layout:app", folder / name)
    return folder / "layout"


def copy(source: str, target: str, *options: str) -> None:
    """Copy an image by skopeo."""
    run("skopeo", "--insecure-policy", "copy", *options, source, target)


def check(image: Image, tars: list[bytes]) -> None:
    """Compare an image's layers, decompressed, with the tars it was made of."""
    with image:
        plain = []
        for layer in image.layers:
            with image.open_layer(layer) as stored, open_plain(stored, Limits()) as stream:
                plain.append(b"".join(iter(lambda stream=stream: stream.read(1 << 20), b"")))  # type: ignore[misc]
        assert plain == tars
        assert [layer.diff_id for layer in image.layers] == [
            f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars
        ]


def test_umoci_layout(layout: pathlib.Path, tars: list[bytes]) -> None:
    """A layout by umoci is read, by its tag too."""
    check(open_image(layout), tars)
    with open_image(os.fspath(layout), reference="app") as image:
        assert image.names == ("app",)
        assert {layer.media_type for layer in image.layers} == {"application/vnd.oci.image.layer.v1.tar+gzip"}


@pytest.mark.parametrize("compress", ["none", "gzip", "zstd", "xz", "bzip2"])
@pytest.mark.parametrize("member", [".", "*"])
def test_packed_layout(
    layout: pathlib.Path, tars: list[bytes], tmp_path: pathlib.Path, compress: str, member: str
) -> None:
    """A layout in a tar by GNU tar is read in place, a compressed one through an unnamed file."""
    names = [member] if member == "." else os.listdir(layout)
    run("tar", "--create", "--directory", layout, "--file", tmp_path / "image", *names)
    if compress != "none":
        run(compress, "--force", tmp_path / "image")
    packed = next(tmp_path.iterdir())
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    image = open_image(packed, scratch=os.fspath(scratch))
    assert os.listdir(scratch) == []
    check(image, tars)


def test_skopeo_oci_archive(layout: pathlib.Path, tars: list[bytes], tmp_path: pathlib.Path) -> None:
    """An ``oci-archive:`` by skopeo is read."""
    copy(f"oci:{layout}:app", f"oci-archive:{tmp_path}/image.tar:example.org/app:1")
    check(open_image(tmp_path / "image.tar", reference="example.org/app:1"), tars)


def test_skopeo_docker_archive(layout: pathlib.Path, tars: list[bytes], tmp_path: pathlib.Path) -> None:
    """A ``docker-archive:`` by skopeo is read: packed, unpacked, compressed."""
    copy(f"oci:{layout}:app", f"docker-archive:{tmp_path}/image.tar:example.org/app:1")
    check(open_image(tmp_path / "image.tar", reference="example.org/app:1"), tars)
    folder = tmp_path / "folder"
    folder.mkdir()
    run("tar", "--extract", "--file", tmp_path / "image.tar", "--directory", folder)
    check(open_image(folder), tars)
    run("gzip", tmp_path / "image.tar")
    check(open_image(tmp_path / "image.tar.gz"), tars)


def test_docker_media_types(layout: pathlib.Path, tars: list[bytes], tmp_path: pathlib.Path) -> None:
    """A layout with Docker's manifest in it is read (skopeo's ``dir:`` to a layout by hand)."""
    copy(f"oci:{layout}:app", f"dir:{tmp_path}/dir", "--format", "v2s2")
    manifest = (tmp_path / "dir" / "manifest.json").read_bytes()
    digest = hashlib.sha256(manifest).hexdigest()
    blobs = tmp_path / "layout" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for path in (tmp_path / "dir").iterdir():
        path.rename(blobs / (digest if path.name == "manifest.json" else path.name))
    media_type = "application/vnd.docker.distribution.manifest.v2+json"
    (tmp_path / "layout" / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    entry = {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(manifest)}
    (tmp_path / "layout" / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    check(open_image(tmp_path / "layout"), tars)


def test_zstd_layers(layout: pathlib.Path, tars: list[bytes], tmp_path: pathlib.Path) -> None:
    """Layers that skopeo compressed with zstd are read."""
    copy(f"oci:{layout}:app", f"oci:{tmp_path}/layout:app", "--dest-compress-format", "zstd")
    image = open_image(tmp_path / "layout")
    assert {layer.media_type for layer in image.layers} == {"application/vnd.oci.image.layer.v1.tar+zstd"}
    check(image, tars)


def test_fifo(layout: pathlib.Path, tars: list[bytes], tmp_path: pathlib.Path) -> None:
    """An archive that comes through a pipe is read."""
    run("tar", "--create", "--gzip", "--directory", layout, "--file", tmp_path / "image", ".")
    os.mkfifo(tmp_path / "pipe")
    content = (tmp_path / "image").read_bytes()
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,))
    writer.start()
    try:
        check(open_image(tmp_path / "pipe"), tars)
    finally:
        writer.join()


@pytest.mark.parametrize("compress", ["gzip", "zstd"])
def test_cut_compressed_archive(layout: pathlib.Path, tmp_path: pathlib.Path, compress: str) -> None:
    """A compressed archive that was cut is refused."""
    run("tar", "--create", "--directory", layout, "--file", tmp_path / "image", ".")
    run(compress, tmp_path / "image")
    packed = next(path for path in tmp_path.iterdir() if path.name != "image")
    os.truncate(packed, packed.stat().st_size // 2)
    with pytest.raises(errors.MalformedArchive):
        open_image(packed)
