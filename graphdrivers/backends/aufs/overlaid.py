"""The ``overlay-shadow`` engine: kernel overlayfs over the layers and their shadow branches.

While a writable layer is mounted its ``diff`` is overlay's upper directory, in
overlay's own form; it is translated back when it comes to rest.
"""

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from typing import ClassVar

from graphdrivers.archive.entries import Difference
from graphdrivers.archive.union import Branch
from graphdrivers.archive.whiteouts import OVERLAY_USER
from graphdrivers.backends.aufs import phases, shadow, translate
from graphdrivers.backends.aufs.engine import Engine, Plan
from graphdrivers.backends.aufs.home import DIFF, MARKED, NAME, STATE
from graphdrivers.backends.aufs.phases import Phase
from graphdrivers.backends.overlay.options import Settings
from graphdrivers.kit import layerdirs, quotas
from graphdrivers.linux import durable, mounts
from graphdrivers.model import Mount

_WORK = "work"
_NOTHING = "nothing"

MAX_DEPTH = 250
"""Layers in one stack: overlayfs takes 500 lower directories, and a layer may need one shadow."""


class OverlayShadow(Engine):
    """Mounts overlays; needs root, or root of a user namespace."""

    name: ClassVar[str] = "overlay-shadow"
    limits: ClassVar[bool] = True

    def writable(self, layer: str, ancestors: Sequence[str]) -> Plan:
        """Bring ``diff`` into overlay's form, and plan; see `Engine.writable`."""
        before = self.dirs.phase(layer)
        folder = self.dirs.path(layer)
        if before is None and self.dirs.has(layer, MARKED):
            self.dirs.enter_phase(layer, phases.now(self.name, "moving"))
            quotas.release(folder)
            with self.lower(ancestors) as lower:
                translate.to_overlay(self.dirs.diff(layer), lower, self.forms.overlay)
            self.sync(layer)  # markers that came back after a power cut would be taken for a user's
        live = phases.now(self.name, "live")
        if live != before:
            self.dirs.enter_phase(layer, live, lasting=before is None)
        # As against us a limit may hold in an overlay only.
        if self.is_plain(layer, ancestors) and not quotas.is_limited(folder):
            return (Mount("bind", self.dirs.diff(layer)),)
        upper = ("upperdir", self.dirs.diff(layer)), ("workdir", self.private(layer, _WORK))
        quotas.keep(NAME, folder, *(directory for _, directory in upper), room=True)
        lowers = self._lowers(ancestors) or [self._nothing()]
        return (self._mount(layer, lowers, *upper),)

    def view(self, layer: str, ancestors: Sequence[str], *, sealed: bool) -> Plan:
        """Plan an overlay without upper directory; a writable layer is brought into overlay's form for it."""
        if not sealed:
            self.writable(layer, ancestors)
            lowers = [self.dirs.diff(layer), *self._lowers(ancestors)]
        elif self.is_plain(layer, ancestors):
            lowers = [self.dirs.diff(layer)]
        else:
            lowers = self._lowers([layer, *ancestors])
        if len(lowers) == 1 and self.is_plain(layer, ancestors):
            return (Mount("bind", lowers[0], readonly=True),)
        if len(lowers) == 1:  # overlayfs takes no single lower directory without an upper one
            lowers.append(self._nothing())
        return (self._mount(layer, lowers, readonly=True),)

    def live_differences(self, layer: str, ancestors: Sequence[str]) -> Iterator[Difference]:
        """Read the upper directory as it is."""
        return self.compared(Branch(self.dirs.diff(layer), self.forms.live), ancestors)

    def to_rest(self, layer: str, ancestors: Sequence[str], phase: Phase) -> tuple[str, ...]:
        """Put user-made ``.wh.`` names aside, then translate; see `Engine.to_rest`."""
        diff = self.dirs.diff(layer)
        aside: tuple[str, ...] = ()
        if not phase.boot:  # never mounted
            self.dirs.come_to_rest(layer)
            return aside
        quotas.release(self.dirs.path(layer))  # a full layer has to come to rest too
        if phase.step == "live":
            layerdirs.delete_work(self.dirs.path(layer), _WORK)
            if not os.listdir(diff):  # in every form at once
                translate.strip_root(diff, self.forms.overlay)
                self.note_marks(layer, marked=False)
                self.dirs.come_to_rest(layer)
                return aside
            aside = self.put_aside(layer, diff)
        marks = phase.step == "moving" or translate.has_marks(diff, self.forms.overlay)
        if marks:
            self.dirs.mark(layer, MARKED)
            # From here on our own markers could not be told from those that a user made.
            self.dirs.enter_phase(layer, phases.now(self.name, "moving"))
        with self.lower(ancestors) as lower:
            marked = translate.to_rest(diff, lower, self.forms.overlay, self.forms.rest)
        if marks:
            self.sync(layer)
        self.note_marks(layer, marked=marked)
        self.dirs.come_to_rest(layer)
        return aside

    def may_rest(self, layer: str, phase: Phase) -> bool:
        """Ask the kernel also; see `Engine.may_rest`."""
        if self.dirs.mounted_at(layer):
            return False
        return not phases.is_of_this_boot(phase) or self._is_free(layer)

    def branches(self, layer: str, ancestors: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Give the layers; shadows are between them and no layer's content."""
        yield self.dirs.diff(layer), "ro+wh" if self.dirs.is_sealed(layer) else "rw"
        for ancestor in ancestors:
            yield self.dirs.diff(ancestor), "ro+wh"

    def _mount(self, layer: str, lowers: Sequence[str], *own: tuple[str, str], readonly: bool = False) -> Mount:
        settings = Settings(user_xattrs=self.forms.overlay is OVERLAY_USER)
        options = (*(("lowerdir+", lower) for lower in lowers), *own, *settings.mount_options())
        return Mount("overlay", self.dirs.label(layer), options, readonly=readonly)

    def _lowers(self, layers: Sequence[str]) -> list[str]:
        """Give the directories of sealed layers, top first, each after the shadow that belongs above it.

        Two look-ups a layer and none of its content, once the shadows are there.
        """
        lowers: list[str] = []
        exists = os.path.lexists
        diffs, states = f"{self.dirs.home}/{DIFF}/", f"{self.dirs.home}/{STATE}/"
        child = None  # the layer above, where it has markers to carry out
        for layer in layers:
            marked = exists(f"{states}{layer}/{MARKED}")
            place = ""
            if child is not None:
                place = f"{states}{child}/{shadow.BELOW}"
                if not exists(place):
                    if shadow.root_is_opaque(diffs + child):
                        break
                    self._build_below(child, layer if marked else None)
            elif marked:
                place = f"{states}{layer}/{shadow.ABOVE}"
                if not exists(place):
                    shadow.above(states + layer, diffs + layer, self.forms.overlay, self.tmp())
            if place:
                lowers.append(place)
            lowers.append(diffs + layer)
            child = layer if marked else None
        return lowers

    def _build_below(self, child: str, parent: str | None) -> None:
        own, state = self.dirs.diff(child), self.dirs.path(child)
        shadow.below(state, own, None if parent is None else self.dirs.diff(parent), self.forms.overlay, self.tmp())

    def _nothing(self) -> str:
        """Give an empty directory, for mounts that take at least one more."""
        folder = os.path.join(self.dirs.home, _NOTHING)
        layerdirs.make_private(folder)
        return folder

    def _is_free(self, layer: str) -> bool:
        """Ask overlayfs whether some mount, in whatever namespace, has the layer for its upper directory.

        With ``index=on`` it refuses a directory that is in use with ``EBUSY``.
        Source: kernel, fs/overlayfs/super.c (``ovl_report_in_use``). Elsewhere
        than in the initial user namespace it can have no index: false then.
        """
        if self.forms.overlay is OVERLAY_USER:
            return False
        with contextlib.ExitStack() as stack:
            scratch = stack.enter_context(durable.Staging(self.tmp()))
            own = (("upperdir", self.dirs.diff(layer)), ("workdir", scratch.path), ("index", "on"))
            plan = Mount("overlay", "probe", (("lowerdir+", self._nothing()), *own))
            try:
                stack.enter_context(mounts.opened((plan,)))
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                return False
        return True
