"""Plugins of other people, each broken in a way of its own: what they are, and what is to be said about each."""

import pathlib
import textwrap

import attrs
import shelves

GROUP = "graphdrivers.drivers"

_HEAD = """
import os, subprocess, sys
open(os.path.join(os.environ["IMPORTED"], __name__), "w").close()
from graphdrivers import errors, model
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.naivediff import NaiveDiff
"""
"""Leaves a mark where the module is imported."""


@attrs.frozen
class Plugin:
    """One distribution with one driver."""

    name: str
    """The driver's, by which it is asked for."""

    says: str
    """A part of the one line that tells what is wrong."""

    helps: str = "upgrade or uninstall broken-"
    """A part of what it says to do."""

    top: str = ""
    """Source of its module before the class."""

    body: str = "pass"
    """Source of the class's body."""

    base: str = "VfsDriver"
    target: str = "{module}:Made"
    points: str = "[{group}]\n{name} = {target}\n"
    metadata: str | None = "Name: {title}"
    number: int = attrs.field(factory=iter(range(1000)).__next__, init=False)

    @property
    def title(self) -> str:
        """The distribution's name."""
        return f"broken-{self.number}"

    @property
    def module(self) -> str:
        """Its one module."""
        return f"broken_{self.number}"

    def put(self, site: pathlib.Path) -> None:
        """Install it."""
        body = textwrap.indent(textwrap.dedent(self.body), "    ")
        made = f"class Made({self.base}):\n    name = {self.name!r}\n{body}\n"
        target = self.target.format(module=self.module)
        points = self.points.format(group=GROUP, name=self.name, target=target)
        source = f"{_HEAD}{textwrap.dedent(self.top)}\n{made}"
        shelves.put(site, self.title, points, {self.module: source}, self.metadata)


_PROBE = "@classmethod\ndef probe(cls, home, options):\n    "
_INIT = "def __init__(self, home, options, support):\n    "

IMPORTS = (
    Plugin("raises", "fails to import: ValueError: odd in two lines", top="raise ValueError('odd\\nin two lines')"),
    Plugin("exits", "fails to import: SystemExit: bye", top="sys.exit('bye')"),
    Plugin("asserts", "fails to import: AssertionError: never", top="assert False, 'never'"),
    Plugin("misspelt", "fails to import: SyntaxError: ", top="def misspelt(:"),
    Plugin("lacking", "fails to import: ModuleNotFoundError: No module named 'no_such'", top="import no_such"),
    Plugin("strange", "fails to import: ", top="class Odd(BaseException): ...\nraise Odd('thing')"),
    Plugin("speechless", "fails to import: ", top="class Mute(Exception):\n    def __str__(self): 1 / 0\nraise Mute"),
    Plugin("refusing", "fails to import: ", top="raise errors.NotSupported('refusing', 'not here')"),
)
"""What goes wrong when they are imported."""

CONTRACTS = (
    Plugin(
        "older", "built for version 0 of the driver contract; this is version 1", "upgrade broken-", body="contract = 0"
    ),
    Plugin(
        "newer",
        "built for version 2 of the driver contract; this is version 1",
        "upgrade graphdrivers",
        body="contract = 2",
    ),
    Plugin("silent", "does not say for which version", "has to write 'contract = 1'", base="NaiveDiff"),
    Plugin("wordy", "version '1' of the driver contract, which is no whole number", body="contract = '1'"),
    Plugin("truthful", "version True of the driver contract, which is no whole number", body="contract = True"),
)
"""What they were built for."""

CLASSES = (
    Plugin("thin", "lacks create, layers, mounts, probe, remove, seal", base="NaiveDiff", body="contract = 1"),
    Plugin("false", "defines __bool__", body="def __bool__(self): return False"),
    Plugin("empty", "defines __len__", body="def __len__(self): return 0"),
    Plugin("alias", "calls itself 'other'", body="name = 'other'"),
    Plugin("proud", "has the rank 'first', which is no whole number", body="rank = 'first'"),
    Plugin("plain", "is not a subclass of graphdrivers.Driver", base="object"),
    Plugin("absent", "fails to import: ", target="{module}:Maid"),
    Plugin("function", "is not a subclass of graphdrivers.Driver", target="{module}:make", top="def make(): ..."),
    Plugin("module", "which is no MODULE:CLASS", target="{module}"),
    Plugin("nowhere", "fails to import: ModuleNotFoundError", target="no_such_package.driver:Made"),
)
"""What their entry points lead to."""

NAMES = tuple(
    Plugin(name, f"under a name that {why}")
    for name, why in {
        "auto": "means something else",
        "store": "means something else",
        "../up": "is not made of",
        "a/b": "is not made of",
        "Loud": "is not made of",
        "-dash": "is not made of",
        "x" * 65: "is not made of",
    }.items()
)
"""What they call themselves."""

METADATA = (
    Plugin("illegible", "the entry points of broken-", "install it anew", points="[{group}]\nno equals sign\n"),
    Plugin("unnamed", "a distribution without a name 1.0 fails to import", "", top="import no_such", metadata=""),
    Plugin(
        "garbled", "a distribution without a name fails to import", "", top="import no_such", metadata="Name: \udcff"
    ),
    Plugin("unlabelled", "a distribution without a name fails to import", "", top="import no_such", metadata=None),
)
"""What their distributions say."""

PROBES = (
    Plugin("crashing", "has a probe that fails: RuntimeError: odd", body=_PROBE + "raise RuntimeError('odd')"),
    Plugin("quitting", "has a probe that fails: SystemExit: 1", body=_PROBE + "sys.exit(1)"),
    Plugin("vague", "has a probe that gives no Support but NoneType", body=_PROBE + "return None"),
    Plugin(
        "promising",
        "claims fork_live and lacks the method snapshot",
        body=_PROBE + "return model.Support(model.Capabilities(fork_live=True), 'none')",
    ),
)
"""What they do when they are tried."""

UNREADABLE = Plugin("unreadable", "", points="[{group}]\n{name} = {target}\n\udcff\n")
"""Nobody can tell what it offers, so it is not listed; nor does it keep anything else from being."""

UNLOADABLE = (*IMPORTS, *CONTRACTS, *CLASSES, *NAMES, *METADATA, *PROBES)

TOOLLESS = Plugin(
    "toolless",
    "No such file or directory: 'no-such-program'",
    "",
    body=f"rank = 9999\n{_PROBE}subprocess.run(['no-such-program'])",
)
"""Its probe lets slip an error of the system: listed as it is, and no reason to have no driver at all."""

COLLAPSING = Plugin(
    "collapsing", "cannot be opened: RuntimeError: odd", body=f"rank = 9998\n{_INIT}raise RuntimeError('odd')"
)
"""Passes its probe, and cannot be opened."""

NOISY = Plugin(
    "noisy",
    "",
    top="print('printed')\nsubprocess.run(['echo', 'echoed'])\nimport warnings\nwarnings.warn('warned')",
    body=f"{_PROBE}print('probed')\n    return super().probe(home, options)\n"
    f"{_INIT}print('opened')\n    super().__init__(home, options, support)",
)
"""Works, and talks."""

SLOW = Plugin("slow", "", top="import time\ntime.sleep(0.3)")
"""Works, late."""
