"""Users and groups are found in the image, nowhere else, and never at a price."""

import os
import pathlib
import socket
import threading
from collections.abc import Iterator

import pytest

from graphdrivers import errors
from graphdrivers.images import accounts
from graphdrivers.images.accounts import Account, read_account

USERS = """\
# comment:x:1:1::/:
root:x:0:0:root:/root:/bin/sh
+nis:x:7:7::/:
worker:x:1000:1001:Worker,,,:/home/worker:/bin/sh
twin:x:1000:2000::/home/twin:
1000:x:0:0::/evil:
broken:x:minus:1::/:
huge:x:4294967295:1::/:
short:x:5:6
bare:x:8
relative:x:9:9::home:
odd:x:10:10::/\x1b[31m:
:x:11:11::/nameless:
"""
GROUPS = """\
staff:x:50:worker,twin
audio:x:29:other,worker
worker:x:1001:worker
twins:x:51:twin
1000:x:0:worker2
bad:x:0x10:worker
nobody:x:4294967295:worker
none:x:60
"""


@pytest.fixture
def root(tmp_path: pathlib.Path) -> Iterator[int]:
    """A root with the two files above."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(USERS)
    (tmp_path / "etc/group").write_text(GROUPS)
    opened = os.open(tmp_path, os.O_RDONLY)
    yield opened
    os.close(opened)


def find(root: int, user: str) -> Account:
    """Look a user up."""
    return read_account(root, user, "image")


@pytest.mark.parametrize(
    ("user", "account"),
    [
        ("", Account(0, 0, (), "/root")),
        ("root", Account(0, 0, (), "/root")),
        ("worker", Account(1000, 1001, (29, 50), "/home/worker")),
        ("twin", Account(1000, 2000, (50, 51), "/home/twin")),
        ("worker:", Account(1000, 1001, (29, 50), "/home/worker")),
        ("worker:audio", Account(1000, 29, (), "/home/worker")),
        ("worker:7", Account(1000, 7, (), "/home/worker")),
        (":audio", Account(0, 29, (), "/root")),
        ("1000", Account(1000, 1001, (29, 50), "/home/worker")),
        ("01000", Account(1000, 1001, (29, 50), "/home/worker")),
        ("1000:1000", Account(1000, 1000, (), "/home/worker")),
        ("4000", Account(4000, 0, (), "/")),
        ("4000:none", Account(4000, 60, (), "/")),
        ("4294967294:4294967294", Account(4294967294, 4294967294, (), "/")),
        ("short", Account(5, 6, (), "/")),
        ("relative", Account(9, 9, (), "/")),
        ("odd", Account(10, 10, (), "/")),
    ],
)
def test_found(root: int, user: str, account: Account) -> None:
    """Each way to write a user; a number is one, even where an account or a group is called so (CVE-2026-46680)."""
    assert find(root, user) == account


@pytest.mark.parametrize(
    "user",
    [
        *("nobody", "Root", " root", "root ", "-1", "+0", "0x10", "٣", "4294967295", "9" * 5000, "1e3"),
        *("root\0", "\ud800"),
        *("root:nogroup", "root:4294967295", "root:-1", "a:b:c", "0:0:0", "nis", "+nis", "# comment", "broken", "huge"),
        *("bare", "minus", "root:bad", "root:nobody", "root\nx"),
    ],
)
def test_not_found(root: int, user: str) -> None:
    """What is neither in the files nor a number in range is refused, in one line that names the image."""
    with pytest.raises(errors.UserNotFound) as caught:
        find(root, user)

    assert str(caught.value).startswith("image: ")
    assert str(caught.value).isprintable()


def test_no_files(root: int) -> None:
    """An image made from nothing has numbers only."""
    replace(root, "passwd")
    replace(root, "group")

    assert find(root, "12:34") == Account(12, 34, (), "/")
    assert find(root, "") == Account(0, 0, (), "/")
    with pytest.raises(errors.UserNotFound):
        find(root, "root")


def replace(root: int, name: str) -> str:
    """Take one of the files away; returns a path to put something else."""
    path = f"/proc/self/fd/{root}/etc/{name}"
    os.unlink(path)
    return path


@pytest.mark.parametrize("target", ["/outside/passwd", "../../../../../outside/passwd", "../etc/../../outside/passwd"])
def test_links_stay_inside(root: int, tmp_path: pathlib.Path, target: str) -> None:
    """A link resolves inside the image: it finds what is there, and nothing of the host."""
    path = replace(root, "passwd")
    os.symlink(target, path)
    assert find(root, "4000:1") == Account(4000, 1, (), "/")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/passwd").write_text("inside:x:77:78::/in:\n")

    assert find(root, "inside") == Account(77, 78, (), "/in")


@pytest.mark.parametrize("target", ["/nowhere", "hosts/x", "passwd", "x" * 300])
@pytest.mark.parametrize("name", ["passwd", "group"])
def test_links_to_nothing(root: int, tmp_path: pathlib.Path, name: str, target: str) -> None:
    """A link that leads nowhere, through a file, in a circle, or to a name that is too long is a missing file."""
    (tmp_path / "etc/hosts").touch()
    os.symlink(target, replace(root, name))

    assert find(root, "12") == Account(12, 0, (), "/")
    with pytest.raises(errors.UserNotFound):
        find(root, "root:staff")


def test_link_to_the_host(root: int) -> None:
    """The host's own file is never the answer."""
    path = replace(root, "passwd")
    os.symlink("/etc/passwd", path)  # now a loop

    with pytest.raises(errors.UserNotFound):
        find(root, "root")


@pytest.mark.parametrize("name", ["passwd", "group"])
@pytest.mark.parametrize("kind", ["fifo", "directory", "socket", "device"])
def test_not_regular(root: int, name: str, kind: str) -> None:
    """What is no regular file is refused at once: nothing is waited for, no device is opened."""
    path = replace(root, name)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        os.mkdir(path)
    elif kind == "device":
        if os.geteuid() != 0:
            pytest.skip("making a device node needs root")
        os.mknod(path, 0o020666, os.makedev(1, 5))  # zeros without end
    else:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)

    done: list[BaseException] = []

    def look() -> None:
        try:
            find(root, "root")
        except errors.InvalidManifest as error:
            done.append(error)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(30)
    assert "not a regular file" in str(done)


@pytest.mark.parametrize("name", ["passwd", "group"])
def test_large(root: int, name: str) -> None:
    """A file of the largest size is read, one byte more is refused, and one of many gigabytes costs nothing."""
    path = f"/proc/self/fd/{root}/etc/{name}"
    with open(path, "a", encoding="ascii") as file:
        file.write("x\n" * ((accounts.FILE_MAX - file.tell()) // 2))
        file.write("x" * (accounts.FILE_MAX - file.tell()))
    assert os.stat(path).st_size == accounts.FILE_MAX
    assert find(root, "worker") == Account(1000, 1001, (29, 50), "/home/worker")

    for size in (accounts.FILE_MAX + 1, 1 << 40):
        os.truncate(path, size)
        with pytest.raises(errors.InvalidManifest, match="more than"):
            find(root, "worker")


def test_long_line(root: int) -> None:
    """A line may be long, but not as long as the file."""
    path = f"/proc/self/fd/{root}/etc/group"
    line = "long:x:70:" + ",".join(["other"] * 10_000) + ",worker"
    with open(path, "a", encoding="ascii") as file:
        file.write(line[: accounts.LINE_MAX - 7] + ",worker\n")
    assert find(root, "worker").additional_gids == (29, 50, 70)

    with open(path, "a", encoding="ascii") as file:
        file.write("x" * (accounts.LINE_MAX + 1))
    with pytest.raises(errors.InvalidManifest, match="has a line of"):
        find(root, "worker")


def test_many_groups(root: int) -> None:
    """More groups than a process can be in are refused."""
    with open(f"/proc/self/fd/{root}/etc/group", "w", encoding="ascii") as file:
        file.writelines(f":x:{number}:a\n" for number in range(100_000, 100_000 + 10))
        file.writelines(f"g::{number}:a\n" for number in range(accounts.GROUPS_MAX + 2))
    with open(f"/proc/self/fd/{root}/etc/passwd", "w", encoding="ascii") as file:
        file.write("a:x:1:1::/:\n")

    with pytest.raises(errors.InvalidManifest, match="groups"):
        find(root, "a")


def test_bytes_that_are_no_text(root: int) -> None:
    """Lines in other encodings neither hide the others nor get into an environment."""
    path = f"/proc/self/fd/{root}/etc/passwd"
    with open(path, "ab") as file:
        file.write(b"\xff\xfe:x:1:1::/:\nlatin:x:12:12::/h\xf6me:\n\xc3\xbc:x:13:13::/\xc3\xbc:\n")

    assert find(root, "latin") == Account(12, 12, (), "/")
    assert find(root, "ü") == Account(13, 13, (), "/ü")
