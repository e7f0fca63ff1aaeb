"""Layers whose size is limited: the limit is the layer's alone, for its whole life, and spoils nothing else."""

import errno
import io
import os

import pytest

from graphdrivers import errors
from graphdrivers.conformance.workbench import Member, Workbench, layer_tar
from graphdrivers.model import LayerSpec

_MIB = 1 << 20
_SIZE = 32 * _MIB
_OVER = r"quota|space"


def _write(root: str, name: str, mebibytes: int) -> None:
    """Write a file that no file system can make smaller."""
    with open(os.path.join(root, name), "wb") as file:
        file.writelines(os.urandom(_MIB) for _ in range(mebibytes))
        file.flush()
        os.fsync(file.fileno())


def _fits(root: str, name: str, mebibytes: int) -> None:
    """Write a file for which there is room."""
    try:
        _write(root, name, mebibytes)
    except OSError as error:
        pytest.fail(f"{mebibytes} MiB do not fit: {error}")


def _fill(root: str, name: str) -> None:
    """Write more than the limit, and see that it is refused."""
    with pytest.raises(OSError, match=_OVER) as caught:
        _write(root, name, 48)
    assert caught.value.errno in {errno.EDQUOT, errno.ENOSPC}


def test_a_size_holds_in_every_mount(bench: Workbench) -> None:
    """What was written in an earlier mount counts in a later one."""
    bench.needs("quota")
    bench.driver.create("layer", None, LayerSpec(size=_SIZE))
    with bench.writing("layer") as root:
        _fits(root, "first", 20)
    with bench.writing("layer") as root, pytest.raises(OSError, match=_OVER):
        _write(root, "second", 20)


def test_a_size_holds_over_a_parent(bench: Workbench) -> None:
    """What a parent holds does not count; what is changed of it does."""
    bench.needs("quota")
    bench.driver.create("base")
    with bench.writing("base") as root:
        _fits(root, "large", 40)
    bench.driver.seal("base")
    bench.driver.create("layer", "base", LayerSpec(size=_SIZE))
    with bench.writing("layer") as root:
        _fits(root, "fits", 16)
        assert os.path.getsize(os.path.join(root, "large")) == 40 * _MIB
        _fill(root, "does not")


def test_sizes_of_layers_are_apart(bench: Workbench) -> None:
    """What one layer takes leaves the others their room."""
    bench.needs("quota")
    for name in ("one", "other"):
        bench.driver.create(name, None, LayerSpec(size=_SIZE))
        with bench.writing(name) as root:
            _fits(root, "fits", 20)
    with bench.writing("one") as root:
        _fill(root, "does not")
    with bench.writing("other") as root:
        _fits(root, "fits too", 8)


def test_children_have_no_limit_of_their_parents(bench: Workbench) -> None:
    """A child of a limited layer takes what it likes, also in directories of the parent, or has a limit of its own."""
    bench.needs("quota")
    bench.driver.create("base", None, LayerSpec(size=_SIZE))
    with bench.writing("base") as root:
        os.mkdir(os.path.join(root, "dir"))
        _fits(root, "dir/file", 1)
        _fill(root, "filler")
    bench.driver.seal("base")
    bench.driver.create("free", "base")
    bench.driver.create("bound", "base", LayerSpec(size=_SIZE))
    with bench.writing("free") as root:
        os.rename(os.path.join(root, "dir/file"), os.path.join(root, "dir/moved"))
        _fits(root, "dir/more", 48)
    with bench.writing("bound") as root:
        _fill(root, "dir/more")


def test_a_full_layer_lives_on(bench: Workbench) -> None:
    """A layer that takes no more is measured, read, mounted again, emptied, sealed and removed as any other."""
    bench.needs("quota")
    bench.driver.create("base")
    with bench.writing("base") as root:
        _fits(root, "below", 1)
    bench.driver.seal("base")
    bench.driver.create("layer", "base", LayerSpec(size=_SIZE))
    with bench.writing("layer") as root:
        _fits(root, "kept", 1)
        _fill(root, "filler")
    assert _MIB < bench.driver.usage("layer").bytes <= _SIZE
    assert bench.changes("layer") == [("A", "/filler"), ("A", "/kept")]
    with bench.writing("layer") as root:
        os.unlink(os.path.join(root, "filler"))
        _fits(root, "other", 20)
        os.unlink(os.path.join(root, "below"))
        _fill(root, "filler")
    bench.driver.seal("layer")

    assert bench.changes("layer") == [("D", "/below"), ("A", "/filler"), ("A", "/kept"), ("A", "/other")]
    assert len(bench.diff("layer")) > 21 * _MIB
    with bench.viewing("layer") as root:
        assert sorted(os.listdir(root)) == ["filler", "kept", "other"]
    bench.driver.remove("layer")
    assert [record.name for record in bench.driver.layers()] == ["base"]


def test_an_archive_that_passes_the_limit_is_an_error(bench: Workbench) -> None:
    """More than fits is not unpacked, less is; the failed layer can be removed."""
    bench.needs("quota")
    piece = os.urandom(_MIB)
    bench.driver.create("layer", None, LayerSpec(size=_SIZE))
    # Where a file system shows the limit as its free space, it is known before anything is written.
    with pytest.raises((OSError, errors.LimitExceeded), match=r"quota|space|limit") as caught:
        bench.driver.apply("layer", io.BytesIO(layer_tar(Member(f"file{number}", piece) for number in range(48))))
    assert getattr(caught.value, "errno", errno.EDQUOT) in {errno.EDQUOT, errno.ENOSPC}
    bench.driver.remove("layer")
    bench.driver.create("layer", None, LayerSpec(size=_SIZE))
    bench.driver.apply("layer", io.BytesIO(layer_tar([Member("file", piece)])))
    bench.driver.seal("layer")

    with bench.viewing("layer") as root:
        assert os.listdir(root) == ["file"]


def test_a_removed_layer_leaves_no_limit(bench: Workbench) -> None:
    """Of a limited layer that is gone nothing binds another one of its name."""
    bench.needs("quota")
    for _ in range(3):
        bench.driver.create("layer", None, LayerSpec(size=_SIZE))
        with bench.writing("layer") as root:
            _fits(root, "fits", 1)
        bench.driver.remove("layer")
    bench.driver.settle()
    bench.driver.create("layer")
    with bench.writing("layer") as root:
        _fits(root, "more", 48)
