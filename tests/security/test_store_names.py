"""Names that people and programs give to a store: what is none is refused before a path or a row is made of it."""

import io
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from storetools import layout_of, tar_of, whole

from graphdrivers import Store, errors, open_store

NAMES = {
    "nothing": "",
    "this folder": ".",
    "the folder above": "..",
    "a path that climbs": "../../victim",
    "an absolute path": "/etc/passwd",
    "a folder": "a//b",
    "NUL": "a\0b",
    "a line": "web\nweb",
    "a line at the end": "web\n",
    "ten thousand characters": "x" * 10_000,
    "no UTF-8": "web\udcff",
    "half a character": "web\ud800",
    "an escape sequence": "web\x1b]0;owned\x07\x1b[2J",
    "backspaces": "root\b\b\b\b",
    "right to left": "web\u202egnp",
    "an option": "--force",
    "blanks": " web ",
    "a whiteout": ".wh.web",
    "capitals": "WEB/..",
    "a digest that is no text": "sha256:\udcff",
    "SQL": "web' OR '1'='1",
    "a pattern": "*",
    "a set": "[0-9a-f]",
}

Door = Callable[[Store, str, pathlib.Path], object]

DOORS: dict[str, Door] = {
    "create": lambda store, name, _: store.create("web:1", name=name),
    "create of": lambda store, name, _: store.create(name),
    "fork": lambda store, name, _: store.container("web").fork(name),
    "checkpoint": lambda store, name, _: store.container("web").checkpoint(name),
    "rollback": lambda store, name, _: store.container("web").rollback(name),
    "forget": lambda store, name, _: store.container("web").forget(name),
    "container": lambda store, name, _: store.container(name),
    "image": lambda store, name, _: store.image(name),
    "tag": lambda store, name, _: store.tag("web:1", name),
    "tag of": lambda store, name, _: store.tag(name, "other:1"),
    "untag": lambda store, name, _: store.untag(name),
    "remove": lambda store, name, _: store.remove_image(name),
    "import": lambda store, name, image: store.import_image(image, name=name),
    "import of": lambda store, name, image: store.import_image(image, reference=name),
    "import for": lambda store, name, image: store.import_image(image, platform=f"linux/{name}/{name}/v8"),
    "find": lambda store, name, _: store.find(name),
    "changes": lambda store, name, _: store.changes(name),
    "changes to": lambda store, name, _: store.changes("web", name),
    "export": lambda store, name, _: store.export(name),
    "explain": lambda store, name, _: store.explain(name),
    "mount": lambda store, name, _: store.mount_image(name),
    "commit": lambda store, name, _: store.commit("web", name),
    "commit of": lambda store, name, _: store.commit(name, "other:1"),
    "save": lambda store, name, _: store.save([name], io.BytesIO()),
    "pull": lambda store, name, _: store.pull(name),
    "push": lambda store, name, _: store.push("web:1", name),
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Make a small image."""
    return layout_of(tmp_path_factory.mktemp("image") / "image", tar_of({"a": "1"}))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, image: pathlib.Path) -> Iterator[Store]:
    """Open a store with an image and a container."""
    with open_store(tmp_path_factory.mktemp("store") / "root", "vfs", durability="none") as opened:
        opened.import_image(image, name="web:1")
        opened.create("web:1", name="web")
        yield opened


def picture(store: Store) -> tuple[object, ...]:
    """Give all rows and paths of a store, and what is beside it."""
    tables = ("layers", "images", "tags", "containers", "checkpoints", "mounts", "leases", "blobs", "facts")
    rows = [store.site.database.read(f"SELECT * FROM {table}") for table in tables]  # noqa: S608 - constants
    above = os.path.dirname(store.root)
    return rows, sorted(os.path.join(at, name) for at, dirs, files in os.walk(above) for name in (*dirs, *files))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("door", DOORS)
def test_names_at_every_door(door: str, name: str, store: Store, image: pathlib.Path) -> None:
    """Whatever door it comes to: an error of this library in one printable line, and nothing is changed anywhere."""
    before = picture(store)
    with pytest.raises(errors.GraphDriverError) as caught:
        DOORS[door](store, NAMES[name], image)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 25_000
    assert picture(store) == before
    whole(store)


@pytest.mark.parametrize(
    "command",
    [
        ["inspect"],
        ["create", "web:1", "--name"],
        ["create"],
        ["mount"],
        ["rm"],
        ["rmi"],
        ["diff"],
        ["tag", "web:1"],
        ["fork", "web"],
        ["checkpoint", "web"],
        ["rollback", "web"],
        ["layer", "mount"],
        ["history"],
        ["export"],
        ["explain"],
        ["umount"],
        ["commit", "web"],
    ],
    ids=" ".join,
)
def test_names_at_the_command_line(command: list[str], store: Store) -> None:
    """Bytes that are no text and control characters among the arguments: one line, nothing for the terminal to obey."""
    for name in (b"web\xff", b"\x1b]0;owned\x07", b"../..\n"):
        program = [sys.executable, "-m", "graphdrivers", "--root", store.root, "--driver", "vfs"]
        done = subprocess.run([*map(os.fsencode, [*program, *command]), name], check=False, capture_output=True)
        assert done.returncode not in {0, 1}, done
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        assert done.stderr.count(b"\n") <= 4  # with usage
        assert b"\x1b" not in done.stdout + done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_folders_whose_names_are_no_text(image: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A store in such a folder, and a mount on one, work as others do: folders may have any name."""
    place = tmp_path / "m\udcff\n\x1b"
    place.mkdir()
    with open_store(place / "store", "overlay", durability="none") as store:
        store.import_image(image, name="web:1")
        box = store.create("web:1", name="web")
        for target in (None, place / "mnt\udcfe"):
            if target is not None:
                target.mkdir()
            box.mount(target, keep=True)
            assert [need.name for need in store.explain("web") if need.kind == "mount"] == [box.mounts()[0].target]
            assert list(store.check()) == []
            assert box.unmount() == [str(target or pathlib.Path(store.site.mount_point(box.record().layer)))]
        box.remove()
        whole(store)
