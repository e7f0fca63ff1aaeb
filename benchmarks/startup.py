"""What starting costs: our package's import, our command line up to its first answer, and other programs up to theirs.

Usage: ``python benchmarks/startup.py [--directory DIR] [--rounds N] [--quick]``.
Goals: ``--help`` and ``drivers`` below 150 ms in all, the rest below 100 ms over the bare interpreter.
"""

import sys
from collections.abc import Iterator, Sequence

import ours
import tools
from measuring import Bench, Contender, Result, alone, clocked, run

BARE = "bare Python"
HELP = "graphdriver --help"
DRIVERS = "graphdriver drivers"
VERSION = "graphdriver --version"
LAYERS = "graphdriver layer ls"
STATUS = "graphdriver status"
IMAGES = "graphdriver images"
STORAGE = f"{tools.STORAGE} layers"
BUILDAH = f"{tools.BUILDAH} images"

_COMMANDS = {
    HELP: ["--help"],
    DRIVERS: ["--root", "/nonexistent", "drivers"],
    VERSION: ["--version"],
    "graphdriver layer --help": ["layer", "--help"],
}
_IN_A_ROOT = {LAYERS: ["layer", "ls"], IMAGES: ["images"], STATUS: ["status"]}


def measure(bench: Bench) -> Iterator[Result]:
    """Start each program."""
    contenders: dict[str, Contender] = {
        BARE: _python("-c", "pass"),
        "import graphdrivers": _python("-c", "import graphdrivers"),
        "import graphdrivers.driver": _python("-c", "import graphdrivers.driver"),
    }
    contenders |= {name: _python("-m", "graphdrivers", *words) for name, words in _COMMANDS.items()}
    root = bench.path("root")
    with ours.fresh_store(bench.folder, "layer"):
        contenders |= {
            name: _python("-m", "graphdrivers", "--root", root, "--driver", "overlay", *words)
            for name, words in _IN_A_ROOT.items()
        }
        with tools.containers_storage(bench.folder) as storage, tools.buildah(bench.folder) as store:
            theirs = {
                tools.GNU_TAR: _program("tar", "--version"),
                tools.BSDTAR: _program("bsdtar", "--version"),
                tools.UMOCI: _program("umoci", "--version"),
                STORAGE: lambda: clocked(storage.call, "layers"),
                BUILDAH: lambda: clocked(store.call, "images"),
                tools.SKOPEO: _program("skopeo", "--version"),
            }
            gone = tools.missing()
            known = {name: name.removesuffix(" layers").removesuffix(" images") for name in theirs}
            contenders |= {name: one for name, one in theirs.items() if known[name] not in gone}
            title = "start, answer, end; ours with a store already there"
            yield bench.compare("start-up", title, contenders, absent=gone, floor=BARE, rounds=3 * bench.rounds)


def _python(*arguments: str) -> Contender:
    return _program(sys.executable, *arguments)


def _program(*command: str) -> Contender:
    words: Sequence[str] = command
    return lambda: clocked(run, *words)


if __name__ == "__main__":
    alone(measure, __doc__)
