"""Other people's programs that keep, unpack and mount layers, as we call them.

Each runs as a process for each of its verbs, for it offers no other door here;
what it takes to start is measured by itself (``startup.py``). Each keeps what it
has below a folder of its own, whatever the machine is configured for.
"""

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping

import attrs

from measuring import Contender, clocked, run

GNU_TAR = "GNU tar"
BSDTAR = "bsdtar"
UMOCI = "umoci"
STORAGE = "containers-storage"
BUILDAH = "buildah"
SKOPEO = "skopeo"

PROGRAMS = {
    GNU_TAR: ("tar", "--version"),
    BSDTAR: ("bsdtar", "--version"),
    UMOCI: ("umoci", "--version"),
    STORAGE: ("containers-storage", "version"),
    BUILDAH: ("buildah", "--version"),
    SKOPEO: ("skopeo", "--version"),
}
"""What each is called as, and how it tells its version."""

WHOLE_IMAGES = "it unpacks whole images only: see the import"
NO_IMAGES = "it knows no images"
NO_LAYERS = "it keeps no layers"
NO_MOUNTS = "it mounts nothing"


def missing() -> dict[str, str]:
    """Name the programs that are not installed, each with the reason for a dash."""
    return {name: "not installed" for name, (program, _) in PROGRAMS.items() if shutil.which(program) is None}


def versions() -> dict[str, str]:
    """Give the version of each program that is installed, as it tells it."""
    found = {}
    for name, command in PROGRAMS.items():
        if shutil.which(command[0]):
            found[name] = _version(run(*command))
    packaged = found.get(STORAGE)
    if packaged is not None and not any(character.isdigit() for character in packaged):
        found[STORAGE] = _packaged("containers-storage")
    return found


def _version(said: str) -> str:
    """Take the first word that begins with a digit."""
    words = said.replace(",", " ").split()
    return next((word for word in words if word[0].isdigit()), words[0] if words else "?")


def _packaged(package: str) -> str:
    """Ask the package manager for a version that the program does not tell."""
    if shutil.which("dpkg-query") is None:
        return "?"
    return run("dpkg-query", "-W", "-f", "${Version}", package)


def tar_into(program: str, folder: str, tar: str, *options: str) -> Contender:
    """Unpack with GNU tar or bsdtar, as root: owners and modes restored, and nothing made durable."""

    def unpack() -> float:
        target = os.path.join(folder, f"{program}-x")
        os.mkdir(target)
        try:
            return clocked(run, program, "-C", target, *options, "-xpf", tar)
        finally:
            shutil.rmtree(target)

    return unpack


def umoci_raw_unpack(folder: str, layout: str, reference: str) -> Contender:
    """Unpack an image's root file system with umoci, without a bundle around it."""
    return _umoci(folder, ["umoci", "raw", "unpack", "--image", f"{layout}:{reference}"])


def umoci_unpack(folder: str, layout: str, reference: str) -> Contender:
    """Unpack an image into a bundle with umoci, as its users do."""
    return _umoci(folder, ["umoci", "unpack", "--image", f"{layout}:{reference}"])


def _umoci(folder: str, command: list[str]) -> Contender:
    def unpack() -> float:
        target = os.path.join(folder, "umoci-x")
        try:
            return clocked(run, *command, target)
        finally:
            shutil.rmtree(target, ignore_errors=True)

    return unpack


@attrs.define
class ContainersStorage:
    """``containers-storage`` with its overlay driver: the layers of podman, buildah and CRI-O."""

    root: str
    _numbers: Iterator[int] = attrs.Factory(itertools.count)

    def command(self, *words: str) -> list[str]:
        """Give a command line for this store."""
        places = ["--graph", f"{self.root}/graph", "--run", f"{self.root}/run", "--storage-driver", "overlay"]
        return ["containers-storage", words[0], *places, *words[1:]]

    def call(self, *words: str) -> str:
        """Run a command; give what it printed."""
        return run(*self.command(*words))

    def new_name(self) -> str:
        """Give a layer ID that was not given before."""
        return f"{next(self._numbers):064x}"

    def create(self, parent: str | None = None) -> str:
        """Make a writable layer; give its ID."""
        name = self.new_name()
        self.call("create-layer", "-i", name, *([parent] if parent else []))
        return name

    def apply(self, layer: str, tar: str) -> None:
        """Unpack a tar into a layer."""
        self.call("applydiff", "-f", tar, layer)

    def applied(self, tar: str, parent: str | None = None) -> str:
        """Make a layer of a tar; give its ID."""
        layer = self.create(parent)
        self.apply(layer, tar)
        return layer

    def mount(self, layer: str) -> str:
        """Mount a layer; give where."""
        return self.call("mount", layer).split()[0]

    def unmount(self, layer: str) -> None:
        """Unmount a layer."""
        self.call("unmount", layer)

    def remove(self, layer: str) -> None:
        """Remove a layer."""
        self.call("delete-layer", layer)

    def stack(self, tars: list[str]) -> str:
        """Make a layer of each tar, one over the other; give the top."""
        layer = None
        for tar in tars:
            layer = self.applied(tar, layer)
        return layer or self.create()


@attrs.define
class Buildah:
    """``buildah``, whose images and containers lie in a containers/storage of their own."""

    root: str

    def call(self, *words: str) -> str:
        """Run a command; give what it printed."""
        places = ["--root", f"{self.root}/graph", "--runroot", f"{self.root}/run", "--storage-driver", "overlay"]
        return run("buildah", *places, *words)

    def pull(self, layout: str, reference: str) -> str:
        """Bring an image in from an OCI layout; give its ID."""
        policy = os.path.join(self.root, "policy.json")
        with open(policy, "w", encoding="ascii") as file:
            file.write('{"default": [{"type": "insecureAcceptAnything"}]}')
        return self.call("pull", "-q", "--signature-policy", policy, f"oci:{layout}:{reference}").split()[-1]

    def start(self, image: str) -> str:
        """Make a container of an image; give its name."""
        return self.call("from", "--pull-never", "-q", image).split()[-1]

    def mount(self, container: str) -> str:
        """Mount a container; give where."""
        return self.call("mount", container).split()[-1]

    def unmount(self, container: str) -> None:
        """Unmount a container."""
        self.call("umount", container)

    def remove(self, container: str) -> None:
        """Remove a container."""
        self.call("rm", container)


@contextlib.contextmanager
def containers_storage(folder: str) -> Iterator[ContainersStorage]:
    """Make an empty store for ``containers-storage``, and remove it with what it left mounted."""
    with _storage(os.path.join(folder, "containers-storage")) as root:
        yield ContainersStorage(root)


@contextlib.contextmanager
def buildah(folder: str) -> Iterator[Buildah]:
    """Make an empty store for buildah, and remove it with what it left mounted."""
    with _storage(os.path.join(folder, "buildah")) as root:
        yield Buildah(root)


def skopeo_copy(folder: str, layout: str, reference: str) -> Contender:
    """Copy an image into a new containers/storage with skopeo."""

    def copy() -> float:
        with _storage(os.path.join(folder, "skopeo")) as root:
            target = f"containers-storage:[overlay@{root}/graph+{root}/run]localhost/image:1"
            return clocked(run, "skopeo", "--insecure-policy", "copy", "-q", f"oci:{layout}:{reference}", target)

    return copy


def buildah_pull(folder: str, layout: str, reference: str) -> Contender:
    """Pull an image into a new containers/storage with buildah."""

    def pull() -> float:
        with buildah(folder) as store:
            return clocked(store.pull, layout, reference)

    return pull


@contextlib.contextmanager
def _storage(root: str) -> Iterator[str]:
    os.mkdir(root)
    try:
        yield root
    finally:
        # The overlay driver makes its folder a mount point, and keeps it one.
        subprocess.run(["umount", "-R", f"{root}/graph/overlay"], check=False, capture_output=True)
        shutil.rmtree(root, ignore_errors=True)


def there(tools: Mapping[str, Contender], absent: dict[str, str]) -> dict[str, Contender]:
    """Take the contenders whose programs are installed; note the others as absent."""
    gone = missing()
    absent |= {name: gone[name] for name in tools if name in gone}
    return {name: contender for name, contender in tools.items() if name not in gone}
