"""Mount and unmount over 4, 10 and 100 layers: our drivers and others against the bare system calls.

Usage: ``python benchmarks/mounts.py [--directory DIR] [--rounds N] [--quick]``; as root.
A sample of ours is the fastest of a few in a row: an unmount waits for the kernel's RCU, often for milliseconds.
The goal is a ratio of at most 1.3.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator, Sequence

import materials
import ours
import tools
from graphdrivers.driver import Driver
from graphdrivers.linux import mounts
from graphdrivers.model import Mount
from measuring import Bench, Contender, Result, alone, clocked, fastest

LOWERS = (4, 10, 100)
BARE = "bare system calls"
BOX = "box"
READY = "overlay, plan at hand"
"""Our mounting alone: what the driver plans is known already."""

_IN_A_ROW = 5
_COMMANDS_IN_A_ROW = 1
_ROUNDS = 40
_FSCONFIG, _FSOPEN, _FSMOUNT, _MOVE_MOUNT = 431, 430, 432, 429
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_ABSENT = {tools.GNU_TAR: tools.NO_MOUNTS, tools.BSDTAR: tools.NO_MOUNTS, tools.UMOCI: tools.NO_MOUNTS}


def measure(bench: Bench) -> Iterator[Result]:
    """Measure each depth."""
    spec = materials.Spec(name="tiny", files=20, size=2000, even=True, links=0)
    tar = materials.make_layer(bench.folder, spec).tar
    for lowers in LOWERS:
        yield _depth(bench, tar, 20 if bench.quick and lowers > 20 else lowers, f"mount {lowers}")


def _depth(bench: Bench, tar: str, lowers: int, work: str) -> Result:
    tars = [tar] * lowers
    choice = ours.drivers(bench.folder)
    absent = dict(choice.refused) | _ABSENT
    with contextlib.ExitStack() as scope:
        drivers = scope.enter_context(ours.opened(bench, choice.usable))
        target = bench.path("mnt")
        os.makedirs(target, exist_ok=True)
        contenders: dict[str, Contender] = {}
        for name, driver in drivers.items():
            driver.create(BOX, ours.stack(driver, tars))
            if name == "overlay":
                contenders |= _floor(driver.mounts(BOX), bench.path(f"own-{lowers}"), target)
            contenders[name] = _ours(driver, target)
        storage = scope.enter_context(tools.containers_storage(bench.folder))
        buildah = scope.enter_context(tools.buildah(bench.folder))
        theirs = {tools.STORAGE: _storage(storage, tars), tools.BUILDAH: _buildah(bench, buildah, tars)}
        contenders |= tools.there(theirs, absent)
        if "overlay" in drivers:
            contenders[ours.COMMANDS] = _commands(bench.folder)
        title = f"mount and unmount a writable layer over {lowers} others"
        return bench.compare(work, title, contenders, absent=absent, floor=BARE, rounds=_ROUNDS)


def _floor(plan: tuple[Mount, ...], own: str, target: str) -> dict[str, Contender]:
    """Give what the overlay driver's plan costs at least, and what it costs us without the planning.

    The writable part is one of ours below ``own``: that of a driver's layer is made when the layer is mounted.
    """
    upper, work = os.path.join(own, "upper"), os.path.join(own, "work")
    os.makedirs(upper)
    os.makedirs(work)
    swapped = {"upperdir": upper, "workdir": work}
    options = tuple((key, swapped.get(key, value)) for key, value in plan[0].options)
    ready = (Mount("overlay", "graphdrivers", options),)
    pairs = [(key.encode(), value and os.fsencode(value)) for key, value in (("source", "graphdrivers"), *options)]

    def mount() -> None:
        mounts.attach(ready, target)
        mounts.detach(target)

    encoded, libc = os.fsencode(target), ctypes.CDLL(None, use_errno=True)
    return {
        BARE: lambda: fastest(_IN_A_ROW, lambda: clocked(bare, libc, pairs, encoded)),
        READY: lambda: fastest(_IN_A_ROW, lambda: clocked(mount)),
    }


def bare(libc: ctypes.CDLL, options: Sequence[tuple[bytes, bytes | None]], target: bytes) -> None:
    """Mount with the system calls alone, everything encoded and looked up beforehand, and unmount.

    Raises:
        OSError: one of them failed.
    """
    call = libc.syscall
    context = call(_FSOPEN, b"overlay", 1)
    for key, value in options:
        if call(_FSCONFIG, context, _SET_FLAG if value is None else _SET_STRING, key, value, 0):
            raise OSError(ctypes.get_errno(), f"fsconfig {key.decode()}")
    call(_FSCONFIG, context, _CREATE, None, None, 0)
    mount_fd = call(_FSMOUNT, context, 1, 0)
    if call(_MOVE_MOUNT, mount_fd, b"", -100, target, 4):
        raise OSError(ctypes.get_errno(), "move_mount")
    os.close(mount_fd)
    os.close(context)
    if libc.umount2(target, 8):
        raise OSError(ctypes.get_errno(), "umount2")


def _ours(driver: Driver, target: str) -> Contender:
    """Plan, mount, unmount and bring to rest."""

    def mount() -> None:
        mounts.attach(driver.mounts(BOX), target)
        mounts.detach(target)
        driver.settle(BOX)

    return lambda: fastest(_IN_A_ROW, lambda: clocked(mount))


def _storage(storage: tools.ContainersStorage, tars: Sequence[str]) -> Contender:
    made: list[str] = []

    def mount() -> None:
        storage.mount(made[0])
        storage.unmount(made[0])

    def sample() -> float:
        if not made:
            made.append(storage.create(storage.stack(list(tars))))
        return fastest(_COMMANDS_IN_A_ROW, lambda: clocked(mount))

    return sample


def _buildah(bench: Bench, store: tools.Buildah, tars: Sequence[str]) -> Contender:
    made: list[str] = []

    def mount() -> None:
        store.mount(made[0])
        store.unmount(made[0])

    def sample() -> float:
        if not made:
            layout = materials.make_layout(bench.path(f"layout-{len(tars)}"), tars, zipped=True)
            made.append(store.start(store.pull(layout, materials.REFERENCE)))
        return fastest(_COMMANDS_IN_A_ROW, lambda: clocked(mount))

    return sample


def _commands(root: str) -> Contender:
    """Do it with our command line, to the overlay driver's layer: two processes, as the others need."""

    def mount() -> None:
        ours.command(root, "layer", "mount", BOX)
        ours.command(root, "layer", "umount", BOX)

    return lambda: fastest(_COMMANDS_IN_A_ROW, lambda: clocked(mount))


if __name__ == "__main__":
    alone(measure, __doc__)
