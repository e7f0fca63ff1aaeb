"""What differs between containers, images and layers, and whole trees as tars, from the command line."""

import io
import os
import pathlib
import subprocess
import sys
import tarfile

from clirun import CommandLine
from storeimages import BASE, TOP, layer, layout

from graphdrivers import errors
from graphdrivers.cli import failures


def members(tar: bytes) -> dict[str, bytes]:
    """Read the regular files of a tar."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        files = [member for member in archive if member.isreg()]
        return {member.name: archive.extractfile(member).read() for member in files}  # type: ignore[union-attr]


def write(cli: CommandLine, name: str, path: str, content: str) -> None:
    """Change a file of a container."""
    place = pathlib.Path(cli("mount", name).out.rstrip("\n"))
    (place / path).write_text(content)
    cli("umount", name)


def test_between_things(any_store: CommandLine, tmp_path: pathlib.Path) -> None:
    """Containers, images and layers in any pair; the image of a container compares as the container alone does."""
    cli = any_store
    cli("import", str(layout(tmp_path / "other", layer(BASE), name="1")))
    for name in ("one", "two"):
        cli("create", "debian:12", "--name", name)
    write(cli, "one", "etc/new", "new")
    lower = cli("inspect", "one").json[0]["Branches"][-1]["layer"]

    assert cli("diff", "other:1", "debian:12").out == "C /etc\nD /etc/issue\nC /etc/motd\n"
    assert cli("diff", "debian:12").out == "C /etc\nD /etc/issue\nC /etc/motd\n"
    assert cli("diff", lower, "debian:12").out == "C /etc\nD /etc/issue\nC /etc/motd\n"
    assert cli("diff", "two", "one").out == "C /etc\nA /etc/new\n"
    assert cli("diff", "debian:12", "one").out == cli("diff", "one").out == "C /etc\nA /etc/new\n"
    assert cli("diff", "one", "one").out == ""
    assert cli("diff", "one", "two", "--json").json == [
        {"path": "/etc", "kind": "modified"},
        {"path": "/etc/new", "kind": "deleted"},
    ]


def test_layers_made_by_hand(store: CommandLine) -> None:
    """They compare with images and containers too."""
    store("layer", "create", "mine")
    store("layer", "apply", "mine", "-", stdin=layer({**BASE, **TOP, "etc/issue": b"mine\n"}))

    assert "A /etc/issue" in store("diff", "debian:12", "mine").out.splitlines()
    assert "D /etc/issue" in store("diff", "mine", "debian:12").out.splitlines()
    assert members(store("export", "mine").out.encode(errors="surrogateescape"))["etc/issue"] == b"mine\n"


def test_odd_names_are_shown_safely(store: CommandLine) -> None:
    """Escaped for people, exact in JSON."""
    store("create", "debian:12", "--name", "web")
    write(store, "web", "etc/\x1b[31m\n\udcff", "")

    assert store("diff", "web").out.splitlines()[1] == "A /etc/\\x1b[31m\\x0a\\xff"
    assert store("diff", "web", "--json").json[1]["path"] == "/etc/\x1b[31m\n\udcff"


def test_export_is_the_merged_tree(any_store: CommandLine, tmp_path: pathlib.Path) -> None:
    """Without layers and whiteouts; the same bytes to a file and to stdout, mounted or not."""
    any_store("create", "debian:12", "--name", "web")
    write(any_store, "web", "etc/new", "new")
    piped = any_store("export", "web").out.encode(errors="surrogateescape")
    any_store("mount", "web")
    any_store("export", "web", "-o", str(tmp_path / "web.tar"))
    found = members(piped)

    assert (tmp_path / "web.tar").read_bytes() == piped
    assert found["etc/motd"] == TOP["etc/motd"]
    assert found["etc/new"] == b"new"
    assert not {"etc/issue", "etc/.wh.issue"} & set(found)
    assert {"etc/hosts", "etc/resolv.conf"} <= set(found)
    assert "etc/hosts" not in members(any_store("export", "debian:12").out.encode(errors="surrogateescape"))


def test_export_that_fails_leaves_nothing(store: CommandLine, tmp_path: pathlib.Path) -> None:
    """What was there before stays."""
    target = tmp_path / "out.tar"
    target.write_text("before")

    assert store("export", "nope", "-o", str(target), check=False).code == errors.ObjectNotFound.exit_code
    assert target.read_text() == "before"
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".graphdriver-")]


def test_readers_that_go_away(store: CommandLine) -> None:
    """A closed pipe ends export, diff and images quietly."""
    store("create", "debian:12", "--name", "web")
    write(store, "web", "big", "x" * 3_000_000)
    for words in ("export web", "diff web", "images", "inspect web"):
        command = " ".join([sys.executable, "-m", "graphdrivers", *store.globals, words])
        done = subprocess.run(
            ["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"], capture_output=True, check=False, cwd="/"
        )

        assert done.stderr == b""
        assert int(done.stdout) in {0, failures.BROKEN_PIPE}  # 0: all was written before the reader went
