"""Images whose documents lie: each is refused by the right error, in little memory, and nothing outside is read."""

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from layouts import CONFIG, INDEX, LAYER, MANIFEST, Archive, Layout, packed, sha256
from rawtars import END, header, member
from stage import isolated, put_canary, state

from graphdrivers import errors
from graphdrivers.errors import BlobNotFound, DigestMismatch, InvalidManifest, LimitExceeded, MalformedArchive
from graphdrivers.images.opening import open_image

ONE = member(b"one", b"content") + END
MEMORY = 64 << 20


@attrs.frozen
class Lie:
    """One hostile image: where it comes from, how it is made, and by what it is refused."""

    source: str
    make: Callable[[Any], object]
    error: type[errors.GraphDriverError]


def manifest(**more: Any) -> Callable[[Layout], None]:
    """Make an image whose manifest has other fields."""
    return lambda layout: layout.add(layout.manifest(ONE, **more))


def described(**more: object) -> Callable[[Layout], None]:
    """Make an image whose layer's descriptor has other fields."""
    return lambda layout: layout.add(layout.manifest(ONE, layers=[layout.blob(ONE, LAYER) | more]))


def configured(**more: Any) -> Callable[[Layout], None]:
    """Make an image whose configuration has other fields."""
    return lambda layout: layout.add(layout.manifest(ONE, config=layout.config(ONE, **more)))


def index(text: str) -> Callable[[Layout], None]:
    """Make a layout with any index."""
    return lambda layout: layout.write_index(text)


def marker(text: str) -> Callable[[Layout], None]:
    """Make a layout that calls itself anything."""

    def make(layout: Layout) -> None:
        layout.add(layout.manifest(ONE))
        (layout.folder / "oci-layout").write_text(text)

    return make


def nested(levels: int) -> Callable[[Layout], None]:
    """Put an image into indexes inside indexes."""

    def make(layout: Layout) -> None:
        entry = layout.manifest(ONE)
        for _ in range(levels):
            entry = layout.index(entry)
        layout.add(entry)

    return make


def fans(layout: Layout) -> None:
    """Put an image into indexes that name each other a thousand times over."""
    entry = layout.manifest(ONE)
    for _ in range(3):
        entry = layout.index(*[entry] * 1000)
    layout.add(layout.index(entry))


def linked(target: str, what: str = "layer") -> Callable[[Layout], None]:
    """Put a symbolic link in place of a blob or of a folder."""

    def make(layout: Layout) -> None:
        descriptor = layout.manifest(ONE)
        layout.add(descriptor)
        path = layout.path(descriptor if what == "manifest" else {"digest": sha256(ONE)})
        if what == "folder":
            path = layout.folder / "blobs"
            path.rename(layout.folder / "moved")
            target_path = "moved"
        else:
            path.unlink()
            target_path = target
        path.symlink_to(target_path)

    return make


def special(layout: Layout) -> None:
    """Put a FIFO in place of a layer: opening it would wait for ever."""
    layout.add(layout.manifest(ONE))
    path = layout.path({"digest": sha256(ONE)})
    path.unlink()
    os.mkfifo(path)


def resized(layout: Layout) -> None:
    """Make a layer longer than its descriptor says."""
    layout.add(layout.manifest(ONE))
    layout.path({"digest": sha256(ONE)}).write_bytes(ONE + b"x")


def replaced(layout: Layout) -> None:
    """Replace a manifest by one of the same length."""
    descriptor = layout.manifest(ONE)
    layout.add(descriptor)
    text = layout.path(descriptor).read_bytes()
    layout.path(descriptor).write_bytes(text.replace(b"linux", b"plan9") if b"linux" in text else text[:-1] + b" ")


def huge_blob(layout: Layout) -> None:
    """Let a manifest be a sparse file of a terabyte, as its descriptor says."""
    descriptor = layout.manifest(ONE)
    layout.add(descriptor, size=1 << 40)
    os.truncate(layout.path(descriptor), 1 << 40)


def huge_index(layout: Layout) -> None:
    """Let ``index.json`` be a sparse file of a terabyte."""
    layout.write_index("{}")
    os.truncate(layout.folder / "index.json", 1 << 40)


DEEP = '{"schemaVersion": 2, "manifests": ' + "[" * 100_000 + "]" * 100_000 + "}"
LAYOUTS = {
    "layers and manifests": Lie("CVE-2021-41190", manifest(manifests=[]), InvalidManifest),
    "manifests and layers": Lie(
        "CVE-2021-41190", index('{"schemaVersion": 2, "manifests": [], "layers": []}'), InvalidManifest
    ),
    "manifest calls itself index": Lie("CVE-2021-41190", manifest(mediaType=INDEX), InvalidManifest),
    "index calls itself manifest": Lie(
        "CVE-2021-41190",
        index(json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "manifests": []})),
        InvalidManifest,
    ),
    "config calls itself layer": Lie(
        "CVE-2021-41190",
        lambda layout: layout.add(layout.manifest(ONE, config=layout.blob(b"{}", LAYER))),
        InvalidManifest,
    ),
    "digest climbs": Lie("CVE-2024-3727", described(digest="sha256:../../../../victim/hello"), InvalidManifest),
    "digest of an unknown kind": Lie("CVE-2024-3727", described(digest="md5:" + "0" * 32), InvalidManifest),
    "digest in capitals": Lie("CVE-2024-3727", described(digest="sha256:" + "A" * 64), InvalidManifest),
    "digest with a newline": Lie("CVE-2024-3727", described(digest=sha256(ONE) + "\n"), InvalidManifest),
    "malformed digest": Lie("CVE-2021-21285", described(digest="sha256:"), InvalidManifest),
    "no digest": Lie("CVE-2021-21285", described(digest=None), InvalidManifest),
    "diff_id climbs": Lie(
        "CVE-2014-9358", configured(rootfs={"type": "layers", "diff_ids": ["sha256:/../../victim"]}), InvalidManifest
    ),
    "too few diff_ids": Lie("CVE-2024-24557", configured(rootfs={"type": "layers", "diff_ids": []}), InvalidManifest),
    "too many diff_ids": Lie(
        "CVE-2024-24557", configured(rootfs={"type": "layers", "diff_ids": [sha256(ONE)] * 2}), InvalidManifest
    ),
    "size is negative": Lie("umoci hardening: descriptor size", described(size=-1), InvalidManifest),
    "size is a boolean": Lie("umoci hardening: descriptor size", described(size=True), InvalidManifest),
    "size is 2^70": Lie("umoci hardening: descriptor size", described(size=2**70), InvalidManifest),
    "size too small": Lie("umoci hardening: descriptor size", described(size=3), DigestMismatch),
    "blob is longer": Lie("umoci hardening: blob hash", resized, DigestMismatch),
    "manifest was replaced": Lie("umoci hardening: blob hash", replaced, DigestMismatch),
    "manifest of a terabyte": Lie("CVE-2020-1702", huge_blob, InvalidManifest),
    "index of a terabyte": Lie("CVE-2023-25153", huge_index, InvalidManifest),
    "index with 100,000 brackets": Lie("CVE-2023-25153", index(DEEP), InvalidManifest),
    "marker with 100,000 brackets": Lie("CVE-2023-25153", marker("[" * 100_000), InvalidManifest),
    "string without end": Lie("CVE-2023-25153", index('{"' + "\\" * 1_000_000), InvalidManifest),
    "number of a million digits": Lie(
        "CVE-2023-25153", index('{"schemaVersion": ' + "9" * 1_000_000 + "}"), InvalidManifest
    ),
    "indexes nested too deep": Lie("rule: index nesting", nested(5), InvalidManifest),
    "key comes twice": Lie(
        "rule: strict JSON", index('{"schemaVersion": 2, "manifests": [], "manifests": []}'), InvalidManifest
    ),
    "key in two cases": Lie("CVE-2021-41190", manifest(Layers=[]), InvalidManifest),
    "NaN": Lie("rule: strict JSON", index('{"schemaVersion": NaN, "manifests": []}'), InvalidManifest),
    "no UTF-8": Lie(
        "rule: strict JSON",
        lambda layout: (layout.folder / "index.json").write_bytes(b'{"a": "\xff"}'),
        InvalidManifest,
    ),
    "layer is a link outside": Lie("CVE-2024-9676", linked("../../../victim/hello"), InvalidManifest),
    "layer is an absolute link": Lie("CVE-2024-9676", linked("/etc/hostname"), InvalidManifest),
    "manifest is a link": Lie("CVE-2024-9676", linked("/etc/hostname", "manifest"), InvalidManifest),
    "blobs is a link": Lie("CVE-2024-9676", linked("", "folder"), InvalidManifest),
    "layer is a FIFO": Lie("CVE-2024-9676", special, InvalidManifest),
    "foreign layer is not fetched": Lie(
        "CVE-2020-15157",
        lambda layout: layout.add(
            layout.manifest(
                ONE,
                layers=[
                    {
                        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                        "digest": "sha256:" + "0" * 64,
                        "size": 5,
                        "urls": ["http://127.0.0.1:9/layer"],
                    }
                ],
            )
        ),
        BlobNotFound,
    ),
    "layer of another media type": Lie("CVE-2021-41190", described(mediaType=CONFIG), InvalidManifest),
}


def entry(**fields: object) -> Callable[[Archive], None]:
    """Change fields of the only entry of ``manifest.json``."""
    return lambda archive: (archive.folder / "manifest.json").write_text(json.dumps([archive.entries[0] | fields]))


def one_is(target: str) -> Callable[[Archive], None]:
    """Put a link in place of the layer."""

    def make(archive: Archive) -> None:
        (archive.folder / "one.tar").unlink()
        (archive.folder / "one.tar").symlink_to(target)

    return make


ARCHIVES = {
    "configuration climbs": Lie("CVE-2014-9358", entry(Config="../victim/hello"), InvalidManifest),
    "configuration is absolute": Lie("CVE-2014-9358", entry(Config="/etc/passwd"), InvalidManifest),
    "layer climbs": Lie("CVE-2014-9358", entry(Layers=["a/../../victim/hello"]), InvalidManifest),
    "layer with NUL": Lie("CVE-2014-9358", entry(Layers=["one.tar\0x"]), InvalidManifest),
    "layer without a name": Lie("CVE-2014-9358", entry(Layers=["."]), InvalidManifest),
    "layer is a link outside": Lie("CVE-2024-9676", one_is("../victim/hello"), InvalidManifest),
    "layer is a link to itself": Lie("CVE-2024-9676", one_is("one.tar"), InvalidManifest),
    "too many layers": Lie("CVE-2024-24557", entry(Layers=["one.tar"] * 2), InvalidManifest),
    "key in two cases": Lie("CVE-2021-41190", entry(layers=["two.tar"]), InvalidManifest),
}

TARS = {
    "no tar": Lie("apply-junk", lambda: b"junk" * 1000, MalformedArchive),
    "a manifest comes twice": Lie(
        "CVE-2021-41190",
        lambda: member(b"manifest.json", b"[]") + member(b"./manifest.json", b"[ ]") + END,
        InvalidManifest,
    ),
    "a manifest of a terabyte": Lie(
        "CVE-2023-25153", lambda: header(b"manifest.json", size=b"\x80" + bytes(5) + b"\1" + bytes(5)), MalformedArchive
    ),
    "a member's header of 4 GiB": Lie("CVE-2017-14992", lambda: header(b"x", kind=b"x", size=2**32), LimitExceeded),
    "negative sizes": Lie("CVE-2025-8194", lambda: header(b"x", size=b"\xff" * 12) * 10, MalformedArchive),
    "PAX length 0": Lie("CVE-2019-20907", lambda: member(b"x", b"0 path=f\n", kind=b"x") + END, MalformedArchive),
    "manifest is a hard link to itself": Lie(
        "CVE-2014-6407", lambda: header(b"manifest.json", kind=b"1", link=b"manifest.json") + END, InvalidManifest
    ),
    "manifest is a link outside": Lie(
        "CVE-2014-6407", lambda: header(b"manifest.json", kind=b"2", link=b"/etc/hostname") + END, InvalidManifest
    ),
}


def refused(path: pathlib.Path, error: type[errors.GraphDriverError], folder: pathlib.Path) -> None:
    """Open an image in a small process: it has to be refused by ``error``, and the canary beside it stays as it was."""
    put_canary(str(folder / "victim"))
    before = state(str(folder / "victim"))

    def work() -> str:
        with pytest.raises(errors.GraphDriverError) as caught:
            open_image(path)
        assert type(caught.value) is error, caught.value
        return str(caught.value)

    message = isolated(work, memory=MEMORY)

    assert len(message) < 10_000
    assert "of the host" not in message
    assert state(str(folder / "victim")) == before


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="canaries belong to somebody else")


@pytest.mark.parametrize("name", LAYOUTS)
def test_hostile_layout(name: str, tmp_path: pathlib.Path) -> None:
    """An OCI layout that lies is refused."""
    lie = LAYOUTS[name]
    layout = Layout(tmp_path / "layout")
    lie.make(layout)
    refused(layout.folder, lie.error, tmp_path)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if "terabyte" not in name and name != "blobs is a link"])
def test_hostile_layout_in_a_tar(name: str, tmp_path: pathlib.Path) -> None:
    """In a tar it is refused as in a folder: but for what no tar can hold, or is just another name there."""
    lie = LAYOUTS[name]
    layout = Layout(tmp_path / "layout")
    lie.make(layout)
    refused(packed(layout.folder), lie.error, tmp_path)


@pytest.mark.parametrize("form", ["folder", "tar"])
@pytest.mark.parametrize("name", ARCHIVES)
def test_hostile_docker_archive(name: str, form: str, tmp_path: pathlib.Path) -> None:
    """A docker archive that lies is refused, as a folder and in a tar."""
    lie = ARCHIVES[name]
    archive = Archive(tmp_path / "archive")
    archive.add({"one.tar": ONE}, "app:1")
    lie.make(archive)
    refused(archive.folder if form == "folder" else packed(archive.folder), lie.error, tmp_path)


@pytest.mark.parametrize("name", TARS)
def test_hostile_outer_tar(name: str, tmp_path: pathlib.Path) -> None:
    """The tar around an image is a stranger's, too."""
    lie = TARS[name]
    (tmp_path / "image.tar").write_bytes(lie.make())  # type: ignore[call-arg, arg-type]
    refused(tmp_path / "image.tar", lie.error, tmp_path)


def test_names_in_an_index_fan_out_once(tmp_path: pathlib.Path) -> None:
    """Indexes that name each other a thousand times each are read once each, not a billion times."""
    layout = Layout(tmp_path / "layout")
    fans(layout)

    def work() -> int:
        with pytest.raises(InvalidManifest, match="nested deeper"):
            open_image(layout.folder)
        return 1

    assert isolated(work, memory=MEMORY) == 1


def test_image_without_layers(tmp_path: pathlib.Path) -> None:
    """CVE-2026-24054: an image of no layers has none; nobody has to guess what its root is."""
    layout = Layout(tmp_path / "layout")
    layout.add(layout.manifest())
    with open_image(layout.folder) as image:
        assert image.layers == ()


def test_labels_are_data(tmp_path: pathlib.Path) -> None:
    """CVE-2026-53488, CVE-2014-6408: what a configuration or an annotation says is handed on and never acted on."""
    layout = Layout(tmp_path / "layout")
    config = {
        "Volumes": {"/../../etc": {}},
        "Labels": {"run": "id"},
        "User": "../../etc",
        "Env": ["PATH=/evil"],
    }
    layout.add(layout.manifest(ONE, config=layout.config(ONE, config=config), annotations={"run": "id"}))
    before = dict(os.environ)
    with open_image(layout.folder) as image:
        assert image.config.fields["config"] == config
    assert dict(os.environ) == before
