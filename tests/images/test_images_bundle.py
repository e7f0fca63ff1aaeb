"""A bundle is written whole or not at all, and only where nothing is lost by it."""

import errno
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from graphdrivers import errors
from graphdrivers.images.bundle import write_bundle
from graphdrivers.images.runtime_spec import RuntimeSpec
from graphdrivers.linux import durable

SPEC = RuntimeSpec({"ociVersion": "1.0.2", "root": {"path": "rootfs", "readonly": True}, "hostname": "ü"}, ())


def names(folder: pathlib.Path) -> list[str]:
    """List a folder."""
    return sorted(os.listdir(folder))


def written(folder: pathlib.Path) -> dict[str, object]:
    """Read a bundle's configuration."""
    return dict(json.loads((folder / "config.json").read_bytes()))


def test_new_folder(tmp_path: pathlib.Path) -> None:
    """A folder that is not there is made, for its owner alone; the root is an empty folder in it."""
    bundle = tmp_path / "bundle"
    write_bundle(bundle, SPEC)

    assert names(bundle) == ["config.json", "rootfs"]
    assert written(bundle) == SPEC.fields
    assert names(bundle / "rootfs") == []
    assert bundle.stat().st_mode & 0o777 == 0o700
    assert (bundle / "config.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_folder_of_a_user_namespace(tmp_path: pathlib.Path, mask: int) -> None:
    """Root of a user namespace may go through the folder, but not list it, whatever the umask."""
    before = os.umask(mask)
    try:
        write_bundle(tmp_path / "bundle", RuntimeSpec({**SPEC.fields, "linux": {"uidMappings": [{}]}}, ()))
    finally:
        os.umask(before)

    assert (tmp_path / "bundle").stat().st_mode & 0o777 == 0o711


def test_here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder stays the one it is: the one somebody is in, or something mounted."""
    monkeypatch.chdir(tmp_path)
    before = tmp_path.stat()
    write_bundle(".", SPEC)

    assert written(tmp_path) == SPEC.fields
    assert (tmp_path.stat().st_ino, tmp_path.stat().st_mode) == (before.st_ino, before.st_mode)


def test_other_root(tmp_path: pathlib.Path) -> None:
    """A root elsewhere is named in the configuration, and the given one is not changed."""
    write_bundle(tmp_path, SPEC, rootfs="/srv/root")

    assert names(tmp_path) == ["config.json"]
    assert written(tmp_path)["root"] == {"path": "/srv/root", "readonly": True}
    assert SPEC.fields["root"]["path"] == "rootfs"


@pytest.mark.parametrize("rootfs", ["", "rootfs", "../x", "/x/../y", "/\0"])
def test_root_that_is_no_path(tmp_path: pathlib.Path, rootfs: str) -> None:
    """A root elsewhere has an absolute path; nothing is made for another."""
    with pytest.raises(errors.InvalidRunOption):
        write_bundle(tmp_path / "bundle", SPEC, rootfs=rootfs)

    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["config.json", "file", "rootfs", "rootfs/file", ".hidden"])
def test_folder_with_content(tmp_path: pathlib.Path, name: str) -> None:
    """A folder with anything in it is refused and stays as it is."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")

    with pytest.raises(OSError, match="content") as caught:
        write_bundle(tmp_path, SPEC)

    assert caught.value.errno == errno.ENOTEMPTY
    assert path.read_text() == "mine"
    assert names(tmp_path) == [name.partition("/")[0]]


def test_root_that_is_a_link(tmp_path: pathlib.Path) -> None:
    """A link in the place of the root is not taken for an empty folder."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/rootfs").symlink_to("../elsewhere")

    with pytest.raises(OSError, match="content"):
        write_bundle(tmp_path / "bundle", SPEC)


def test_not_a_folder(tmp_path: pathlib.Path) -> None:
    """A file in the place of the folder, or no folder above it, is an error of the system's."""
    (tmp_path / "file").write_text("mine")

    with pytest.raises(NotADirectoryError):
        write_bundle(tmp_path / "file", SPEC)
    with pytest.raises(FileNotFoundError):
        write_bundle(tmp_path / "no/bundle", SPEC)


def test_interrupted(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure leaves no configuration, and the next call does the work."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _fails)
        with pytest.raises(OSError, match="No space"):
            write_bundle(tmp_path, SPEC)
    assert names(tmp_path) == ["rootfs"]

    write_bundle(tmp_path, SPEC)
    assert written(tmp_path) == SPEC.fields


def test_mounted_before_it_is_a_bundle(tmp_path: pathlib.Path) -> None:
    """What mounts the root finds an empty one and no configuration; where it fails there is none, and one can go on."""
    seen: list[list[str]] = []

    def refuses() -> None:
        seen.append(names(tmp_path))
        seen.append(names(tmp_path / "rootfs"))
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    with pytest.raises(PermissionError):
        write_bundle(tmp_path, SPEC, mount=refuses)
    assert seen == [["rootfs"], []]
    assert names(tmp_path) == ["rootfs"]

    write_bundle(tmp_path, SPEC, mount=(tmp_path / "rootfs/etc").mkdir)
    assert names(tmp_path) == ["config.json", "rootfs"]


@pytest.mark.parametrize("step", ["mkdir", "open", "fsync", "rename"])
def test_killed(tmp_path: pathlib.Path, step: str) -> None:
    """A call that is killed leaves no configuration, and nothing that keeps the next one from its work."""
    program = f"""
import os, signal, sys
from graphdrivers.images import bundle
from graphdrivers.images.runtime_spec import RuntimeSpec
from graphdrivers.linux import durable
real = {{name: getattr(os, name) for name in ("mkdir", "open", "fsync")}} | {{"rename": durable.rename_noreplace}}

def last(*arguments, **options):
    if {step!r} != "open" or "config.json" in os.fsdecode(arguments[0]):
        if {step!r} != "rename":
            real[{step!r}](*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)
    return real["open"](*arguments, **options)

setattr(*((durable, "rename_noreplace") if {step!r} == "rename" else (os, {step!r})), last)
bundle.write_bundle(sys.argv[1], RuntimeSpec({{"root": {{}}}}, ()))
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "bundle"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "bundle/config.json").exists()

    write_bundle(tmp_path / "bundle", SPEC)
    assert names(tmp_path / "bundle") == ["config.json", "rootfs"]
    assert written(tmp_path / "bundle") == SPEC.fields


@pytest.mark.parametrize("there", [True, False])
def test_two_at_once(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, *, there: bool) -> None:
    """Of two that make a bundle of one folder the later one is refused; the first one's stays whole."""
    other = RuntimeSpec({**SPEC.fields, "hostname": "other"}, ())
    rename = durable.rename_noreplace

    def overtaken(src_dir_fd: int, src: str, dst_dir_fd: int, dst: str) -> None:
        monkeypatch.setattr(durable, "rename_noreplace", rename)
        write_bundle(tmp_path, other)
        if there:
            (tmp_path / src).write_text("still there")
        rename(src_dir_fd, src, dst_dir_fd, dst)

    monkeypatch.setattr(durable, "rename_noreplace", overtaken)
    with pytest.raises(OSError, match="somebody else") as caught:
        write_bundle(tmp_path, SPEC)

    assert caught.value.errno == errno.ENOTEMPTY
    assert names(tmp_path) == ["config.json", "rootfs"]
    assert written(tmp_path) == other.fields


def _fails(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
