"""Against Debian's docker-registry, with skopeo and umoci on the other side."""

import io
import json
import os
import pathlib
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import pytest
from layouts import MANIFEST, layer_tar, sha256
from registries import QUICK, Registry, run, running_registry

from graphdrivers import errors
from graphdrivers.archive.compression import open_plain
from graphdrivers.images.descriptors import Descriptor
from graphdrivers.images.image import Image, ImageLayer
from graphdrivers.images.opening import open_image
from graphdrivers.images.outgoing import OutgoingImage, OutgoingLayer
from graphdrivers.images.reference import Reference
from graphdrivers.images.registry.compressing import PushCompression
from graphdrivers.images.registry.pulling import open_remote
from graphdrivers.images.registry.pushing import PushState, push
from graphdrivers.model import DiffID, Limits

NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry without users."""
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Layer tars by GNU tar; the last file is replaced by one of the second layer."""
    folder = tmp_path_factory.mktemp("tars")
    made = []
    for name in NAMES:
        (folder / name).mkdir()
        (folder / name / name).write_bytes(os.urandom(1 << 20) + name.encode() * 100_000)
        (folder / name / "shared").write_text(name)
        run("tar", "--create", "--directory", folder / name, "--file", folder / f"{name}.tar", ".")
        made.append((folder / f"{name}.tar").read_bytes())
    return made


@pytest.fixture(scope="module")
def layout(tars: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An OCI layout by umoci, called ``app``."""
    folder = tmp_path_factory.mktemp("umoci")
    run("umoci", "init", "--layout", folder / "layout")
    run("umoci", "new", "--image", f"{folder}/layout:app")
    for number, tar in enumerate(tars):
        (folder / str(number)).write_bytes(tar)
        run("umoci", "raw", "add-layer", "--image", f"{folder}/layout:app", folder / str(number))
    return folder / "layout"


def copy(source: str, target: str, *options: str) -> None:
    """Copy an image by skopeo, to or from a registry on the loopback."""
    registries = ["--src-tls-verify=false"] if source.startswith("docker:") else []
    registries += ["--dest-tls-verify=false"] if target.startswith("docker:") else []
    run("skopeo", "--insecure-policy", "copy", *registries, *options, source, target)


def plain(image: Image, layer: ImageLayer) -> bytes:
    """Read a layer's tar."""
    with image.open_layer(layer) as stored, open_plain(stored, Limits()) as stream:
        return b"".join(iter(lambda: stream.read(1 << 20), b""))


def outgoing(tars: list[bytes], image: Image | None = None) -> OutgoingImage:
    """Make an image to be pushed: a new one, or one that came from somewhere."""
    diff_ids = [sha256(tar) for tar in tars]
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    origins = (
        [Descriptor(layer.media_type, layer.digest, layer.size) for layer in image.layers if layer.digest]
        if image
        else []
    )
    layers = [
        OutgoingLayer(DiffID(sha256(tar)), len(tar), lambda tar=tar: io.BytesIO(tar), origin)  # type: ignore[misc]
        for tar, origin in zip(tars, origins or [None] * len(tars), strict=True)
    ]
    return OutgoingImage(
        config=image.config.text if image else json.dumps(config).encode(),
        layers=tuple(layers),
        manifest=image.manifest if image else None,
        manifest_type=json.loads(image.manifest).get("mediaType", MANIFEST) if image and image.manifest else "",
    )


def unpacked(layout: pathlib.Path, tag: str, target: pathlib.Path) -> dict[str, bytes]:
    """Give the files of an image as umoci unpacks it."""
    run("umoci", "unpack", *([] if os.geteuid() == 0 else ["--rootless"]), "--image", f"{layout}:{tag}", target)
    return {path.name: path.read_bytes() for path in (target / "rootfs").iterdir()}


@pytest.mark.parametrize("options", [[], ["--format", "v2s2"], ["--dest-compress-format", "zstd"]])
def test_pull_what_skopeo_pushed(
    registry: Registry, layout: pathlib.Path, tars: list[bytes], options: list[str]
) -> None:
    """An image that skopeo pushed is the one it was made of, in OCI's and Docker's form, gzip and zstd."""
    name = f"{registry.host}/pulled/{len(options)}{options[-1] if options else ''}:1"
    copy(f"oci:{layout}:app", f"docker://{name}", *options)
    with open_remote(name, patience=QUICK) as image, ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda layer: plain(image, layer), image.layers)) == tars
        assert [layer.diff_id for layer in image.layers] == [sha256(tar) for tar in tars]
        assert image.names == (name,)
        digest = run("skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{name}").strip()
        assert image.manifest_digest == digest
    with open_image(layout) as original:
        assert image.config.diff_ids == original.config.diff_ids


def test_pull_by_digest(registry: Registry, layout: pathlib.Path, tars: list[bytes]) -> None:
    """A digest names an image with and without a tag; another digest is none."""
    copy(f"oci:{layout}:app", f"docker://{registry.host}/digest:1")
    with open_remote(f"{registry.host}/digest:1", patience=QUICK) as image:
        digest = image.manifest_digest
    for name in (f"{registry.host}/digest@{digest}", f"{registry.host}/digest:1@{digest}"):
        with open_remote(name, patience=QUICK) as image:
            assert image.manifest_digest == digest
            assert plain(image, image.layers[0]) == tars[0]
            assert image.names == (f"{registry.host}/digest@{digest}",)
    with pytest.raises(errors.InvalidReference, match="no such image"):
        open_remote(f"{registry.host}/digest:1@{sha256(b'')}", patience=QUICK)


@pytest.mark.parametrize("name", ["digest:2", "nobody:1"])
def test_no_such_image(registry: Registry, name: str) -> None:
    """A tag or a repository that is not there is said to be none."""
    with pytest.raises(errors.InvalidReference, match=r"no such image: .*(manifest unknown|not known)"):
        open_remote(f"{registry.host}/{name}", patience=QUICK)


def test_several_platforms(registry: Registry, tmp_path: pathlib.Path) -> None:
    """Of an index that skopeo copied with ``--all``, the image for the platform is opened."""
    run("umoci", "init", "--layout", tmp_path / "layout")
    entries = []
    for architecture in ("amd64", "arm64"):
        name = f"{tmp_path}/layout:{architecture}"
        run("umoci", "new", "--image", name)
        run("umoci", "config", "--image", name, "--architecture", architecture, "--os", "linux")
        (tmp_path / "layer").write_bytes(layer_tar(architecture))
        run("umoci", "raw", "add-layer", "--image", name, tmp_path / "layer")
        index = json.loads((tmp_path / "layout" / "index.json").read_text())
        found = next(item for item in index["manifests"] if item["annotations"].popitem()[1] == architecture)
        entries.append({**found, "annotations": {}, "platform": {"os": "linux", "architecture": architecture}})
    inner = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    (tmp_path / "layout" / "blobs" / "sha256" / sha256(inner)[7:]).write_bytes(inner)
    index_type = "application/vnd.oci.image.index.v1+json"
    entry = {"mediaType": index_type, "digest": sha256(inner), "size": len(inner)}
    entry["annotations"] = {"org.opencontainers.image.ref.name": "all"}
    (tmp_path / "layout" / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    name = f"{registry.host}/many:1"
    copy(f"oci:{tmp_path}/layout:all", f"docker://{name}", "--all")
    for architecture in ("amd64", "arm64"):
        with open_remote(name, platform=architecture, patience=QUICK) as image:
            assert image.config.platform.architecture == architecture
            assert plain(image, image.layers[0]) == layer_tar(architecture)
    with pytest.raises(errors.InvalidReference, match="no image for linux/riscv64"):
        open_remote(name, platform="riscv64", patience=QUICK)


@pytest.mark.parametrize("compression", PushCompression)
def test_skopeo_and_umoci_take_what_was_pushed(
    registry: Registry, tars: list[bytes], tmp_path: pathlib.Path, compression: PushCompression
) -> None:
    """A pushed image is copied by skopeo, which verifies it, and umoci unpacks the files of its layers."""
    name = f"{registry.host}/pushed/{compression}:1"
    with registry.connect(f"pushed/{compression}:1") as connection:
        pushed = push(outgoing(tars), connection, compression=compression)
    assert [layer.state for layer in pushed.layers] == [PushState.SENT] * 3
    inspected = json.loads(run("skopeo", "inspect", "--tls-verify=false", f"docker://{name}"))
    assert inspected["Digest"] == pushed.manifest_digest
    assert inspected["Layers"] == [layer.descriptor.digest for layer in pushed.layers]
    copy(f"docker://{name}", f"oci:{tmp_path}/layout:app")
    if compression is not PushCompression.ZSTD:  # which older releases of umoci do not unpack
        files = unpacked(tmp_path / "layout", "app", tmp_path / "bundle")
        assert set(files) == {*NAMES, "shared"}
        assert files["shared"] == b"three"
        assert files["two"].endswith(b"two" * 100_000)
    with open_remote(name, patience=QUICK) as image:
        assert [plain(image, layer) for layer in image.layers] == tars


def test_push_of_what_is_there(registry: Registry, layout: pathlib.Path, tars: list[bytes]) -> None:
    """Pushed back under another tag, an image sends nothing and keeps its digest."""
    copy(f"oci:{layout}:app", f"docker://{registry.host}/back:1")
    before = registry.blobs()
    with open_remote(f"{registry.host}/back:1", patience=QUICK) as image:
        going = outgoing(tars, image)
    with registry.connect("back:2") as connection:
        pushed = push(going, connection)
    assert [layer.state for layer in pushed.layers] == [PushState.EXISTS] * 3
    assert pushed.manifest_digest == image.manifest_digest
    assert pushed.manifest == image.manifest
    assert registry.blobs() == before


@pytest.mark.parametrize("options", [[], ["--format", "v2s2"]])
def test_push_mounts(registry: Registry, layout: pathlib.Path, tars: list[bytes], options: list[str]) -> None:
    """Layers that another repository has are mounted, not sent; the manifest stays as it was, Docker's too."""
    source, target = f"source{len(options)}", f"target{len(options)}"
    copy(f"oci:{layout}:app", f"docker://{registry.host}/{source}:1", *options)
    with open_remote(f"{registry.host}/{source}:1", patience=QUICK) as image:
        going = outgoing(tars, image)
    with registry.connect(f"{target}:1") as connection:
        pushed = push(going, connection, mount_from=["nobody/here", f"{registry.host}/{source}"])
    assert [layer.state for layer in pushed.layers] == [PushState.MOUNTED] * 3
    assert pushed.manifest_digest == image.manifest_digest
    assert registry.open_uploads() == []
    with open_remote(f"{registry.host}/{target}:1", patience=QUICK) as again:
        assert [plain(again, layer) for layer in again.layers] == tars


def test_push_of_some(registry: Registry, layout: pathlib.Path, tars: list[bytes]) -> None:
    """A layer on top of known ones is the only one that is sent; the manifest is a new one."""
    copy(f"oci:{layout}:app", f"docker://{registry.host}/base:1", "--format", "v2s2")
    with open_remote(f"{registry.host}/base:1", patience=QUICK) as image:
        base = outgoing(tars, image)
    top = layer_tar("top")
    config = json.loads(base.config)
    config["rootfs"]["diff_ids"].append(sha256(top))
    layer = OutgoingLayer(DiffID(sha256(top)), len(top), lambda: io.BytesIO(top))
    going = OutgoingImage(config=json.dumps(config).encode(), layers=(*base.layers, layer))
    with registry.connect("base:2") as connection:
        pushed = push(going, connection)
    assert [item.state for item in pushed.layers] == [PushState.EXISTS] * 3 + [PushState.SENT]
    assert {item["mediaType"] for item in json.loads(pushed.manifest)["layers"]} == {PushCompression.GZIP.media_type}
    with open_remote(f"{registry.host}/base:2", patience=QUICK) as image:
        assert [plain(image, item) for item in image.layers] == [*tars, top]


def test_same_bytes_again(registry: Registry, tars: list[bytes]) -> None:
    """The same layers compress to the same blobs, so that the second push gives the same manifest."""
    digests = set()
    for tag in ("1", "2"):
        with registry.connect(f"again:{tag}") as connection:
            digests.add(push(outgoing(tars), connection).manifest_digest)
    assert len(digests) == 1


def test_image_without_layers(registry: Registry) -> None:
    """An image of no layers is pushed and pulled."""
    with registry.connect("empty:1") as connection:
        push(outgoing([]), connection)
    with open_remote(f"{registry.host}/empty:1", patience=QUICK) as image:
        assert image.layers == ()


def test_layer_that_comes_twice(registry: Registry, tars: list[bytes]) -> None:
    """A layer that an image has twice is sent once."""
    opened = []

    def open_first() -> BinaryIO:
        opened.append(1)
        return io.BytesIO(tars[0])

    layer = OutgoingLayer(DiffID(sha256(tars[0])), len(tars[0]), open_first)
    image = outgoing([tars[0], tars[0]])
    with registry.connect("twice:1") as connection:
        pushed = push(OutgoingImage(config=image.config, layers=(layer, layer)), connection)
    assert len(opened) == 1
    assert pushed.layers[0] == pushed.layers[1]


def test_push_by_digest(registry: Registry, tars: list[bytes]) -> None:
    """A reference with a digest takes only the image that has it."""
    with registry.connect("exact:1") as connection:
        digest = push(outgoing(tars), connection).manifest_digest
    with registry.connect(f"exact@{digest}") as connection:
        push(outgoing(tars), connection)
    with (
        registry.connect(f"exact@{sha256(b'')}") as connection,
        pytest.raises(errors.InvalidReference, match=f"another digest there, {digest}: push it to a tag"),
    ):
        push(outgoing(tars), connection)


def test_failing_layer_leaves_nothing(registry: Registry, tars: list[bytes]) -> None:
    """A layer that cannot be read to its end becomes no blob, and no tag is set."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 1 << 20:
                raise OSError(5, "the disk is broken")
            return super().read(size)

    before = registry.blobs()
    image = outgoing(tars)
    broken = OutgoingLayer(image.layers[1].diff_id, image.layers[1].size, lambda: Broken(os.urandom(4 << 20)))
    with registry.connect("broken:1") as connection, pytest.raises(OSError, match="the disk is broken") as caught:
        push(OutgoingImage(config=image.config, layers=(broken,)), connection)
    assert type(caught.value) is OSError
    assert registry.blobs() == before
    with pytest.raises(errors.InvalidReference):
        open_remote(f"{registry.host}/broken:1", patience=QUICK)


def test_progress(registry: Registry) -> None:
    """Each layer's progress goes up to its size, and ends with what became of it; raising cancels."""
    seen: dict[str, list[tuple[int, PushState]]] = {}
    with registry.connect("progress:1") as connection:
        push(
            outgoing([layer_tar("progress", os.urandom(3 << 20))]),
            connection,
            progress=lambda layer, done, state: seen.setdefault(layer, []).append((done, state)),
        )

        def cancel(_layer: str, _done: int, _state: PushState) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            push(outgoing([layer_tar("cancelled")]), connection, progress=cancel)
    (steps,) = seen.values()
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert len(steps) > 3
    assert {state for _, state in steps[:-1]} == {PushState.SENDING}
    assert steps[-1] == (len(layer_tar("progress", bytes(3 << 20))), PushState.SENT)


def test_crane_style_names() -> None:
    """The Docker Hub is asked at its own host, and short names mean ``library/``."""
    connection = Registry("docker.io", pathlib.Path()).connect("debian:12")
    assert connection.url("manifests/12") == "https://registry-1.docker.io/v2/library/debian/manifests/12"
    assert str(Reference.parse("debian:12")) == "docker.io/library/debian:12"
    connection.close()


def test_nothing_of_the_process_stays_open(registry: Registry, tars: list[bytes]) -> None:
    """After a push and a pull no connection to the registry is left."""
    with registry.connect("closed:1") as connection:
        push(outgoing(tars), connection)
    with open_remote(f"{registry.host}/closed:1", patience=QUICK) as image:
        plain(image, image.layers[0])
    port = registry.host.partition(":")[2]
    listed = subprocess.run(["ls", "-l", f"/proc/{os.getpid()}/fd"], check=True, capture_output=True, text=True).stdout
    sockets = {int(item) for item in __import__("re").findall(r"socket:\[(\d+)\]", listed)}
    table = pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]
    ours = [line for line in table if int(line.split()[9]) in sockets and line.split()[2].endswith(f":{int(port):04X}")]
    assert ours == []
