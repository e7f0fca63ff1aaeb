"""The files of ``tests/budgets/counts``: what each operation may cost, and what is to be said when it costs more."""

import pathlib
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence

import attrs

FOLDER = pathlib.Path(__file__).parent / "counts"

Units = Mapping[str, Mapping[str, float]]
"""What is counted for (``one``, ``each more file``), and how often each kind of call is made for it."""

PLACES_MAX = 5
"""Places that are told for each figure that has grown."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")


@attrs.frozen
class Subject:
    """What has a budget."""

    operation: str
    title: str
    """What the operation is, in a line."""
    user: str
    """As whom; see `budgettrace.users`."""
    variant: str
    """The driver, or the command."""

    def __str__(self) -> str:
        """Name it."""
        return f"{self.operation} ({self.user}, {self.variant})"


@attrs.frozen
class Change:
    """A figure that is not what the file says."""

    unit: str
    kind: str
    budget: float
    now: float

    @property
    def grown(self) -> bool:
        """Say whether it is more."""
        return self.now > self.budget

    def __str__(self) -> str:
        """Tell it in a line."""
        return f"{self.unit}: {self.kind}: {self.budget:g} -> {self.now:g}"


def read(name: str) -> dict[str, dict[str, Units]]:
    """Give the budgets of an operation by user and subject (a driver); empty where there are none."""
    path = FOLDER / f"{name}.toml"
    if not path.exists():
        return {}
    return tomllib.loads(path.read_text(encoding="utf-8"))


def write(name: str, title: str, budgets: Mapping[str, Mapping[str, Units]]) -> None:
    """Write the budgets of an operation; the same budgets give the same file."""
    lines = [f"# {name}: {title}", "# Written by `pytest tests/budgets --budgets-update`; see docs/howto/testing.rst."]
    for user, subjects in sorted(budgets.items()):
        for subject, units in sorted(subjects.items()):
            for unit, counts in units.items():
                lines += ["", f"[{user}.{_key(subject)}.{_key(unit)}]"]
                lines += [f"{_key(kind)} = {count:g}" for kind, count in sorted(counts.items())]
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else f'"{name}"'


def update(what: Subject, units: Units) -> None:
    """Put the figures of one subject into the file of its operation."""
    budgets = read(what.operation)
    budgets.setdefault(what.user, {})[what.variant] = units
    write(what.operation, what.title, budgets)


def changes(budget: Units, now: Units) -> list[Change]:
    """Compare figures with their budget; what is not in it has a budget of 0."""
    found = []
    for unit in sorted({*budget, *now}):
        before, after = budget.get(unit, {}), now.get(unit, {})
        found += [
            Change(unit, kind, before.get(kind, 0), after.get(kind, 0))
            for kind in sorted({*before, *after})
            if before.get(kind, 0) != after.get(kind, 0)
        ]
    return found


Where = Callable[[Change], Sequence[str]]
"""Gives the places to look at for a figure that has grown, the most telling first."""


def told(grown: Sequence[Change], where: Where) -> str:
    """Tell what has grown, and where to look."""
    lines = []
    for one in grown:
        lines += [f"  {one}", *(f"      {place}" for place in where(one)[:PLACES_MAX])]
    lines.append("  If it has to be so: --budgets-update, and say why in the commit.")
    return "\n".join(lines)
