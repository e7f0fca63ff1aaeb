"""OCI layouts: what is right is read, and every rule that hostile ones break is enforced."""

import json
import os
import pathlib
import tarfile
from collections.abc import Callable
from typing import Any

import pytest
from layouts import INDEX, LAYER, MANIFEST, OCI, Layout, layer_tar, packed, sha256

from graphdrivers import errors
from graphdrivers.images.image import Image
from graphdrivers.images.opening import open_image

ONE, TWO = layer_tar("one"), layer_tar("two")


@pytest.fixture
def layout(tmp_path: pathlib.Path) -> Layout:
    """An empty layout."""
    return Layout(tmp_path / "layout")


@pytest.fixture(params=["folder", "tar", "dotted tar"])
def opened(request: pytest.FixtureRequest) -> Callable[..., Image]:
    """``open_image`` of a layout as a folder, or packed in either way that tar does it."""

    def opened(layout: Layout, **how: Any) -> Image:
        if request.param == "folder":
            return open_image(layout.folder, **how)
        return open_image(packed(layout.folder, prefix="./" if "dotted" in request.param else ""), **how)

    return opened


def read(image: Image) -> list[bytes]:
    """Read all layers."""
    result = []
    for layer in image.layers:
        with image.open_layer(layer) as stream:
            result.append(b"".join(iter(lambda stream=stream: stream.read(100), b"")))  # type: ignore[misc]
    return result


def test_image_is_read(layout: Layout, opened: Callable[..., Image]) -> None:
    """All facts and all bytes of an image come out."""
    config = layout.config(ONE, TWO, config={"Cmd": ["sh"]})
    manifest = layout.manifest(ONE, TWO, config=config)
    layout.add(manifest, "some:name")
    with opened(layout) as image:
        assert image.names == ("some:name",)
        assert image.manifest_digest == manifest["digest"]
        assert image.manifest == layout.path(manifest).read_bytes()
        assert image.config_digest == config["digest"]
        assert image.config.text == layout.path(config).read_bytes()
        assert image.config.fields["config"] == {"Cmd": ["sh"]}
        assert str(image.config.platform) == "linux/amd64"
        assert [layer.digest for layer in image.layers] == [sha256(ONE), sha256(TWO)] == [*image.config.diff_ids]
        assert [(layer.size, layer.media_type) for layer in image.layers] == [(len(ONE), LAYER), (len(TWO), LAYER)]
        assert read(image) == [ONE, TWO]


def test_image_without_layers(layout: Layout, opened: Callable[..., Image]) -> None:
    """An image made from nothing has no layers; also where Go wrote null."""
    layout.add(layout.manifest(), "empty")
    fields = json.loads(layout.path(layout.manifest()).read_text()) | {"layers": None}
    layout.add(layout.blob(fields, MANIFEST), "null")
    for name in ("empty", "null"):
        with opened(layout, reference=name) as image:
            assert image.layers == ()
            assert image.config.diff_ids == ()


def test_stream_outlives_image(layout: Layout, opened: Callable[..., Image]) -> None:
    """A layer's stream stays readable behind the image's end; opening another does not."""
    layout.add(layout.manifest(ONE))
    with opened(layout) as image:
        stream = image.open_layer(image.layers[0])
    with stream:
        assert stream.read(len(ONE)) == ONE
        assert stream.read(1) == b""
    image.close()
    with pytest.raises(ValueError, match="closed"):
        image.open_layer(image.layers[0])


def test_no_descriptor_leaks(layout: Layout, opened: Callable[..., Image]) -> None:
    """Neither success nor any failure leaves a file open."""
    before = len(os.listdir("/proc/self/fd"))
    layout.add(layout.manifest(ONE))
    with opened(layout) as image:
        read(image)
    with pytest.raises(errors.InvalidReference):
        opened(layout, reference="other")
    layout.path({"digest": sha256(ONE)}).write_bytes(b"")
    with pytest.raises(errors.DigestMismatch):
        opened(layout)
    assert len(os.listdir("/proc/self/fd")) == before


def test_several_images(layout: Layout, opened: Callable[..., Image]) -> None:
    """Among several images one has to be named; the error lists them, and digests name too."""
    first, second = layout.manifest(ONE), layout.manifest(TWO)
    layout.add(first, "example.org/app:1")
    layout.add(first, "example.org/app:2")
    layout.add(second, "latest")
    layout.add(layout.manifest(ONE, TWO))
    with pytest.raises(errors.InvalidReference, match=r"several.*app:1 = example.org/app:2, latest, sha256:"):
        opened(layout)
    with pytest.raises(errors.InvalidReference, match=r"called 'nothing'; it holds example.org/app:1"):
        opened(layout, reference="nothing")
    for reference, expected in [("example.org/app:2", first), ("latest", second), (second["digest"], second)]:
        with opened(layout, reference=reference) as image:
            assert image.manifest_digest == expected["digest"]
    with opened(layout, reference="example.org/app:1") as image:
        assert image.names == ("example.org/app:1", "example.org/app:2")


def test_same_name_twice(layout: Layout, opened: Callable[..., Image]) -> None:
    """Two images of one name and no platform are not chosen between silently; the digest decides."""
    first, second = layout.manifest(ONE), layout.manifest(TWO)
    layout.add(first, "app")
    layout.add(second, "app")
    with pytest.raises(errors.InvalidReference, match="several"):
        opened(layout, reference="app")
    with opened(layout, reference=f"app@{second['digest']}") as image:
        assert image.manifest_digest == second["digest"]


def multi_platform(layout: Layout) -> Layout:
    """Put an index for three platforms, with an attestation, into a layout."""
    entries = []
    for architecture in ("amd64", "arm64", "s390x"):
        manifest = layout.manifest(layer_tar(architecture), architecture=architecture)
        entries.append(manifest | {"platform": {"os": "linux", "architecture": architecture}})
    unknown = {"platform": {"os": "unknown", "architecture": "unknown"}}
    layout.add(layout.index(layout.blob(b"attestation", MANIFEST) | unknown, *entries), "multi")
    return layout


@pytest.mark.parametrize("top", [True, False])
def test_what_stands_beside_images(layout: Layout, opened: Callable[..., Image], *, top: bool) -> None:
    """Entries of a kind that is unknown, and artifacts, are passed over, as the specification wants."""
    others = [
        {"mediaType": "application/xml", "digest": sha256(b"no blob"), "size": 7},
        {"mediaType": MANIFEST, "digest": sha256(b"none"), "size": 4, "artifactType": "application/spdx+json"},
        {
            "mediaType": f"{OCI}config.v2+json",
            "digest": sha256(b"no"),
            "size": 2,
            "platform": {"os": "a", "architecture": "b"},
        },
    ]
    entry = layout.manifest(ONE) | {"artifactType": f"{OCI}config.v1+json"}
    for item in [*others, entry] if top else [layout.index(*others, entry)]:
        layout.add(item)
    with opened(layout) as image:
        assert image.config.diff_ids == (sha256(ONE),)


@pytest.mark.parametrize("wanted", ["amd64", "linux/arm64/v8", "s390x"])
def test_platform_is_chosen(layout: Layout, opened: Callable[..., Image], wanted: str) -> None:
    """The manifest for the platform asked for is taken, whatever stands before it."""
    with opened(multi_platform(layout), platform=wanted) as image:
        assert image.config.platform.architecture in wanted


def test_this_machine_by_default(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a platform this machine's is taken; where there is none, the error lists what there is."""
    multi_platform(layout)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with open_image(layout.folder) as image:
        assert image.config.platform.architecture == "arm64"
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(
        errors.InvalidReference, match="no image for linux/riscv64 in it, only for linux/amd64, linux/arm64"
    ):
        open_image(layout.folder)


def test_platforms_at_the_top(layout: Layout, opened: Callable[..., Image]) -> None:
    """Manifests of one name that say for which platform each is are one image."""
    for architecture in ("arm64", "amd64"):
        platform = {"os": "linux", "architecture": architecture}
        layout.add(layout.manifest(ONE, architecture=architecture), "app", platform=platform)
    with opened(layout, platform="amd64", reference="app") as image:
        assert image.config.platform.architecture == "amd64"


def test_digest_chooses_among_platforms(layout: Layout, opened: Callable[..., Image]) -> None:
    """The digest of one platform's manifest means that one, also on another machine."""
    entries = []
    for architecture in ("amd64", "arm64", "mips"):
        entries.append(layout.manifest(ONE, architecture=architecture))
        layout.add(entries[-1], "app", platform={"os": "linux", "architecture": architecture})
    for reference in (entries[2]["digest"], f"app@{entries[2]['digest']}"):
        with opened(layout, reference=reference) as image:
            assert image.manifest_digest == entries[2]["digest"]


def test_index_twice(layout: Layout) -> None:
    """An ``index.json`` that comes twice in a tar is refused."""
    layout.add(layout.manifest(ONE))
    path = packed(layout.folder)
    with tarfile.open(path, "a") as tar:
        tar.add(layout.folder / "index.json", "./index.json")
    with pytest.raises(errors.InvalidManifest, match=r"index\.json comes twice"):
        open_image(path)


def test_single_image_of_another_platform(layout: Layout, opened: Callable[..., Image]) -> None:
    """The only image there is is taken, whatever it is for, unless a platform was asked for."""
    layout.add(layout.manifest(ONE, architecture="mips"))
    opened(layout).close()
    with pytest.raises(errors.InvalidReference, match="only for linux/mips"):
        opened(layout, platform="linux/amd64")


def test_index_lies_about_platform(layout: Layout, opened: Callable[..., Image]) -> None:
    """A configuration for another platform than its index says is refused."""
    layout.add(layout.manifest(ONE, architecture="mips"), platform={"os": "linux", "architecture": "amd64"})
    with pytest.raises(errors.InvalidManifest, match="is for linux/mips, not for linux/amd64"):
        opened(layout)


def test_index_nesting(layout: Layout, opened: Callable[..., Image]) -> None:
    """Four levels of indexes are read, five are refused; what many entries lead to counts once, as a single image."""
    entry = layout.manifest(ONE, architecture="mips")
    for _ in range(3):
        entry = layout.index(entry, entry, annotations={"n": entry["digest"]})
    layout.add(entry, "four")
    opened(layout, reference="four").close()
    layout.add(layout.index(entry), "five")
    with pytest.raises(errors.InvalidManifest, match="nested deeper than 4"):
        opened(layout, reference="five")


def body(**more: Any) -> Callable[[Layout], None]:
    """Make an image whose manifest has other fields."""
    return lambda layout: layout.add(layout.manifest(ONE, **more))


def configured(**more: Any) -> Callable[[Layout], None]:
    """Make an image whose configuration has other fields."""
    return lambda layout: layout.add(layout.manifest(ONE, config=layout.config(ONE, **more)))


def described(**more: object) -> Callable[[Layout], None]:
    """Make an image whose layer's descriptor has other fields."""

    def build(layout: Layout) -> None:
        layer = {key: value for key, value in (layout.blob(ONE, LAYER) | more).items() if value is not None}
        layout.add(layout.manifest(ONE, layers=[layer]))

    return build


def indexed(fields: object) -> Callable[[Layout], None]:
    """Make a layout with any index."""
    return lambda layout: layout.write_index(fields)


def truncated_text(layout: Layout) -> None:
    """Cut a manifest, whose digest is right."""
    layout.add(layout.blob(b'{"schemaVersion": 2, ', MANIFEST))


def large_document(layout: Layout) -> None:
    """Make a manifest of more than 4 MiB."""
    layout.add(layout.manifest(ONE, annotations={"fill": "x" * (4 << 20)}))


def large_index(layout: Layout) -> None:
    """Make an ``index.json`` of more than 4 MiB."""
    layout.write_index(" " * (4 << 20) + "{}")


def other_version(layout: Layout) -> None:
    """Make a layout of another version."""
    layout.add(layout.manifest(ONE))
    (layout.folder / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')


DIGESTS = [
    "", "sha256:", "sha256:../../../../etc/passwd", "sha256:" + "A" * 64, "sha256:" + "0" * 63, "md5:" + "0" * 32,
    "sha512:" + "0" * 64, "sha256:" + "0" * 64 + "\n", "sha256:" + "0" * 60 + "/../",
]  # fmt: skip
INVALID: dict[str, tuple[Callable[[Layout], None], str]] = {
    "layers and manifests": (body(manifests=[]), "has 'manifests' too"),
    "layers and Manifests": (body(Manifests=[]), "has 'manifests' too"),
    "schema 1 in disguise": (body(fsLayers=[], history=[]), "has 'fsLayers' too"),
    "manifests and layers": (indexed({"schemaVersion": 2, "manifests": [], "layers": []}), "has 'layers' too"),
    "manifests and config": (indexed({"schemaVersion": 2, "manifests": [], "config": {}}), "has 'config' too"),
    "manifest calls itself index": (body(mediaType=INDEX), "calls itself"),
    "index calls itself manifest": (
        indexed({"schemaVersion": 2, "mediaType": MANIFEST, "manifests": []}),
        "calls itself",
    ),
    "schema version 1": (body(schemaVersion=1), "schemaVersion 1"),
    "schema version true": (body(schemaVersion=True), "no whole number 'schemaVersion'"),
    "no schema version": (indexed({"manifests": []}), "no whole number 'schemaVersion'"),
    "config is no object": (body(config="sha256:x"), "no object 'config'"),
    "an artifact": (
        body(config={"mediaType": f"{OCI}empty.v1+json", "digest": sha256(b"{}"), "size": 2}),
        "is not an image",
    ),
    "layers is no array": (body(layers={}), "'layers' that is not an array"),
    "layer is no object": (body(layers=["x"]), "no object"),
    "encrypted layer": (described(mediaType=f"{LAYER}+gzip+encrypted"), "no layer that can be unpacked"),
    "layer without a type": (described(mediaType=None), "no string 'mediaType'"),
    "size is true": (described(size=True), "no whole number 'size'"),
    "size is negative": (described(size=-1), "no whole number 'size'"),
    "size is a float": (described(size=1.5), "no whole number 'size'"),
    "no size": (described(size=None), "no whole number 'size'"),
    "annotations are numbers": (described(annotations={"a": 1}), "'annotations'"),
    "too few diff_ids": (configured(rootfs={"type": "layers", "diff_ids": []}), "0 diff_ids for 1 layers"),
    "too many diff_ids": (configured(rootfs={"type": "layers", "diff_ids": [sha256(ONE)] * 2}), "2 diff_ids for 1"),
    "diff_id is no digest": (configured(rootfs={"type": "layers", "diff_ids": ["sha256:x"]}), "has the digest"),
    "diff_id is sha512": (configured(rootfs={"type": "layers", "diff_ids": ["sha512:" + "0" * 128]}), "not a sha256"),
    "diff_ids are numbers": (configured(rootfs={"type": "layers", "diff_ids": [1]}), "something else than strings"),
    "rootfs of another type": (configured(rootfs={"type": "other", "diff_ids": [sha256(ONE)]}), "of the type 'other'"),
    "no rootfs": (configured(rootfs=None), "no object 'rootfs'"),
    "no architecture": (configured(architecture=None), "no string 'architecture'"),
    "platform is no word": (configured(architecture="\x1b[2J"), "cannot be printed"),
    "truncated text": (truncated_text, "not strict JSON"),
    "large document": (large_document, "4194304 is the limit"),
    "large index": (large_index, "4194304 is the limit"),
    "index is an array": (indexed([]), "not a JSON object"),
    "index repeats a key": (indexed('{"schemaVersion": 2, "manifests": [], "manifests": []}'), "comes twice"),
    "another layout version": (other_version, "version '2.0.0'"),
    "unknown top-level type": (
        lambda layout: layout.add(layout.blob(b"{}", "text/plain")),
        "'text/plain', which is no image",
    ),
    **{f"digest {digest!r}": (described(digest=digest), "has the digest") for digest in DIGESTS},
}


@pytest.mark.parametrize(("build", "message"), INVALID.values(), ids=INVALID)
def test_invalid_is_refused(
    layout: Layout, opened: Callable[..., Image], build: Callable[[Layout], None], message: str
) -> None:
    """Every break of the rules is an InvalidManifest that says which."""
    build(layout)
    with pytest.raises(errors.InvalidManifest) as caught:
        opened(layout)
    assert message in str(caught.value)


def test_docker_schema_1_is_refused(layout: Layout, opened: Callable[..., Image]) -> None:
    """Docker's first manifest format is no image here."""
    layout.add(layout.blob(b"{}", "application/vnd.docker.distribution.manifest.v1+prettyjws"))
    with pytest.raises(errors.InvalidManifest, match=r"manifest\.v1"):
        opened(layout)


def test_wrong_digest_is_found_before_parsing(layout: Layout, opened: Callable[..., Image]) -> None:
    """Damaged documents are a DigestMismatch, also when they are no JSON any more."""
    manifest = layout.manifest(ONE)
    layout.add(manifest)
    text = layout.path(manifest).read_bytes()
    layout.path(manifest).write_bytes(b"[" * len(text))
    with pytest.raises(errors.DigestMismatch) as caught:
        opened(layout)
    assert caught.value.expected == manifest["digest"]
    assert caught.value.actual == sha256(b"[" * len(text))
    layout.path(manifest).write_bytes(text + b" ")
    with pytest.raises(errors.DigestMismatch, match=f"expected {len(text)} bytes, got {len(text) + 1} bytes"):
        opened(layout)


def test_damaged_layer_is_found_at_its_end(layout: Layout, opened: Callable[..., Image]) -> None:
    """A changed byte of a layer is a DigestMismatch on the last read."""
    layout.add(layout.manifest(ONE))
    layout.path({"digest": sha256(ONE)}).write_bytes(ONE[:-1] + b"x")
    with opened(layout) as image, pytest.raises(errors.DigestMismatch, match="layer sha256:"):
        read(image)


@pytest.mark.parametrize("what", ["manifest", "configuration", "layer"])
def test_missing_blob(layout: Layout, opened: Callable[..., Image], what: str) -> None:
    """A missing blob of any kind is a BlobNotFound when the image is opened."""
    config = layout.config(ONE)
    manifest = layout.manifest(ONE, config=config)
    layout.add(manifest)
    layout.path({"manifest": manifest, "configuration": config, "layer": {"digest": sha256(ONE)}}[what]).unlink()
    with pytest.raises(errors.BlobNotFound, match=f"{what} sha256:.* is missing"):
        opened(layout)


def test_foreign_layer(layout: Layout, opened: Callable[..., Image]) -> None:
    """A layer that may be kept elsewhere is read when it is here, and never fetched when it is not."""
    distant = f"{OCI}layer.nondistributable.v1.tar"
    build = described(mediaType=distant, urls=["http://127.0.0.1:1/layer"])
    build(layout)
    with opened(layout) as image:
        assert read(image) == [ONE]
    layout.path({"digest": sha256(ONE)}).unlink()
    with pytest.raises(errors.BlobNotFound, match="never followed"):
        opened(layout)


def to_link(path: pathlib.Path) -> None:
    """Put a symbolic link to the same bytes in place of a file."""
    outside = path.with_name("outside")
    path.rename(outside)
    path.symlink_to(outside)


def to_fifo(path: pathlib.Path) -> None:
    """Put a FIFO in place of a file."""
    path.unlink()
    os.mkfifo(path)


def to_folder(path: pathlib.Path) -> None:
    """Put a directory in place of a file."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("what", ["blob", "index.json", "oci-layout"])
@pytest.mark.parametrize("replace", [to_link, to_fifo, to_folder])
def test_only_regular_files(
    layout: Layout, opened: Callable[..., Image], what: str, replace: Callable[[pathlib.Path], None]
) -> None:
    """No link is followed, no FIFO waited for: blobs and indexes are regular files."""
    layout.add(layout.manifest(ONE))
    replace(layout.path({"digest": sha256(ONE)}) if what == "blob" else layout.folder / what)
    with pytest.raises(errors.InvalidManifest, match="not a regular file"):
        opened(layout)


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256"])
def test_linked_folder_is_not_followed(layout: Layout, name: str) -> None:
    """A link among a blob's parents is not followed either."""
    layout.add(layout.manifest(ONE))
    to_link(layout.folder / name)
    with pytest.raises(errors.InvalidManifest, match="not a regular file"):
        open_image(layout.folder)


def test_neither_form(tmp_path: pathlib.Path) -> None:
    """A folder that is no image lists what is in it, so that a wrong level is noticed."""
    Layout(tmp_path / "inner")
    with pytest.raises(errors.InvalidManifest, match=r"no OCI layout .* it holds 'inner'"):
        open_image(tmp_path)
    with pytest.raises(errors.InvalidManifest, match="neither a folder nor a file"):
        open_image("/dev/null")
    with pytest.raises(FileNotFoundError):
        open_image(tmp_path / "missing")


def test_docker_25_archive_is_read_as_layout(layout: Layout, opened: Callable[..., Image]) -> None:
    """Where both forms are present the one with digests is read, and containerd's full names count."""
    manifest = layout.manifest(ONE)
    full = {"io.containerd.image.name": "docker.io/library/app:1", "org.opencontainers.image.ref.name": "1"}
    layout.add(manifest | {"annotations": full})
    (layout.folder / "manifest.json").write_text("[]")
    with opened(layout, reference="app:1") as image:
        assert image.names == ("docker.io/library/app:1", "1")
        assert image.layers[0].digest == sha256(ONE)


def test_config_of_another_image(layout: Layout, opened: Callable[..., Image]) -> None:
    """A configuration descriptor of a layer's type is refused."""
    layout.add(layout.manifest(ONE, config=layout.blob(b"{}", LAYER)))
    with pytest.raises(errors.InvalidManifest, match="is not an image"):
        opened(layout)
