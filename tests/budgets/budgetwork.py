"""The operations whose calls are counted, each on the same files in every run.

What counts is inside of ``bed.span()``; the rest prepares it and cleans up.
"""

import contextlib
import gzip
import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from graphdrivers import Store, loading, open_store
from graphdrivers.driver import Driver
from graphdrivers.linux import mounts

CONTENT = b"%3584d"
"""With its header a file of this size takes 4096 bytes of a tar."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_OCI = "application/vnd.oci.image"


@attrs.frozen
class Size:
    """How much an operation is given to do."""

    files: int = 16
    folders: int = 4
    """The files are spread over them."""
    layers: int = 3

    def __str__(self) -> str:
        """Name it in a trace."""
        return f"{self.files}-{self.folders}-{self.layers}"

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Read what `__str__` gave."""
        return cls(*map(int, text.split("-")))


SMALL = Size()
FILES, FOLDERS, LAYERS = attrs.evolve(SMALL, files=80), attrs.evolve(SMALL, folders=16), attrs.evolve(SMALL, layers=11)

ALONE: Mapping[str, Size] = {}
OF_FILES: Mapping[str, Size] = {"each more file": FILES, "each more folder": FOLDERS}
OF_LAYERS: Mapping[str, Size] = {"each more layer": LAYERS}


@attrs.frozen
class Bed:
    """A driver and a store of its kind, in a folder that is theirs, and what the operations work on."""

    folder: str
    driver: Driver
    store: Store
    mark: Callable[[str], None]
    """Put a mark into the trace."""
    tracing: Callable[[], contextlib.AbstractContextManager[None]]
    """Entered for what counts."""

    @contextlib.contextmanager
    def span(self, name: str, size: Size) -> Iterator[None]:
        """Let the calls of the block count."""
        self.mark(f"begin/{name}/{size}")
        try:
            with self.tracing():
                yield
        finally:
            self.mark("end")

    @contextlib.contextmanager
    def layer(self, parent: str | None, tar: bytes = b"") -> Iterator[str]:
        """Make a writable layer for the time of a block."""
        name = f"layer-{sum(1 for _ in self.driver.layers())}"
        self.driver.create(name, parent)
        if tar:
            self.driver.apply(name, io.BytesIO(tar))
        try:
            yield name
        finally:
            self.driver.remove(name)

    @contextlib.contextmanager
    def sealed(self, parent: str | None, tar: bytes) -> Iterator[str]:
        """Make a sealed layer for the time of a block."""
        with self.layer(parent, tar) as name:
            self.driver.seal(name)
            yield name

    @contextlib.contextmanager
    def stack(self, layers: int) -> Iterator[str]:
        """Make a stack of sealed layers."""
        with contextlib.ExitStack() as kept:
            top = None
            for number in range(layers):
                top = kept.enter_context(self.sealed(top, tar_of(Size(1, 1), beginning=f"layer{number}-")))
            assert top is not None
            yield top

    def use(self, layer: str, work: Callable[[str], object] = len) -> None:
        """Mount a layer, work in it, unmount and settle it; a driver that needs no mount gives its folder."""
        plan = self.driver.mounts(layer)
        plain = mounts.plain_directory(plan)
        if plain is None:
            merged = os.path.join(self.folder, "merged")
            mounts.attach(plan, merged)
            try:
                work(merged)
            finally:
                mounts.detach(merged)
        else:
            work(plain)
        self.driver.settle(layer)


def begin(
    folder: str,
    driver: str,
    options: Mapping[str, str],
    mark: Callable[[str], None],
    tracing: Callable[[], contextlib.AbstractContextManager[None]],
) -> Bed:
    """Open a driver and a store below an empty folder."""
    os.mkdir(os.path.join(folder, "merged"))
    opened = loading.load_driver(driver, os.path.join(folder, "home"), options)
    store = open_store(os.path.join(folder, "store"), driver, options=options)
    bed = Bed(folder, opened, store, mark, tracing)
    write_image(folder)
    store.import_image(os.path.join(folder, "image"), name="image")
    return bed


def tar_of(size: Size, beginning: str = "") -> bytes:
    """Make a layer tar of small files, owned by whoever unpacks it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(size.folders):
            folder = tarfile.TarInfo(f"{beginning}folder{number}")
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            folder.mtime, folder.uid, folder.gid = 1_700_000_000, os.geteuid(), os.getegid()
            tar.addfile(folder)
        for path in paths(size, beginning):
            member, content = tarfile.TarInfo(path), CONTENT % len(path)
            member.size, member.mtime = len(content), 1_700_000_000
            member.uid, member.gid = os.geteuid(), os.getegid()
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def paths(size: Size, beginning: str = "") -> list[str]:
    """Name the files of a size."""
    share = -(-size.files // size.folders)
    return [f"{beginning}folder{number // share}/file{number}" for number in range(size.files)]


def edit(size: Size) -> Callable[[str], None]:
    """Write to the files of a size, in a tree that has them."""

    def work(root: str) -> None:
        for path in paths(size):
            with open(os.path.join(root, path), "r+b", buffering=0) as file:
                file.write(b"changed")

    return work


def write_image(folder: str) -> None:
    """Write an OCI layout ``image`` of three layers, compressed."""
    blobs = os.path.join(folder, "image", "blobs", "sha256")
    os.makedirs(blobs)
    tars = [tar_of(SMALL), tar_of(SMALL, "middle-"), tar_of(SMALL, "top-")]

    def blob(media: str, content: bytes | dict[str, Any]) -> dict[str, Any]:
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        digest = hashlib.sha256(text).hexdigest()
        with open(os.path.join(blobs, digest), "wb") as file:
            file.write(text)
        return {"mediaType": f"{_OCI}.{media}", "digest": f"sha256:{digest}", "size": len(text)}

    layers = [blob("layer.v1.tar+gzip", gzip.compress(tar, mtime=0)) for tar in tars]
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars]}
    architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
    config = blob("config.v1+json", {"architecture": architecture, "os": "linux", "rootfs": rootfs})
    manifest = blob("manifest.v1+json", {"schemaVersion": 2, "config": config, "layers": layers})
    for name, document in (
        ("index.json", {"schemaVersion": 2, "manifests": [manifest]}),
        ("oci-layout", {"imageLayoutVersion": "1.0.0"}),
    ):
        with open(os.path.join(folder, "image", name), "w", encoding="utf-8") as file:
            json.dump(document, file)


def apply(bed: Bed, size: Size) -> None:
    """Unpack a layer tar of small files, keeping its header record."""
    source, record = os.path.join(bed.folder, "layer.tar"), os.path.join(bed.folder, "record")
    with open(source, "wb") as file:
        file.write(tar_of(size))
    with bed.layer(None) as layer, open(source, "rb") as tar, open(record, "wb") as headers, bed.span("apply", size):
        bed.driver.apply(layer, tar, headers=headers)


def diff(bed: Bed, size: Size) -> None:
    """Read the diff of a sealed layer of new files, over another, to its end."""
    with (
        bed.sealed(None, tar_of(SMALL, "base-")) as base,
        bed.sealed(base, tar_of(size)) as layer,
        bed.span("diff", size),
        bed.driver.diff(layer) as tar,
    ):
        while tar.read(1 << 20):
            pass


def changes(bed: Bed, size: Size) -> None:
    """List the changes of a layer in which all files of the one below were written to."""
    with bed.sealed(None, tar_of(size)) as base, bed.layer(base) as layer:
        bed.use(layer, edit(size))
        with bed.span("changes", size):
            for _change in bed.driver.changes(layer):
                pass


def untouched(bed: Bed, size: Size) -> None:
    """List the changes of a layer in which nothing was changed, over one of small files."""
    with bed.sealed(None, tar_of(size)) as base, bed.layer(base) as layer:
        bed.use(layer)
        with bed.span("untouched", size):
            assert list(bed.driver.changes(layer)) == []


def create(bed: Bed, size: Size) -> None:
    """Create a writable layer over a stack."""
    with bed.stack(size.layers) as top:
        with bed.span("create", size):
            bed.driver.create("new", top)
        bed.driver.remove("new")


def seal(bed: Bed, size: Size) -> None:
    """Seal a layer."""
    with bed.layer(None, tar_of(size)) as layer, bed.span("seal", size):
        bed.driver.seal(layer)


def mount(bed: Bed, size: Size) -> None:
    """Mount, unmount and settle a writable layer over a stack."""
    with bed.stack(size.layers) as top, bed.layer(top) as layer:
        bed.use(layer)
        with bed.span("mount", size):
            bed.use(layer)


def remove(bed: Bed, size: Size) -> None:
    """Remove a layer of small files."""
    bed.driver.create("old")
    bed.driver.apply("old", io.BytesIO(tar_of(size)))
    with bed.span("remove", size):
        bed.driver.remove("old")


def opening(bed: Bed, size: Size) -> None:
    """Open a store with an image and close it."""
    with bed.span("open", size), open_store(bed.store.root):
        pass


def importing(bed: Bed, size: Size) -> None:
    """Bring in an image of three compressed layers of 16 small files."""
    bed.store.remove_image("image")
    with bed.span("import", size):
        bed.store.import_image(os.path.join(bed.folder, "image"), name="image")


def container(bed: Bed, size: Size) -> None:
    """Create, mount, unmount and remove a container of an image of three layers."""
    bed.store.create("image", name="first").remove()  # its init layer is made once for an image
    with bed.span("container", size):
        box = bed.store.create("image", name="box")
        box.mount().release()
        box.remove()


def fork(bed: Bed, size: Size) -> None:
    """Fork a container that was written to."""
    with _used(bed, size) as box:
        with bed.span("fork", size):
            second = box.fork("second")
        second.remove()


def checkpoint(bed: Bed, size: Size) -> None:
    """Checkpoint a container that was written to."""
    with _used(bed, size) as box, bed.span("checkpoint", size):
        box.checkpoint("point")


def rollback(bed: Bed, size: Size) -> None:
    """Take a container back to a checkpoint."""
    with _used(bed, size) as box:
        box.checkpoint("point")
        with bed.span("rollback", size):
            box.rollback("point")


@contextlib.contextmanager
def _used(bed: Bed, size: Size) -> Iterator[Any]:
    with bed.store.create("image", name="box") as box:
        with box.mounted() as root:
            edit(size)(str(root))
        yield box


@attrs.frozen
class Operation:
    """What is counted under one name."""

    run: Callable[[Bed, Size], None]
    sizes: Mapping[str, Size] = ALONE
    """Beside `SMALL`: what there is more of in each."""

    @property
    def title(self) -> str:
        """Say what it is."""
        return (self.run.__doc__ or "").partition("\n")[0]


OPERATIONS: Mapping[str, Operation] = {
    "apply": Operation(apply, OF_FILES),
    "diff": Operation(diff, OF_FILES),
    "changes": Operation(changes, OF_FILES),
    "untouched": Operation(untouched, OF_FILES),
    "create": Operation(create, OF_LAYERS),
    "seal": Operation(seal),
    "mount": Operation(mount, OF_LAYERS),
    "remove": Operation(remove, OF_FILES),
    "open": Operation(opening),
    "import": Operation(importing),
    "container": Operation(container),
    "fork": Operation(fork),
    "checkpoint": Operation(checkpoint),
    "rollback": Operation(rollback),
}
