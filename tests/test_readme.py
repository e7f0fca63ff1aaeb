"""The sessions in README.md and in the tutorial run as they are printed."""

import pathlib
import re

import pytest
from docs_sessions import ROOT, Step, blocks, make_image, perform, steps


def shown(page: str, language: str) -> list[Step]:
    """Give all that a page shows in one language, as one session."""
    return [step for block in blocks(page) if block.language == language for step in steps(block)]


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.rst"])
@pytest.mark.parametrize("driver", ["auto", "vfs"])
def test_session(page: str, driver: str, tmp_path: pathlib.Path) -> None:
    """Each command of the session succeeds and prints what the page shows, whichever driver is used."""
    make_image(tmp_path)

    perform(shown(page, "console"), tmp_path, driver)


def test_python(tmp_path: pathlib.Path) -> None:
    """The Python code of the README runs."""
    make_image(tmp_path)

    perform(shown("README.md", "python"), tmp_path, "auto")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links(page: str) -> None:
    """Every link into the repository leads somewhere."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))

    assert [target for target in targets if not (ROOT / target).exists()] == []
