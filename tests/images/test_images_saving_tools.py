"""Saved images are read by skopeo, umoci and GNU tar as what they are."""

import datetime as dt
import json
import os
import pathlib
import shutil
import subprocess
from typing import Any

import pytest
from outgoing_images import outgoing_image, outgoing_layer, sha256

from graphdrivers.archive.compression import open_plain
from graphdrivers.images.configs import derived
from graphdrivers.images.opening import open_image, open_source
from graphdrivers.images.outgoing import OutgoingImage
from graphdrivers.images.rootfs import RootFS
from graphdrivers.images.saving import save_docker, save_folder, save_oci
from graphdrivers.model import DiffID, Limits

COMPRESSIONS = ("none", "gzip", "zstd")


def run(*command: str | os.PathLike[str]) -> str:
    """Run a program that this suite needs; its absence fails, unless tools were declared optional."""
    if shutil.which(command[0]) is None:
        if os.environ.get("GRAPHDRIVERS_OPTIONAL_TOOLS") == "1":
            pytest.skip(f"{command[0]} is not installed")
        pytest.fail(f"{command[0]} is not installed (GRAPHDRIVERS_OPTIONAL_TOOLS=1 skips what needs it)")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def skopeo(*arguments: str) -> str:
    """Run skopeo without a policy file."""
    return run("skopeo", "--insecure-policy", *arguments)


def inspect(source: str) -> Any:
    """Ask skopeo for an image's configuration."""
    return json.loads(skopeo("inspect", "--config", "--raw", source))


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Layer tars by GNU tar."""
    folder = tmp_path_factory.mktemp("tars")
    found = []
    for name in ("one", "two"):
        (folder / name).write_text(name * 300_000)
        (folder / "shared").write_text(name)
        run("tar", "-c", "--owner=0", "--group=0", "-C", folder, "-f", folder / "tar", name, "shared")
        found.append((folder / "tar").read_bytes())
    return found


@pytest.fixture
def images(tars: list[bytes]) -> list[OutgoingImage]:
    """Two images that share a layer, and have different names with equal tags."""
    return [
        outgoing_image(*tars, names=("docker.io/library/app:1",), config={"Cmd": ["one"]}),
        outgoing_image(tars[0], names=("example.org:5000/team/app:1",), config={"Cmd": ["two"]}),
    ]


def check(path: pathlib.Path, image: OutgoingImage, tars: list[bytes]) -> None:
    """Read a copy and compare it with the image it was made of."""
    with open_image(path) as found:
        plain = []
        for layer in found.layers:
            with found.open_layer(layer) as stored, open_plain(stored, Limits()) as stream:
                plain.append(stream.read())
        assert plain == tars
        meant = json.loads(image.config)  # skopeo writes a configuration anew when it converts Docker's manifests
        assert {key: found.config.fields[key] for key in ("rootfs", "os", "architecture")} | {
            "config": {"Cmd": found.config.fields["config"]["Cmd"]}  # type: ignore[index]
        } == meant


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_skopeo_reads_folder(
    compression: str, images: list[OutgoingImage], tars: list[bytes], tmp_path: pathlib.Path
) -> None:
    """A layout in a folder is inspected and copied by skopeo, by name where there are several images."""
    save_folder(images, tmp_path / "saved", compression=compression)
    for image in images:
        (name,) = image.names
        assert inspect(f"oci:{tmp_path}/saved:{name}") == json.loads(image.config)
        target = tmp_path / str(len(image.layers))
        skopeo("copy", f"oci:{tmp_path}/saved:{name}", f"oci:{target}:x")
        check(target, image, tars[: len(image.layers)])


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_skopeo_reads_tar(
    compression: str, images: list[OutgoingImage], tars: list[bytes], tmp_path: pathlib.Path
) -> None:
    """A layout in a tar is two things to skopeo, an OCI archive and a Docker archive."""
    with (tmp_path / "one.tar").open("wb") as file:
        save_oci(images[:1], file, compression=compression)
    with (tmp_path / "both.tar").open("wb") as file:
        save_oci(images, file, compression=compression)
    sources = {f"oci-archive:{tmp_path}/one.tar": 0, f"oci-archive:{tmp_path}/one.tar:1": 0}
    sources |= {f"docker-archive:{tmp_path}/one.tar": 0, f"docker-archive:{tmp_path}/one.tar:app:1": 0}
    sources |= {f"oci-archive:{tmp_path}/both.tar:example.org:5000/team/app:1": 1}
    sources |= {f"docker-archive:{tmp_path}/both.tar:example.org:5000/team/app:1": 1}
    sources |= {f"docker-archive:{tmp_path}/both.tar:@0": 0}
    for at, (source, image) in enumerate(sources.items()):
        assert inspect(source) == json.loads(images[image].config), source
        skopeo("copy", source, f"oci:{tmp_path}/{at}:x")
        check(tmp_path / str(at), images[image], tars[: len(images[image].layers)])


def test_skopeo_reads_docker_form(images: list[OutgoingImage], tars: list[bytes], tmp_path: pathlib.Path) -> None:
    """The old form is a Docker archive to skopeo, which lists the names in it."""
    with (tmp_path / "saved.tar").open("wb") as file:
        save_docker(images, file)
    for image, name in zip(images, ("app:1", "example.org:5000/team/app:1"), strict=True):
        assert inspect(f"docker-archive:{tmp_path}/saved.tar:{name}") == json.loads(image.config)
        skopeo("copy", f"docker-archive:{tmp_path}/saved.tar:{name}", f"oci:{tmp_path}/{len(image.layers)}:x")
        check(tmp_path / str(len(image.layers)), image, tars[: len(image.layers)])


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_umoci_unpacks(compression: str, tars: list[bytes], tmp_path: pathlib.Path) -> None:
    """A layout in a folder is unpacked by umoci, its name being just the tag."""
    image = outgoing_image(*tars, names=("docker.io/library/app:1",))
    save_folder([image], tmp_path / "saved", compression=compression)
    options = () if os.geteuid() == 0 else ("--rootless",)
    run("umoci", "unpack", *options, "--image", f"{tmp_path}/saved:1", tmp_path / "bundle")
    rootfs = tmp_path / "bundle" / "rootfs"
    assert {path.name: path.read_text() for path in rootfs.iterdir()} == {
        "one": "one" * 300_000,
        "two": "two" * 300_000,
        "shared": "two",
    }
    listed = json.loads(run("umoci", "stat", "--image", f"{tmp_path}/saved:1", "--json"))
    assert len(listed["history"] or []) in {0, 2}


@pytest.mark.parametrize("save", [save_oci, save_docker])
def test_gnu_tar_unpacks(save: Any, images: list[OutgoingImage], tars: list[bytes], tmp_path: pathlib.Path) -> None:
    """What is in a tar, unpacked by GNU tar, is still an image, and GNU tar has nothing to complain of."""
    with (tmp_path / "saved.tar").open("wb") as file:
        save(images, file)
    (tmp_path / "folder").mkdir()
    done = subprocess.run(
        ["tar", "-xf", tmp_path / "saved.tar", "-C", tmp_path / "folder"], check=True, capture_output=True
    )
    assert done.stderr == b""
    for image in images:
        with open_image(tmp_path / "folder", reference=image.names[0]) as found:
            assert found.config.text == image.config
            assert len(found.layers) == len(image.layers) <= len(tars)


@pytest.mark.parametrize(("compression", "program"), [("gzip", "gzip"), ("zstd", "zstd")])
def test_reference_tools_decompress(compression: str, program: str, tars: list[bytes], tmp_path: pathlib.Path) -> None:
    """The programs that define the formats find a compressed blob whole, and decompress it to the layer."""
    save_folder([outgoing_image(tars[0])], tmp_path / "saved", compression=compression)
    with open_image(tmp_path / "saved") as image:
        digest = image.layers[0].digest or ""
    blob = tmp_path / "saved/blobs/sha256" / digest.removeprefix("sha256:")
    with blob.open("rb") as stored:
        done = subprocess.run([program, "-dc"], stdin=stored, check=True, capture_output=True)
    assert done.stdout == tars[0]
    assert done.stderr == b""


def test_podman_style_names(tars: list[bytes], tmp_path: pathlib.Path) -> None:
    """An image with several names is found by each of them, in every transport."""
    image = outgoing_image(*tars, names=("docker.io/library/app:1", "docker.io/library/app:2"))
    with (tmp_path / "saved.tar").open("wb") as file:
        save_oci([image], file)
    for source in ("oci-archive:{}:1", "oci-archive:{}:2", "docker-archive:{}:app:1", "docker-archive:{}:app:2"):
        assert inspect(source.format(tmp_path / "saved.tar")) == json.loads(image.config)


def test_folder_to_image(tmp_path: pathlib.Path) -> None:
    """A root file system in a folder becomes an image that skopeo shows and umoci unpacks to the same files."""
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/tool").write_bytes(os.urandom(100_000))
    (tree / "usr/bin/same").hardlink_to(tree / "usr/bin/tool")
    (tree / "bin").symlink_to("usr/bin")
    (tree / "etc/f\u00fcr").write_text("x" * 5000)
    (tree / "etc/hole").touch()
    os.truncate(tree / "etc/hole", 1 << 20)
    with open_source(tree) as source:
        assert isinstance(source, RootFS)
        layer = source.layer.read()
    created = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    changes = ["ENV PATH=/usr/bin", 'CMD ["tool"]', "EXPOSE 80", 'LABEL a="b c"', "WORKDIR /etc", "STOPSIGNAL TERM"]
    config = derived(None, [DiffID(sha256(layer))], created=created, comment="made", changes=changes)
    image = OutgoingImage(config=config, layers=(outgoing_layer(layer),), names=("docker.io/library/tree:1",))
    save_folder([image], tmp_path / "saved", compression="zstd")

    shown = json.loads(skopeo("inspect", "--config", f"oci:{tmp_path}/saved:1"))
    assert shown["created"] == "2024-01-01T00:00:00Z"
    assert shown["config"] == {
        "Env": ["PATH=/usr/bin"],
        "Cmd": ["tool"],
        "ExposedPorts": {"80/tcp": {}},
        "Labels": {"a": "b c"},
        "WorkingDir": "/etc",
        "StopSignal": "TERM",
    }
    save_folder([image], tmp_path / "plain")
    options = () if os.geteuid() == 0 else ("--rootless",)
    run("umoci", "unpack", *options, "--image", f"{tmp_path}/plain:1", tmp_path / "bundle")
    run("diff", "-r", "--no-dereference", tree, tmp_path / "bundle" / "rootfs")
    runtime = json.loads((tmp_path / "bundle" / "config.json").read_bytes())
    assert runtime["process"]["args"] == ["tool"]
    assert runtime["process"]["cwd"] == "/etc"


def test_commit_to_image(images: list[OutgoingImage], tars: list[bytes], tmp_path: pathlib.Path) -> None:
    """A layer upon an image that was opened makes an image whose history skopeo and umoci can count."""
    save_folder(images[1:], tmp_path / "base")
    with open_image(tmp_path / "base") as base:
        assert base.config.diff_ids == (sha256(tars[0]),)
        config = derived(base.config, [DiffID(sha256(tars[1]))], created=dt.datetime(2024, 1, 1, tzinfo=dt.UTC))
    image = OutgoingImage(config=config, layers=tuple(map(outgoing_layer, tars)), names=("app:2",))
    with (tmp_path / "saved.tar").open("wb") as file:
        save_oci([image], file)
    skopeo("copy", f"docker-archive:{tmp_path}/saved.tar", f"dir:{tmp_path}/schema1", "--format", "v2s1")
    save_folder([image], tmp_path / "saved")
    listed = json.loads(run("umoci", "stat", "--image", f"{tmp_path}/saved:2", "--json"))
    assert [entry["layer"]["digest"] for entry in listed["history"]] == list(map(sha256, tars))
