"""The ``aufs`` engine: the kernel's own aufs, where a kernel has it.

It writes the ``.wh.`` dialect itself, so coming to rest only removes its
bookkeeping. Some stacks it would show otherwise than the layers mean
(`unfit` says which and why); those go to the next engine.

Source: aufs(5); aufs6.1, ``fs/aufs/whout.c``, ``lookup.c``, ``vdir.c``.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from typing import ClassVar

from graphdrivers.archive.entries import Difference
from graphdrivers.archive.search import deleted_by
from graphdrivers.archive.union import Branch, Union
from graphdrivers.archive.whiteouts import LONG_PREFIX, OPAQUE_NAME, PREFIX, RESERVED_PREFIX
from graphdrivers.backends.aufs import phases, shadow
from graphdrivers.backends.aufs.engine import Engine, Plan
from graphdrivers.backends.aufs.home import ESCAPES
from graphdrivers.backends.aufs.phases import Phase
from graphdrivers.kit import layerdirs
from graphdrivers.linux import aufs_mount, durable, mountinfo, trees
from graphdrivers.model import Mount

MAX_DEPTH = 127
"""Branches of an aufs as most kernels build it (``CONFIG_AUFS_BRANCH_MAX_127``)."""

NAME_MAX = 242
"""Bytes in a name: aufs keeps room for its prefixes and suffixes."""

_FIT, _UNFIT = "fit", "unfit"


class KernelAufs(Engine):
    """Mounts aufs; needs root outside of user namespaces."""

    name: ClassVar[str] = "aufs"

    def refusal(self, layer: str, ancestors: Sequence[str]) -> str:
        """Look for what aufs shows wrong; what was found in sealed layers is remembered. See `Engine.refusal`."""
        layers = self._shown([layer, *ancestors])
        if len(layers) > MAX_DEPTH:
            return f"{len(layers)} branches; aufs takes {MAX_DEPTH}"
        opaque: set[bytes] = set()
        for number, one in enumerate(layers):
            if not aufs_mount.can_be_branch(self.dirs.diff(one)):
                return "a path with ',', ':' or '=' cannot be a branch"
            if self.dirs.has(one, ESCAPES):
                return f"layer {one!r} holds xattrs that only overlayfs shows under their own names"
            reason, own = self._judged(one, layers[number + 1 :])
            if reason:
                return f"layer {one!r}: {reason}"
            if opaque & own:
                # The lowest of several opaque directories would win (au_set_dbdiropq).
                return f"{os.fsdecode(min(opaque & own))!r} is opaque in two layers"
            opaque |= own
        return ""

    def writable(self, layer: str, ancestors: Sequence[str]) -> Plan:
        """Plan; nothing has to be made ready."""
        before, live = self.dirs.phase(layer), phases.now(self.name, "live")
        if live != before:
            self.dirs.enter_phase(layer, live, lasting=before is None)
        if self.is_plain(layer, ancestors):
            return (Mount("bind", self.dirs.diff(layer)),)
        return (self._mount(layer, self._shown([layer, *ancestors]), "rw"),)

    def view(self, layer: str, ancestors: Sequence[str], *, sealed: bool) -> Plan:
        """Plan; a writable layer is in the form of rest all the time."""
        del sealed
        if self.is_plain(layer, ancestors):
            return (Mount("bind", self.dirs.diff(layer), readonly=True),)
        return (self._mount(layer, self._shown([layer, *ancestors]), "ro+wh"),)

    def live_differences(self, layer: str, ancestors: Sequence[str]) -> Iterator[Difference]:
        """Read ``diff``: it is in the form of rest."""
        return self.compared(Branch(self.dirs.diff(layer), self.forms.rest), ancestors)

    def to_rest(self, layer: str, ancestors: Sequence[str], phase: Phase) -> tuple[str, ...]:
        """Remove bookkeeping; what a user may not name, aufs refuses at once, and a plain directory does not."""
        aside: tuple[str, ...] = ()
        if phase.boot and self.is_plain(layer, ancestors):
            aside = self.put_aside(layer, self.dirs.diff(layer))
        marked = False
        with layerdirs.directory(self.dirs.diff(layer)) as root:
            for _, directory, names in _directories(root):
                markers = [name for name in names if name.startswith(PREFIX)]
                for name in markers:
                    if _is_bookkeeping(name):
                        trees.remove_tree(directory, name)
                    else:
                        marked = True
            if marked:
                self.dirs.sync(root)
        self.note_marks(layer, marked=marked)
        self.dirs.come_to_rest(layer)
        return aside

    def branches(self, layer: str, ancestors: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Give what the kernel tells of a mounted stack, else what would be mounted."""
        identity = self.facts(layer).get("si")
        if identity is not None:
            yield from _of_kernel(identity)
            return
        layers = self._shown([layer, *ancestors])
        yield self.dirs.diff(layers[0]), "ro+wh" if self.dirs.is_sealed(layer) else "rw"
        for one in layers[1:]:
            yield self.dirs.diff(one), "ro+wh"

    def facts(self, layer: str) -> dict[str, str]:
        """Give the id under which the kernel tells of the layer's mount in sysfs."""
        for mount in mountinfo.read():
            if mount.fs_type == aufs_mount.TYPE and mount.source == self.dirs.label(layer):
                return {"si": mount.option("si") or ""}
        return {}

    def _mount(self, layer: str, layers: Sequence[str], role: str) -> Mount:
        roles = [role, *["ro+wh"] * (len(layers) - 1)]
        branches = [("br", f"{self.dirs.diff(one)}={one_role}") for one, one_role in zip(layers, roles, strict=True)]
        options = (*branches, ("xino", self.dirs.path(layer, "xino")), ("dirperm1", None))
        return Mount(aufs_mount.TYPE, self.dirs.label(layer), options, readonly=role != "rw")

    def _shown(self, layers: Sequence[str]) -> list[str]:
        """Cut a stack below an opaque root, which aufs ignores."""
        shown = []
        for layer in layers:
            shown.append(layer)
            if shadow.root_is_opaque(self.dirs.diff(layer)):
                break
        return shown

    def _judged(self, layer: str, below: Sequence[str]) -> tuple[str, set[bytes]]:
        """Give why aufs would show a layer wrong, and its opaque directories; once for a sealed layer."""
        if self.dirs.has(layer, _UNFIT):
            return os.readlink(self.dirs.path(layer, _UNFIT)), set()
        if self.dirs.has(layer, _FIT):
            with open(self.dirs.path(layer, _FIT), "rb") as file:
                return "", set(filter(None, file.read().split(b"\0")))
        with self.lower(below) as lower:
            reason, opaque = unfit(self.dirs.diff(layer), lower if isinstance(lower, Union) else None)
        if self.dirs.is_sealed(layer):
            with layerdirs.directory(self.dirs.path(layer)) as state:
                if reason:
                    os.symlink(reason, _UNFIT, dir_fd=state)
                else:
                    durable.write_atomic(state, _FIT, b"\0".join(opaque), durable=False)
        return reason, opaque


def unfit(diff: str, lower: Union | None) -> tuple[str, set[bytes]]:
    """Say why aufs would show a layer otherwise than it means, empty where it would not; and what is opaque in it.

    Args:
        diff: what the layer holds.
        lower: what its ancestors show.
    """
    opaque: set[bytes] = set()
    with layerdirs.directory(diff) as root:
        for path, directory, names in _directories(root):
            markers = [name for name in names if name.startswith(PREFIX)]
            if any(len(name) > NAME_MAX or name.startswith(LONG_PREFIX) for name in names):
                return f"a name in {os.fsdecode(path)!r} has more than {NAME_MAX} bytes", opaque
            if markers and names & deleted_by(directory, markers):
                return f"{os.fsdecode(path)!r} holds a name and its whiteout", opaque
            if OPAQUE_NAME in markers:
                opaque.add(path)
                if len(markers) > 1:
                    return f"{os.fsdecode(path)!r} is opaque and holds whiteouts", opaque
            elif path and lower is not None:
                node = lower.find(path)
                if node is not None and not stat.S_ISDIR(node.stat.st_mode):
                    return f"{os.fsdecode(path)!r} replaces a file without being opaque", opaque
    return "", opaque


def _is_bookkeeping(name: bytes) -> bool:
    return name.startswith(RESERVED_PREFIX) and name != OPAQUE_NAME and not name.startswith(LONG_PREFIX)


def _directories(root: int) -> Iterator[tuple[bytes, int, set[bytes]]]:
    """Give path, descriptor and names of each directory, parents first; not of those whose name is a marker."""
    with trees.DirStack(root) as stack:
        for inside in stack.visit():
            with os.scandir(stack.fd) as entries:
                listed = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
            yield stack.path(), stack.fd, {name for name, _ in listed}
            inside += [name for name, is_directory in listed if is_directory and not name.startswith(PREFIX)]


def _of_kernel(identity: str) -> Iterator[tuple[str, str]]:
    """Read the branches of a mounted aufs. Source: aufs6.1, ``Documentation/ABI/testing/sysfs-aufs``."""
    number = 0
    while True:
        try:
            with open(f"/sys/fs/aufs/si_{identity}/br{number}", encoding="utf-8", errors="surrogateescape") as file:
                path, _, role = file.read().rstrip("\n").rpartition("=")
        except FileNotFoundError:
            return
        yield path, role
        number += 1
