"""Loading: finding, choosing and refusing drivers, with distributions made up on the spot."""

import os
import pathlib
import pickle
import sys
import warnings
from collections.abc import Iterator

import pytest
import shelves

import graphdrivers
from graphdrivers import errors, loading, offers
from graphdrivers.driver import Driver
from graphdrivers.model import Capabilities

GROUP = "graphdrivers.drivers.made_up"

BODY = """
    import json, os
    from graphdrivers import errors
    from graphdrivers.driver import Driver
    from graphdrivers.model import Capabilities, Support

    class Made(Driver):
        name = {name!r}
        contract = 1
        rank = {rank}
        @classmethod
        def probe(cls, home, options):
            {probe}
            return Support(Capabilities(copy_on_write={cow}), "pretence")
        def create(self, layer, parent=None, spec=None): ...
        def seal(self, layer): ...
        def mounts(self, layer, *, view=False): ...
        def apply(self, layer, tar, *, headers=None, limits=None, progress=None): ...
        def changes(self, layer): ...
        def diff(self, layer, *, profile=None): ...
        def usage(self, layer): ...
        def layers(self): ...
        def remove(self, layer): ...
    {more}
"""


class Shop:
    """Makes distributions that offer drivers."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def distribution(self, title: str, offers: dict[str, str], modules: dict[str, str]) -> None:
        """Install a distribution with entry points ``offers`` and source ``modules``."""
        lines = "".join(f"{name} = {target}\n" for name, target in offers.items())
        shelves.put(self.path, title, f"[{GROUP}]\n{lines}", modules)

    def driver(self, name: str, *, rank: int = 1, probe: str = "pass", cow: bool = True, **rest: str) -> None:
        """Install a distribution with one driver."""
        module = rest.get("module", f"made_up_{name}")
        source = BODY.format(name=name, rank=rank, probe=probe, cow=cow, more=rest.get("more", ""))
        self.distribution(rest.get("title", f"dist-{name}"), {name: f"{module}:Made"}, {module: source})


@pytest.fixture
def shop(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """An empty shelf of distributions that is the only one the loader sees."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setattr(offers, "GROUP", GROUP)
    monkeypatch.syspath_prepend(str(site))
    before = set(sys.modules)
    yield Shop(site)
    for name in set(sys.modules) - before:
        if name.startswith("made_up"):
            del sys.modules[name]


@pytest.fixture
def root(tmp_path: pathlib.Path) -> str:
    """A root that does not exist yet."""
    return str(tmp_path / "root")


def refusal(kind: str = "NotSupported", reason: str = "no such kernel", advice: str = "wait for Linux 9") -> str:
    """Source of a probe that raises one of the unavailable errors."""
    return f"raise errors.{kind}(cls.name, {reason!r}, {advice!r})"


def test_by_name_opens_the_home_as_given(shop: Shop, root: str) -> None:
    """A driver asked for by name gets exactly the home it was given."""
    shop.driver("zfs")

    opened = loading.load_driver("zfs", root)

    assert (type(opened).__name__, opened.home, vars(opened)["refused"]) == ("Made", root, ())


def test_what_a_probe_found_is_believed(shop: Shop, root: str) -> None:
    """Opened with what its probe found for another home, a driver is not probed again."""
    shop.driver("a")
    found = loading.load_driver("a", os.path.join(root, "one")).support
    shop.driver("b", probe="raise RuntimeError('probed')")

    assert loading.load_driver("b", os.path.join(root, "two"), support=found).support is found


def test_by_name_imports_only_that_plugin(shop: Shop, root: str) -> None:
    """Asking for one driver never imports another one's package."""
    shop.driver("zfs")
    shop.driver("btrfs")

    loading.load_driver("zfs", root)

    assert "made_up_zfs" in sys.modules
    assert "made_up_btrfs" not in sys.modules


def test_a_driver_installed_a_moment_ago_is_found(shop: Shop, root: str) -> None:
    """Nothing is remembered about what was installed before."""
    with pytest.raises(errors.DriverNotFound):
        loading.load_driver("zfs", root)
    shop.driver("zfs")

    assert loading.load_driver("zfs", root).name == "zfs"


def test_nothing_is_written_into_the_cache_of_the_user(
    shop: Shop, root: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading a driver as root leaves no files in root's ~/.cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shop.driver("zfs")

    loading.load_driver("zfs", root)

    assert not (tmp_path / "cache").exists()


def test_unknown_driver(root: str) -> None:
    """An unknown name is one line that says how to list the known ones."""
    with pytest.raises(errors.DriverNotFound, match="no installed distribution offers it; 'graphdriver drivers'"):
        loading.load_driver("zsf", root)


def test_two_distributions_with_one_name(shop: Shop, root: str) -> None:
    """Both distributions are named, also when another name lies between the two."""
    shop.driver("zfs", title="alpha", module="made_up_a")
    shop.driver("other", title="beta")
    shop.driver("zfs", title="gamma", module="made_up_c")

    with pytest.raises(errors.DriverConflict) as caught:
        loading.load_driver("zfs", root)

    assert sorted(caught.value.distributions) == ["alpha 1.0", "gamma 1.0"]
    assert "uninstall all but one" in str(caught.value)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("assert False, 'odd'", "AssertionError: odd"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
        ("x = 1", "AttributeError"),
    ],
)
def test_a_plugin_that_fails_to_import(shop: Shop, root: str, source: str, reason: str) -> None:
    """Its error is given when it is loaded and when drivers are listed, and stops nothing else."""
    shop.distribution("broken", {"zfs": "made_up_broken:Made"}, {"made_up_broken": source})
    shop.driver("btrfs")

    with pytest.raises(errors.DriverNotFound) as caught:
        loading.load_driver("zfs", root)
    listed = {entry.name: entry for entry in loading.list_drivers()}

    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert reason in listed["zfs"].error
    assert (listed["zfs"].usable, listed["btrfs"].error) == (False, "")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("Made = 5", "is not a subclass of graphdrivers.Driver"),
        ("Made.contract = 2", "is built for version 2 of the driver contract; this is version 1"),
        ("Made.name = 'zsf'", "calls itself 'zsf'"),
        ("Made.__len__ = lambda self: 0", "defines __len__"),
        ("Made.__bool__ = lambda self: False", "defines __bool__"),
    ],
)
def test_what_is_no_driver_of_this_contract(shop: Shop, root: str, more: str, reason: str) -> None:
    """A class that breaks the contract is refused before it is made, in one line that names it."""
    shop.driver("zfs", more=more)

    with pytest.raises(errors.DriverNotFound) as caught:
        loading.load_driver("zfs", root)

    assert f"made_up_zfs:Made of dist-zfs 1.0 {reason}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_verb(shop: Shop, root: str) -> None:
    """The verbs that a driver lacks are named."""
    source = """
        from graphdrivers.driver import Driver
        class Made(Driver):
            name = "zfs"
            contract = 1
            def seal(self, layer): ...
    """
    shop.distribution("thin", {"zfs": "made_up_thin:Made"}, {"made_up_thin": source})

    with pytest.raises(errors.DriverNotFound, match="lacks apply, changes, create, diff, layers, mounts, probe"):
        loading.load_driver("zfs", root)


def test_auto_takes_the_highest_rank(shop: Shop, root: str) -> None:
    """Without any layers the rank decides, and the home is a folder of the root."""
    shop.driver("low", rank=1)
    shop.driver("high", rank=7)
    shop.driver("never", rank=0)

    opened = loading.load_driver("auto", root)

    assert (opened.name, opened.home, vars(opened)["refused"]) == ("high", os.path.join(root, "high"), ())


def test_auto_moves_on_when_a_driver_is_unavailable(shop: Shop, root: str) -> None:
    """Each of the three unavailable errors moves on, and every reason is kept on the driver."""
    shop.driver("a", rank=9, probe=refusal("NotSupported", "kernel too old"))
    shop.driver("b", rank=8, probe=refusal("PrerequisiteMissing", "no zpool"))
    shop.driver("c", rank=7, probe=refusal("IncompatibleFilesystem", "on nfs"))
    shop.driver("d", rank=1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = loading.load_driver("auto", root)

    assert opened.name == "d"
    assert [error.reason for error in vars(opened)["refused"]] == ["kernel too old", "no zpool", "on nfs"]


def test_auto_warns_when_it_falls_back_to_copying(shop: Shop, root: str) -> None:
    """A fallback to a driver without copy-on-write is a warning with the reasons and fixes."""
    shop.driver("a", rank=9, probe=refusal())
    shop.driver("copies", rank=1, cow=False)

    with pytest.warns(loading.FallbackWarning, match="driver copies, which copies .*no such kernel; wait for Linux 9"):
        loading.load_driver("auto", root)


def test_auto_does_not_hide_other_errors(shop: Shop, root: str) -> None:
    """An error that is not about availability stops the choice."""
    shop.driver("a", rank=9, probe="raise errors.InvalidOption(cls.name, 'x', 'it is unknown')")
    shop.driver("b", rank=1)

    with pytest.raises(errors.InvalidOption):
        loading.load_driver("auto", root)


def test_auto_with_nothing_usable_gives_every_reason(shop: Shop, root: str) -> None:
    """When no driver works the error holds each one's reason and fix, the import failures too."""
    shop.driver("a", rank=9, probe=refusal())
    shop.distribution("broken", {"zfs": "made_up_broken:Made"}, {"made_up_broken": "import no_such_module"})

    with pytest.raises(errors.DriverUnavailable) as caught:
        loading.load_driver("auto", root)

    text = str(caught.value)
    assert "no such kernel; wait for Linux 9" in text
    assert "no_such_module" in text
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert len(caught.value.__cause__.exceptions) == 2
    assert str(pickle.loads(pickle.dumps(caught.value))) == text  # noqa: S301 - our own bytes


def test_state_on_disk_beats_rank(shop: Shop, root: str) -> None:
    """A home with layers in it is taken again, whatever else would be preferred now."""
    shop.driver("high", rank=9)
    shop.driver("low", rank=1)
    os.makedirs(os.path.join(root, "low", "anything"))

    assert loading.load_driver("auto", root).name == "low"


def test_state_of_a_driver_that_stopped_working_is_not_hidden(shop: Shop, root: str) -> None:
    """Layers of a driver that is refused today are an error, not a reason to begin anew with another."""
    shop.driver("high", rank=9, probe=refusal())
    shop.driver("low", rank=1)
    os.makedirs(os.path.join(root, "high", "anything"))

    with pytest.raises(errors.NotSupported, match="no such kernel"):
        loading.load_driver("auto", root)


def test_two_kinds_of_state(shop: Shop, root: str) -> None:
    """Layers of two drivers in one root are an error that names both."""
    for name in ("a", "b"):
        shop.driver(name)
        os.makedirs(os.path.join(root, name, "anything"))

    with pytest.raises(errors.PriorDriverState) as caught:
        loading.load_driver("auto", root)

    assert caught.value.found == ("a", "b")


def test_state_of_a_driver_that_is_not_installed(shop: Shop, root: str) -> None:
    """Layers whose driver was uninstalled are an error that names it."""
    shop.driver("a")
    os.makedirs(os.path.join(root, "zfs", "layers", "base"))
    (open(os.path.join(root, "zfs", "driver.json"), "w")).close()

    with pytest.raises(errors.DriverNotFound, match="'zfs'"):
        loading.load_driver("auto", root)


def test_an_opened_home_without_layers_is_no_state(shop: Shop, root: str) -> None:
    """A home that only was opened does not bind the choice, nor do other folders of the root."""
    shop.driver("high", rank=9)
    shop.driver("low", rank=1)
    os.makedirs(os.path.join(root, "low", "layers"))
    (open(os.path.join(root, "low", "driver.json"), "w")).close()
    os.makedirs(os.path.join(root, "blobs", "sha256"))

    assert loading.load_driver("auto", root).name == "high"


def test_list_without_home_tries_nothing(shop: Shop) -> None:
    """Without a root the drivers are imported but not probed."""
    shop.driver("a", probe="raise RuntimeError('probed')")

    (entry,) = loading.list_drivers()

    assert (entry.name, entry.distribution, entry.version, entry.usable) == ("a", "dist-a", "1.0", None)


def test_list_with_a_root_tells_what_is_usable(shop: Shop, root: str) -> None:
    """With a root each entry says whether it works there, why not, and what to do."""
    shop.driver("a", probe=refusal())
    shop.driver("b")

    first, second = loading.list_drivers(root)

    assert (first.usable, first.reason, first.fix) == (False, "no such kernel", "wait for Linux 9")
    assert (second.usable, second.engine) == (True, "pretence")
    assert second.capabilities == Capabilities(copy_on_write=True)
    assert not os.path.exists(root)


def test_list_of_one_imports_one(shop: Shop) -> None:
    """Who asks about one driver waits for no other."""
    shop.driver("a")
    shop.driver("b")

    (entry,) = loading.list_drivers(only="b")

    assert (entry.name, entry.target) == ("b", "made_up_b:Made")
    assert "made_up_a" not in sys.modules


def test_list_tells_whose_turn_it_is(shop: Shop) -> None:
    """A package that takes its time to be imported is named before."""
    told: list[str] = []
    shop.driver("b")
    shop.distribution("broken", {"a": "made_up_broken:Made"}, {"made_up_broken": "import no_such_module"})

    loading.list_drivers(progress=told.append)

    assert told == ["a", "b"]


def test_one_distribution_that_is_there_twice(
    shop: Shop, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first on the path counts, as for imports: what another version left behind further down is no conflict."""
    older = Shop(tmp_path / "older")
    older.driver("zfs", module="made_up_older")
    shop.driver("zfs")
    monkeypatch.setattr(sys, "path", [*sys.path, str(older.path)])

    (entry,) = loading.list_drivers()

    assert (entry.target, entry.error) == ("made_up_zfs:Made", "")


@pytest.mark.parametrize("trouble", ["ENOSPC", "EIO", "EMFILE"])
def test_auto_stops_where_the_machine_is_in_trouble(shop: Shop, root: str, trouble: str) -> None:
    """A full or failing disk is no reason to begin anew with another driver."""
    shop.driver("a", rank=9, probe=f"import errno; raise OSError(errno.{trouble}, 'trouble')")
    shop.driver("b", rank=1)

    with pytest.raises(OSError, match="trouble"):
        loading.load_driver("auto", root)


def test_auto_passes_over_a_probe_that_lacks_something(shop: Shop, root: str) -> None:
    """A missing program that the probe did not think of is that driver's matter alone."""
    shop.driver("a", rank=9, probe="import subprocess; subprocess.run(['no-such-program'])")
    shop.driver("b", rank=1)

    opened = loading.load_driver("auto", root)

    assert opened.name == "b"
    assert "dist-a 1.0 has a probe that fails: FileNotFoundError" in str(opened.refused[0])


def test_by_name_an_error_of_the_system_is_passed_on(shop: Shop, root: str) -> None:
    """Who named the driver gets what the system said, and not that the driver is missing."""
    shop.driver("a", probe="import errno; raise OSError(errno.EACCES, 'closed')")

    with pytest.raises(PermissionError):
        loading.load_driver("a", root)


def test_list_shows_both_sides_of_a_conflict(shop: Shop) -> None:
    """A name offered twice is listed once per distribution, each with the error."""
    shop.driver("zfs", title="alpha", module="made_up_a")
    shop.driver("zfs", title="gamma", module="made_up_c")

    first, second = loading.list_drivers()

    assert (first.distribution, second.distribution) == ("alpha", "gamma")
    assert "alpha 1.0" in first.error
    assert "gamma 1.0" in first.error


def test_the_built_in_drivers_are_offered_like_any_other() -> None:
    """The wheel's own drivers come through the same group."""
    listed = {entry.name: entry for entry in loading.list_drivers()}

    assert {"overlay", "vfs"} <= set(listed)
    assert listed["vfs"].distribution == "graphdrivers"


def test_driver_is_exported_lazily() -> None:
    """The package's public name is the contract's class."""
    assert graphdrivers.Driver is Driver
