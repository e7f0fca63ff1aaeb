"""What `check` tells: each damage by the layer and path where it is, and nothing of a store that was only used."""

import contextlib
import errno
import functools
import io
import os
import pathlib
import random
import resource
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator

import attrs
import pytest
from storetools import Say, all_at_once, in_child, layout_of, mounted_in, reopened, tar_of, whole, write

from graphdrivers import Store, errors, open_store
from graphdrivers.images import opening
from graphdrivers.linux import mounts
from graphdrivers.store import check, recover
from graphdrivers.store.check import FaultKind

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

ENTRIES: list[tuple[bytes, str, bytes | str, int]] = [
    (tarfile.DIRTYPE, "etc", "", 0o755),
    (tarfile.REGTYPE, "etc/motd", b"welcome\n", 0o644),
    (tarfile.REGTYPE, "etc/gone", b"soon", 0o600),
    (tarfile.SYMTYPE, "etc/link", "motd", 0o777),
    (tarfile.REGTYPE, "etc/one", b"two names", 0o640),
    (tarfile.LNKTYPE, "etc/two", "etc/one", 0o640),
    (tarfile.DIRTYPE, "opaque", "", 0o755),
    (tarfile.REGTYPE, "opaque/a", b"a", 0o644),
    (tarfile.REGTYPE, "opaque/b", b"b", 0o644),
    (tarfile.REGTYPE, "set-uid", b"#!", 0o4755),
    (tarfile.REGTYPE, "empty", b"", 0o644),
    (tarfile.FIFOTYPE, "fifo", "", 0o644),
    (tarfile.DIRTYPE, "deep/deeper", "", 0o1777),
]
CHANGES: list[tuple[bytes, str, bytes | str, int]] = [
    (tarfile.REGTYPE, "etc/.wh.gone", b"", 0o644),
    (tarfile.REGTYPE, "etc/motd", b"welcome again\n", 0o644),
    (tarfile.DIRTYPE, "opaque", "", 0o700),
    (tarfile.REGTYPE, "opaque/.wh..wh..opq", b"", 0o644),
    (tarfile.REGTYPE, "opaque/c", b"c", 0o644),
    (tarfile.REGTYPE, "new/file", b"new", 0o644),
]
HIDDEN = {"etc/gone": {"/etc/gone"}, "opaque/.wh..opq": {"/opaque/a", "/opaque/b"}}
"""What shows through when a whiteout of the upper layer is lost."""


def special_tar(entries: list[tuple[bytes, str, bytes | str, int]]) -> bytes:
    """Make a layer of files of all kinds."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for kind, name, what, mode in entries:
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.mtime = kind, mode, 1_700_000_000
            content = what if isinstance(what, bytes) else b""
            member.linkname = "" if isinstance(what, bytes) else what
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture(params=["vfs", "overlay", "aufs"])
def used(request: pytest.FixtureRequest, opened: Callable[..., Store], tmp_path: pathlib.Path) -> Store:
    """Give a store that was used: containers written to, with a checkpoint, a fork, and an image of one."""
    store = opened(request.param)
    tars = special_tar(ENTRIES), special_tar(CHANGES), tar_of({"app/main": "print()"})
    store.import_image(layout_of(tmp_path / "image", *tars), name="image")
    box = store.create("image", name="box")
    write(store, "box", {"etc/motd": "mine", "opaque/c": None, "new/file": "longer than it was"})
    box.checkpoint("one")
    with box.mounted() as place:
        shutil.rmtree(place / "opaque")
        (place / "opaque").mkdir()
    box.fork("second")
    store.commit("box", name="committed")
    store.create("committed", name="third")
    return store


def told(store: Store, *, deep: bool = True) -> list[tuple[str, str]]:
    """Check, and give layers and paths."""
    return sorted((fault.layer, fault.path) for fault in store.check(deep=deep))


def tree_of(store: Store, layer: str) -> pathlib.Path:
    """Give the folder in which a driver keeps what a layer holds."""
    home = pathlib.Path(store.driver.home)
    inside = {"vfs": f"layers/{layer}/root", "overlay": f"layers/{layer}/diff", "aufs": f"diff/{layer}"}
    return home / inside[store.driver.name]


@attrs.frozen
class Kept:
    """A stored file as it was, to be put back."""

    path: pathlib.Path
    before: os.stat_result
    above: os.stat_result
    content: bytes | str

    @classmethod
    def of(cls, path: pathlib.Path) -> "Kept":
        """Remember a file."""
        before = path.lstat()
        content: bytes | str = os.readlink(path) if path.is_symlink() else b""
        if stat.S_ISREG(before.st_mode):
            content = path.read_bytes()
        return cls(path, before, path.parent.lstat(), content)

    def times(self) -> None:
        """Give file and folder the times that they had."""
        for path, status in ((self.path, self.before), (self.path.parent, self.above)):
            if os.path.lexists(path):
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)

    def put_back(self) -> None:
        """Undo what a damage did to content and attributes."""
        if isinstance(self.content, str):
            self.path.unlink()
            self.path.symlink_to(self.content)
        elif stat.S_ISREG(self.before.st_mode):
            self.path.write_bytes(self.content)
        os.lchown(self.path, self.before.st_uid, self.before.st_gid)
        if not self.path.is_symlink():
            self.path.chmod(stat.S_IMODE(self.before.st_mode))
        self.times()


def damages(kept: Kept) -> Iterator[str]:
    """Do each thing to a file that can be done to one of its kind, name it, and undo it."""
    path, mode = kept.path, kept.before.st_mode
    if stat.S_ISREG(mode):
        content = bytes(kept.content if isinstance(kept.content, bytes) else b"")
        for what, other in {"flip": content[:-1] + b"\x7f", "cut": content[:-1], "longer": content + b"\0"}.items():
            if other != content and (content or what == "longer"):
                path.write_bytes(other)
                path.chmod(stat.S_IMODE(mode))
                kept.times()
                yield what
                kept.put_back()
    if stat.S_ISLNK(mode):
        path.unlink()
        path.symlink_to("elsewhere")
        kept.times()
        yield "target"
        kept.put_back()
    else:
        path.chmod(stat.S_IMODE(mode) ^ 0o010)
        yield "mode"
        kept.put_back()
    os.lchown(path, 99, kept.before.st_gid)
    if not stat.S_ISLNK(mode):
        path.chmod(stat.S_IMODE(mode))
    yield "owner"
    kept.put_back()
    os.utime(path, ns=(0, kept.before.st_mtime_ns - 10**10), follow_symlinks=False)
    yield "time"
    kept.put_back()
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        os.setxattr(path, "user.added", b"x")
        yield "xattr"
        os.removexattr(path, "user.added")
    if stat.S_ISDIR(mode):
        (path / "added").touch()
        kept.times()
        yield "added"
        (path / "added").unlink()
        kept.times()


def is_whiteout(path: pathlib.Path) -> bool:
    """Tell what means a deletion."""
    return path.name.startswith(".wh.") or stat.S_ISCHR(path.lstat().st_mode)


def expected(tree: pathlib.Path, path: pathlib.Path, damage: str) -> str:
    """Give the path that is told: of a file with two names the first, of a folder that got a file that file."""
    inside = "/" + path.relative_to(tree).as_posix()
    if inside == "/etc/two":
        return "/etc/one"
    return f"{inside}/added" if damage == "added" else inside


def test_a_store_that_was_used_is_sound(used: Store) -> None:
    """Nothing is told of it, at rest, while it is mounted, and when it was opened again."""
    assert list(used.check(deep=True)) == []
    with used.container("box").mounted() as place, used.mount_image("image"):
        (place / "etc/link").unlink()
        assert list(used.check(deep=True)) == []
    used.container("box").rollback("one")
    used.collect()
    assert list(used.check(deep=True)) == []


def test_each_damage_of_each_file_is_told_alone(used: Store) -> None:
    """Every file of every layer of an image, damaged in every way: one fault, with its layer and its path."""
    tried = 0
    for layer in used.image("image").layers:
        tree = tree_of(used, layer.name)
        for path in sorted(tree.rglob("*")):
            if is_whiteout(path):
                continue
            for damage in damages(Kept.of(path)):
                found = list(used.check(deep=True))
                wanted = [(layer.name, expected(tree, path, damage))]
                assert [(fault.layer, fault.path) for fault in found] == wanted, (damage, path, found)
                tried += 1
    assert tried > 90
    assert told(used) == []


def test_each_file_that_is_gone_is_told(used: Store, tmp_path: pathlib.Path) -> None:
    """A file, a link, a folder with all that is in it, a deletion: told with the layer that had it, and no other."""
    for layer in used.image("image").layers:
        tree = tree_of(used, layer.name)
        for path in sorted(tree.rglob("*")):
            kept = Kept.of(path)
            inside = path.relative_to(tree).as_posix()
            hidden = HIDDEN.get(inside.replace(".wh..wh..opq", ".wh..opq").replace(".wh.gone", "gone"))
            deletes = is_whiteout(path)
            path.rename(tmp_path / "aside")
            kept.times()
            found = told(used)
            assert {name for name, _ in found} == {layer.name}, path
            if deletes:
                assert {one for _, one in found} == hidden, path
            else:
                assert any(f"{one}/".startswith(f"/{inside}/") for _, one in found), path
            (tmp_path / "aside").rename(path)
            kept.times()
    assert told(used) == []


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "other"])
def test_a_damaged_header_record_is_told(used: Store, damage: str) -> None:
    """A layer whose record is damaged, lost or another's is named once, as a whole; so is none that stands on it."""
    layers = [layer.name for layer in used.image("image").layers]
    for number, layer in enumerate(layers):
        path = pathlib.Path(used.site.record_path(layer))
        content = path.read_bytes()
        middle = len(content) // 2
        if damage == "flip":
            path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        elif damage == "cut":
            path.write_bytes(content[:-1])
        elif damage == "gone":
            path.unlink()
        else:
            path.write_bytes(pathlib.Path(used.site.record_path(layers[number - 1])).read_bytes())
        found = told(used)
        assert {name for name, _ in found} == {layer}
        assert len(found) == 1 or damage == "other"
        path.write_bytes(content)
    assert told(used) == []


@pytest.mark.parametrize("text", [b"", b"{", b"\0" * 50, None])
def test_a_damaged_description_of_a_layer_is_told(store: Store, tmp_path: pathlib.Path, text: bytes | None) -> None:
    """What the driver keeps of one layer is damaged: that layer is told, it keeps no other, and it can be repaired."""
    tars = [tar_of({"a": "1"}), tar_of({"b": "2"}), tar_of({"c": "3"})]
    image = store.import_image(layout_of(tmp_path / "image", *tars), name="image")
    store.create("image", name="box")
    for layer in image.layers:
        path = pathlib.Path(store.driver.home, "layers", layer.name, "layer.json")
        path.unlink() if text is None else path.write_bytes(text)
        found = list(store.check(deep=True))
        assert {(fault.layer, fault.path) for fault in found} == {(layer.name, "")}
        assert recover.compare(store.site, repair=True) == []
        with opening.open_image(tmp_path / "image") as source:
            assert store.repair(found, [source]).layers == (layer.name,)
        assert told(store) == []
    whole(store)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("DELETE FROM layers WHERE name = :bottom", "parent of '{middle}' in layers is '{bottom}', which is missing"),
        (
            "DELETE FROM images WHERE layer = :top",
            "image_id of '{tag}' in tags is '{image}', which is missing in images",
        ),
        ("UPDATE layers SET chain_id = :zeros WHERE name = :middle", "the ChainID of layer '{middle}'"),
        ("UPDATE layers SET diff_id = NULL WHERE name = :top", "layer '{top}' has not all of DiffID, ChainID and size"),
        ("UPDATE layers SET state = 'making' WHERE name = :bottom", "layer '{bottom}' is making by nobody"),
        ("UPDATE images SET layer = :middle", "the layers of image '{image}' are not those that its configuration"),
        ("UPDATE images SET layer = NULL", "the layers of image '{image}' are not those that its configuration"),
        ("DELETE FROM facts WHERE key = 'driver'", "with which driver"),
    ],
)
def test_rows_that_cannot_be_true(store: Store, tmp_path: pathlib.Path, damage: str, sentence: str) -> None:
    """A row that is gone or wrong is named; nothing is repaired on its word, nor removed that another row names."""
    tars = [tar_of({"a": "1"}), tar_of({"b": "2"}), tar_of({"c": "3"})]
    image = store.import_image(layout_of(tmp_path / "image", *tars), name="image")
    bottom, middle, top = (layer.name for layer in image.layers)
    names = {"bottom": bottom, "middle": middle, "top": top, "zeros": f"sha256:{'0' * 64}"}
    connection = store.site.database._connection()
    connection.execute("PRAGMA foreign_keys=OFF")
    connection.execute(damage, names)

    found = [fault for fault in store.check() if fault.kind is FaultKind.LEDGER]
    more = {"image": image.image_id, "tag": "docker.io/library/image:latest"}
    assert any(sentence.format(**names, **more) in fault.detail for fault in found), found
    with pytest.raises(errors.StoreCorrupt):
        store.repair(found)
    recover.compare(store.site, repair=True)
    assert {layer.name for layer in store.driver.layers()} >= {bottom, middle}


def test_the_size_of_a_tar_is_held_against_its_row(store: Store, tmp_path: pathlib.Path) -> None:
    """A row with another size than the layer's tar has is told by a deep check."""
    image = store.import_image(layout_of(tmp_path / "image", tar_of({"a": "1"})), name="image")
    with store.site.database.write() as step:
        step.execute("UPDATE layers SET tar_size = tar_size + 512")
    assert told(store) == [(image.top, "")]


def test_a_lost_layer_is_told_alone(store: Store, tmp_path: pathlib.Path) -> None:
    """What stands on it cannot be judged, and is not told; after the repair it is."""
    tars = [tar_of({"a": "1"}), tar_of({"b": "2"}), tar_of({"c": "3"})]
    image = store.import_image(layout_of(tmp_path / "image", *tars), name="image")
    _, middle, top = (layer.name for layer in image.layers)
    (tree_of(store, top) / "c").write_text("4")
    store.driver.remove(middle)
    found = list(store.check(deep=True))
    assert [(fault.kind, fault.layer) for fault in found] == [(FaultKind.LOST, middle)]
    with opening.open_image(tmp_path / "image") as source:
        assert store.repair(found, [source]).layers == (middle,)
    assert told(store) == [(top, "/c")]


def test_a_layer_that_goes_while_it_is_read(store: Store, tmp_path: pathlib.Path) -> None:
    """What another process removes during a deep check is no damage."""
    for name in ("one", "two"):
        store.import_image(layout_of(tmp_path / name, tar_of({name: name}), comment=name), name=name)
    gone: list[object] = []

    def remove(done: int, total: int) -> None:
        if done < total and not gone:
            gone.extend(store.remove_image(name) for name in ("one", "two"))

    assert list(check.check(store.site, deep=True, observe=remove)) == []
    assert gone


def test_a_mount_that_nobody_knows(opened: Callable[..., Store], tmp_path: pathlib.Path) -> None:
    """A container's mount without a row is told and taken away; a view that somebody made by hand is left alone."""
    store = opened("overlay")
    image = store.import_image(layout_of(tmp_path / "image", tar_of({"a": "1"}), tar_of({"b": "2"})), name="image")
    box = store.create("image", name="box")
    held = box.mount(keep=True)
    view = store.site.mount_point(str(image.top))
    os.mkdir(view)
    mounts.attach(store.driver.mounts(str(image.top), view=True), view)
    with store.site.database.write() as step:
        step.execute("DELETE FROM mounts")

    found = list(store.check())
    assert [(fault.kind, fault.layer) for fault in found] == [(FaultKind.MOUNT, box.record().layer)]
    with open(held.path / "a") as file:
        assert [name for name, _ in store.repair(found).lost] == [box.record().layer]
        assert file.read() == "1"
    assert store.repair(found).lost == ()
    assert list(store.check()) == []
    assert mounted_in(store.root) == [view]


def test_what_others_do_meanwhile_is_no_damage(store: Store, tmp_path: pathlib.Path) -> None:
    """Processes import, create, mount, commit and remove, while another checks again and again: it finds nothing."""
    for number in range(3):
        layout_of(tmp_path / f"image{number}", tar_of({"same": "1"}), tar_of({"own": str(number)}), comment=str(number))

    def change(say: Say, seed: int) -> None:
        dice = random.Random(seed)
        with open_store(store.root, durability="none") as mine:
            for number in range(25):
                name, box = f"image{dice.randrange(3)}", f"box-{seed}-{number}"
                with contextlib.suppress(errors.GraphDriverError):  # another one was faster
                    mine.import_image(tmp_path / name, name=name)
                    write(mine, mine.create(name, name=box).name, {"own": box})
                    mine.remove_image(mine.commit(box))
                    mine.container(box).fork(f"{box}-fork").remove()
                    mine.container(box).remove()
                    mine.remove_image(name)
                    mine.collect()
        say("done")

    def look(say: Say) -> None:
        with open_store(store.root, durability="none") as mine:
            for _ in range(60):
                for fault in mine.check(deep=True):
                    say(str(fault))

    changes = [functools.partial(change, seed=seed) for seed in range(3)]
    assert all_at_once([look, *changes]) == [[], *[["done"]] * 3]
    assert told(reopened(store)) == []


def test_too_few_open_files_are_no_damage(store: Store, tmp_path: pathlib.Path) -> None:
    """Who may not open as many files as it takes is told so; no layer is called damaged for that."""
    store.import_image(layout_of(tmp_path / "image", *[tar_of({f"a/b/{n}": "x" * n}) for n in range(4)]), name="image")

    def look() -> None:
        assert list(store.check(deep=True)) == []
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        taken = []
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(2))
        outcomes: list[object] = []
        while outcomes[-1:] != [[]]:
            os.close(taken.pop())
            try:
                outcomes.append(list(store.check(deep=True)))
            except OSError as error:
                outcomes.append(error.errno)
        assert set(outcomes[:-1]) == {errno.EMFILE}

    in_child(look)
