"""A pytest plugin that writes down what became of each check, and why, for the process that started it."""

import json
import pathlib
from collections.abc import Generator, Iterator

import attrs
import pytest

_REASONS = {"AssertionError", "Failed", "GraphDriverError", "OSError", "TarError", "LookupError", "ValueError"}
"""What a check fails with because of the driver: its assertions, what the contract raises, and what a driver stumbles
over that meets something unexpected. Anything else (``TypeError``, ``NameError``) is a mistake in the check or in the
broken driver."""


@attrs.frozen
class Verdict:
    """What became of one check in one of its phases."""

    check: str
    """``FILE::FUNCTION``, with ``[PARAMETER]`` where there is one."""
    when: str
    """``setup``, ``call`` or ``teardown``."""
    outcome: str
    """``passed``, ``failed`` or ``skipped``."""
    contract: bool
    """It failed for a reason that lies in the driver."""
    reason: str
    """Why it was skipped or failed."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that says where to write."""
    parser.addoption("--verdicts", metavar="FILE", required=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add one line for each phase."""
    report = yield
    check = f"{item.path.name}::{item.nodeid.partition('::')[2]}"
    failure = call.excinfo.value if call.excinfo else None
    contract = failure is not None and all(map(_is_contract, _causes(failure)))
    verdict = Verdict(check, report.when or "", report.outcome, contract, str(failure or ""))
    with open(item.config.getoption("--verdicts"), "a", encoding="ascii") as file:
        file.write(json.dumps(attrs.asdict(verdict)) + "\n")
    return report


def read(path: pathlib.Path) -> list[Verdict]:
    """Read what was written; nothing where no check was started."""
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    return [Verdict(**json.loads(line)) for line in lines]


def _causes(failure: BaseException) -> Iterator[BaseException]:
    """Give the failure, or those that a group holds: hypothesis may report several at once."""
    if isinstance(failure, BaseExceptionGroup):
        for one in failure.exceptions:
            yield from _causes(one)
    else:
        yield failure


def _is_contract(failure: BaseException) -> bool:
    return any(kind.__name__ in _REASONS for kind in type(failure).__mro__)
