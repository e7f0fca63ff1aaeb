"""The sessions in README.md and in the tutorial run as they are printed."""

import pathlib
import re

import pytest
from docs_sessions import ROOT, blocks, make_image, perform, steps


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.rst"])
@pytest.mark.parametrize("driver", ["auto", "vfs"])
def test_session(page: str, driver: str, tmp_path: pathlib.Path) -> None:
    """Each command of the session succeeds and prints what the page shows, whichever driver is used."""
    make_image(tmp_path)

    perform([step for block in blocks(page) if block.language == "console" for step in steps(block)], tmp_path, driver)


@pytest.mark.parametrize("driver", ["auto", "vfs"])
def test_python(driver: str, tmp_path: pathlib.Path) -> None:
    """The Python code of the README runs."""
    make_image(tmp_path)

    perform(
        [step for block in blocks("README.md") if block.language == "python" for step in steps(block)], tmp_path, driver
    )


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links(page: str) -> None:
    """Every link into the repository leads somewhere."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))

    assert [target for target in targets if not (ROOT / target).exists()] == []
