"""One driver in a fresh root, with what the workloads stand on."""

import contextlib
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import attrs

from graphdrivers import errors, loading
from graphdrivers.bench.contents import File, write_tar
from graphdrivers.bench.instruments import Instruments
from graphdrivers.bench.readings import Readings
from graphdrivers.bench.sizes import Sizes
from graphdrivers.linux import durable, filesystems, trees

_GROUND_PATIENCE = 10
"""How many times the patience of a sample making the ground may take."""


@attrs.frozen
class Tar:
    """One layer of the image that is measured with, uncompressed on disk."""

    path: str
    diff_id: str
    size: int
    """Bytes of the tar."""


class Bed:
    """A driver, alone in its folder, and the layers that workloads share.

    What several samples can share is made once, when it is first asked for, and
    sealed; what a sample changes is a child of that. `readings` are those of
    the sample that is being taken.
    """

    def __init__(
        self,
        name: str,
        folder: str,
        image: Sequence[Tar],
        *,
        sizes: Sizes,
        instruments: Instruments,
        options: Mapping[str, str] = loading.NO_OPTIONS,
    ) -> None:
        """Open driver ``name`` in ``folder``, which exists and is empty.

        Args:
            name: of the driver.
            folder: absolute; the caller removes it.
            image: its layers, the base first.
            sizes: how much work a sample is.
            instruments: what is measured with.
            options: for the driver.

        Raises:
            DriverUnavailable, DriverNotFound, DriverConflict, InvalidOption: see `loading.load_driver`.
        """
        self.name = name
        self.folder = folder
        self.image = image
        self.sizes = sizes
        self.instruments = instruments
        self.driver = loading.load_driver(name, os.path.join(folder, name), options)
        self.readings = Readings()
        self.patience = sizes.patience
        """What is left of it when time runs short."""
        self.turns: int | None = None
        """How often exactly samples do what they repeat, whatever the patience; ``None`` where that decides."""
        self._made: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._stack: list[str] = []

    def close(self) -> None:
        """Remove every layer, in the driver's own way, and let go of the driver; nothing is mounted any more."""
        try:
            self.driver.settle()
            for record in list(self.driver.layers()):
                self.driver.remove(record.name)
        finally:
            self.driver.close()

    def begin(self, readings: Readings | None = None) -> None:
        """Begin a sample: nothing is read yet."""
        self.readings = Readings() if readings is None else readings

    def times(self, count: int) -> Iterator[int]:
        """Count to ``count``, once at least, as long as the patience lasts."""
        start = time.monotonic()
        for number in range(self.most(count)):
            yield number
            if self.turns is None and time.monotonic() - start > self.patience:
                return

    def most(self, count: int) -> int:
        """Give how often at most that is done which a workload does ``count`` times."""
        return count if self.turns is None else min(count, self.turns)

    def unused(self) -> str:
        """Give a layer name that was never given before; threads may ask at once."""
        return f"bench-{next(self._numbers)}"

    def place(self, layer: str) -> str:
        """Make the folder that a layer is mounted on."""
        target = os.path.join(self.folder, f"at-{layer}")
        os.mkdir(target)
        return target

    def apply_image(self, row: str | None = None) -> list[str]:
        """Unpack the image into new layers, sealed; give them, the base first.

        Args:
            row: what the time of the unpacking alone is counted for.

        Raises:
            DigestMismatch: the driver read something else than the image.
        """
        layers: list[str] = []
        for tar in self.image:
            layer = self.unused()
            self.driver.create(layer, layers[-1] if layers else None)
            layers.append(layer)
            once = int(tar is self.image[0])
            with self.readings.clock(row, once) if row else contextlib.nullcontext(), open(tar.path, "rb") as file:
                applied = self.driver.apply(layer, file)
            if applied.diff_id != tar.diff_id:
                raise errors.DigestMismatch(f"layer applied by {self.name}", tar.diff_id, applied.diff_id)
            self.driver.seal(layer)
        return layers

    @property
    def has_image(self) -> bool:
        """Whether the image was unpacked for good."""
        return "image" in self._made

    def image_layer(self, row: str | None = None) -> str:
        """Give the top layer of the image, unpacked when it is first asked for; ``row`` as in `apply_image`."""
        return self._once("image", lambda: self.apply_image(row)[-1])

    def ground(self, what: str, files: Callable[[], Iterable[File]]) -> str:
        """Give a sealed layer without a parent that holds these files, made when it is first asked for."""
        return self._once(what, lambda: self.applied(None, files()))

    def stack(self, depth: int) -> str:
        """Give the top of a stack of ``depth`` sealed layers, each with one small file (``file-1`` at the bottom).

        Raises:
            ChainTooDeep: the driver cannot.
            TimeoutError: making it takes longer than patience has.
        """
        deadline = time.monotonic() + self.patience * _GROUND_PATIENCE
        while len(self._stack) < depth:
            if time.monotonic() > deadline:
                text = f"making {depth} layers takes longer than there is time for: {len(self._stack)} were made"
                raise TimeoutError(text)
            number = len(self._stack) + 1
            parent = self._stack[-1] if self._stack else None
            self._stack.append(self.applied(parent, [File(f"file-{number}", 100)]))
        return self._stack[depth - 1]

    def disk(self) -> float:
        """Measure the bytes that the driver has taken; only differences mean something.

        A driver that copies nothing is asked what each layer holds by itself;
        where whole trees are copied they are walked, and where those share
        blocks (reflinks) the free space of the file system is asked for.
        """
        can = self.driver.support.capabilities
        if can.copy_on_write:
            return sum(self.driver.usage(record.name).disk for record in self.driver.layers())
        descriptor = os.open(self.driver.home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not can.reflink:
                return trees.usage(descriptor)[2]
            durable.syncfs(descriptor)
            return -filesystems.free_bytes(descriptor)
        finally:
            os.close(descriptor)

    def _once(self, what: str, make: Callable[[], str]) -> str:
        if what not in self._made:
            self._made[what] = make()
        return self._made[what]

    def applied(self, parent: str | None, files: Iterable[File]) -> str:
        """Make a sealed layer of files, by a tar: that needs no mount."""
        layer = self.unused()
        self.driver.create(layer, parent)
        with tempfile.TemporaryFile(dir=self.folder) as buffer:
            write_tar(files, buffer)
            buffer.seek(0)
            self.driver.apply(layer, buffer)
        self.driver.seal(layer)
        return layer
