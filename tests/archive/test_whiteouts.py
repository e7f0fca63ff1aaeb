"""What names mean in layer tars, and how each dialect writes deletions down."""

import os
import stat
from pathlib import Path

import pytest
import treetools
from hypothesis import given
from hypothesis import strategies as st

from graphdrivers import errors
from graphdrivers.archive import whiteouts
from graphdrivers.archive.whiteouts import AUFS, OVERLAY, OVERLAY_USER, PLAIN, Dialect, Meaning

DIALECTS = [PLAIN, AUFS, OVERLAY, OVERLAY_USER]


@pytest.mark.parametrize(
    ("path", "meaning", "target"),
    [
        (b"etc/motd", Meaning.ORDINARY, b""),
        (b".WH.x", Meaning.ORDINARY, b""),
        (b".whx", Meaning.ORDINARY, b""),
        (b"a.wh.b", Meaning.ORDINARY, b""),
        (b"etc/.wh.motd", Meaning.WHITEOUT, b"motd"),
        (b".wh.\xff\n", Meaning.WHITEOUT, b"\xff\n"),
        (b".wh..hidden", Meaning.WHITEOUT, b".hidden"),
        (b".wh..opq", Meaning.WHITEOUT, b".opq"),
        (b".wh....", Meaning.WHITEOUT, b"..."),
        (b".wh..wh", Meaning.WHITEOUT, b".wh"),
        (b".wh." + b"n" * 255, Meaning.WHITEOUT, b"n" * 255),
        (b"d/.wh..wh..opq", Meaning.OPAQUE, b""),
        (b".wh..wh..opq", Meaning.OPAQUE, b""),
        (b".wh..wh.aufs", Meaning.RESERVED, b""),
        (b".wh..wh.plnk", Meaning.RESERVED, b""),
        (b".wh..wh.plnk/11.22", Meaning.RESERVED, b""),
        (b"deep/.wh..wh.foo", Meaning.RESERVED, b""),
        (b"deep/.wh..wh..opq2", Meaning.RESERVED, b""),
        (b".wh.d/below/a/marker", Meaning.RESERVED, b""),
    ],
)
def test_a_name_decides_what_a_member_means(path: bytes, meaning: Meaning, target: bytes) -> None:
    """Only the name counts; look-alikes are content."""
    assert (meaning, target) == whiteouts.classify(path)


@pytest.mark.parametrize("path", [b".wh.", b".wh..", b".wh...", b"a/b/.wh.", b"a/.wh..", b"a/.wh..."])
def test_a_whiteout_of_no_name_is_refused(path: bytes) -> None:
    """Deleting "", "." or ".." would delete a whole directory; the error names the member."""
    with pytest.raises(errors.UnsafePath) as caught:
        whiteouts.classify(path)

    assert os.fsdecode(path) == caught.value.member


@given(st.binary(min_size=1, max_size=40).filter(lambda name: not {0, 0x2F} & set(name)))
def test_a_marker_deletes_the_name_it_was_made_of(name: bytes) -> None:
    """``whiteout_name`` and ``classify`` are inverse for every name that is no mark itself."""
    if name in {b".", b".."} or name.startswith(whiteouts.PREFIX):
        return

    assert (Meaning.WHITEOUT, name) == whiteouts.classify(b"dir/" + whiteouts.whiteout_name(name))


@pytest.mark.parametrize("dialect", DIALECTS)
@given(
    names=st.lists(
        st.sampled_from(
            [
                "user.note",
                "trusted.overlay.opaque",
                "trusted.overlay.overlay.opaque",
                "trusted.overlay.overlay.overlay.x",
                "user.overlay.opaque",
                "user.overlay.overlay.",
                "trusted.overlayfs",
                "security.capability",
            ]
        ),
        unique=True,
    )
)
def test_image_xattrs_come_back_from_every_dialect(dialect: Dialect, names: list[str]) -> None:
    """What is stored for the image's xattrs shows as those very xattrs, and nothing of it is a mark."""
    content = {name: name.encode() for name in names}
    stored = dialect.stored(content)

    assert not any(dialect.is_private(name) for name in stored)
    assert content == dialect.visible(stored)


def test_private_xattrs_are_those_of_the_namespace() -> None:
    """Each overlay namespace hides its own marks and none of the other's; plain trees hide nothing."""
    marks = {"trusted.overlay.opaque": b"y", "user.overlay.opaque": b"y", "user.note": b"n"}

    assert {"user.overlay.opaque", "user.note"} == set(OVERLAY.visible(marks))
    assert {"trusted.overlay.opaque", "user.note"} == set(OVERLAY_USER.visible(marks))
    assert marks == PLAIN.visible(marks) == AUFS.visible(marks)


@treetools.needs_root
@pytest.mark.parametrize("dialect", [AUFS, OVERLAY, OVERLAY_USER])
def test_marks_are_written_in_the_dialect(dialect: Dialect, tmp_path: Path) -> None:
    """A whiteout and an opaque mark are what the kernel (or a tar) understands; the second may be written twice."""
    with treetools.tmpfs(tmp_path / "fs") as place:
        directory = os.open(place, os.O_RDONLY)
        dialect.write_whiteout(directory, b"gone\xff")
        dialect.write_opaque(directory)
        dialect.write_opaque(directory)
        names = set(os.listdir(os.fsencode(place)))
        if dialect is AUFS:
            assert names == {b".wh.gone\xff", b".wh..wh..opq"}
        else:
            assert names == {b"gone\xff"}
            status = os.lstat(os.path.join(os.fsencode(place), b"gone\xff"))
            assert dialect.is_whiteout(status)
            assert not AUFS.is_whiteout(status)
            assert os.getxattr(directory, dialect.xattr("opaque")) == b"y"
        os.close(directory)


def test_a_plain_tree_has_no_whiteouts(tmp_path: Path) -> None:
    """Asking for a mark where there are none is an error, not a stray file."""
    directory = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError, match="has no whiteouts"):
        PLAIN.write_whiteout(directory, b"x")
    with pytest.raises(OSError, match="has no whiteouts"):
        PLAIN.write_opaque(directory)
    os.close(directory)

    assert not list(tmp_path.iterdir())


@treetools.needs_root
def test_only_character_device_0_0_is_a_whiteout(tmp_path: Path) -> None:
    """Other numbers, and the block device 0:0, are devices like any other, whatever mode the whiteout has."""
    for name, kind, device in [
        ("no1", stat.S_IFCHR, (0, 1)),
        ("no2", stat.S_IFBLK, (0, 0)),
        ("no3", stat.S_IFCHR, (1, 0)),
    ]:
        os.mknod(tmp_path / name, kind, os.makedev(*device))
        assert not OVERLAY.is_whiteout(os.lstat(tmp_path / name))
    os.mknod(tmp_path / "yes", stat.S_IFCHR | 0o4755, os.makedev(0, 0))

    assert OVERLAY.is_whiteout(os.lstat(tmp_path / "yes"))
