"""The datasets of one home: made, cloned, snapshot and destroyed, and never any that are not ours.

Each is a child of one dataset, has a random name, and says in user properties
whose it is::

    POOL/NAME/graphdrivers-0123456789abcdef     the content of one layer
        graphdrivers:home                       the number of the home that made it
        graphdrivers:layer, graphdrivers:parent which layer, over which one, as it was made
        @sealed                                 what children are clones of
            graphdrivers:sealed                 the dataset that it was taken for; tells ours from other people's

In it are ``root``, the layer's tree, and what was put aside.

The name is random because a dataset is slow to rename and has to be unmounted
for it, and because not every layer's name could be a dataset's.

A snapshot of a live layer takes the layer's past over (``zfs promote``): the
live one becomes a clone of it, and is the leaf again. When the snapshot goes
first, it hands all back in the same way.
"""

import contextlib
import os
import urllib.parse
from collections.abc import Callable, Iterator

import attrs

from graphdrivers import errors
from graphdrivers_zfs.mounting import NAME, PREFIX, Places, patiently
from graphdrivers_zfs.tool import Busy, Exists, HasDependents, Missing, Tool, TooSmall, ZfsError

NAME_LENGTH = 2 * (len(PREFIX) + 16) + len("@")
"""What the name of the dataset above has to leave room for."""

_TRIES = 5
"""How often a limit is set that what is under way may be beyond; each waits for what was written before it."""

_SEALED = "sealed"
_HOME, _LAYER, _PARENT, _MARK = (f"graphdrivers:{word}" for word in ("home", "layer", "parent", "sealed"))

SETTINGS = (
    "canmount=noauto",  # nothing mounts thousands of layers when the pool is imported
    "readonly=off",
    "setuid=on",
    "devices=on",
    "exec=on",
    "sharenfs=off",
    "sharesmb=off",
    "com.sun:auto-snapshot=false",
)
"""What layers must not take over from the dataset above; compression, checksums and the like they do."""

FOREVER = ("utf8only=off", "normalization=none", "casesensitivity=sensitive")
"""The same for what is fixed when a dataset is made, which a clone has from its origin."""


@attrs.frozen
class Found:
    """One dataset or snapshot, as listed; what it lacks is ``-``."""

    name: str
    origin: str
    home: str
    parent: str
    mark: str

    @property
    def snapshot(self) -> str:
        """What is behind the ``@``; empty for a dataset."""
        return self.name.partition("@")[2]

    @property
    def is_ours(self) -> bool:
        """Of a snapshot: whether this driver took it."""
        return bool(NAME.fullmatch(self.mark)) and (self.snapshot == _SEALED or is_handed_on(self.snapshot))


def is_handed_on(snapshot: str) -> bool:
    """Say whether a snapshot has one of the names that are given to those whose layer is being removed."""
    return bool(NAME.fullmatch(snapshot))


@attrs.frozen
class Datasets:
    """The datasets of a home, all children of one."""

    tool: Tool
    places: Places
    home: str
    """The number of the home."""
    extras: tuple[str, ...] = ()
    """Properties that this ZFS has and others lack."""

    def make(self, dataset: str, layer: str, size: int | None) -> None:
        """Make an empty one, without a tree; it is not mounted."""
        settings = (*self._settings(dataset, layer, None, size), *FOREVER)
        self.tool.run("create", *_options(settings), self.places.name(dataset))
        self.places.unmount(dataset, layer)

    def clone(self, dataset: str, layer: str, origin: str, parent: str | None, size: int | None = None) -> None:
        """Make one with the content that another had when it was sealed; it is not mounted.

        Raises:
            Missing: the other has no such snapshot.
        """
        settings = self._settings(dataset, layer, parent, size)
        self.places.prepare(dataset)
        self.tool.run("clone", *_options(settings), self._sealed(origin), self.places.name(dataset))
        self.places.unmount(dataset, layer)  # zfs-fuse mounts clones whatever canmount says

    def _settings(self, dataset: str, layer: str, parent: str | None, size: int | None) -> tuple[str, ...]:
        marks = [f"{_HOME}={self.home}", f"{_LAYER}={_quoted(layer)}", f"{_PARENT}={_quoted(parent)}"]
        # Not refquota: that one counts what is shared with the parent.
        limit = [] if size is None else [f"quota={size}"]
        return (*SETTINGS, *self.extras, f"mountpoint={self.places.place(dataset)}", *marks, *limit)

    def _sealed(self, dataset: str) -> str:
        return f"{self.places.name(dataset)}@{_SEALED}"

    def seal(self, dataset: str, mark: str | None = None) -> None:
        """Take the snapshot that children are made from. Idempotent: one of before is taken anew.

        Args:
            dataset: of which.
            mark: the dataset that it is taken for, if that is another.

        Raises:
            ZfsError: there is a snapshot of this name that is not ours.
        """
        command = ("snapshot", "-o", f"{_MARK}={mark or dataset}", self._sealed(dataset))
        try:
            self.tool.run(*command)
        except Exists:  # a process was killed behind this step; the layer may have been written to since
            self._refuse_foreign(dataset, self._of(dataset))
            self.tool.run("destroy", self._sealed(dataset))
            self.tool.run(*command)

    def fork(self, live: str, dataset: str, layer: str, parent: str | None) -> None:
        """Make a sealed one of the present state of a live one, which is its clone from then on.

        Cut anywhere, it leaves a live one that is as it was, and at most a snapshot of ours.
        """
        self.seal(live, mark=dataset)
        self.clone(dataset, layer, live, parent)
        self.tool.run("promote", self.places.name(dataset))

    def hold(self, dataset: str, size: int, below: str | None) -> None:
        """Limit, before it is forked, what a limited one refers to beyond its parent. Idempotent.

        What it has in common with the fork counts as the fork's, in ``quota``; in ``refquota`` it counts as its own.
        """
        name = self.places.name(dataset)
        names = [name] if below is None else [name, self._sealed(below)]
        for number in range(_TRIES):
            taken, *shared = map(int, self.tool.run("get", "-H", "-p", "-o", "value", "referenced", *names).split())
            # A full one may have a little more than its limit: what was under way when that was reached.
            limit = max(sum(shared) + size, taken)
            try:
                self.tool.run("set", f"refquota={limit}", name)
            except TooSmall:  # what was written a moment ago counts only now
                if number == _TRIES - 1:
                    raise
            else:
                return

    def destroy(self, dataset: str, layer: str) -> None:
        """Destroy it and our snapshots of it, if all that there is of it is ours. Idempotent.

        It is not done recursively: what somebody else put there keeps it whole.

        Raises:
            LayerInUse: it is mounted somewhere.
            LayerHasChildren: a layer stands on it.
            ZfsError: there are snapshots, clones or datasets of somebody else.
        """
        try:
            found = self._of(dataset)
        except Missing:
            found = []
        if found:
            self._refuse_foreign(dataset, found)
            self.places.unmount(dataset, layer)
            with contextlib.suppress(Missing):
                self._destroy_all(found, layer)
        self.places.forget(dataset)

    def _destroy_all(self, found: list[Found], layer: str) -> None:
        (itself, *snapshots) = found
        handed_on = [itself.origin]
        try:
            for snapshot in snapshots:
                handed_on += self._destroy_snapshot(snapshot, layer)
            patiently(lambda: self.tool.run("destroy", itself.name))
        except Busy as error:
            raise errors.LayerInUse(layer, f"as dataset {itself.name!r}: {error.said}") from error
        for name in handed_on:
            if is_handed_on(name.partition("@")[2]):
                with contextlib.suppress(HasDependents, Missing):
                    self.tool.run("destroy", name)

    def _destroy_snapshot(self, snapshot: Found, layer: str) -> list[str]:
        try:
            self.tool.run("destroy", snapshot.name)
        except HasDependents as error:
            return [self._hand_on(snapshot, layer, error)]
        return []

    def _hand_on(self, snapshot: Found, layer: str, refusal: HasDependents) -> str:
        """Give a snapshot to the live layer that it was taken of, and say under which name that has it."""
        clones = [one for one in self._children() if one.origin == snapshot.name]
        if children := [one.name for one in clones if one.parent == _quoted(layer)]:
            raise errors.LayerHasChildren(layer, tuple(children))
        if not clones or clones[0].home != self.home:
            raise ZfsError(refusal.command, refusal.said, "somebody else made clones of it: destroy or promote them")
        last = snapshot.snapshot
        if last == _SEALED:
            last = new_name()
            self.tool.run("rename", snapshot.name, f"{snapshot.name.partition('@')[0]}@{last}")
        # What is handed on is in no quota of the one that gets it: it is held by refquota since it was forked.
        self.tool.run("set", "quota=none", clones[0].name)
        self.tool.run("promote", clones[0].name)
        return f"{clones[0].name}@{last}"

    def sweep(self, known: Callable[[], set[str]]) -> None:
        """Destroy datasets that are ours and that no folder knows, and snapshots that were handed on to nobody.

        What is in use, or has somebody else's things in it, is found again the next time.

        Args:
            known: read after the datasets are; a folder is there before its dataset is.
        """
        found = [one for one in self._children(2) if one.home == self.home]
        for dataset in self._orphans(found, known):
            with contextlib.suppress(errors.GraphDriverError):
                self.destroy(dataset, dataset)
        for one in found:
            if one.is_ours and is_handed_on(one.snapshot):
                with contextlib.suppress(ZfsError):
                    self.tool.run("destroy", one.name)

    def _orphans(self, found: list[Found], known: Callable[[], set[str]]) -> Iterator[str]:
        ours = [one.name.removeprefix(f"{self.places.above}/") for one in found]
        ours = [name for name in ours if NAME.fullmatch(name)]
        if ours:
            folders = known()
            yield from (name for name in ours if name not in folders)

    def _of(self, dataset: str) -> list[Found]:
        """Give a dataset with its snapshots and what is below it.

        Raises:
            Missing: there is none.
        """
        return self._listed("-r", self.places.name(dataset))

    def _children(self, depth: int = 1) -> list[Found]:
        return self._listed("-r", "-d", f"{depth}", self.places.above)

    def _listed(self, *arguments: str) -> list[Found]:
        columns = f"name,origin,{_HOME},{_PARENT},{_MARK}"
        kinds = "filesystem,volume,snapshot"
        return [Found(*row) for row in self.tool.rows("list", "-H", "-t", kinds, "-o", columns, *arguments)]

    def _refuse_foreign(self, dataset: str, found: list[Found]) -> None:
        """Refuse to touch a dataset that is not ours, or has on it what is not."""
        (itself, *others) = found
        command = f"destroy {self.places.name(dataset)}"
        if itself.home != self.home:
            raise ZfsError(command, f"it was made for another home ({_HOME}={itself.home})", "open that one instead")
        foreign = [one.name for one in others if not one.is_ours]
        if foreign:
            advice = "destroy these where they are not needed any more"
            raise ZfsError(command, f"somebody else made {', '.join(foreign[:5])}", advice)


def new_name() -> str:
    """Make a name that no dataset has."""
    return f"{PREFIX}{os.urandom(8).hex()}"


def _options(settings: tuple[str, ...]) -> list[str]:
    return [word for setting in settings for word in ("-o", setting)]


def _quoted(name: str | None) -> str:
    """Write a layer's name as the value of a property: printable ASCII in one column, 600 characters at most."""
    return "none" if name is None else "=" + urllib.parse.quote(os.fsencode(name), safe="")
