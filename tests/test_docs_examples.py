"""What the documentation shows to be run is run: the marked blocks of a page are one session."""

import pathlib
import textwrap

import pytest
from docs_sessions import ROOT, Block, blocks, make_image, perform, steps

PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.rst") if "_build" not in path.parts)
RUN = [page for page in PAGES if any(block.marked for block in blocks(page))]
PYTHON = [(page, block) for page in PAGES for block in blocks(page) if block.language == "python"]


def test_there_are_some() -> None:
    """The marks are found, and stand only before what can be run."""
    marks = sum((ROOT / page).read_text(encoding="utf-8").count("\n.. runnable\n") for page in PAGES)
    marked = [block for page in PAGES for block in blocks(page) if block.marked]

    assert len(RUN) > 3
    assert marks == len(marked)
    assert {block.language for block in marked} == {"console", "python"}


@pytest.mark.parametrize("driver", ["auto", "vfs"])
@pytest.mark.parametrize("page", RUN)
def test_page(page: str, driver: str, tmp_path: pathlib.Path) -> None:
    """Each marked command of the page succeeds and prints what the page shows, and its Python code runs."""
    make_image(tmp_path)

    perform([step for block in blocks(page) if block.marked for step in steps(block)], tmp_path, driver)


@pytest.mark.parametrize(("page", "block"), PYTHON, ids=[page for page, _ in PYTHON])
def test_python_is_python(page: str, block: Block) -> None:
    """Also Python code that cannot be run by itself has no mistakes in its form."""
    compile(f"def example():\n{textwrap.indent(block.code, '    ')}", page, "exec")
