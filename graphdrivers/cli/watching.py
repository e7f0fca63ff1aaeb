"""How the layers of an image come in, as it is told: Docker's lines, and live bars on a terminal."""

import contextlib
import io
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, cast

import attrs

from graphdrivers.cli import output
from graphdrivers.cli.described import short
from graphdrivers.cli.settings import Settings
from graphdrivers.images.image import Image, ImageLayer
from graphdrivers.store.incoming import Watch
from graphdrivers.store.ledger import Layer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Lines(Watch):
    """Tells one line on stderr for each layer that is there or came."""

    def __init__(self, settings: Settings, labels: Sequence[str], *, done: str = "Pull complete") -> None:
        """Tell of layers that are called so, lowest first; ``done`` is what is said of one that came."""
        self._settings = settings
        self._done = done
        self._labels = labels
        self._noted: set[str] = set()
        self.states = [""] * len(labels)
        """What became of each layer: ``exists`` or ``complete``; nothing yet where it failed."""

    def label(self, number: int) -> str:
        """Give what a layer is called."""
        return self._labels[number]

    def say(self, text: str) -> None:
        """Tell a line."""
        output.message(self._settings, text)

    def found(self, number: int, layer: Layer) -> None:  # noqa: ARG002 - the signature of `Watch`
        """Tell that it needs not come."""
        self.states[number] = "exists"
        self.say(f"{self.label(number)}: Already exists")

    def done(self, number: int, layer: Layer) -> None:
        """Tell that it came, and once what could not be kept of it."""
        self.states[number] = "complete"
        self.say(f"{self.label(number)}: {self._done}")
        for note in layer.notes:
            if note not in self._noted:
                self._noted.add(note)
                self.say(f"{self.label(number)}: note: {note}")


class Bars(Lines):
    """Draws a bar for each layer that is on its way; the lines stay above."""

    def __init__(self, settings: Settings, labels: Sequence[str], sizes: Sequence[int], bars: "Progress") -> None:
        """Draw in ``bars``, which its maker starts and stops; sizes are those of what is read, in bytes."""
        super().__init__(settings, labels)
        self._bars = bars
        self._sizes = sizes
        self._tasks: dict[int, TaskID] = {}
        self._over: set[int] = set()
        self._guard = threading.Lock()

    def say(self, text: str) -> None:
        """Tell a line above the bars."""
        if self._settings.verbosity >= 0:
            self._bars.console.print(output.one_line(text), markup=False, highlight=False)

    def read(self, number: int, size: int) -> None:
        """Show that ``size`` stored bytes of a layer are read; it may be read before its turn."""
        with self._guard:
            if number in self._over:
                return
            if number not in self._tasks:
                text = f"{self.label(number)}: Extracting"
                self._tasks[number] = self._bars.add_task(text, total=self._sizes[number] or None)
            self._bars.update(self._tasks[number], completed=size)

    def found(self, number: int, layer: Layer) -> None:
        """Take its bar away."""
        self._drop(number)
        super().found(number, layer)

    def done(self, number: int, layer: Layer) -> None:
        """Take its bar away."""
        self._drop(number)
        super().done(number, layer)

    def _drop(self, number: int) -> None:
        with self._guard:
            self._over.add(number)
            task = self._tasks.pop(number, None)
            if task is not None:
                self._bars.remove_task(task)
        self._bars.refresh()  # else the next line is told above bars of a moment ago


@contextlib.contextmanager
def watched(settings: Settings, source: Image) -> Iterator[tuple[Image, Lines]]:
    """Tell how the layers of ``source`` come in during the block; give the image to bring in, and who is told."""
    labels = [short(layer.digest or layer.diff_id) for layer in source.layers]
    if settings.verbosity < 0 or settings.json or not sys.stderr.isatty():
        yield source, Lines(settings, labels)
        return
    from rich import progress  # noqa: PLC0415 - 50 ms that only drawn bars are worth
    from rich.console import Console  # noqa: PLC0415 - as above

    columns = [
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=None),
        progress.DownloadColumn(binary_units=True),
    ]
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        told = Bars(settings, labels, [layer.size for layer in source.layers], bars)
        yield attrs.evolve(source, open_layer=_metered(source, told)), told


def _metered(source: Image, told: Bars) -> Callable[[ImageLayer], BinaryIO]:
    numbers = {layer: number for number, layer in enumerate(source.layers)}

    def open_layer(layer: ImageLayer) -> BinaryIO:
        number = numbers[layer]
        return cast("BinaryIO", _Metered(source.open_layer(layer), lambda size: told.read(number, size)))

    return open_layer


class _Metered(io.RawIOBase):
    """A stream that tells how much of it is read."""

    def __init__(self, stream: BinaryIO, tell: Callable[[int], None]) -> None:
        super().__init__()
        self._stream = stream
        self._tell = tell
        self._count = 0

    def fileno(self) -> int:
        return self._stream.fileno()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        piece = self._stream.read(size)
        self._count += len(piece)
        self._tell(self._count)
        return piece

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()
