"""Every case of the corpus, imported as an image into a store: stored to the byte, or refused without a trace."""

import contextlib
import os
import pathlib
import stat
import tempfile
from collections.abc import Iterator

import attrs
import pytest
from cases import Case, file, layer
from corpus import all_cases
from layouts import Layout
from stage import Outcome, assert_outcome, canaries, expected_of, isolated, shown, state
from storetools import diff_id, whole

from graphdrivers import Store, errors, open_store
from graphdrivers.conformance import observe
from graphdrivers.linux import mounts

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and whiteouts need root")

CASES = all_cases()
DRIVERS = ("vfs", "overlay")
NAME = "hostile:1"


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Store]]:
    """Open a store for each driver whose layers lie on disk in another way."""
    root = tmp_path_factory.mktemp("stores")
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(open_store(root / name, name, durability="none")) for name in DRIVERS]


def layout_of(folder: pathlib.Path, case: Case) -> pathlib.Path:
    """Make an image of a case: its parents, and the hostile layer on top."""
    folder.mkdir(exist_ok=True)
    layout = Layout(folder)
    layout.add(layout.manifest(*case.parents, case.tar), "1")
    return folder


def emptied(store: Store) -> None:
    """Remove all, and assert that nothing of it is left anywhere."""
    for image in store.images():
        store.remove_image(image)
    assert store.collect().resisted == ()
    assert list(store.driver.layers()) == []
    for table in ("layers", "images", "tags", "leases", "mounts", "containers"):
        assert store.site.database.read(f"SELECT * FROM {table}") == [], table  # noqa: S608 - constants
    whole(store)


def brought(store: Store, image: pathlib.Path, case: Case) -> Outcome:
    """Import a case among canaries, look at what became of it, and leave the store empty."""
    emptied(store)
    with canaries(store.driver.home) as places:
        before = [state(place) for place in places]
        outcome = _imported(store, image, case)
        assert [state(place) for place in places] == before, "something outside of the layer was touched"
    assert list(store.check(deep=True)) == []
    emptied(store)
    return outcome


def _imported(store: Store, image: pathlib.Path, case: Case) -> Outcome:
    try:
        store.import_image(image, name=NAME, limits=case.limits)
    except errors.ArchiveError as error:
        _assert_refused(store, case)
        limit = error.limit if isinstance(error, errors.LimitExceeded) else ""
        return Outcome(type(error), error.member, error.offset, limit, str(error))
    found = store.image(NAME)
    with store.open_layer(found.layers[-1]) as tar:
        assert tar.read() == case.tar, "the layer is not given back as it came"
    with mounts.opened(store.driver.mounts(store.layer_of(found), view=True)) as root:
        tree = observe.snapshot(root)
        small = [path for path, item in tree.items() if item.kind == stat.S_IFREG and item.size < 1000]
        content = {path: pathlib.Path(f"/proc/self/fd/{root}/{path}").read_bytes() for path in small}
    looks = {path: shown(path, item, content) for path, item in tree.items() if path != "."}
    return Outcome(tree=tree, shown=looks)


def _assert_refused(store: Store, case: Case) -> None:
    """A refused layer leaves those below it, for the next try, and nothing of itself."""
    assert store.images() == []
    layers = store.site.database.read("SELECT name, state FROM layers")
    assert [row[1] for row in layers] == ["ready"] * len(case.parents)
    assert {record.name for record in store.driver.layers()} == {row[0] for row in layers}
    assert store.site.database.read("SELECT * FROM leases") == []
    assert sorted(store.unused()) == sorted(row[0] for row in layers)
    whole(store)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_hostile_layer_through_the_store(case: Case, stores: list[Store], tmp_path: pathlib.Path) -> None:
    """Refused by the same error as by the driver alone, or stored and given back to the byte; no trace outside."""
    image = layout_of(tmp_path / "image", case)
    for store in stores:
        places = (os.path.dirname(store.root), tempfile.gettempdir())
        outcome = isolated(lambda store=store: brought(store, image, case), writable=places)
        assert_outcome(expected_of(case, store.driver), outcome, store.driver.name)
        assert outcome.message.isprintable()


def test_a_hostile_layer_in_the_middle(stores: list[Store], tmp_path: pathlib.Path) -> None:
    """What is below a refused layer stays for the next try, what is above is never made."""
    good = [layer(file(b"etc/%d" % number)) for number in range(3)]
    case = CASES["names: name ../pwned"]
    case = attrs.evolve(case, parents=(*good, case.tar), tar=good[0])
    image = layout_of(tmp_path / "image", case)
    for store in stores:
        with pytest.raises(errors.UnsafePath):
            store.import_image(image, name=NAME)
        layers = store.site.database.read("SELECT diff_id FROM layers WHERE state = 'ready'")
        assert sorted(layers) == sorted((diff_id(tar),) for tar in good)
        whole(store)
        emptied(store)
