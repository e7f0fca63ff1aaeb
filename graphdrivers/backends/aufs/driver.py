"""The aufs driver: each layer holds what it changes, deletions as ``.wh.`` files, whatever merges the stack.

On disk the layers are what Docker's aufs driver kept (``home``). How a stack is
merged is an engine's business, chosen by ``engine=`` or by trying (``support``):

* ``aufs``: the kernel's aufs;
* ``overlay-shadow``: kernel overlayfs over the layers and generated branches;
* ``copy``: a real tree, without mount and privilege.

At rest every layer is in the ``.wh.`` dialect, a writable one too; an engine
that works in another form brings it back in `settle`.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO, ClassVar

from graphdrivers import archive, errors, naivediff
from graphdrivers.archive.entries import Difference
from graphdrivers.archive.plain import EmptyTree
from graphdrivers.backends.aufs import support as trials
from graphdrivers.backends.aufs.engine import Engine, Forms
from graphdrivers.backends.aufs.home import DIFF, ESCAPES, MARKED, NAME, AufsDirs
from graphdrivers.backends.aufs.phases import Phase, is_held
from graphdrivers.driver import Driver
from graphdrivers.kit import layerdirs, quotas, remembering, roots
from graphdrivers.kit.uppers import Awaited
from graphdrivers.kit.watch import WatchedDialect
from graphdrivers.linux import mounts, trees
from graphdrivers.model import (
    Applied,
    Change,
    LayerRecord,
    LayerSpec,
    Limits,
    Mount,
    Profile,
    Progress,
    Support,
    Usage,
)


class AufsDriver(Driver):
    """Layers in the aufs dialect, mounted by one of several engines."""

    name: ClassVar[str] = NAME
    contract: ClassVar[int] = 1

    def __init__(self, home: str, options: Mapping[str, str], support: Support) -> None:
        """Open ``home``; see `driver.Driver`."""
        super().__init__(home, options, support)
        settings = trials.settings_for(self.name, home, options)
        recorded = support.capabilities.recorded_owners
        self._dirs = AufsDirs(home, self.name, settings.lasting(recorded=recorded))
        remembering.remember(home, options, support)
        forms = Forms.of(user_xattrs=settings.user_xattrs, recorded=recorded)
        self._engines: dict[str, Engine] = {
            engine.name: engine(self._dirs, forms, support.capabilities) for engine in trials.ENGINES
        }
        self._chosen = [self._engines[engine] for engine in trials.engines_of(support)]
        self._engine = self._chosen[0]

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Let one engine after the other live through a toy stack; see `driver.Driver.probe`."""
        return remembering.probed(home, options, lambda: trials.probed(cls.name, home, options))

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Create an empty directory; cost independent of the parent's content."""
        can = self.support.capabilities
        ancestry = self._dirs.check_new(layer, parent, can.max_depth)
        quotas.check(self.name, spec.size, claimed=can.quota, tried=self._limits_refused)
        with self._dirs.making(layer, ancestry, Phase(self._engine.name, "live")) as folder:
            diff = os.path.join(folder, DIFF)
            if parent is None:
                roots.make_root(diff, ownership=can.ownership, dialect=self._engine.forms.rest)
            else:
                # Every layer's root got the merged root's attributes when it was created.
                above = self._dirs.diff(parent)
                roots.make_root_like(diff, above, ownership=can.ownership, dialect=self._engine.forms.rest)
            if spec.size is not None:
                quotas.limit(self.name, folder, spec.size, diff)

    def seal(self, layer: str) -> None:
        """Bring the layer to rest and set a mark file."""
        self._dirs.read(layer)
        if self._dirs.is_sealed(layer):
            return
        self._dirs.refuse_mounted(layer, DIFF)
        self._rest(layer)
        self._dirs.seal(layer)

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Let the engine make the layer ready, and plan; a layer that is mounted keeps its engine."""
        ancestors = (self._dirs.read(layer) if view else self._dirs.writable(layer)).ancestors
        sealed = self._dirs.is_sealed(layer)
        if sealed:
            return self._suitable(layer, ancestors).view(layer, ancestors, sealed=True)
        with self._dirs.claimed(layer):
            engine = self._engine_for(layer, ancestors)
            return engine.view(layer, ancestors, sealed=False) if view else engine.writable(layer, ancestors)

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Unpack with ``.wh.`` files; what already has content is written through its mount."""
        ancestors = self._dirs.writable(layer).ancestors
        self._dirs.refuse_mounted(layer, DIFF)
        self._rest(layer)
        capabilities = self.support.capabilities
        with layerdirs.directory(self._dirs.diff(layer)) as root:
            if not os.listdir(root):
                watch = WatchedDialect.over(self._engine.forms.rest, self._engine.undoes_escapes)
                kept = quotas.kept(self.name, self._dirs.path(layer), self._dirs.diff(layer))
                with kept, self._engine.lower(ancestors) as lower:
                    target = archive.apply.Target(
                        root, watch, None if isinstance(lower, EmptyTree) else lower, capabilities
                    )
                    applied = archive.apply.apply(tar, target, headers=headers, limits=limits, progress=progress)
                _note(self._dirs.path(layer), watch)
                return applied
        self._dirs.mark(layer, ESCAPES)  # what the mount will escape cannot be seen
        with mounts.opened(self._writer(layer, ancestors).writable(layer, ancestors)) as merged:
            target = archive.apply.Target(merged, self._engine.forms.plain, None, capabilities)
            applied = archive.apply.apply(tar, target, headers=headers, limits=limits, progress=progress)
        self._rest(layer)
        return applied

    def apply_ahead(
        self,
        layer: str,
        parent: str | None,
        tar: BinaryIO,
        *,
        ready: Callable[[], object],
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Unpack with ``.wh.`` files into what becomes the layer's directory; see `driver.AppliesAhead`."""
        can, rest = self.support.capabilities, self._engine.forms.rest
        ancestry = Awaited(self._dirs, layer, parent, ready, can.max_depth)
        watch = WatchedDialect.over(rest, self._engine.undoes_escapes)
        with self._dirs.making(layer, ancestry) as folder:
            diff = os.path.join(folder, DIFF)
            roots.make_root(diff, ownership=can.ownership, dialect=rest)
            with ancestry.target(diff, watch, can, self._engine.branch) as target:
                applied = archive.apply.apply(tar, target, headers=headers, limits=limits, progress=progress)
            _note(folder, watch)
        return applied

    def changes(self, layer: str) -> Iterator[Change]:
        """Read what the layer holds and what it covers; cost independent of the image but for a live copy."""
        return naivediff.listed(self._differences(layer, self._dirs.read(layer).ancestors))

    def diff(self, layer: str, *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None) -> BinaryIO:
        """Read what the layer holds and what it covers; cost independent of the image but for a live copy."""
        found = self._differences(layer, self._dirs.read(layer).ancestors)
        return archive.produce.produce(found, profile=profile, source_date_epoch=source_date_epoch)

    def usage(self, layer: str) -> Usage:
        """Measure the layer's directory."""
        ancestors = self._dirs.read(layer).ancestors
        phase = self._dirs.phase(layer)
        if phase is not None and (engine := self._engine_of(layer, phase)).keeps_elsewhere(layer):
            return naivediff.used(engine.live_differences(layer, ancestors))
        forms = self._engine.forms
        dialect = forms.rest if phase is None else forms.overlay
        with layerdirs.directory(self._dirs.diff(layer)) as root:
            return Usage(*trees.usage(root, dialect.is_mark))

    def layers(self) -> Iterator[LayerRecord]:
        """Read the file in ``layers`` of every layer."""
        return self._dirs.records()

    def remove(self, layer: str) -> None:
        """Take the layer's record away, then delete what is its."""
        if self._dirs.exists(layer):
            self._dirs.refuse_mounted(layer, DIFF)
            with self._dirs.claimed(layer):
                self._dirs.remove(layer)

    def settle(self, layer: str | None = None) -> None:
        """Delete leftovers; bring layers to rest that are not mounted, finishing what a crash cut.

        Raises:
            ReservedNameError: names reserved for whiteouts were found in this layer; they are out of it now.
                For a whole home they are only put aside.
        """
        if layer is None:
            try:
                self._dirs.sweep()
            finally:
                self._settle_all()
            return
        self._dirs.read(layer)
        if not self._dirs.is_sealed(layer) and not self._dirs.mounted_at(layer):
            self._rest(layer)

    def facts(self, layer: str | None = None) -> dict[str, str]:
        """Give what is to be known beyond the contract; see `driver.Tells`."""
        if layer is None:
            return trials.facts(self.support)
        ancestors = self._dirs.read(layer).ancestors
        phase = self._dirs.phase(layer)
        engine = self._suitable(layer, ancestors) if phase is None else self._engine_of(layer, phase)
        form = "wh" if phase is None else f"{engine.name}, {phase.step}"
        found = {"engine": engine.name, "dialect": form, "diff": self._dirs.diff(layer), "mnt": self._dirs.mnt(layer)}
        found.update(engine.facts(layer))
        for other in self._chosen[: self._chosen.index(engine)] if engine in self._chosen else ():
            found[f"not {other.name}"] = other.refusal(layer, ancestors)
        for number, (path, role) in enumerate(engine.branches(layer, ancestors)):
            found[f"br{number}"] = f"{path}={role}"
        aside = engine.shelf(layer)
        if os.path.isdir(aside):
            found["reserved"] = aside
        return found

    def _settle_all(self) -> None:
        """Bring every layer to rest that some process left; one that resists does not keep the others from it."""
        failed: list[OSError | errors.GraphDriverError] = []
        for layer in self._dirs.restless():
            try:
                self._settle_left(layer)
            except (OSError, errors.GraphDriverError) as error:
                if self._dirs.exists(layer):  # else another process removed it meanwhile
                    failed.append(error)
        if failed:
            for other in failed[1:]:
                failed[0].add_note(f"another layer: {other}")
            raise failed[0]

    def _settle_left(self, layer: str) -> None:
        """Bring a layer to rest that some process left; not while one may still use it."""
        phase = self._dirs.phase(layer)
        if phase is None or not phase.boot or not self._dirs.exists(layer):
            return
        with self._dirs.claimed(layer, wait=False) as mine:
            phase = self._dirs.phase(layer)
            if mine and phase is not None and phase.boot:
                self._settle_claimed(layer, phase)

    def _settle_claimed(self, layer: str, phase: Phase) -> None:
        engine = self._engine_of(layer, phase)
        if is_held(phase) or (phase.step == "live" and not engine.may_rest(layer, phase)):
            return
        engine.to_rest(layer, self._dirs.read(layer).ancestors, phase)

    def _rest(self, layer: str) -> None:
        """Bring a layer that is not mounted to rest."""
        if self._dirs.phase(layer) is not None:
            with self._dirs.claimed(layer):
                self._rest_claimed(layer)

    def _rest_claimed(self, layer: str) -> None:
        phase = self._dirs.phase(layer)
        if phase is None:
            return
        aside = self._engine_of(layer, phase).to_rest(layer, self._dirs.read(layer).ancestors, phase)
        if aside:
            raise errors.ReservedNameError(layer, aside)

    def _suitable(self, layer: str, ancestors: Sequence[str]) -> Engine:
        """Give the first engine that shows a stack as its layers mean it."""
        for engine in self._chosen[:-1]:
            if not engine.refusal(layer, ancestors):
                return engine
        return self._chosen[-1]

    def _writer(self, layer: str, ancestors: Sequence[str]) -> Engine:
        """Give the first engine that a writable layer can be mounted with.

        Raises:
            NotSupported: its size is limited, and no engine in use keeps to that.
        """
        engine = self._suitable(layer, ancestors)
        if not engine.limits and quotas.is_limited(self._dirs.path(layer)):
            reason = f"layer {layer!r} has a limit, which engine {engine.name} does not keep"
            raise errors.NotSupported(self.name, reason, "use engine=overlay-shadow")
        return engine

    def _limits_refused(self) -> quotas.Refusal | None:
        return trials.limits_refused(
            type(self._engine), self.home, trials.settings_for(self.name, self.home, self.options)
        )

    def _engine_for(self, layer: str, ancestors: Sequence[str]) -> Engine:
        """Give the engine of a writable layer, which is what it was mounted with if it is live."""
        phase = self._dirs.phase(layer)
        if phase is not None and phase.step == "moving":
            self._rest_claimed(layer)
            phase = None
        if phase is None or not phase.boot:
            return self._writer(layer, ancestors)
        return self._engine_of(layer, phase)

    def _engine_of(self, layer: str, phase: Phase) -> Engine:
        """Give the engine that a phase names."""
        engine = self._engines.get(phase.engine)
        if engine is None:
            reason = f"the phase of layer {layer!r} names an unknown engine, {phase.engine!r}"
            raise errors.StoreCorrupt(self._dirs.home, reason)
        return engine

    def _differences(self, layer: str, ancestors: Sequence[str]) -> Iterator[Difference]:
        phase = self._dirs.phase(layer)
        if phase is not None and phase.step == "moving":
            self._rest(layer)
            phase = None
        if phase is None:
            return self._engine.compared(self._engine.branch(layer), ancestors)
        return self._engine_of(layer, phase).live_differences(layer, ancestors)


def _note(folder: str, watch: WatchedDialect) -> None:
    """Remember in a layer's folder what was put into its tree."""
    if watch.escaped:
        layerdirs.mark(folder, ESCAPES)
    if watch.deleted:
        layerdirs.mark(folder, MARKED)
