"""What a store should hold after some steps: the same plain values for the guest that works and for who looks after.

A step is a dictionary, so that it can be printed and read; `after` says what it does.
"""

import hashlib
import io
import tarfile
from collections.abc import Mapping
from typing import Any

import attrs

Step = dict[str, Any]
Tree = dict[str, str]
"""Paths of regular files that are not empty, and the digest of each."""

BASES = 3
"""Images share one of so many lowest layers."""
REWRITTEN = "base/2"
"""A file of every image that containers replace the content of."""
PATCHED = "base/3"
"""A file of every image that containers write over in place, and sync with ``fdatasync``, which leaves its times."""


@attrs.frozen
class State:
    """All that is acknowledged."""

    images: Mapping[str, Tree]
    """By the name that an image was made with; it keeps it."""
    aliases: Mapping[str, str]
    """Other names, and the image of each."""
    containers: Mapping[str, Tree]
    bases: Mapping[str, str]
    """The image of each container."""
    points: Mapping[str, Mapping[str, Tree]]
    """The checkpoints of each container."""


EMPTY = State({}, {}, {}, {}, {})


def digest(text: bytes) -> str:
    """Digest the content of a file."""
    return hashlib.sha256(text).hexdigest()[:24]


def text_of(seed: str) -> bytes:
    """Make the content of a file, up to 20 KiB, a few of them 400 KiB."""
    size = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:2], "big")
    return hashlib.shake_128(seed.encode()).digest(400_000 if size % 40 == 0 else 1 + size % 20_000)


def page_of(seed: str) -> bytes:
    """Make the content of `PATCHED`, always of the same size."""
    return hashlib.shake_128(seed.encode()).digest(8192)


def image_name(number: int) -> str:
    """Give the name of an image in full."""
    return f"localhost/made:{number}"


def image_files(number: int) -> list[dict[str, bytes | None]]:
    """Give the files of an imported image's layers, lowest first; ``None`` deletes."""
    base = {f"base/{name}": text_of(f"base {number % BASES} {name}") for name in range(40)}
    base[PATCHED] = page_of("page")
    own: dict[str, bytes | None] = {f"own/{number}/{name}": text_of(f"own {number} {name}") for name in range(30)}
    return [{**base}, {**own, "base/0": None, "base/1": text_of(f"changed {number}")}]


def image_tars(number: int) -> list[bytes]:
    """Make the layers of an imported image; the same number gives the same bytes."""
    return [_tar(files) for files in image_files(number)]


def after(state: State, step: Step) -> State:
    """Give what is there once a step is done."""
    match step:
        case {"do": "create", "name": name, "image": image}:
            return _with(state, name, state.images[image], image)
        case {"do": "fork", "name": name, "new": new}:
            return _with(state, new, state.containers[name], state.bases[name])
        case {"do": "write" | "checkpoint" | "rollback" | "forget" | "remove"}:
            return _changed(state, step)
        case _:
            return _with_images(state, step)


def imported(number: int) -> Tree:
    """Give the merged tree of an imported image."""
    tree: Tree = {}
    for files in image_files(number):
        tree = {path: kept for path, kept in tree.items() if path not in files}
        tree |= {path: digest(text) for path, text in files.items() if text is not None}
    return tree


def _with_images(state: State, step: Step) -> State:
    """Do the steps that are about images and their names."""
    aliases = state.aliases
    match step:
        case {"do": "import", "number": number}:
            images = {**state.images, image_name(number): imported(number)}
        case {"do": "commit", "name": name, "number": number}:
            images = {**state.images, image_name(number): state.containers[name]}
        case {"do": "remove_image", "image": image}:
            images = _without(state.images, image)
            aliases = {alias: meant for alias, meant in aliases.items() if meant != image}
        case {"do": "tag", "image": image, "alias": alias}:
            images, aliases = state.images, {**aliases, alias: image}
        case {"do": "untag", "alias": alias}:
            images, aliases = state.images, _without(aliases, alias)
        case _:
            raise ValueError(f"no such step: {step!r}")
    return attrs.evolve(state, images=images, aliases=aliases)


def _changed(state: State, step: Step) -> State:
    """Do the steps that are about one container that is there."""
    name = step["name"]
    tree, points = state.containers[name], state.points[name]
    match step:
        case {"do": "write", "files": files, "page": page}:
            tree = {**tree, **{path: digest(text_of(seed)) for path, seed in files.items()}}
            tree[PATCHED] = digest(page_of(page))
        case {"do": "checkpoint", "point": point}:
            points = {**points, point: tree}
        case {"do": "rollback", "point": point}:
            tree = points[point]
        case {"do": "forget", "point": point}:
            points = _without(points, point)
        case _:
            return attrs.evolve(
                state,
                containers=_without(state.containers, name),
                bases=_without(state.bases, name),
                points=_without(state.points, name),
            )
    return attrs.evolve(state, containers={**state.containers, name: tree}, points={**state.points, name: dict(points)})


def _with(state: State, name: str, tree: Tree, image: str) -> State:
    return attrs.evolve(
        state,
        containers={**state.containers, name: tree},
        bases={**state.bases, name: image},
        points={**state.points, name: {}},
    )


def _without(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != key}


def _tar(files: Mapping[str, bytes | None]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in files.items():
            folder, _, name = path.rpartition("/")
            member = tarfile.TarInfo(f"{folder}/.wh.{name}" if content is None else path)
            member.size, member.mtime = len(content or b""), 1_700_000_000
            tar.addfile(member, io.BytesIO(content or b""))
    return buffer.getvalue()
