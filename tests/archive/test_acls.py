"""ACLs that tar programs keep as text arrive on disk as they were."""

import io
import os
import subprocess
from pathlib import Path

import pytest
from layertars import ALL

from graphdrivers import errors
from graphdrivers.archive import acls
from graphdrivers.archive import apply as applying
from graphdrivers.archive.whiteouts import PLAIN

ARGUMENTS = {
    "tar": ["tar", "--acls", "-cf", "-"],
    "bsdtar": ["bsdtar", "--format=pax", "--acls", "-cf", "-"],
}


@pytest.mark.parametrize("program", ARGUMENTS)
def test_text_acls_are_kept(program: str, tmp_path: Path) -> None:
    """What setfacl set, a tar program packed and we unpacked is the same xattr, access and default."""
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "d").mkdir(parents=True)
    target.mkdir()
    (source / "f").write_text("x")
    subprocess.run(["setfacl", "-m", "u:54321:rw,g:54322:r", source / "f"], check=True)
    subprocess.run(["setfacl", "-m", "u:54321:rwx,d:u:54323:rx,d:g:54322:r", source / "d"], check=True)
    packed = subprocess.run([*ARGUMENTS[program], "f", "d"], cwd=source, check=True, capture_output=True).stdout

    root = os.open(target, os.O_RDONLY)
    applying.apply(io.BytesIO(packed), applying.Target(root, PLAIN, None, ALL))
    os.close(root)

    for name, kind in (("f", acls.ACCESS), ("d", acls.ACCESS), ("d", acls.DEFAULT)):
        assert os.getxattr(source / name, kind) == os.getxattr(target / name, kind)


def test_a_minimal_acl_is_the_mode() -> None:
    """An access ACL of the three classes says nothing more than the mode and is left out; a default one is kept."""
    text = b"user::rw-,group::r--,other::---"

    assert acls.from_text(text) == b""
    assert len(acls.from_text(text, default=True)) == 4 + 3 * 8


@pytest.mark.parametrize(
    "text", [b"user:lisa:rw-,mask::rwx,user::r--,other::---", b"nobody", b"user::rwz", b"user::rwxr"]
)
def test_refused(text: bytes) -> None:
    """A name without a number, or junk, is refused by name."""
    with pytest.raises(errors.MalformedArchive, match="ACL"):
        acls.from_text(text)
