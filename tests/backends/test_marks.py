"""Overlay's own xattrs as content of a layer, where the kernel shows them under their own names and where not."""

import io
import os
import pathlib
import tarfile

import pytest

from graphdrivers import errors, loading
from graphdrivers.backends.aufs import engine
from graphdrivers.backends.overlay import support

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

OPTIONS = {
    "overlay": ("overlay", {}),
    "aufs by overlay": ("aufs", {"engine": "overlay-shadow"}),
    "aufs by copy": ("aufs", {"engine": "copy"}),
    "vfs": ("vfs", {}),
}


def marked() -> bytes:
    """Write a layer with one file that has an xattr of overlay's."""
    member = tarfile.TarInfo("marked")
    member.pax_headers = {"SCHILY.xattr.trusted.overlay.opaque": "y"}
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member)
    return tar.getvalue()


@pytest.mark.parametrize("kind", sorted(OPTIONS))
def test_marks_on_a_kernel_that_shows_none(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Before Linux 6.7 who shows layers through overlayfs refuses them, naming the member; the others keep them."""
    for module in (support, engine):
        monkeypatch.setattr(module, "undoes_escapes", lambda *_arguments: False)
    name, options = OPTIONS[kind]
    driver = loading.load_driver(name, str(tmp_path / "home"), options)
    driver.create("layer")
    if "overlay" not in kind:
        assert driver.apply("layer", io.BytesIO(marked())).entries == 1
        return
    with pytest.raises(errors.UnsupportedEntry, match="overlay") as caught:
        driver.apply("layer", io.BytesIO(marked()))

    assert caught.value.member == "marked"


@pytest.mark.parametrize("kind", sorted(OPTIONS))
def test_a_kernel_is_asked_only_about_marks(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A layer without overlay's own xattrs costs no trial mount."""

    def asked(*_arguments: object) -> bool:
        raise AssertionError

    for module in (support, engine):
        monkeypatch.setattr(module, "undoes_escapes", asked)
    name, options = OPTIONS[kind]
    driver = loading.load_driver(name, str(tmp_path / "home"), options)
    driver.create("layer")

    assert driver.apply("layer", io.BytesIO(bytes(1024))).entries == 0
