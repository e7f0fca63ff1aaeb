"""The vfs driver without privileges: what it gives back is what it gives back to root."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest

from graphdrivers import errors
from graphdrivers.archive import owners
from graphdrivers.archive.whiteouts import PLAIN_RECORDED
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.kit import recording, roots
from graphdrivers.linux import durable
from graphdrivers.model import Capabilities

SCRIPTS = pathlib.Path(__file__).parents[2] / "scripts"

_LAYER = """
import hashlib, io, os, stat, sys, tarfile
from graphdrivers.backends.vfs import VfsDriver

def member(name, uid, mode, kind=tarfile.REGTYPE, target="", marks={}):
    one = tarfile.TarInfo(name)
    one.uid, one.gid, one.mode, one.type, one.linkname, one.mtime = uid, uid + 1, mode, kind, target, 1_600_000_000
    one.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in marks.items()}
    return one

def pack(*members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for one in members:
            tar.addfile(one)
    buffer.seek(0)
    return buffer

DIR, LINK = tarfile.DIRTYPE, tarfile.LNKTYPE
BASE = pack(
    member("bin", 0, 0o755, DIR),
    member("bin/su", 0, 0o4755),
    member("bin/wall", 0, 0o2755),
    member("etc/shadow", 0, 0o000),
    member("etc/gshadow", 0, 0o040),
    member("etc/alias", 0, 0o000, LINK, "etc/shadow"),
    member("home/user", 1000, 0o700, DIR),
    member("home/user/notes", 1000, 0o600, marks={"user.note": "x"}),
    member("read-only", 5, 0o444, marks={"user.note": "x"}),
    member("srv/shut", 33, 0o000, DIR),
    member("srv/shut/inside", 33, 0o200),
    member("srv/shared", 33, 0o3777, DIR),
)
CHILD = pack(
    member("bin/.wh.wall", 0, 0o644),
    member("home/user", 1001, 0o711, DIR),
    member("srv/shut/new", 33, 0o644),
    member("etc/linked", 0, 0o000, LINK, "etc/gshadow"),
    member("./", 12, 0o750, DIR),
)
home = sys.argv[1]
driver = VfsDriver(home, {}, VfsDriver.probe(home, {}))
driver.create("base")
assert driver.apply("base", BASE).notes == ()
driver.seal("base")
driver.create("child", "base")
driver.apply("child", CHILD)
driver.seal("child")
driver.create("grandchild", "child")
for layer in ("base", "child", "grandchild"):
    with driver.diff(layer) as stream:
        print(hashlib.sha256(b"".join(iter(lambda: stream.read(1 << 16), b""))).hexdigest())
    print([(change.kind.letter, change.path) for change in driver.changes(layer)])
    print(driver.usage(layer).bytes, driver.usage(layer).inodes)
for layer in ("grandchild", "child", "base"):
    driver.remove(layer)
print(driver.support.capabilities.recorded_owners, file=sys.stderr)
"""

_UNREADABLE = """
import io, os, sys, tarfile
from graphdrivers.backends.vfs import VfsDriver
home = sys.argv[1]
driver = VfsDriver(home, {}, VfsDriver.probe(home, {}))
driver.create("base")
root = driver.mounts("base")[0].source
os.mkdir(root + "/shut")
for name in ("shut/file", "file"):
    with open(os.path.join(root, name), "w") as file:
        file.write(name)
    os.chmod(os.path.join(root, name), 0o4000)
os.chmod(root + "/shut", 0)
driver.settle("base")
os.umask(0o777)
buffer = io.BytesIO()
with tarfile.open(fileobj=buffer, mode="w") as tar:
    for name, mode, uid, gid in (
        ("mine-000", 0, os.getuid(), os.getgid()),
        ("mine-400", 0o400, os.getuid(), os.getgid()),
        ("others", 0o644, 5, 6),
    ):
        member = tarfile.TarInfo(name)
        member.mode, member.uid, member.gid, member.size = mode, uid, gid, len(name)
        tar.addfile(member, io.BytesIO(name.encode()))
driver.apply("base", io.BytesIO(buffer.getvalue()))
os.umask(0o022)
driver.create("tarred")
driver.apply("tarred", io.BytesIO(buffer.getvalue()))
driver.mounts("base")
os.chmod(root + "/others", 0)
driver.settle("base")
driver.settle("base")
driver.seal("base")
driver.create("child", "base")
print([change.path for change in driver.changes("child")])
os.chmod(driver.mounts("child")[0].source + "/file", 0o640)
driver.seal("child")
for layer in ("base", "child", "tarred"):
    with driver.diff(layer) as stream:
        diff = b"".join(iter(lambda: stream.read(1 << 16), b""))
    with tarfile.open(fileobj=io.BytesIO(diff)) as tar:
        for member in tar.getmembers():
            if member.name == ".":
                continue
            mine = (member.uid, member.gid) == (os.getuid(), os.getgid()) or (member.uid, member.gid)
            content = tar.extractfile(member).read().decode() if member.isfile() else "/"
            print(member.name, oct(member.mode), mine, content)
"""

_SHUT_RESERVED = """
import os, sys
from graphdrivers import errors
from graphdrivers.backends.vfs import VfsDriver
driver = VfsDriver(sys.argv[1], {}, VfsDriver.probe(sys.argv[1], {}))
driver.create("base")
root = driver.mounts("base")[0].source
os.makedirs(root + "/a/.wh.d")
os.makedirs(root + "/b")
open(root + "/b/.wh.f", "w").close()
for name in ("a/.wh.d", "a", "b"):
    os.chmod(os.path.join(root, name), 0o555)
try:
    driver.settle("base")
except errors.ReservedNameError as error:
    print(sorted(error.paths))
driver.seal("base")
print(*((oct(os.stat(folder).st_mode), os.listdir(folder)) for folder in (root + "/a", root + "/b")))
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an environment where the scripts find this Python."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    return subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, "PATH": path})


def as_user(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run Python code as a plain user, with the path of a home that is to be made."""
    shell = 'exec "$0" -c "$1" "$TMPDIR/home"'
    return run(str(SCRIPTS / "as-user"), *options, "sh", "-c", shell, sys.executable, script)


@needs_root
@pytest.mark.parametrize("options", [[], ["--namespace"]], ids=["no namespace", "one id"])
def test_the_diff_is_that_of_root(tmp_path: pathlib.Path, options: list[str]) -> None:
    """Bytes of the diff, changes and usage of three layers are root's, set-id and unreadable files included."""
    for_root = run(sys.executable, "-c", _LAYER, str(tmp_path / "home"))
    for_user = as_user(_LAYER, *options)

    assert (for_root.stderr, for_user.stderr) == ("False\n", "True\n")
    assert for_user.stdout == for_root.stdout
    assert for_root.stdout.count("\n") == 9


@needs_root
def test_files_that_their_owner_closed() -> None:
    """What a user made unreadable in the mount, or a tar, is copied, compared and in the diff, with mode and owner."""
    done = as_user(_UNREADABLE)

    assert done.stdout.splitlines() == [
        "[]",
        "file 0o4000 True file",
        "mine-000 0o0 True mine-000",
        "mine-400 0o400 True mine-400",
        "others 0o0 (5, 6) others",
        "shut 0o0 True /",
        "shut/file 0o4000 True shut/file",
        "file 0o640 True file",
        "mine-000 0o0 True mine-000",
        "mine-400 0o400 True mine-400",
        "others 0o644 (5, 6) others",
    ], done.stderr


@needs_root
def test_reserved_names_leave_closed_directories() -> None:
    """Names that would be whiteouts are put aside from directories that their owner may not write to."""
    done = as_user(_SHUT_RESERVED)

    assert done.stdout.splitlines() == ["['/a/.wh.d', '/b/.wh.f']", "('0o40555', []) ('0o40555', [])"], done.stderr


def opened(home: pathlib.Path) -> VfsDriver:
    """Open the driver, making the home where it is missing."""
    return VfsDriver(str(home), {}, VfsDriver.probe(str(home), {}))


def options(home: pathlib.Path) -> Callable[[dict[str, str]], None]:
    """Give a function that replaces the lasting options of a home."""

    def write(lasting: dict[str, str]) -> None:
        folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
        text = f'{{"version": 1, "driver": "vfs", "options": {lasting}}}'.replace("'", '"')
        durable.write_atomic(folder, "driver.json", text.encode())
        os.close(folder)

    return write


@needs_root
def test_a_home_remembers_how_owners_are_kept(tmp_path: pathlib.Path) -> None:
    """A home begun without privileges records owners for root too; one begun by root never does."""
    home = tmp_path / "home"
    assert opened(home).support.capabilities.ownership
    options(home)({"owners": owners.XATTR})
    can = opened(home).support.capabilities

    assert (can.ownership, can.recorded_owners) == (False, True)
    assert any(owners.XATTR in note for note in opened(home).support.notes)


def test_a_root_hands_its_record_on(tmp_path: pathlib.Path) -> None:
    """The root of a child that starts empty has the owner recorded for its parent's."""
    parent, child = str(tmp_path / "parent"), str(tmp_path / "child")
    roots.make_root(parent, ownership=False, dialect=PLAIN_RECORDED)
    os.setxattr(parent, owners.XATTR, b"7:8:0711:dir")
    roots.make_root_like(child, parent, ownership=False, dialect=PLAIN_RECORDED)

    assert os.getxattr(child, owners.XATTR) == b"7:8:0711:dir"


def test_an_unknown_way_of_keeping_owners_is_refused(tmp_path: pathlib.Path) -> None:
    """A home that a newer version made is not read by guesswork."""
    opened(tmp_path / "home")
    options(tmp_path / "home")({"owners": "user.other"})
    with pytest.raises(errors.StoreVersion, match=r"user\.other"):
        opened(tmp_path / "home")


@pytest.mark.parametrize(
    ("found", "lasting", "expected"),
    [
        (Capabilities(user_xattrs=True), None, True),
        (Capabilities(user_xattrs=True, ownership=True), None, False),
        (Capabilities(), None, False),
        (Capabilities(user_xattrs=True), {"other": "option"}, False),
        (Capabilities(user_xattrs=True, ownership=True), {"owners": owners.XATTR, "other": "option"}, True),
    ],
)
def test_when_owners_are_recorded(found: Capabilities, lasting: dict[str, str] | None, *, expected: bool) -> None:
    """A new home decides by what can be here, one that is there by what it says."""
    assert recording.records_owners("vfs", "/home", found, lasting) is expected


def test_records_that_can_no_longer_be_written(tmp_path: pathlib.Path) -> None:
    """A home with records on a file system that lost its xattrs is refused: owners would vanish without a word."""
    with pytest.raises(errors.IncompatibleFilesystem, match="no longer"):
        recording.records_owners("vfs", str(tmp_path), Capabilities(), {"owners": owners.XATTR})
