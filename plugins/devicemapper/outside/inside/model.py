# ruff: noqa: INP001 -- run by its path
"""What the work of `power_work.py` does, step by step, as both sides of a power cut can tell it."""

import hashlib
import random
from collections.abc import Iterator

import attrs

FILES = 12


@attrs.frozen
class Step:
    """One thing that is acknowledged as a whole."""

    verb: str
    """``import`` (a sealed layer from a tar), ``run`` (a writable one, written to in a mount), ``snapshot`` of it,
    ``seal``, ``remove``."""
    layer: str
    parent: str | None = None
    """For a snapshot the layer that it is of."""


def steps(seed: int) -> Iterator[Step]:
    """Give an endless life of layers."""
    chance = random.Random(f"life {seed}")  # noqa: S311 - it has to come again
    sealed: list[str] = []
    writable: list[str] = []
    parents: dict[str, str | None] = {}
    for number in range(1 << 30):
        verb = chance.choice(["import", "import", "run", "run", "snapshot", "seal", "remove"])
        name = f"layer{number}"
        parent = chance.choice([None, *sealed])
        if verb in {"import", "run"}:
            parents[name] = parent
            (sealed if verb == "import" else writable).append(name)
            yield Step(verb, name, parent)
        elif verb == "snapshot" and writable:
            origin = chance.choice(writable)
            parents[name] = parents[origin]
            sealed.append(name)
            yield Step(verb, name, origin)
        elif verb == "seal" and writable:
            name = chance.choice(writable)
            writable.remove(name)
            sealed.append(name)
            yield Step(verb, name)
        elif verb == "remove":
            leaves = [one for one in (*sealed, *writable) if one not in parents.values()]
            if len(leaves) > 3:
                name = chance.choice(leaves)
                (sealed if name in sealed else writable).remove(name)
                del parents[name]
                yield Step(verb, name)


def files_of(layer: str) -> dict[str, bytes]:
    """Give the files that a layer adds: small ones, and one of a few blocks."""
    content = {f"{layer}-{number}": f"{layer} {number}\n".encode() * 50 for number in range(FILES)}
    return content | {f"{layer}-large": hashlib.shake_256(layer.encode()).digest(300_000)}


@attrs.define
class Model:
    """What is there after the steps that were taken."""

    content: dict[str, dict[str, bytes]] = attrs.field(factory=dict)
    sealed: dict[str, bool] = attrs.field(factory=dict)

    def take(self, step: Step) -> None:
        """Take a step."""
        if step.verb in {"import", "run"}:
            below = self.content[step.parent] if step.parent else {}
            self.content[step.layer] = below | files_of(step.layer)
            self.sealed[step.layer] = step.verb == "import"
        elif step.verb == "snapshot":
            assert step.parent  # noqa: S101 - a snapshot is of something
            self.content[step.layer] = self.content[step.parent]
            self.sealed[step.layer] = True
        elif step.verb == "seal":
            self.sealed[step.layer] = True
        else:
            del self.content[step.layer]
            del self.sealed[step.layer]
