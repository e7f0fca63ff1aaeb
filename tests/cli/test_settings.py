"""Where things are, from options, the environment and the defaults."""

import click
import pytest

from graphdrivers.cli.settings import from_environment, parse_size


def test_defaults() -> None:
    """Root has its place; others have theirs below XDG's data folder; the driver is chosen."""
    assert from_environment({}, uid=0).root == "/var/lib/graphdrivers"
    assert from_environment({"HOME": "/home/a"}, uid=1000).root == "/home/a/.local/share/graphdrivers"
    assert from_environment({"XDG_DATA_HOME": "/data"}, uid=1000).root == "/data/graphdrivers"
    assert from_environment({}, uid=0).driver == "auto"
    assert not from_environment({}, uid=0).root_given


def test_a_relative_data_folder_is_ignored() -> None:
    """The XDG specification says so."""
    assert from_environment({"XDG_DATA_HOME": "data", "HOME": "/h"}, uid=1).root == "/h/.local/share/graphdrivers"


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder called ``~`` is made up: the root has to be named once it is needed, and not before."""
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user whom no database knows
    found = from_environment({}, uid=54321)

    with pytest.raises(click.UsageError, match=r"no home directory.*--root or GRAPHDRIVER_ROOT"):
        _ = found.root
    assert from_environment({"GRAPHDRIVER_ROOT": "/r"}, uid=54321).root == "/r"
    assert from_environment({"XDG_DATA_HOME": "/data"}, uid=54321).root == "/data/graphdrivers"


def test_variables_win_over_defaults() -> None:
    """GRAPHDRIVER_ROOT and GRAPHDRIVER_DRIVER; empty ones count as unset."""
    found = from_environment({"GRAPHDRIVER_ROOT": "/r", "GRAPHDRIVER_DRIVER": "vfs", "TMPDIR": "/scratch"}, uid=0)

    assert (found.root, found.driver, found.root_given, found.scratch) == ("/r", "vfs", True, "/scratch")
    assert from_environment({"GRAPHDRIVER_ROOT": "", "GRAPHDRIVER_DRIVER": ""}, uid=0).driver == "auto"


def test_source_date_epoch() -> None:
    """Seconds, or a usage error."""
    assert from_environment({"SOURCE_DATE_EPOCH": "12"}, uid=0).source_date_epoch == 12
    for wrong in ("x", "-1", "1.5", "\u0663", "9" * 13):
        with pytest.raises(click.UsageError):
            from_environment({"SOURCE_DATE_EPOCH": wrong}, uid=0)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("512", 512), ("1K", 1024), ("1.5m", 1572864), ("10G", 10 << 30), ("2GiB", 2 << 30)]
)
def test_sizes(text: str, size: int) -> None:
    """Powers of 1024, in any of the usual spellings."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "1X", "1 2", "0x10", "1e3", "\u0661"])
def test_wrong_sizes(text: str) -> None:
    """Everything else is refused."""
    with pytest.raises(click.BadParameter):
        parse_size(text)
