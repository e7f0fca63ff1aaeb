"""``docker save`` archives in all their forms, and hostile ones."""

import json
import os
import pathlib
import tarfile
from collections.abc import Callable
from typing import Any

import pytest
from layouts import Archive, layer_tar, packed, sha256

from graphdrivers import errors
from graphdrivers.images.image import Image
from graphdrivers.images.opening import open_image

ONE, TWO = layer_tar("one"), layer_tar("two")


@pytest.fixture
def archive(tmp_path: pathlib.Path) -> Archive:
    """An empty archive."""
    return Archive(tmp_path / "archive")


@pytest.fixture(params=["folder", "tar"])
def opened(request: pytest.FixtureRequest) -> Callable[..., Image]:
    """``open_image`` of an archive as a folder, or packed."""

    def opened(archive: Archive, **how: Any) -> Image:
        return open_image(archive.folder if request.param == "folder" else packed(archive.folder), **how)

    return opened


def read(image: Image) -> list[bytes]:
    """Read all layers."""
    result = []
    for layer in image.layers:
        with image.open_layer(layer) as stream:
            result.append(stream.read())
    return result


def test_old_form(archive: Archive, opened: Callable[..., Image]) -> None:
    """A folder per layer; a layer that two images share is a link in one of them."""
    archive.add({"a/layer.tar": ONE, "b/layer.tar": TWO}, "app:1", "example.org/app:1")
    (archive.folder / "c").mkdir()
    (archive.folder / "c" / "layer.tar").symlink_to("../a/layer.tar")
    archive.add({"c/layer.tar": ONE}, "other:1")
    (archive.folder / "repositories").write_text("{}")
    with opened(archive, reference="app:1") as image:
        assert image.names == ("app:1", "example.org/app:1")
        assert (image.manifest, image.manifest_digest) == (None, None)
        assert image.config_digest == sha256(image.config.text)
        assert [layer.digest for layer in image.layers] == [None, None]
        assert [layer.diff_id for layer in image.layers] == [sha256(ONE), sha256(TWO)]
        assert [layer.size for layer in image.layers] == [len(ONE), len(TWO)]
        assert read(image) == [ONE, TWO]
    with opened(archive, reference="docker.io/library/other:1") as image:
        assert read(image) == [ONE]


def test_choice(archive: Archive, opened: Callable[..., Image]) -> None:
    """Among several images a name, the image's ID or a platform chooses; the error lists the names."""
    archive.add({"one.tar": ONE}, "app:1")
    archive.add({"two.tar": TWO})
    identity = "sha256:" + archive.entries[1]["Config"].removesuffix(".json")
    with pytest.raises(errors.InvalidReference, match=f"several images, name one of them: app:1, {identity}"):
        opened(archive)
    with pytest.raises(errors.InvalidReference, match="'app:2'; it holds app:1, "):
        opened(archive, reference="app:2")
    with opened(archive, reference=identity) as image:
        assert image.config_digest == identity
    with pytest.raises(errors.InvalidReference, match="only for linux/amd64"):
        opened(archive, reference="app:1", platform="arm64")


def test_names_cannot_steer_a_terminal(archive: Archive, opened: Callable[..., Image]) -> None:
    """Names that hold control characters, or no characters at all, are escaped in errors."""
    archive.add({"one.tar": ONE}, "\x1b[2Japp", "\udc00")
    with pytest.raises(errors.InvalidReference) as caught:
        opened(archive, reference="other")
    assert str(caught.value).isprintable()


def test_image_twice(archive: Archive, opened: Callable[..., Image]) -> None:
    """One image in two entries is one image with both names."""
    archive.add({"one.tar": ONE}, "app:1")
    archive.entries.append(archive.entries[0] | {"RepoTags": ["app:2"]})
    (archive.folder / "manifest.json").write_text(json.dumps(archive.entries))
    with opened(archive) as image:
        assert image.names == ("app:1", "app:2")


def test_same_layer_twice(archive: Archive, opened: Callable[..., Image]) -> None:
    """A layer may come twice in one image."""
    archive.add({"one.tar": ONE, "again.tar": ONE}, "app:1")
    with opened(archive) as image:
        assert read(image) == [ONE, ONE]


def test_no_layers(archive: Archive, opened: Callable[..., Image]) -> None:
    """An image made from nothing has no layers."""
    archive.add({}, "app:1")
    with opened(archive) as image:
        assert image.layers == ()


def rewritten(**fields: object) -> Callable[[Archive], None]:
    """Change fields of the manifest's only entry."""

    def change(archive: Archive) -> None:
        (archive.folder / "manifest.json").write_text(json.dumps([archive.entries[0] | fields]))

    return change


def manifest_text(text: str) -> Callable[[Archive], None]:
    """Replace the manifest."""

    def change(archive: Archive) -> None:
        (archive.folder / "manifest.json").write_text(text)

    return change


def linked(target: str) -> Callable[[Archive], None]:
    """Put a link in place of the layer."""

    def change(archive: Archive) -> None:
        (archive.folder / "one.tar").unlink()
        (archive.folder / "one.tar").symlink_to(target)

    return change


def looped(archive: Archive) -> None:
    """Put links in a circle in place of the layer."""
    linked("two.tar")(archive)
    (archive.folder / "two.tar").symlink_to("one.tar")


INVALID: dict[str, tuple[Callable[[Archive], None], str]] = {
    "an object": (manifest_text("{}"), "not an array of objects"),
    "an array of arrays": (manifest_text("[[]]"), "not an array of objects"),
    "a repeated key": (manifest_text('[{"Config": "a", "Config": "b"}]'), "comes twice"),
    "a key in two cases": (manifest_text('[{"Config": "a", "config": "b"}]'), "differ only in case"),
    "too large": (manifest_text(" " * (4 << 20) + "[]"), "4194304 is the limit"),
    "no configuration": (rewritten(Config=None), "no string 'Config'"),
    "configuration above": (
        rewritten(Config="../../etc/passwd"),
        "names the file '../../etc/passwd', which is not inside",
    ),
    "absolute configuration": (rewritten(Config="/etc/passwd"), "not inside"),
    "layer above": (rewritten(Layers=["a/../../x"]), "not inside"),
    "layer without a name": (rewritten(Layers=[""]), "not inside"),
    "layer with half a surrogate pair": (rewritten(Layers=["\ud800"]), "not inside"),
    "layer with NUL": (rewritten(Layers=["a\0b"]), "not inside"),
    "layer is a number": (rewritten(Layers=[1]), "something else than strings"),
    "too many layers": (rewritten(Layers=["one.tar", "one.tar"]), "1 diff_ids for 2 layers"),
    "too few layers": (rewritten(Layers=[]), "1 diff_ids for 0 layers"),
    "layer is a folder": (rewritten(Layers=["folder"]), "not a regular file"),
    "link above": (linked("../../etc/passwd"), "a link to '../../etc/passwd', which is not inside"),
    "absolute link": (linked("/etc/passwd"), "not inside"),
    "links in a circle": (looped, "not a regular file"),
}


@pytest.mark.parametrize(("change", "message"), INVALID.values(), ids=INVALID)
def test_invalid_is_refused(
    archive: Archive, opened: Callable[..., Image], change: Callable[[Archive], None], message: str
) -> None:
    """Every break of the rules is an InvalidManifest that says which."""
    archive.add({"one.tar": ONE}, "app:1")
    (archive.folder / "folder").mkdir()
    change(archive)
    with pytest.raises(errors.InvalidManifest) as caught:
        opened(archive)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["one.tar", "config"])
def test_missing_file(archive: Archive, opened: Callable[..., Image], name: str) -> None:
    """A missing layer or configuration is a BlobNotFound."""
    archive.add({"one.tar": ONE}, "app:1")
    (archive.folder / (name if name == "one.tar" else archive.entries[0]["Config"])).unlink()
    with pytest.raises(errors.BlobNotFound, match="there is no"):
        opened(archive)


def test_configuration_of_another_name(archive: Archive, opened: Callable[..., Image]) -> None:
    """A configuration named by a digest must have it; one with another kind of name is taken."""
    archive.add({"one.tar": ONE}, "app:1", config_name=f"{'0' * 64}.json")
    with pytest.raises(errors.DigestMismatch, match="configuration '0000"):
        opened(archive)
    archive.entries.clear()
    archive.add({"one.tar": ONE}, "app:1", config_name="config.json")
    opened(archive).close()


def test_too_old(archive: Archive, opened: Callable[..., Image]) -> None:
    """What Docker before 1.10 saved is refused with what to do."""
    (archive.folder / "repositories").write_text("{}")
    with pytest.raises(errors.InvalidManifest, match=r"Docker before 1\.10"):
        opened(archive)


def members(path: pathlib.Path, *members: tuple[str, bytes | None, dict[str, Any]]) -> pathlib.Path:
    """Write a tar member by member; content ``None`` is none."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content, fields in members:
            member = tarfile.TarInfo(name)
            for field, value in fields.items():
                setattr(member, field, value)
            if content is None:
                tar.addfile(member)
            else:
                member.size = len(content)
                with path.with_suffix(".member").open("wb+") as stream:
                    stream.write(content)
                    stream.seek(0)
                    tar.addfile(member, stream)
    return path


def saved(archive: Archive) -> list[tuple[str, bytes | None, dict[str, Any]]]:
    """List an archive's files as members."""
    return [(path.name, path.read_bytes(), {}) for path in sorted(archive.folder.iterdir())]


def test_hard_linked_member(archive: Archive, tmp_path: pathlib.Path) -> None:
    """A hard link inside the tar is the file that came before it."""
    archive.add({"one.tar": ONE}, "app:1")
    rest = [member for member in saved(archive) if member[0] != "one.tar"]
    link = ("one.tar", None, {"type": tarfile.LNKTYPE, "linkname": "./first"})
    with open_image(members(tmp_path / "t.tar", ("first", ONE, {}), link, *rest)) as image:
        assert read(image) == [ONE]


def test_large_members_are_hopped_over(archive: Archive) -> None:
    """Members behind large ones, with long names and extension headers, are found."""
    large, name = layer_tar("large", os.urandom(300_000)), "é" * 120
    archive.add({f"{name}/layer.tar": large, "one.tar": ONE, "other.tar": large}, "app:1")
    path = packed(archive.folder)
    with path.open("ab") as stream:
        stream.write(b"trailing garbage")
    with open_image(path) as image:
        assert read(image) == [large, ONE, large]


def test_repeated_member(archive: Archive, tmp_path: pathlib.Path) -> None:
    """Of a layer that comes twice the last counts; a manifest that comes twice is refused."""
    archive.add({"one.tar": ONE}, "app:1")
    with open_image(members(tmp_path / "a.tar", ("one.tar", TWO, {}), *saved(archive))) as image:
        assert read(image) == [ONE]
    with pytest.raises(errors.InvalidManifest, match=r"manifest\.json comes twice"):
        open_image(members(tmp_path / "b.tar", *saved(archive), ("./manifest.json", b"[]", {})))


def test_sparse_member(archive: Archive, tmp_path: pathlib.Path) -> None:
    """A sparse member, whose bytes are not in one piece, is refused."""
    archive.add({"one.tar": ONE}, "app:1")
    sparse = {"pax_headers": {"GNU.sparse.map": "0,10", "GNU.sparse.size": "100", "GNU.sparse.numblocks": "1"}}
    with pytest.raises(errors.UnsupportedEntry, match="sparse"):
        open_image(members(tmp_path / "t.tar", ("holes", b"0123456789", sparse), *saved(archive)))


@pytest.mark.parametrize("size", [100, 512, 700, 1024, 200_000])
def test_cut_tar(archive: Archive, size: int) -> None:
    """A tar that ends inside a member is refused, wherever that is, with the offset from its beginning."""
    archive.add({"one.tar": layer_tar("one", b"x" * 300_000)}, "app:1")
    path = packed(archive.folder)
    os.truncate(path, size)
    with pytest.raises((errors.MalformedArchive, errors.InvalidManifest)):
        open_image(path)


def test_error_offset_counts_from_the_beginning(archive: Archive) -> None:
    """Damage behind a member that was hopped over is reported at its place in the file."""
    archive.add({"0.tar": layer_tar("one", b"x" * 300_000)}, "app:1")
    path = packed(archive.folder)
    with tarfile.open(path) as tar:
        place = tar.getmembers()[-1].offset
    with path.open("r+b") as stream:
        stream.seek(place)
        stream.write(b"damaged")
    with pytest.raises(errors.MalformedArchive) as caught:
        open_image(path)
    assert caught.value.offset == place


def test_not_a_tar(tmp_path: pathlib.Path) -> None:
    """Junk and an empty file are refused."""
    (tmp_path / "junk").write_bytes(b"junk" * 1000)
    with pytest.raises(errors.MalformedArchive):
        open_image(tmp_path / "junk")
    (tmp_path / "empty").touch()
    with pytest.raises(errors.InvalidManifest, match="it holds nothing"):
        open_image(tmp_path / "empty")
