"""Every workload on real drivers: what it says is plausible, and nothing of it is left."""

import contextlib
import os
import pathlib
import shutil

import attrs
import pytest
from benchbeds import TINY, Opening

from graphdrivers.bench import acts, caches, database, memory, storms
from graphdrivers.bench.bed import Bed
from graphdrivers.bench.contents import content
from graphdrivers.bench.disturbance import Watch
from graphdrivers.bench.scene import Scene
from graphdrivers.bench.sizes import FULL, Sizes
from graphdrivers.bench.workload import Workload
from graphdrivers.bench.workloads import CI, DATABASE, DEEP, DENSITY, SANDBOX, WORKLOADS
from graphdrivers.edits import perform
from graphdrivers.linux import mountinfo, mounts

PATIENT = attrs.evolve(TINY, patience=float("inf"))


def names(bed: Bed) -> set[str]:
    """Name the layers that there are."""
    return {record.name for record in bed.driver.layers()}


def image_layers(bed: Bed) -> set[str]:
    """Name the layers of the image, once it is there."""
    parents = {record.name: record.parent for record in bed.driver.layers()}
    layer, found = bed._made.get("image"), set()
    while layer:
        found.add(layer)
        layer = parents[layer]
    return found


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda one: one.name)
def test_a_sample_of_each(opening: Opening, workload: Workload) -> None:
    """Each row is a figure or has a reason, twice on the same ground; layers and mounts are gone."""
    for bed in opening():
        ground = workload.ground(bed)
        before = names(bed)
        for _ in range(2):
            bed.begin()
            workload.take(bed)
            taken, refused = bed.readings.taken(), bed.readings.refused

            assert {*taken, *refused} == {row.name for row in workload.rows}
            assert all(reading.value > 0 for row, reading in taken.items() if workload.row(row).unit == "s")
            assert names(bed) - before <= {*bed._stack, *image_layers(bed)}
            assert mountinfo.mounted_below(bed.folder) == []
        assert workload.ground(bed) == ground


def test_patience_is_how_often_things_are_done(opening: Opening) -> None:
    """With none of it once; with enough, as often as the workload says."""
    (bed,) = opening("vfs")
    CI.take(bed)
    assert bed.readings.operations["whole"] == 1

    bed.patience = float("inf")
    bed.begin()
    CI.take(bed)
    assert (bed.readings.operations["whole"], bed.readings.operations["parallel"]) == (100, 100)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_an_interrupt_just_after_an_unmount_is_not_lost(opening: Opening) -> None:
    """Nor is it taken for a failure of the driver: it goes through, and the bed cleans up."""
    (bed,) = opening("overlay")

    def interrupted(scene: Scene) -> None:
        scene.create()
        scene.mount()
        mounts.detach(scene.root)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Scene(bed, bed.image_layer()) as scene:
        interrupted(scene)


def test_sandboxes_come_back_to_what_was_kept(opening: Opening) -> None:
    """200 turns whose stack never gets deeper than a driver's can be."""
    for bed in opening(sizes=attrs.evolve(TINY, patience=float("inf"))):
        SANDBOX.take(bed)
        assert bed.readings.operations["turn"] == 200


def test_a_depth_that_takes_too_long_is_a_reason(opening: Opening) -> None:
    """Ten times no patience at all makes no stack."""
    (bed,) = opening("vfs", sizes=attrs.evolve(TINY, patience=-1.0))
    DEEP.take(bed)

    assert "takes longer than there is time for" in bed.readings.refused["mount-120"]


def test_a_driver_that_cannot_go_that_deep(opening: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    """Says how deep it can, for those rows alone."""
    monkeypatch.setattr(acts, "DEPTHS", (2, 300))
    (bed,) = opening("aufs", sizes=attrs.evolve(TINY, patience=60.0))
    limit = bed.driver.support.capabilities.max_depth
    DEEP.take(bed)

    if limit is None:
        pytest.fail("the aufs driver has a limit on every engine that stacks")
    assert str(limit) in bed.readings.refused["mount-300"]
    assert "mount-2" in bed.readings.taken()


@pytest.mark.skipif(os.geteuid() != 0, reason="a control group needs root")
def test_density_tells_copies_from_shared_files(opening: Opening) -> None:
    """Ten containers of whole copies take ten times the disk and page cache; of shared layers, once."""
    size = TINY.shared
    found = {}
    for bed in opening("overlay", "vfs", sizes=PATIENT):
        if caches.kept_in_memory(bed.driver.home):
            pytest.skip("the temporary folder is in memory, where every page is cached")
        DENSITY.take(bed)
        found[bed.name] = bed.readings.taken()

    assert found["vfs"]["disk-10"].value >= 10 * size
    assert found["overlay"]["disk-10"].value < 2 * size
    assert found["vfs"]["memory-10"].value >= 9 * size
    assert found["overlay"]["memory-10"].value < 2 * size


@pytest.mark.parametrize("tool", ["python", "fio"])
def test_the_database_is_written_and_read(tmp_path: pathlib.Path, tool: str) -> None:
    """Both engines write at most so many blocks of the file, in place, and read all of it."""
    engine = database.Engine("python") if tool == "python" else database.engine()
    if tool == "fio" and engine.fio is None:
        if os.environ.get("CI") and not os.environ.get("GRAPHDRIVERS_OPTIONAL_TOOLS"):
            pytest.fail("fio is not installed: see scripts/system-packages")
        pytest.skip("fio is not installed")
    path = tmp_path / "database"
    before = content(1 << 20)
    path.write_bytes(before)

    assert database.random_writes(engine, str(path), 8) > 0
    after = path.read_bytes()
    changed = sum(after[at : at + 4096] != before[at : at + 4096] for at in range(0, 1 << 20, 4096))
    assert len(after) == len(before)
    assert 1 <= changed <= 8
    assert database.sequential_read(engine, str(path)) > 0


def test_a_failing_fio_says_how(tmp_path: pathlib.Path) -> None:
    """In one line that names the program."""
    false = shutil.which("false")
    assert false
    (tmp_path / "database").write_bytes(b"x" * 4096)
    with pytest.raises(OSError, match="fio failed"):
        database.random_writes(database.Engine("fio", false), str(tmp_path / "database"), 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="a control group needs root")
def test_memory_that_reading_takes(tmp_path: pathlib.Path) -> None:
    """A cold file of 8 MiB takes that much; read again, nothing; the process is where it was."""
    meter = memory.meter()
    if not meter.folder or caches.kept_in_memory(str(tmp_path)):
        pytest.skip("there are no control groups for memory here, or the temporary folder is in memory")
    path = tmp_path / "file"
    path.write_bytes(content(8 << 20))
    home = pathlib.Path("/proc/self/cgroup").read_text()
    caches.make_cold(str(tmp_path))

    assert 8 << 20 <= meter.taken(lambda: assert_read(path)) < 12 << 20
    assert meter.taken(lambda: assert_read(path)) < 1 << 20
    assert pathlib.Path("/proc/self/cgroup").read_text() == home
    with contextlib.suppress(ZeroDivisionError):
        meter.taken(lambda: 1 // 0)  # type: ignore[arg-type,return-value]
    assert pathlib.Path("/proc/self/cgroup").read_text() == home


def assert_read(path: pathlib.Path) -> None:
    """Read a file of 8 MiB."""
    assert len(path.read_bytes()) == 8 << 20


def test_the_whole_machine_where_there_are_no_groups(tmp_path: pathlib.Path) -> None:
    """A plain user's meter never says less than nothing."""
    path = tmp_path / "file"
    path.write_bytes(content(8 << 20))

    assert memory.Meter("whole machine").taken(lambda: assert_read(path)) >= 0


def test_packages_are_upgraded_and_purged(tmp_path: pathlib.Path) -> None:
    """What dpkg's steps leave: new contents under the old names, no leftovers, then nothing of the package."""
    for file in storms.packages():
        (tmp_path / file.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file.path).write_bytes(b"old")
    perform(storms.upgrade(3), str(tmp_path))
    upgraded = sorted((tmp_path / "usr/share/package-3").iterdir())

    assert len(upgraded) == storms.PACKAGE_FILES
    assert all(len(path.read_bytes()) == 4096 for path in upgraded)
    perform(storms.purge(3), str(tmp_path))
    assert not (tmp_path / "usr/share/package-3").exists()
    assert list(tmp_path.rglob("*.dpkg-new")) == []


def test_what_else_is_going_on() -> None:
    """A program that keeps a processor busy is seen at every look; swapping and heat are told."""
    watch = Watch(moments=10, busy=3)

    assert [text for text in watch.complaints() if "other programs" in text] == [
        "other programs were running at 3 of the 10 moments looked at"
    ]
    assert not any("other programs" in text for text in Watch(moments=10, busy=2).complaints())
    before = watch._before
    watch._before = attrs.evolve(before, swapped=before.swapped - 7, throttled=before.throttled - 1)
    told = " ".join(watch.complaints())
    assert "pages were swapped" in told
    assert "the processors were too hot" in told


def test_sizes_say_what_is_modelled() -> None:
    """A gigabyte of database is what the workload's own text promises in full."""
    assert FULL.database == 1 << 30
    assert Sizes().database < FULL.database
    assert "4 KiB" in DATABASE.models
