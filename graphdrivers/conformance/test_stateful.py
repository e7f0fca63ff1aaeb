"""Random lives: whatever is done to a few layers, in whatever order, each shows what its flat directory shows.

hypothesis chooses the steps, the same ones every time. With ``--graphdriver-examples N``
it tries N lives of each length, and makes one that fails as short as it can (up to five minutes).
"""

import os
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence

import attrs
import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from graphdrivers import loading, naivediff
from graphdrivers.conformance import dump
from graphdrivers.conformance.beside import linkless
from graphdrivers.conformance.observe import Item, assert_same
from graphdrivers.conformance.randomly import edit_randomly
from graphdrivers.conformance.workbench import Workbench
from graphdrivers.edits import Edit, replay
from graphdrivers.model import LayerRecord

_MOST = 6
"""Layers that live at one time."""

_FIRST = 8
"""Edits of each layer that a life begins with."""

_LIVES = 20
"""Lives that are tried of each length unless ``--graphdriver-examples`` tells otherwise."""

_SHOWN = 150
"""Characters of an edit in the story of a failure."""

_EDITS = st.integers(1, 8)
_SEEDS = st.integers(0, 2**32 - 1)
"""Seeds, not hypothesis's own dice: a life would need more choices than it gets; fewer edits are still found."""


@attrs.define
class _Layer:
    """What a layer must be."""

    record: LayerRecord
    rounds: Sequence[Sequence[Edit]]
    """Every mount cycle's edits, the ancestors' first."""
    flat: str


class Lives(RuleBasedStateMachine):
    """A driver on a fresh home, and the layers that it must have."""

    def __init__(self, folder: str, name: str, options: dict[str, str]) -> None:
        """Open the driver below an empty folder."""
        super().__init__()
        self._options = options
        scratch = os.path.join(folder, "flat")
        os.mkdir(scratch)
        self._bench = Workbench(loading.load_driver(name, os.path.join(folder, "home"), options), scratch)
        self._layers: dict[str, _Layer] = {}
        self._born = 0

    @initialize(seeds=st.lists(_SEEDS, min_size=3, max_size=3))
    def begin(self, seeds: list[int]) -> None:
        """Make a stack of three layers, the last one writable."""
        parent = None
        for seed in seeds:
            if parent is not None:
                self._seal(parent)
            parent = self._create(parent)
            self._write(parent, seed, _FIRST)

    @precondition(lambda self: len(self._layers) < _MOST)
    @rule(data=st.data())
    def create(self, data: st.DataObject) -> None:
        """Start a layer: the next child of any sealed layer, or a new stack."""
        parents: list[str | None] = [name for name in self._names(sealed=True)[::-1] if self._room_above(name)]
        parents.append(None)
        self._create(data.draw(st.sampled_from(parents), "parent"))

    @precondition(lambda self: len(self._layers) < _MOST and self._names(sealed=False))
    @rule(data=st.data(), seed=_SEEDS, edits=_EDITS)
    def grow(self, data: st.DataObject, seed: int, edits: int) -> None:
        """Seal a layer and go on in a child of it."""
        parent = data.draw(st.sampled_from(self._names(sealed=False)), "parent")
        self._seal(parent)
        if self._room_above(parent):
            self._write(self._create(parent), seed, edits)

    @precondition(lambda self: self._names(sealed=False))
    @rule(data=st.data(), seed=_SEEDS, edits=_EDITS)
    def write(self, data: st.DataObject, seed: int, edits: int) -> None:
        """Mount a layer, edit it, look, unmount, settle, look at this layer and at all others."""
        self._write(data.draw(st.sampled_from(self._names(sealed=False)), "layer"), seed, edits)

    @precondition(lambda self: self._names(sealed=False))
    @rule(data=st.data())
    def seal(self, data: st.DataObject) -> None:
        """Seal a layer."""
        self._seal(data.draw(st.sampled_from(self._names(sealed=False)), "layer"))

    @precondition(lambda self: 0 < len(self._layers) < _MOST)
    @rule(data=st.data())
    def copy(self, data: st.DataObject) -> None:
        """Apply a layer's diff to a new sibling, which becomes the same and gives the same diff."""
        name, twin = data.draw(st.sampled_from(sorted(self._layers)), "layer"), self._next_name()
        layer = self._layers[name]
        tar = self._bench.diff(name)
        self._bench.applied(twin, layer.record.parent, tar, seal=False)
        self._add(twin, layer.record.parent, layer.rounds)
        self._look_everywhere()
        assert self._bench.diff(twin) == tar

    @precondition(lambda self: self._layers)
    @rule(data=st.data())
    def view(self, data: st.DataObject) -> None:
        """Look at any layer: the merged tree, and what changed, found in two ways."""
        name = data.draw(st.sampled_from(sorted(self._layers)), "layer")
        driver = self._bench.driver
        self._look(name)
        assert list(driver.changes(name)) == list(naivediff.changes(driver, name))

    @precondition(lambda self: self._layers)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """Remove a layer without children."""
        parents = {layer.record.parent for layer in self._layers.values()}
        name = data.draw(st.sampled_from(sorted(self._layers.keys() - parents)), "layer")
        self._bench.driver.remove(name)
        del self._layers[name]

    @rule()
    def reopen(self) -> None:
        """Let go of the home, open it again and settle it, as the next process would."""
        old = self._bench.driver
        old.close()
        self._bench.driver = loading.load_driver(old.name, old.home, self._options)
        self._bench.driver.settle()

    @invariant()
    def listed(self) -> None:
        """The driver lists exactly these layers, children before their parents."""
        found = list(self._bench.driver.layers())
        place = {record.name: number for number, record in enumerate(found)}

        assert sorted(found, key=lambda record: record.name) == [
            self._layers[name].record for name in sorted(self._layers)
        ]
        assert all(record.parent is None or place[record.name] < place[record.parent] for record in found)

    def teardown(self) -> None:
        """Show what is there where a step has just failed; remove everything."""
        if isinstance(sys.exception(), Exception):  # hypothesis' own signals are none
            for heading, text in dump.sections(self._bench.driver):
                note(f"--- {heading} ---\n{text}")
        self._bench.forget()

    def _names(self, *, sealed: bool) -> list[str]:
        return sorted(name for name, layer in self._layers.items() if layer.record.sealed is sealed)

    def _room_above(self, name: str) -> bool:
        """Say whether the driver can stack a layer on this one."""
        depth, parent = 1, self._layers[name].record.parent
        while parent is not None:
            depth, parent = depth + 1, self._layers[parent].record.parent
        return depth < (self._bench.can.max_depth or _MOST)

    def _next_name(self) -> str:
        self._born += 1
        return f"layer{self._born}"

    def _add(self, name: str, parent: str | None, rounds: Sequence[Sequence[Edit]]) -> None:
        self._layers[name] = _Layer(LayerRecord(name, parent, sealed=False), rounds, self._bench.flat(*rounds))

    def _create(self, parent: str | None) -> str:
        name = self._next_name()
        self._bench.driver.create(name, parent)
        self._add(name, parent, () if parent is None else self._layers[parent].rounds)
        self._look(name)
        return name

    def _write(self, name: str, seed: int, edits: int) -> None:
        layer = self._layers[name]
        dice = random.Random(seed)  # noqa: S311 - repeatable, not secret
        made = edit_randomly(self._bench, layer.flat, dice, edits)
        note("\n".join(f"    {name}: {str(edit)[:_SHOWN]}" for edit in made))
        with self._bench.writing(name) as root:
            replay(made, root)
            assert_same(*(self._in_mount(tree) for tree in (self._bench.flat_tree(layer.flat), self._bench.look(root))))
        layer.rounds = [*layer.rounds, made]
        self._look_everywhere()

    def _in_mount(self, tree: Mapping[str, Item]) -> Mapping[str, Item]:
        """Leave out of a snapshot what the driver does not promise for as long as a layer is mounted."""
        return tree if self._bench.can.stable_inodes else linkless(tree)

    def _seal(self, name: str) -> None:
        self._bench.driver.seal(name)
        self._layers[name].record = attrs.evolve(self._layers[name].record, sealed=True)
        self._look(name)

    def _look_everywhere(self) -> None:
        for name in self._layers:
            self._look(name)

    def _look(self, name: str) -> None:
        assert_same(self._bench.flat_tree(self._layers[name].flat), self._bench.tree(name))


@pytest.mark.parametrize("steps", [5, 30], ids=["short", "long"])
def test_random_lives(bench: Workbench, fresh_root: str, pytestconfig: pytest.Config, steps: int) -> None:
    """Layers that are created, edited over many mounts, sealed, forked, copied, removed and opened again stay right."""
    asked: int | None = pytestconfig.getoption("--graphdriver-examples")
    run_state_machine_as_test(
        lambda: Lives(tempfile.mkdtemp(dir=fresh_root), bench.driver.name, bench.driver.options),  # type: ignore[arg-type]  # a factory will do
        settings=settings(
            max_examples=_LIVES if asked is None else asked,
            stateful_step_count=steps,
            phases=[Phase.generate] if asked is None else [Phase.generate, Phase.shrink],
            derandomize=True,
            database=None,
            deadline=None,
            print_blob=False,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
