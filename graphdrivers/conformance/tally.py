"""What became of the checks: counted, with every reason for leaving one out, and told in the last lines."""

import json
from collections import Counter
from collections.abc import Iterable

import attrs
import pytest

from graphdrivers.conformance import suite
from graphdrivers.model import Deviation, Support

GATED = "gated: "
"""How the reason of a skip begins that means: the driver does not claim what this check is about."""


@attrs.define(eq=False)
class Tally:
    """Counts checks by name, as a plugin of pytest's; a check counts once, with the worst that happened to it."""

    driver: str
    engine: str = ""
    whole: bool = False
    """Whether all of the suite was asked for, so that what is missing is lost."""

    collected: dict[str, str] = attrs.Factory(dict)
    """The check's name by pytest's."""

    passed: set[str] = attrs.Factory(set)
    failed: set[str] = attrs.Factory(set)
    expected: set[str] = attrs.Factory(set)
    gated: dict[str, str] = attrs.Factory(dict)
    """The reason by the check's name."""
    skipped: dict[str, str] = attrs.Factory(dict)
    """As above: for want of anything but a capability."""
    deviations: dict[str, Deviation] = attrs.Factory(dict)
    """Those that were declared, by their pattern."""

    def collect(self, items: Iterable[pytest.Item]) -> None:
        """Take in the checks of the suite that pytest found, before it leaves any out."""
        for item in items:
            check = suite.name_of(item.path, item.name)
            if check:
                self.collected[item.nodeid] = check

    def open(self, support: Support) -> None:
        """Note what a driver says about itself."""
        self.engine = support.engine
        self.deviations.update({deviation.check: deviation for deviation in support.deviations})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Sort one report in."""
        check = self.collected.get(report.nodeid)
        if check is None:
            return
        if report.failed:
            self.failed.add(check)
        elif report.skipped and hasattr(report, "wasxfail"):
            self.expected.add(check)
        elif report.skipped:
            self._skip(check, report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr))
        elif report.when == "call":
            self.passed.add(check)

    def _skip(self, check: str, reason: str) -> None:
        _, gated, why = reason.partition(GATED)
        if gated:
            self.gated[check] = why
        else:
            self.skipped[check] = reason.removeprefix("Skipped: ")

    def problems(self) -> list[str]:
        """Say, a line each, what is wrong with the run as a whole; nothing unless the whole suite was asked for."""
        if not self.whole:
            return []
        lines = suite.complaints(self.collected.values())
        for pattern in sorted(self.deviations):
            meant = {check for check in self.collected.values() if suite.matches(pattern, check)}
            if not meant:
                lines.append(f"the declared deviation {pattern!r} matches no check")
            elif meant <= self.gated.keys():
                lines.append(f"the declared deviation {pattern!r} is void: what it matches is gated")
        return lines

    def lines(self) -> list[str]:
        """Give the last lines for people: reasons first, then the count."""
        told = [f"{count} gated, {why}" for why, count in sorted(Counter(self.gated.values()).items())]
        told += [f"{count} could not run, {why}" for why, count in sorted(Counter(self.skipped.values()).items())]
        told += [f"deviates as expected: {check} ({self.explain(check)})" for check in sorted(self.expected)]
        told += [f"failed: {check}" for check in sorted(self.failed)]
        functions = {suite.function_of(check) for check in self.collected.values()}
        ran = self.failed | (self.passed | self.expected)
        told.append(
            f"{len(ran)} checks ran, {len(self.failed)} failed, {len(self.gated)} gated, "
            f"{len(self.expected)} deviated as expected; of {len(set(self.collected.values()))} checks in "
            f"{len(functions)} of {len(suite.listed())} functions"
        )
        return [f"graphdriver {self.driver}: {line}" for line in told]

    def explain(self, check: str) -> str:
        """Give reason and link of the deviation that means a check; empty where none does."""
        told = [one for one in self.deviations.values() if suite.matches(one.check, check)]
        return f"{told[0].reason}, {told[0].link}" if told else ""

    def document(self) -> dict[str, object]:
        """Give the same as a value for JSON."""
        return {
            "driver": self.driver,
            "engine": self.engine or None,
            "whole": self.whole,
            "checks": len(set(self.collected.values())),
            "functions": len({suite.function_of(check) for check in self.collected.values()}),
            "passed": len(self.passed - self.failed),
            "failed": sorted(self.failed),
            "gated": dict(Counter(self.gated.values())),
            "skipped": dict(Counter(self.skipped.values())),
            "expected": {check: self.explain(check) for check in sorted(self.expected)},
            "problems": self.problems(),
        }

    def write(self, path: str) -> None:
        """Write the document to a file."""
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.document(), file, indent=2)
