"""Layers applied through a driver with their records, and verified, for the tests of deep verification."""

import contextlib
import io
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from rawtars import END, member, pax

import graphdrivers
from graphdrivers.archive.plain import PlainTree
from graphdrivers.archive.restore import Damage, restore
from graphdrivers.archive.verify import Finding, verify
from graphdrivers.driver import Driver, Tells
from graphdrivers.linux import mounts, resolve

DRIVERS = {"vfs": ("vfs", {}), "overlay": ("overlay", {}), "aufs": ("aufs", {"engine": "copy"})}
"""What the tests call them, their names and options; the first one works for everybody."""


NOW = (b"mtime", b"1700000000.123456789")
LONG = b"n" * 250
ACL = b"user::rw-,user:1000:r--,group::r--,mask::r--,other::---"
CAPABILITY = bytes.fromhex("0000000201000000000000000000000000000000")


def entry(name: bytes, content: bytes = b"", *records: tuple[bytes, bytes], **fields: object) -> bytes:
    """Make a member with a time in ns."""
    return pax(NOW, *records) + member(name, content, **fields)


def directory(name: bytes, *records: tuple[bytes, bytes], mode: bytes = b"0000755\0") -> bytes:
    """Make a directory's member."""
    return entry(name, b"", *records, kind=b"5", mode=mode)


BASE = (
    directory(b"./")
    + b"".join(directory(name) for name in (b"etc/", b"usr/", b"usr/lib/", b"d/", b"d/s/", b"repl/", b"two/"))
    + entry(b"etc/a", b"old a")
    + entry(b"etc/same", b"the same")
    + entry(b"etc/b", b"b for linking")
    + entry(b"lib", kind=b"2", link=b"usr/lib")
    + b"".join(entry(name, name) for name in (b"d/x", b"d/s/u", b"repl/x", b"two/x", b"gone", b"both", b"file"))
    + END
)

CHILD = (
    directory(b"etc/")
    + entry(b"etc/a", b"new a")
    + entry(b"etc/same", b"the same")
    + entry(b"lib/so", b"through a link of the parent's")
    + entry(b"implied/deep/file", b"nobody names its directories")
    + entry(b"d/.wh..wh..opq")
    + entry(b"d/s/t", b"t")
    + entry(b".wh.gone")
    + entry(b"both", b"this layer's")
    + entry(b".wh.both")
    + entry(b".wh.two")
    + entry(b"two/n", b"n")
    + entry(b".wh.nothing")
    + entry(b".wh..wh.aufs", b"bookkeeping")
    + entry(b"twice", b"first")
    + directory(b"kind/")
    + entry(b"kind/inner", b"goes with its directory")
    + entry(b"twice", b"second, and last")
    + entry(b"kind", b"a file now")
    + entry(b"repl", b"a file over a directory")
    + directory(b"file/")
    + entry(b"file/inner", b"in a directory over a file")
    + entry(b"h2", b"three names")
    + entry(b"h1", kind=b"1", link=b"h2")
    + entry(b"etc/h3", kind=b"1", link=b"./h2")
    + entry(b"copied-up", kind=b"1", link=b"etc/b")
    + entry(b"fifo", kind=b"6")
    + entry(b"link", kind=b"2", link=b"wherever/it\xff/leads")
    + entry(b"sparse", b"x" * 8192, (b"GNU.sparse.size", b"9000000"), (b"GNU.sparse.numblocks", b"2"),
            (b"GNU.sparse.map", b"0,4096,8192000,4096"))
    + entry(b"large", random.Random(1).randbytes(300_000))
    + entry(b"empty")
    + entry(b"noted", b"with xattrs", (b"SCHILY.xattr.user.note", b"1"), (b"SCHILY.xattr.user.other", b"\0\xff"))
    + entry(b"with-acl", b"acl", (b"SCHILY.acl.access", ACL), mode=b"0000640\0")
    + entry(b"l", b"a long name", (b"path", LONG + b"\xfe"))
    + entry(b"dir with spaces\n/-f", b"awkward")
    + member(b"early", b"before 1970", mtime=b"\xff" * 12)
    + directory(b"shut/", mode=b"0000700\0")
    + END
)  # fmt: skip

PRIVILEGED = (
    entry(b"setuid", b"s", mode=b"0004755\0", uid=b"0000005\0", gid=b"0000006\0")
    + entry(b"capable", b"c", (b"SCHILY.xattr.security.capability", CAPABILITY), mode=b"0000755\0")
    + entry(b"trusted", b"t", (b"SCHILY.xattr.trusted.note", b"1"))
    + entry(b"owned-link", kind=b"2", link=b"x", uid=b"0000007\0")
    + entry(b"null", kind=b"3", devices=b"0000001\0" + b"0000003\0", mode=b"0000666\0")
    + entry(b"disk", kind=b"4", devices=b"0000010\0" + b"0000001\0", mode=b"0000660\0")
)


class Stack:
    """A stack of sealed layers of one driver, each made from a tar."""

    def __init__(self, home: Path, kind: str) -> None:
        """Open a driver on a fresh home."""
        name, options = DRIVERS[kind]
        home.mkdir(parents=True)
        self.driver: Driver = graphdrivers.load_driver(name, home / name, options)
        self.top: str | None = None
        self.parents: dict[str, str | None] = {}
        self.tars: dict[str, bytes] = {}
        self._records: dict[str, bytes] = {}

    def add(self, tar: bytes) -> str:
        """Apply one more layer, and seal it; gives its name."""
        layer = f"layer{len(self.tars)}"
        self.driver.create(layer, self.top)
        record = io.BytesIO()
        try:
            self.driver.apply(layer, io.BytesIO(tar), headers=record)
        except BaseException:
            self.driver.remove(layer)
            raise
        self.driver.seal(layer)
        self.tars[layer], self._records[layer] = tar, record.getvalue()
        self.parents[layer], self.top = self.top, layer
        return layer

    def storage(self, layer: str) -> bytes:
        """Give the directory that holds what the layer changes, wherever the driver has it."""
        if isinstance(self.driver, Tells):
            return os.fsencode(self.driver.facts(layer)["br0"].rpartition("=")[0])
        (plan,) = self.driver.mounts(layer, view=True)
        lowers = [value for key, value in plan.options if key == "lowerdir+"]
        return os.fsencode((lowers or [plan.source])[0] or "")

    def findings(self, layer: str) -> list[Finding]:
        """Verify against the restored tar."""
        damages: list[Damage] = []
        with self._storage_opened(layer) as root:
            opened = lambda path: resolve.open_beneath(root, path, os.O_RDONLY | os.O_NONBLOCK)  # noqa: E731
            with restore(io.BytesIO(self._records[layer]), opened, damages.append) as original:
                return self.verified(layer, original, damages)

    def verified(self, layer: str, original: io.RawIOBase | io.BytesIO, damages: list[Damage]) -> list[Finding]:
        """Verify against a tar."""
        with self._parent_tree(layer) as lower, self.driver.diff(layer) as present:
            can = self.driver.support.capabilities
            return list(verify(original, present, can, lower=lower, damages=damages))  # type: ignore[arg-type]

    @contextlib.contextmanager
    def _storage_opened(self, layer: str) -> Iterator[int]:
        root = os.open(self.storage(layer), os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield root
        finally:
            os.close(root)

    @contextlib.contextmanager
    def _parent_tree(self, layer: str) -> Iterator[PlainTree | None]:
        parent = self.parents[layer]
        if parent is None:
            yield None
            return
        recorded = self.driver.support.capabilities.recorded_owners
        with mounts.opened(self.driver.mounts(parent, view=True)) as root, PlainTree(root, recorded=recorded) as tree:
            yield tree


def two_layers(home: Path, kind: str) -> Stack:
    """Apply a base layer, and one with all that can be in a layer."""
    if os.geteuid() != 0 and kind == "overlay":
        pytest.skip("overlay needs root")
    stack = Stack(home, kind)
    stack.add(BASE)
    stack.add((PRIVILEGED if os.geteuid() == 0 else b"") + CHILD)
    return stack
