"""Which dataset a home has its layers in, and what can be done there, found out by trying."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping

import attrs

from graphdrivers import errors
from graphdrivers.kit import abilities, layerdirs
from graphdrivers.linux import mountinfo
from graphdrivers.model import Capabilities, Deviation, Support
from graphdrivers_zfs import datasets, quirks, tool
from graphdrivers_zfs import home as home_of
from graphdrivers_zfs.datasets import Datasets
from graphdrivers_zfs.mounting import TYPES, Places

NAME = "zfs"

OPTION = "dataset"

_LONGEST = 255
"""Bytes in the full name of a snapshot. Source: zfs(8), ``ZFS_MAX_DATASET_NAME_LEN``."""

_DATASET = re.compile(r"[A-Za-z][A-Za-z0-9_.: -]*(/[A-Za-z0-9_.:][A-Za-z0-9_.: -]*)*")
"""Source: zfs(8), *ZFS Component Naming Requirements*."""

_EXTRAS = ("acltype=posixacl", "xattr=sa")
"""Without the first OpenZFS keeps no POSIX ACLs; the second makes xattrs fast. zfs-fuse needs neither."""


_WITH = ", with "


@attrs.frozen
class Trial:
    """What trying showed."""

    files: Capabilities
    extras: tuple[str, ...]
    views: bool
    fuse: bool
    deviations: tuple[Deviation, ...]


def check_options(home: str, options: Mapping[str, str]) -> dict[str, str]:
    """Read the options of a person, completed by those that the home was made with.

    Raises:
        InvalidOption: unknown, impossible, or not what the home was made with.
    """
    for key in options:
        if key != OPTION:
            raise errors.InvalidOption(NAME, key, f"it is unknown; there is only {OPTION}=POOL/NAME")
    wanted = options.get(OPTION)
    if wanted is not None and not _DATASET.fullmatch(wanted):
        raise errors.InvalidOption(NAME, OPTION, f"{wanted!r} cannot be the name of a dataset")
    recorded = layerdirs.recorded_options(home, NAME)
    if recorded is None:
        return {OPTION: wanted} if wanted is not None else {}
    if wanted is not None and wanted != recorded.get(OPTION):
        had = f"{OPTION}={recorded[OPTION]}" if OPTION in recorded else "the dataset that it lies on"
        raise errors.InvalidOption(NAME, OPTION, f"{home!r} was made with {had}, not {wanted!r}")
    return recorded


def dataset_of(home: str, lasting: Mapping[str, str]) -> str:
    """Give the dataset that the layers of a home are made in: the one chosen, else the one that the home lies on.

    Raises:
        IncompatibleFilesystem: the home is not on ZFS, and no dataset was chosen.
    """
    chosen = lasting.get(OPTION)
    name = chosen if chosen is not None else _dataset_below(home)
    if len(os.fsencode(name)) + 1 + datasets.NAME_LENGTH > _LONGEST:
        fix = f"choose one with a shorter name: --opt {OPTION}=POOL/NAME"
        raise errors.IncompatibleFilesystem(NAME, f"the name of dataset {name!r} is too long for others below it", fix)
    return name


def _dataset_below(home: str) -> str:
    place = os.path.realpath(home)
    above = [mount for mount in mountinfo.read() if f"{place}/".startswith(mount.target.rstrip("/") + "/")]
    mount = max(above, key=lambda one: len(one.target))  # of several at one place the last, which covers the others
    mount = [one for one in above if one.target == mount.target][-1]
    if mount.fs_type not in TYPES or "@" in mount.source:
        reason = f"{home!r} is on {mount.fs_type}, not on a writable ZFS dataset"
        fix = f"put --root on one, or choose one with --opt {OPTION}=POOL/NAME"
        raise errors.IncompatibleFilesystem(NAME, reason, fix)
    return mount.source


def probed(home: str, options: Mapping[str, str]) -> Support:
    """Make a dataset, look what files in it can be, and destroy it.

    Raises:
        PrerequisiteMissing: no program, no daemon, no such dataset, no permission; or a mount is not seen here.
        IncompatibleFilesystem: see `dataset_of`.
        InvalidOption: see `check_options`.
    """
    lasting = check_options(home, options)
    program = tool.Tool(tool.find(NAME))
    above = dataset_of(home, lasting)
    if os.geteuid() != 0:
        raise errors.PrerequisiteMissing(NAME, "only root can mount datasets", "run as root")
    with abilities.scratch(NAME, home) as folder:
        try:
            places = Places(program, above, folder)
            trial = _tried(Datasets(program, places, home_of.number_of(home) or "trial"))
        except tool.ZfsError as error:
            raise errors.PrerequisiteMissing(NAME, error.message, error.fix or _fix(above)) from error
    return Support(_capabilities(trial), _engine(trial), _notes(trial, above), trial.deviations)


def _fix(above: str) -> str:
    return f"see that 'zfs create {above}/new' works, with the pool imported and zfs-fuse or the kernel module running"


def _tried(found: Datasets) -> Trial:
    dataset = datasets.new_name()
    home_of.intend(found.places.folder, dataset)  # for those who clean up, should this process be killed
    with contextlib.ExitStack() as stack:
        stack.callback(found.destroy, dataset, "trial")
        extras = _made(found, dataset)
        place = found.places.begin(dataset, "trial")
        stack.callback(found.places.unmount, dataset, "trial")
        kind = next(iter(mount.fs_type for mount in mountinfo.read() if mount.target == os.path.realpath(place)))
        fuse = kind.startswith("fuse")
        deviations = quirks.found(place, fuse=fuse)
        return Trial(abilities.tried(place), extras, abilities.views_are_readonly(place), fuse, deviations)


def _made(found: Datasets, dataset: str) -> tuple[str, ...]:
    """Make a dataset with those of the extra properties that this ZFS knows."""
    for extras in _choices():
        with contextlib.suppress(tool.UnknownProperty):
            attrs.evolve(found, extras=extras).make(dataset, "trial", 1 << 30)
            return extras
    raise errors.NotSupported(NAME, f"this ZFS lacks one of the properties {', '.join(datasets.SETTINGS)}", "update it")


def _choices() -> Iterator[tuple[str, ...]]:
    yield _EXTRAS
    yield ()


def _capabilities(trial: Trial) -> Capabilities:
    return attrs.evolve(
        trial.files,
        mount_free=True,
        readonly_views=trial.views,
        rename_directories=True,
        hard_links_across_layers=True,
        stable_inodes=True,
        copy_on_write=True,
        quota=True,
        fork_live=True,
        # Each layer is a file system of its own: blocks are not shared with what is copied from another.
        reflink=False,
    )


def _engine(trial: Trial) -> str:
    kind = "zfs-fuse" if trial.fuse else "kernel module"
    return f"ZFS datasets and clones, {kind}" + (_WITH + ", ".join(trial.extras) if trial.extras else "")


def extras_of(support: Support) -> tuple[str, ...]:
    """Give the extra properties that the probe found."""
    _, _, extras = support.engine.partition(_WITH)
    return tuple(extras.split(", ")) if extras else ()


def _notes(trial: Trial, above: str) -> tuple[str, ...]:
    notes = [f"layers are datasets in {above}"]
    if trial.files.time_resolution > 1:
        notes.append(f"modification times are kept to {trial.files.time_resolution / 10**9:g} s")
    return (*notes, *abilities.notes_on_owners(trial.files))
