"""One driver in a fresh root, with what the workloads work on, and the clock that they start."""

import contextlib
import io
import os
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs

from graphdrivers import errors, loading
from graphdrivers.linux import mounts, trees

LARGE_FILE = 32 << 20
"""Bytes of the file that `Bed.large` holds."""


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
    sealed; what a sample changes is a child of that.
    """

    def __init__(self, name: str, folder: str, image: Sequence[Tar], files: int, options: Mapping[str, str]) -> None:
        """Open driver ``name`` in ``folder``, which exists and is empty.

        Args:
            name: of the driver.
            folder: absolute; the caller removes it.
            image: its layers, the base first.
            files: how many small files a workload makes.
            options: for the driver.

        Raises:
            DriverUnavailable, DriverNotFound, DriverConflict, InvalidOption: see `loading.load_driver`.
        """
        self.name = name
        self.folder = folder
        self.image = image
        self.files = files
        self.driver = loading.load_driver(name, os.path.join(folder, name), options)
        self.elapsed = 0.0
        self._made: dict[str, str] = {}
        self._count = 0
        self._stack: list[str] = []

    def close(self) -> None:
        """Let go of the driver; its files stay."""
        self.driver.close()

    @contextlib.contextmanager
    def clock(self) -> Iterator[None]:
        """Add the time that the block takes to `elapsed` [s]."""
        start = time.perf_counter()
        yield
        self.elapsed += time.perf_counter() - start

    @property
    def loops(self) -> int:
        """How often to repeat what takes microseconds on a driver that copies nothing."""
        return 10 if self.driver.support.capabilities.copy_on_write else 1

    def unused(self) -> str:
        """Give a layer name that was never given before."""
        self._count += 1
        return f"bench-{self._count}"

    @contextlib.contextmanager
    def child(self, parent: str | None) -> Iterator[str]:
        """Make a writable layer over ``parent`` that is removed when the block ends."""
        layer = self.unused()
        self.driver.create(layer, parent)
        try:
            yield layer
        finally:
            self.driver.remove(layer)

    @contextlib.contextmanager
    def merged(self, layer: str, *, view: bool = False) -> Iterator[str]:
        """Give the path of a layer's merged tree, mounted where that is needed until the block ends."""
        plan = self.driver.mounts(layer, view=view)
        plain = mounts.plain_directory(plan)
        if plain is not None:
            yield plain
        else:
            target = os.path.join(self.folder, "merged")
            os.makedirs(target, exist_ok=True)
            mounts.attach(plan, target)
            try:
                yield target
            finally:
                mounts.detach(target)
        self.driver.settle(layer)

    def apply_image(self) -> list[str]:
        """Unpack the image into new layers, sealed and timed (apply alone); give them, the base first.

        Raises:
            DigestMismatch: the driver read something else than the image.
        """
        layers: list[str] = []
        for tar in self.image:
            layer = self.unused()
            self.driver.create(layer, layers[-1] if layers else None)
            layers.append(layer)
            with open(tar.path, "rb") as file, self.clock():
                applied = self.driver.apply(layer, file)
            if applied.diff_id != tar.diff_id:
                raise errors.DigestMismatch(f"layer applied by {self.name}", tar.diff_id, applied.diff_id)
            self.driver.seal(layer)
        return layers

    def base(self) -> str:
        """Give the top layer of the image."""
        return self._once("image", lambda: self.apply_image()[-1])

    def edited(self) -> str:
        """Give a layer over the image with new, changed and deleted files: `files` of them."""
        return self._once("edited", self._make_edited)

    def large(self) -> str:
        """Give a sealed layer with one file ``large`` of `LARGE_FILE` bytes."""
        return self._once("large", lambda: self._applied(None, {"large": b"\0\1\2\3" * (LARGE_FILE // 4)}))

    def stack(self, depth: int) -> str:
        """Give the top of a stack of ``depth`` sealed layers, each with one small file (``file-1`` at the bottom)."""
        while len(self._stack) < depth:
            number = len(self._stack) + 1
            content = {f"file-{number}": b"%d\n" % number}
            self._stack.append(self._applied(self._stack[-1] if self._stack else None, content))
        return self._stack[depth - 1]

    def disk(self) -> int:
        """Measure the bytes allocated below the driver's home."""
        descriptor = os.open(self.driver.home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return trees.usage(descriptor)[2]
        finally:
            os.close(descriptor)

    def _once(self, what: str, make: Callable[[], str]) -> str:
        if what not in self._made:
            before = self.elapsed
            self._made[what] = make()
            self.elapsed = before  # making the ground is nobody's sample
        return self._made[what]

    def _applied(self, parent: str | None, content: Mapping[str, bytes]) -> str:
        """Make a sealed layer of files, by a tar: that needs no mount."""
        layer = self.unused()
        self.driver.create(layer, parent)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, data in content.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        buffer.seek(0)
        self.driver.apply(layer, buffer)
        self.driver.seal(layer)
        return layer

    def _make_edited(self) -> str:
        layer = self.unused()
        self.driver.create(layer, self.base())
        with self.merged(layer) as root:
            write_files(os.path.join(root, "bench.new"), self.files)
            for name in sorted(os.listdir(root))[:3]:
                os.utime(os.path.join(root, name), ns=(0, 1), follow_symlinks=False)
        self.driver.seal(layer)
        return layer


def write_files(folder: str, count: int) -> None:
    """Make ``count`` files of 1 KiB in ``folder``, a hundred to a directory."""
    for number in range(count):
        if number % 100 == 0:
            os.makedirs(os.path.join(folder, str(number // 100)))
        with open(os.path.join(folder, str(number // 100), f"file-{number}"), "wb", buffering=0) as file:
            file.write(b"%1024d" % number)
