"""The drivers of a run: where each one's root lies, what it is told, and the image for all of them."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence

import attrs

from graphdrivers import errors
from graphdrivers.archive import compression
from graphdrivers.bench import cleaning
from graphdrivers.bench.bed import Bed, Tar
from graphdrivers.bench.instruments import Instruments
from graphdrivers.bench.sizes import Sizes
from graphdrivers.images.image import Image
from graphdrivers.model import Limits

_CHUNK = 1 << 20
"""Bytes copied at a time."""


@attrs.frozen
class Wanted:
    """A driver that is to be measured."""

    name: str
    parent: str
    """Where the folder for its root is made."""
    options: Mapping[str, str] = attrs.Factory(dict)


@attrs.frozen
class Given:
    """What all of them get."""

    image: Sequence[Tar]
    sizes: Sizes
    instruments: Instruments


@contextlib.contextmanager
def beds(
    wanted: Sequence[Wanted], given: Given
) -> Iterator[tuple[list[Bed], dict[str, errors.GraphDriverError | OSError]]]:
    """Open one bed per driver; give those that opened, and why the others did not. All is removed afterwards."""
    opened: list[Bed] = []
    refused: dict[str, errors.GraphDriverError | OSError] = {}
    with contextlib.ExitStack() as stack:
        for one in wanted:
            try:
                opened.append(stack.enter_context(_bed(one, given)))
            except (
                errors.DriverUnavailable,
                errors.DriverNotFound,
                errors.DriverConflict,
                errors.InvalidOption,
                OSError,
            ) as error:
                refused[one.name] = error
        yield opened, refused


@contextlib.contextmanager
def _bed(wanted: Wanted, given: Given) -> Iterator[Bed]:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(cleaning.scratch(wanted.parent))
        bed = Bed(
            wanted.name,
            folder,
            given.image,
            sizes=given.sizes,
            instruments=given.instruments,
            options=wanted.options,
        )
        stack.callback(_closed, bed)
        yield bed


def _closed(bed: Bed) -> None:
    with cleaning.uninterrupted():
        cleaning.unmount_below(bed.folder)
        bed.close()


def unpacked(image: Image, folder: str) -> list[Tar]:
    """Decompress the layers of an image into ``folder``, for every driver to read the same bytes.

    Raises:
        DigestMismatch, ArchiveError: the image is damaged.
    """
    tars = []
    for number, layer in enumerate(image.layers):
        path = os.path.join(folder, f"layer-{number}.tar")
        with (
            image.open_layer(layer) as stored,
            contextlib.closing(compression.open_plain(stored, Limits())) as plain,
            open(path, "wb", buffering=0) as file,
        ):
            while chunk := plain.read(_CHUNK):
                file.write(chunk)
        tars.append(Tar(path, layer.diff_id, os.path.getsize(path)))
    return tars
