"""A driver that can do no more than mount gets the other verbs from its merged trees."""

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from graphdrivers import errors, naivediff
from graphdrivers.archive.entries import Node
from graphdrivers.driver import Driver
from graphdrivers.model import (
    Capabilities,
    Change,
    ChangeKind,
    LayerRecord,
    LayerSpec,
    Mount,
    Profile,
    Support,
)
from graphdrivers.naivediff import NaiveDiff

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="mounting needs root")


class CopyDriver(NaiveDiff):
    """The least a driver can be: copies of whole trees, everything else inherited."""

    name = "copy"

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Work everywhere."""
        del home, options
        return Support(Capabilities(mount_free=True, ownership=ROOT, devices=ROOT), "copies")

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Copy the parent."""
        del spec
        folder = Path(self.home, layer)
        folder.mkdir(parents=True)
        (folder / "parent").write_text(parent or "")
        if parent is None:
            (folder / "tree").mkdir()
            (folder / "tree").chmod(0o755)
            os.utime(folder / "tree", ns=(0, 0))
        else:
            subprocess.run(["cp", "-a", Path(self.home, parent, "tree"), folder], check=True)

    def seal(self, layer: str) -> None:
        """Mark it."""
        Path(self.home, layer, "sealed").touch()

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Give the tree."""
        if not view and Path(self.home, layer, "sealed").exists():
            raise errors.LayerSealed(layer)
        return (Mount("bind", f"{self.home}/{layer}/tree", readonly=view),)

    def layers(self) -> Iterator[LayerRecord]:
        """Read the marks."""
        for folder in sorted(Path(self.home).iterdir(), reverse=True):
            yield LayerRecord(folder.name, (folder / "parent").read_text() or None, (folder / "sealed").exists())

    def remove(self, layer: str) -> None:
        """Delete it."""
        shutil.rmtree(Path(self.home, layer))

    def tree(self, layer: str) -> Path:
        """Where a layer's tree is, for tests to edit."""
        return Path(self.home, layer, "tree")


@pytest.fixture
def driver(tmp_path: Path) -> CopyDriver:
    """Make a driver with a sealed layer and a writable child."""
    home = str(tmp_path / "home")
    made = CopyDriver(home, {}, CopyDriver.probe(home, {}))
    made.create("1-base")
    for name in ("a/old", "a/kept", "a-", "z"):
        path = made.tree("1-base") / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    made.seal("1-base")
    made.create("2-child", "1-base")
    return made


def _edit(driver: CopyDriver) -> None:
    tree = driver.tree("2-child")
    (tree / "a/old").unlink()
    (tree / "a/\udcffnew").write_text("12345")
    (tree / "a-").write_text("changed")


def _members(driver: Driver, layer: str, profile: Profile = Profile.FULL) -> list[str]:
    with driver.diff(layer, profile=profile) as stream, tarfile.open(fileobj=io.BytesIO(stream.read())) as tar:
        return tar.getnames()


def test_changes_are_sorted_by_path_bytes(driver: CopyDriver) -> None:
    """The root is not among them; ``a-`` sorts before what is in ``a``, as bytes do."""
    _edit(driver)

    assert list(driver.changes("2-child")) == [
        Change("/a", ChangeKind.MODIFIED),
        Change("/a-", ChangeKind.MODIFIED),
        Change("/a/old", ChangeKind.DELETED),
        Change("/a/\udcffnew", ChangeKind.ADDED),
    ]
    assert [change.path for change in driver.changes("1-base")] == ["/a", "/a-", "/a/kept", "/a/old", "/z"]


def test_an_untouched_layer_has_no_changes(driver: CopyDriver) -> None:
    """A copy of the parent differs in nothing, and its diff is an empty archive."""
    assert list(driver.changes("2-child")) == []
    assert _members(driver, "2-child") == []


@pytest.mark.parametrize("profile", list(Profile))
def test_a_diff_applies_to_a_copy_of_the_parent(driver: CopyDriver, profile: Profile) -> None:
    """Unpacking the diff of a layer into a fresh child of the same parent gives the same tree."""
    _edit(driver)
    driver.create("3-copy", "1-base")
    with driver.diff("2-child", profile=profile) as stream:
        applied = driver.apply("3-copy", io.BytesIO(stream.read()))
    files = {path.name: path.read_text() for path in driver.tree("3-copy").rglob("*") if path.is_file()}

    assert files == {"kept": "a/kept", "\udcffnew": "12345", "a-": "changed", "z": "z"}
    assert applied.size == len("12345") + len("changed")
    if profile is Profile.FULL:
        assert list(driver.changes("3-copy")) == list(driver.changes("2-child"))


def test_usage_is_what_differs(driver: CopyDriver) -> None:
    """Each inode once, deletions and the root not, unchanged files not."""
    _edit(driver)
    os.link(driver.tree("2-child") / "a/\udcffnew", driver.tree("2-child") / "second")
    usage = driver.usage("2-child")

    assert (usage.bytes, usage.inodes) == (len("12345") + len("changed"), 3)
    assert usage.disk == sum(
        (driver.tree("2-child") / name).stat().st_blocks * 512 for name in ("a", "a-", "a/\udcffnew")
    )


def test_missing_and_sealed_layers_are_named(driver: CopyDriver) -> None:
    """Asking for what is not there, or writing to what is sealed, is the contract's error, at once."""
    asks: list[Callable[[str], object]] = [driver.changes, driver.diff, driver.usage]
    for ask in asks:
        with pytest.raises(errors.LayerNotFound):
            ask("nothing")
    with pytest.raises(errors.LayerSealed):
        driver.apply("1-base", io.BytesIO(b"\0" * 1024))


def test_a_stream_can_be_closed_at_any_time(driver: CopyDriver) -> None:
    """A diff that is not read, or not to its end, leaves no descriptor and no mount behind."""
    _edit(driver)
    (driver.tree("2-child") / "big").write_bytes(os.urandom(8 << 20))
    before = sorted(os.listdir("/proc/self/fd"))
    driver.diff("2-child").close()
    stream = driver.diff("2-child")
    assert stream.read(1)
    stream.close()

    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_proof_spares_comparing_contents(driver: CopyDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that can prove files unchanged is asked, and believed where the attributes agree."""
    tree = driver.tree("2-child")
    status = (tree / "z").stat()
    (tree / "z").write_text("Z")
    os.utime(tree / "z", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [change.path for change in driver.changes("2-child")] == ["/z"]

    def unchanged(layer: str) -> Callable[[Node, Node], bool]:
        assert layer == "2-child"
        return lambda lower, upper: lower.name == upper.name

    monkeypatch.setattr(driver, "unchanged", unchanged)
    assert list(driver.changes("2-child")) == []


def test_any_driver_can_be_looked_at_naively(driver: CopyDriver) -> None:
    """The module's own functions need nothing but the contract, and say the same."""
    _edit(driver)
    with driver.diff("2-child") as own, naivediff.diff(driver, "2-child") as naive:
        assert naive.read() == own.read()

    assert list(naivediff.changes(driver, "2-child")) == list(driver.changes("2-child"))


@needs_root
def test_a_mounted_layer_is_not_unpacked_into(driver: CopyDriver, tmp_path: Path) -> None:
    """Somebody may be working in it: the error says where it is mounted."""
    place = tmp_path / "place"
    place.mkdir()
    subprocess.run(["mount", "--bind", driver.tree("2-child"), place], check=True)
    try:
        with pytest.raises(errors.LayerInUse, match=str(place)):
            driver.apply("2-child", io.BytesIO(b"\0" * 1024))
    finally:
        subprocess.run(["umount", place], check=True)
    driver.apply("2-child", io.BytesIO(b"\0" * 1024))


class MountingDriver(CopyDriver):
    """Layers that exist only as overlay mounts."""

    name = "mounting"

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Make an upper directory."""
        super().create(layer, None, spec)
        Path(self.home, layer, "parent").write_text(parent or "")
        Path(self.home, layer, "work").mkdir()

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Give an overlay over the parent."""
        parent = Path(self.home, layer, "parent").read_text()
        if not parent:
            return super().mounts(layer, view=view)
        lower, tree = f"{self.home}/{parent}/tree", f"{self.home}/{layer}/tree"
        if view:
            return (Mount("overlay", "overlay", (("lowerdir+", tree), ("lowerdir+", lower)), readonly=True),)
        work = f"{self.home}/{layer}/work"
        return (Mount("overlay", "overlay", (("lowerdir+", lower), ("upperdir", tree), ("workdir", work))),)


@needs_root
def test_mounts_are_enough(tmp_path: Path) -> None:
    """Layers that have to be mounted to be seen are unpacked into and read through mounts nobody sees."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "graphdrivers-tests", tmp_path], check=True)
    try:
        home = str(tmp_path / "home")
        driver = MountingDriver(home, {}, CopyDriver.probe(home, {}))
        driver.create("1-base")
        (driver.tree("1-base") / "old").write_text("old")
        (driver.tree("1-base") / "kept").write_text("kept")
        driver.seal("1-base")
        driver.create("2-child", "1-base")
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            archive.addfile(tarfile.TarInfo(".wh.old"))
            archive.addfile(tarfile.TarInfo("new"))
        tar.seek(0)
        driver.apply("2-child", tar)

        assert sorted(os.listdir(driver.tree("2-child"))) == ["new", "old"]
        assert [str(change.path) for change in driver.changes("2-child")] == ["/new", "/old"]
        assert {".wh.old", "new"} <= set(_members(driver, "2-child"))
        assert home not in Path("/proc/self/mountinfo").read_text()
    finally:
        subprocess.run(["umount", tmp_path], check=True)
