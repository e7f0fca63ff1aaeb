"""The fast way over plain files gives what the slow way gives, and leaves to it what is odd."""

import random

import attrs
import pytest
from rawtars import END, Recording, Trickle, header, member, pax, read_payload

from graphdrivers import errors
from graphdrivers.archive.reader import TarReader
from graphdrivers.model import Limits

Member = tuple[bytes, bytes, int, int, int, int, bytes]

PLAIN = [
    member(b"d/", kind=b"5"),
    member(b"d/a", b"some content", mode=b"0004755\0", uid=b"0000007 ", gid=b"     10\0", mtime=b"00000000011 "),
    member(b"./d/b", b"x" * 512),
    member(b"top", b""),
    member(b"n" * 100, b"a name that fills its field"),
]
ODD = [
    member(b"d/.hidden", b"1"),
    member(b".top", b"2"),
    member(b"/d/root", b"3"),
    member(b".//rooted", b"4"),
    member(b"unknown/f", b"5"),
    member(b"d/v7/", b"a directory with a payload"),
    member(b"f", b"6", kind=b"\0"),
    member(b"f", b"7", kind=b"7"),
    member(b"f", b"8", tail=b"d"),
    pax((b"SCHILY.xattr.user.note", b"9"), (b"mtime", b"1.5")) + member(b"d/f", b"9"),
    pax((b"comment", b"for all"), kind=b"g") + member(b"d/f", b"10") + member(b"d/g", b"11"),
    header(b"d/link", kind=b"1", link=b"d/a"),
    header(b"d/device", kind=b"3"),
]


@attrs.define
class Read:
    """What reading a tar gave."""

    members: list[Member] = attrs.field(factory=list)
    fast: int = 0
    error: tuple[object, ...] = ()
    given_back: bytes = b""


def read(tar: bytes, chunk: int, *, fast: bool, limits: Limits = Limits()) -> Read:
    """Read a whole tar with or without the fast way; directories ``d`` and the root are known."""
    recording, seen = Recording(), Read()
    reader = TarReader(Trickle(tar, (chunk,)), limits, recorder=recording, chunk=chunk)
    contents: dict[bytes, bytes] = {}
    try:
        while True:
            for _, base, name, owners, mtime, content in reader.files({b"": 1, b"d": 2}.get) if fast else ():
                assert name.rpartition(b"/")[2] == base
                seen.fast += 1
                contents[name] = bytes(content)
                seen.members.append((name, b"0", *owners, mtime * 10**9, bytes(content)))
            entry = reader.next()
            if entry is None:
                break
            name = entry.name.removeprefix(b"./")
            payload = read_payload(reader, entry, name) if entry.kind == b"0" else b""
            if entry.kind == b"0":
                contents[name] = payload
            seen.members.append((name, entry.kind, entry.mode, entry.uid, entry.gid, entry.mtime, payload))
        reader.drain()
        seen.given_back = recording.tar(contents)
    except errors.ArchiveError as error:
        seen.error = (type(error), str(error), error.member, error.offset)
    return seen


@pytest.mark.parametrize("chunk", [512, 700, 1024, 5000, 1 << 20])
def test_gives_the_same_members(chunk: int) -> None:
    """Whatever the size of the chunks: the same members, and the tar comes back from record and files."""
    tar = b"".join([one + other for one in PLAIN for other in (b"", *ODD[:6])]) + b"".join(ODD[6:]) + END

    slow = read(tar, chunk, fast=False)
    fast = read(tar, chunk, fast=True)

    assert not slow.error
    assert fast.members == slow.members
    unique = b"".join(PLAIN) + END
    assert read(unique, chunk, fast=True).given_back == unique


def test_takes_plain_files_and_no_others() -> None:
    """Ordinary files of known directories go the fast way; what could mean something else does not."""
    assert read(b"".join(PLAIN) + END, 1 << 20, fast=True).fast == 4
    assert [read(PLAIN[0] + odd + END, 1 << 20, fast=True).fast for odd in ODD] == [0] * len(ODD)


def test_members_are_counted_on_both_ways() -> None:
    """The limit on members holds, whichever way they were read."""
    tar = PLAIN[0] + b"".join(member(b"d/%d" % number) for number in range(5)) + END

    assert not read(tar, 1 << 20, fast=True, limits=Limits(members=6)).error
    assert read(tar, 1 << 20, fast=True, limits=Limits(members=5)).error[0] is errors.LimitExceeded


def test_damage_is_named_alike() -> None:
    """With bytes changed at random both ways give the same members up to the same error, of the same member."""
    dice = random.Random(6)
    refused = 0
    for _ in range(600):
        tar = bytearray(b"".join(dice.choices(PLAIN, k=3)) + END)
        start = dice.choice(
            [place for place in range(0, len(tar) - 512, 512) if tar[place + 257 : place + 262] == b"ustar"]
        )
        at = start + dice.choice(
            [0, 2, 101, 109, 117, 124, 125, 130, 135, 136, 137, 140, 147, 149, 154, 156, 157, 345, 500]
        )
        tar[at] = dice.choice(b"\0 _+-/.089AZ\x80\xff")
        if dice.random() < 0.8:  # mend the sum, so that the change itself is looked at
            tar[start + 148 : start + 156] = b" " * 8
            tar[start + 148 : start + 156] = b"%06o\0 " % sum(tar[start : start + 512])

        slow, fast = read(bytes(tar), 4096, fast=False), read(bytes(tar), 4096, fast=True)

        assert fast.members == slow.members
        assert fast.error == slow.error
        refused += bool(slow.error)
    assert 100 < refused < 500
