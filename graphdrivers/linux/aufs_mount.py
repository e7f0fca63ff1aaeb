"""Mounts of kernel aufs, where a kernel has it: branches in one call as far as they go, the rest appended.

aufs takes the branches in one option string of at most a page, and parses into
one page besides: more than about seventy options in one call are ``E2BIG`` and
have crashed the kernel. So each call gets at most 40 branches.

Source: aufs(5), headings *OPTIONS* and *Branch Syntax*; aufs6.1, ``fs/aufs/fsctx.c``.
"""

import os
from collections.abc import Sequence

from graphdrivers.linux import mountapi

BRANCHES_AT_ONCE = 40
TYPE = "aufs"

_FORBIDDEN = frozenset(",:=")


def can_be_branch(path: str) -> bool:
    """Say whether a path can be named in a branch: aufs knows no escapes for its separators."""
    return not _FORBIDDEN & set(path)


def option_strings(settings: Sequence[tuple[str, str | None]], limit: int) -> list[bytes]:
    """Write the options of each call: the first mounts, the others are remounts that append branches.

    Args:
        settings: ``br`` repeats, ``PATH=ROLE``, top first; anything else goes into the first call.
        limit: bytes that one call takes.

    Raises:
        ValueError: a branch that fits into no call, or none at all.
    """
    branches = [value.encode(errors="surrogateescape") for key, value in settings if key == "br" and value]
    others = [_option(key, value) for key, value in settings if key != "br"]
    if not branches:
        raise ValueError("an aufs mount needs a branch")
    first, rest = _fitting(branches, limit - sum(len(option) + 1 for option in others) - len(b"br:"), len(b":"))
    calls = [b",".join([b"br:" + b":".join(first), *others])]
    while rest:
        some, rest = _fitting(rest, limit, len(b",append:"))
        calls.append(b",".join(b"append:" + branch for branch in some))
    return calls


def mount(source: str, place: str, flags: int, settings: Sequence[tuple[str, str | None]], limit: int) -> None:
    """Mount aufs at ``place``, all branches or nothing.

    Raises:
        SyscallError: ``ENODEV`` where the kernel has no aufs, ``ENOSPC`` for more
            branches than it was built for.
    """
    first, *appended = option_strings(settings, limit)
    mountapi.mount(source, place, TYPE, flags, first)
    # A descriptor is on the directory below the new mount; its name leads to the top.
    top = os.readlink(place) if place.startswith("/proc/self/fd/") else place
    try:
        for text in appended:
            mountapi.mount(source, top, TYPE, flags | mountapi.MS_REMOUNT, text)
    except BaseException:
        mountapi.umount2(top, mountapi.MNT_DETACH | mountapi.UMOUNT_NOFOLLOW)
        raise


def _option(key: str, value: str | None) -> bytes:
    return (key if value is None else f"{key}={value}").encode(errors="surrogateescape")


def _fitting(branches: list[bytes], room: int, separator: int) -> tuple[list[bytes], list[bytes]]:
    """Split off the branches that one call takes."""
    taken = 0
    for branch in branches[:BRANCHES_AT_ONCE]:
        room -= len(branch) + separator
        if room < 0:
            break
        taken += 1
    if not taken:
        raise ValueError(f"the branch {branches[0]!r} is too long for a mount")
    return branches[:taken], branches[taken:]
