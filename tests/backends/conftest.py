"""What the tests of the aufs driver share."""

import pathlib
from collections.abc import Iterator

import pytest
from aufstools import ENGINES, Opener, opener, tmpfs

from graphdrivers.backends.aufs.driver import AufsDriver


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opener:
    """Open a home with an engine; each engine is tried once."""
    home = str(tmp_path_factory.mktemp("probe") / "home")
    return opener({engine: AufsDriver.probe(home, {"engine": engine}) for engine in ENGINES})


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Name each engine that works everywhere where root can mount."""
    return str(request.param)


@pytest.fixture
def memory(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a folder on a tmpfs: for what is done hundreds of times and is not about the disk."""
    with tmpfs(tmp_path / "memory") as place:
        yield place
