"""The verbs on one layer, from the command line."""

import hashlib
import io
import json
import os
import pathlib
import stat
import tarfile

import pytest
from clirun import CommandLine, make_tar

from graphdrivers import errors
from graphdrivers.cli import failures
from graphdrivers.linux import mountinfo

CUT = make_tar({"file": b"x" * 4000})[:2000]
"""A tar that ends in the middle of a file."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def fill(cli: CommandLine, name: str, files: dict[str, bytes], parent: str | None = None) -> None:
    """Create, fill and seal a layer."""
    cli("layer", "create", name, *(["--parent", parent] if parent else []))
    cli("layer", "apply", name, "-", stdin=make_tar(files))
    cli("layer", "seal", name)


def test_life_of_a_layer(any_cli: CommandLine, tar: bytes, tmp_path: pathlib.Path) -> None:
    """Create, apply, seal, a child, mount, write, umount, changes, diff, usage, ls, rm."""
    source = tmp_path / "layer.tar"
    source.write_bytes(tar)
    any_cli("layer", "create", "base")

    applied = any_cli("layer", "apply", "base", str(source))
    assert applied.out == f"sha256:{hashlib.sha256(tar).hexdigest()}\n"
    assert "2 entries" in applied.err

    any_cli("layer", "seal", "base")
    any_cli("layer", "create", "web", "--parent", "base")
    rootfs = pathlib.Path(any_cli("layer", "mount", "web").out.rstrip("\n"))
    (rootfs / "etc/motd").write_text("bye\n")
    (rootfs / "etc/issue").unlink()
    (rootfs / "etc/new").mkdir()
    any_cli("layer", "umount", "web")

    assert any_cli("layer", "changes", "web").out == "C /etc\nD /etc/issue\nC /etc/motd\nA /etc/new\n"
    target = tmp_path / "web.tar"
    any_cli("layer", "diff", "web", "-o", str(target))
    with tarfile.open(target) as archive:
        assert archive.getnames() == ["etc", "etc/.wh.issue", "etc/motd", "etc/new"]
    assert any_cli("layer", "usage", "base", "--json").json["bytes"] == 12
    listed = any_cli("layer", "ls", "--json").json
    assert [(one["name"], one["parent"], one["sealed"]) for one in listed] == [
        ("web", "base", False),
        ("base", None, True),
    ]
    assert set(listed[0]) == {"name", "parent", "sealed", "size", "owner"}
    any_cli("layer", "rm", "base", "web")
    assert any_cli("layer", "ls").out == ""


def test_root_is_private(cli: CommandLine) -> None:
    """The root folder is 0700 whatever the umask: layers hold set-uid programs."""
    cli("layer", "ls")

    assert stat.S_IMODE(cli.root.stat().st_mode) == 0o700


def test_changes_as_json(cli: CommandLine) -> None:
    """A list of path and kind, names exact: a byte that is not UTF-8 is a lone surrogate."""
    fill(cli, "base", {"a\nb": b"", "\udcff": b""})

    assert cli("layer", "changes", "base", "--json").json == [
        {"path": "/a\nb", "kind": "added"},
        {"path": "/\udcff", "kind": "added"},
    ]
    assert cli("layer", "changes", "base").out == "A /a\\x0ab\nA /\\xff\n"


def test_rm_refuses_parents_and_strangers(cli: CommandLine) -> None:
    """With a child that stays, or a name that is not there, nothing at all is removed."""
    fill(cli, "base", {"f": b"1"})
    cli("layer", "create", "web", "--parent", "base")
    lone = ("a", "z")
    for name in lone:
        cli("layer", "create", name)

    assert cli("layer", "rm", *lone, "base", check=False).code == errors.LayerHasChildren.exit_code
    assert cli("layer", "rm", *lone, "typo", check=False).code == errors.LayerNotFound.exit_code
    assert len(cli("layer", "ls", "--json").json) == 4


def test_diff_leaves_nothing_behind_on_failure(cli: CommandLine, tmp_path: pathlib.Path) -> None:
    """A diff that fails keeps what was at the target, and no temporary file."""
    target = tmp_path / "out" / "web.tar"
    target.parent.mkdir()
    target.write_text("before")

    assert cli("layer", "diff", "typo", "-o", str(target), check=False).code == errors.LayerNotFound.exit_code
    assert [path.name for path in target.parent.iterdir()] == ["web.tar"]
    assert target.read_text() == "before"


@pytest.mark.parametrize("compress", ["none", "gzip", "zstd"])
def test_diff_to_stdout_and_back(cli: CommandLine, tar: bytes, compress: str) -> None:
    """What diff writes, compressed or not, apply reads: the same changes and the same bytes again."""
    cli("layer", "create", "one")
    cli("layer", "apply", "one", "-", stdin=tar)
    first = cli("layer", "diff", "one", "--compress", compress)
    again = cli("layer", "diff", "one", "--compress", compress)
    cli("layer", "create", "two")
    cli("layer", "apply", "two", "-", stdin=first.out.encode(errors="surrogateescape"))

    assert first.out == again.out
    assert cli("layer", "changes", "two").out == cli("layer", "changes", "one").out


def test_source_date_epoch(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """No time in a diff is later than SOURCE_DATE_EPOCH."""
    late = tarfile.TarInfo("late")
    late.mtime = 7
    cli("layer", "create", "one")
    cli("layer", "apply", "one", "-", stdin=late.tobuf() + bytes(1024))
    times = []
    for epoch in ("", "5"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
        tar = cli("layer", "diff", "one").out.encode(errors="surrogateescape")
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            times.append([member.mtime for member in archive if member.name == "late"])

    assert times == [[7], [5]]


def test_apply_refused_half_way(cli: CommandLine) -> None:
    """A cut tar says what to do about the layer, which then refuses everything but its removal."""
    cli("layer", "create", "base")
    ran = cli("layer", "apply", "base", "-", stdin=CUT, check=False)

    assert ran.code == errors.MalformedArchive.exit_code
    assert "graphdriver layer rm base" in ran.err
    assert ran.err.count("\n") == 1
    for verb in ("seal", "mount", "diff"):
        assert cli("layer", verb, "base", check=False).code == errors.StoreCorrupt.exit_code
    cli("layer", "rm", "base")
    cli("layer", "create", "base")
    cli("layer", "seal", "base")


def test_apply_to_a_sealed_layer_harms_nothing(cli: CommandLine, tar: bytes) -> None:
    """A refusal before the first byte does not make the layer suspicious."""
    fill(cli, "base", {"f": b"1"})

    assert cli("layer", "apply", "base", "-", stdin=tar, check=False).code == errors.LayerSealed.exit_code
    cli("layer", "mount", "base", "--view")


def test_headers_are_kept(cli: CommandLine, tar: bytes, tmp_path: pathlib.Path) -> None:
    """--headers writes the record that gives back the identical tar; a failed apply writes none."""
    cli("layer", "create", "base")
    cli("layer", "apply", "base", "-", "--headers", str(tmp_path / "headers"), stdin=tar)
    cli("layer", "create", "bad")
    cli("layer", "apply", "bad", "-", "--headers", str(tmp_path / "none"), stdin=CUT, check=False)

    assert (tmp_path / "headers").stat().st_size > 0
    assert not (tmp_path / "none").exists()


def test_mount_free_layers_are_their_folder(cli: CommandLine) -> None:
    """The vfs driver mounts nothing, and umount says so and succeeds."""
    cli("layer", "create", "web")
    path = cli("layer", "mount", "web").out.rstrip("\n")

    assert os.path.isdir(path)
    assert list(mountinfo.mounted_below(os.fspath(cli.root))) == []
    assert "not mounted" in cli("layer", "umount", "web").err


@needs_root
def test_mounting_at_a_target(any_cli: CommandLine, tmp_path: pathlib.Path) -> None:
    """A target is used as given; a second writable mount is refused; umount finds it by name or by path."""
    fill(any_cli, "base", {"f": b"1"})
    any_cli("layer", "create", "web", "--parent", "base")
    target = tmp_path / "some, odd:tar\\get"
    target.mkdir()

    for what in ("web", str(target)):
        assert any_cli("layer", "mount", "web", str(target)).out == f"{target}\n"
        assert (target / "f").read_text() == "1"
        assert any_cli("layer", "mount", "web", str(tmp_path), check=False).code == errors.LayerInUse.exit_code
        assert any_cli("layer", "rm", "web", check=False).code == errors.LayerInUse.exit_code
        assert any_cli("layer", "umount", what, "--json").json == {"name": "web", "unmounted": [str(target)]}
        assert os.listdir(target) == []
    assert target.is_dir()


@needs_root
def test_views(any_cli: CommandLine) -> None:
    """A sealed layer is mounted with --view only, read-only, at its default place, which goes again."""
    fill(any_cli, "base", {"f": b"1"})

    assert any_cli("layer", "mount", "base", check=False).code == errors.LayerSealed.exit_code
    path = pathlib.Path(any_cli("layer", "mount", "base", "--view").out.rstrip("\n"))
    assert (path / "f").read_text() == "1"
    with pytest.raises(OSError, match="Read-only file system"):
        (path / "new").touch()
    assert any_cli("layer", "rm", "base", check=False).code == errors.LayerInUse.exit_code
    any_cli("layer", "umount", "base")
    assert not path.exists()
    any_cli("layer", "rm", "base")


@needs_root
def test_failed_mount_leaves_no_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the kernel refuses, the mount point that was made for it goes again."""
    cli = CommandLine(tmp_path / "root", "overlay")
    fill(cli, "base", {"f": b"1"})
    cli("layer", "create", "web", "--parent", "base")

    def refuse(*_arguments: object) -> None:
        raise errors.SyscallError(1, "fsmount")

    monkeypatch.setattr("graphdrivers.linux.mounts.attach", refuse)
    assert cli("layer", "mount", "web", check=False).code == failures.SYSTEM
    assert os.listdir(cli.root / "mounts") == []


def test_names_are_checked(cli: CommandLine) -> None:
    """No name leads out of the root."""
    for name in ("..", "", "a\0b", "x" * 201):
        assert cli("layer", "create", name, check=False).code == errors.InvalidName.exit_code
    assert cli("layer", "umount", "x" * 201, check=False).code == errors.InvalidName.exit_code


def test_documents_of_silent_commands(cli: CommandLine) -> None:
    """Commands that print nothing still print one document with --json."""
    assert cli("--json", "layer", "create", "a").json == {"name": "a", "parent": None, "sealed": False}
    assert cli("layer", "--json", "seal", "a").json == {"name": "a", "sealed": True}
    assert cli("layer", "rm", "a", "--json").json == {"removed": ["a"]}


def test_global_options_after_the_command(tmp_path: pathlib.Path) -> None:
    """--root and --driver are taken before and after the command; the later one wins."""
    cli = CommandLine(tmp_path / "first")
    cli("layer", "create", "a", "--root", str(tmp_path / "second"), "--driver=vfs")

    assert not (tmp_path / "first").exists()
    assert (tmp_path / "second" / "vfs").is_dir()


def test_stdin_of_nothing(cli: CommandLine) -> None:
    """An empty archive is refused as one line, not a traceback."""
    cli("layer", "create", "a")
    ran = cli("layer", "apply", "a", "-", stdin=b"", check=False)

    assert ran.err.startswith("graphdriver: ") or ran.code == 0
    assert "Traceback" not in ran.err


def test_json_errors_are_documents(cli: CommandLine) -> None:
    """A script that reads stdout finds the error there."""
    ran = cli("layer", "seal", "typo", "--json", check=False)

    assert json.loads(ran.out)["error"]["layer"] == "typo"
    assert ran.code == errors.LayerNotFound.exit_code
    assert io.StringIO(ran.err).readline().startswith("graphdriver: layer 'typo'")
